//! The typed settings of the image, `[system]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::{CopySpec, Secret, WriteSpec};
use crate::base::digest::Sha256;

/// `[system]`: the settings of the image. Every text is one line unless its key says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct System {
    /// The init system; `None`: that of the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// The host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The time zone, a path below `/usr/share/zoneinfo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The value of `LANG`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lang: Option<String>,
    /// The lines of `/etc/locale.gen`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locales: Vec<String>,
    /// The keymap of the console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keymap: Option<String>,
    /// Groups, in the order in which they were written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupSpec>,
    /// Users, in the order in which they were written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserSpec>,
    /// Services that start by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Switch>,
    /// Services of OpenRC by runlevel.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub runlevels: BTreeMap<String, Vec<Switch>>,
    /// Units of systemd.
    #[serde(skip_serializing_if = "Units::is_empty")]
    pub units: Units,
    /// Files, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSpec>,
    /// Modules that the kernel loads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// Modules that the kernel does not load by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules_blacklist: Vec<String>,
    /// Variables of the kernel.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// The lines of `/etc/fstab`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fstab: Option<Vec<String>>,
    /// The content of `/etc/motd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub motd: Option<String>,
    /// The content of `/etc/issue`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issue: Option<String>,
}

/// An init system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// OpenRC.
    OpenRc,
    /// systemd.
    Systemd,
}

/// A service to add or, written with a `-`, to take away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Switch {
    pub name: String,
    pub on: bool,
}

/// `[system.groups.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GroupSpec {
    pub name: String,
    /// The id; `None`: the next free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// True to take a new id from those of the system.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
    /// Users to add to the group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// `[system.users.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserSpec {
    pub name: String,
    /// The id; `None`: the next free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The primary group, a name or a number; `None`: a group of the user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// More groups that the user is added to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// True to take a new id from those of the system.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
    /// The password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// True to refuse the password, false to accept it; `None`: as before, or accepted with a new password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// Lines of `authorized_keys`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// A directory of this machine whose content is copied to the home directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_files: Option<PathBuf>,
}

/// The password of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Password {
    /// A secret with the password.
    Secret(Secret),
    /// The hash, as in shadow(5). Serialised as its SHA-256: a provenance is for everybody.
    Hash(#[serde(serialize_with = "digest")] String),
}

fn digest<S: Serializer>(hash: &str, serializer: S) -> Result<S::Ok, S::Error> {
    Sha256::of(hash.as_bytes()).serialize(serializer)
}

/// `system.units`: units of systemd, with their suffixes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Units {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enable: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disable: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_target: Option<String>,
}

impl Units {
    /// Returns true if nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An entry of `system.files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSpec {
    /// A text.
    Write(WriteSpec),
    /// Files of this machine.
    Copy(CopySpec),
}

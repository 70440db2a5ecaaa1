//! Users of a tree by name, from its `/etc/passwd` and `/etc/group` (passwd(5), group(5)).

use std::path::Path;

use crate::base::error::{Error, Result};
use crate::base::text::{nearest, quoted};
use crate::enter::Identity;
use crate::fs::rootfs::Rootfs;

/// The longest account file that is read, in bytes.
const MAX: u64 = 4 << 20;

/// Finds the user and the groups that `user[:group]` stands for, names or numbers, in the tree `root`.
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) if the tree has no user or group of that name.
pub(super) fn of(text: &str, root: &Rootfs) -> Result<Identity> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let (passwd, groups) = (records(root, "etc/passwd")?, records(root, "etc/group")?);
    let number = |record: &Vec<String>, field: usize| record.get(field).and_then(|text| text.parse::<u32>().ok());
    let named = passwd.iter().find(|record| record.first().is_some_and(|name| name == user));
    let by_number = |uid: u32| passwd.iter().find(move |record| number(record, 2) == Some(uid));
    let record = named.or_else(|| user.parse().ok().and_then(by_number));
    let uid = record.and_then(|record| number(record, 2)).or_else(|| user.parse().ok());
    let uid = uid.ok_or_else(|| unknown("user", user, &passwd))?;
    let gid = match group {
        Some(group) => group_id(group, &groups)?,
        None => record.and_then(|record| number(record, 3)).unwrap_or(uid),
    };
    let name = record.and_then(|record| record.first());
    let member = |record: &&Vec<String>| {
        record.get(3).is_some_and(|members| members.split(',').any(|member| Some(member) == name.map(String::as_str)))
    };
    let supplementary = groups.iter().filter(member).filter_map(|record| number(record, 2));
    let groups = if group.is_some() { Vec::new() } else { supplementary.filter(|other| *other != gid).collect() };
    Ok(Identity { uid, gid, groups })
}

/// Finds the owner that `user[:group]` stands for. Without a group it is the user's own.
///
/// # Errors
/// Those of [`of`].
pub(super) fn owner(text: &str, root: &Rootfs) -> Result<(u32, u32)> {
    of(text, root).map(|identity| (identity.uid, identity.gid))
}

fn group_id(group: &str, groups: &[Vec<String>]) -> Result<u32> {
    let named = groups.iter().find(|record| record.first().is_some_and(|name| name == group));
    let id = named.and_then(|record| record.get(2)?.parse().ok()).or_else(|| group.parse().ok());
    id.ok_or_else(|| unknown("group", group, groups))
}

fn unknown(kind: &str, name: &str, records: &[Vec<String>]) -> Error {
    let error = Error::build(format!("the tree has no {kind} {}", quoted(name)));
    let names = records.iter().filter_map(|record| record.first().map(String::as_str));
    match nearest(name, names) {
        Some(meant) => error.with_hint(format!("did you mean {meant}?")),
        None => error.with_hint("write a number, or make the account in an earlier step"),
    }
}

/// Reads the lines of an account file, split at colons.
fn records(root: &Rootfs, path: &str) -> Result<Vec<Vec<String>>> {
    let text = match root.stat(Path::new(path))? {
        Some(_) => root.read(Path::new(path), MAX)?.unwrap_or_default(),
        None => Vec::new(),
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        let place = tempfile::tempdir().unwrap();
        fs_err::create_dir(place.path().join("etc")).unwrap();
        fs_err::write(place.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nme:x:1000:100::/:/bin/sh\n")
            .unwrap();
        fs_err::write(place.path().join("etc/group"), "root:x:0:\nusers:x:100:\nwheel:x:10:root,me\n").unwrap();
        let root = Rootfs::open(place.path()).unwrap();
        let find = |text: &str| of(text, &root).map(|found| (found.uid, found.gid, found.groups)).ok();
        assert_eq!(find("me"), Some((1000, 100, vec![10])));
        assert_eq!(find("1000"), Some((1000, 100, vec![10])));
        assert_eq!(find("me:wheel"), Some((1000, 10, Vec::new())));
        assert_eq!(find("7:8"), Some((7, 8, Vec::new())));
        assert_eq!(find("7"), Some((7, 7, Vec::new())));
        assert_eq!((find("nope"), find("me:nope")), (None, None));
        assert!(of("mee", &root).unwrap_err().hint().unwrap().contains("me?"));
    }
}

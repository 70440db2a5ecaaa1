//! Conversion of POSIX ACLs between the text in tar archives and the binary form of the kernel. Pure.

use crate::base::refusal::{Code, Reason};

/// Name of the attribute for the access ACL.
pub const ACCESS: &str = "system.posix_acl_access";
/// Name of the attribute for the default ACL, which new files in a directory inherit.
pub const DEFAULT: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Converts text such as `user::rw-,user:1000:r--,group::r--,mask::r--,other::r--` to the binary form. Users and groups must have
/// numbers: other programs look up names among the users of their machine, who are unrelated to the tree. Only `root` is the same
/// everywhere.
///
/// # Errors
/// [`Code::AclByName`], and [`Code::BadAcl`] for malformed text.
pub fn parse(text: &[u8]) -> Result<Vec<u8>, Reason> {
    let bad = || Reason::new(Code::BadAcl, "its ACL is malformed");
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    let mut entries: Vec<(u16, u32, u16)> = Vec::new();
    for line in text.split([',', '\n']) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let mut parts = line.split(':').map(str::trim);
        let (Some(tag), Some(who), Some(permissions)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        // star and bsdtar add the number as a fourth part.
        let number = parts.next().filter(|id| !id.is_empty());
        // Some programs use the first number, some the second.
        if let (Ok(one), Some(other)) = (id(who), number)
            && id(other) != Ok(one)
        {
            return Err(bad());
        }
        let (tag, id) = match (tag, who) {
            ("user" | "u", "") => (USER_OBJ, NO_ID),
            ("user" | "u", _) => (USER, id(number.unwrap_or(who))?),
            ("group" | "g", "") => (GROUP_OBJ, NO_ID),
            ("group" | "g", _) => (GROUP, id(number.unwrap_or(who))?),
            ("mask" | "m", "") => (MASK, NO_ID),
            ("other" | "o", "") => (OTHER, NO_ID),
            _ => return Err(bad()),
        };
        let mut bits = 0;
        for letter in permissions.chars() {
            bits |= match letter {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                '-' => 0,
                _ => return Err(bad()),
            };
        }
        entries.push((tag, id, bits));
    }
    if entries.is_empty() {
        return Err(bad());
    }
    entries.sort_unstable();
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    Ok(bytes)
}

fn id(who: &str) -> Result<u32, Reason> {
    if who == "root" {
        return Ok(0);
    }
    if !who.bytes().all(|byte| byte.is_ascii_digit()) {
        let text = format!("its ACL refers to {} by name, and the number of that name is unknown", who.escape_debug());
        return Err(Reason::new(Code::AclByName, text));
    }
    let id = who.parse().ok().filter(|id| *id != NO_ID);
    id.ok_or_else(|| Reason::new(Code::BadAcl, "its ACL has a number out of range"))
}

/// Returns true if two ACLs in binary form have the same entries, in any order.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let sorted = |bytes: &[u8]| {
        let mut entries: Vec<Vec<u8>> =
            bytes.chunks(4).skip(1).collect::<Vec<_>>().chunks(2).map(<[_]>::concat).collect();
        entries.sort_unstable();
        entries
    };
    one.get(..4) == other.get(..4) && sorted(one) == sorted(other)
}

/// Converts the binary form to text with numbers, as GNU tar writes it. Returns `None` if it is malformed.
pub fn format(bytes: &[u8]) -> Option<Vec<u8>> {
    let (version, entries) = bytes.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || !entries.len().is_multiple_of(8) {
        return None;
    }
    let mut lines = Vec::new();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let bits = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let who = match tag {
            USER_OBJ => "user:".to_owned(),
            USER => format!("user:{id}"),
            GROUP_OBJ => "group:".to_owned(),
            GROUP => format!("group:{id}"),
            MASK => "mask:".to_owned(),
            OTHER => "other:".to_owned(),
            _ => return None,
        };
        lines.push(format!("{who}:{}", letters(bits.into())));
    }
    Some(lines.join(",").into_bytes())
}

/// Returns the text of the ACL that is equivalent to a mode.
pub fn of_mode(mode: u32) -> Vec<u8> {
    format!("user::{},group::{},other::{}", letters(mode >> 6), letters(mode >> 3), letters(mode)).into_bytes()
}

fn letters(bits: u32) -> String {
    let letter = |bit, letter| if bits & bit != 0 { letter } else { '-' };
    [letter(4, 'r'), letter(2, 'w'), letter(1, 'x')].iter().collect()
}

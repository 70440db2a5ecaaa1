//! Formats the entries of an archive, one per line, as `tar --numeric-owner -tv` prints them in UTC.

use super::tar::archived;
use super::walk::Item;
use crate::archive::unpack::entry::{Meta, NodeKind};
use crate::base::time::civil;

/// Formats lines. Its columns grow like those of GNU tar.
#[derive(Debug)]
pub struct Listing {
    width: usize,
    date_width: usize,
}

impl Default for Listing {
    fn default() -> Self {
        Self { width: 19, date_width: 16 }
    }
}

impl Listing {
    /// Formats the line of one entry, with its newline.
    pub fn line(&mut self, item: &Item) -> String {
        let Meta { uid, gid, mtime, .. } = item.meta;
        let owner = format!("{uid}/{gid}");
        let size = match &item.kind {
            NodeKind::Char(major, minor) | NodeKind::Block(major, minor) => format!("{major},{minor}"),
            _ => item.size.to_string(),
        };
        self.width = self.width.max(owner.len() + 1 + size.len());
        let pad = self.width - owner.len();
        let name = archived(&item.path, item.kind == NodeKind::Dir);
        let date = date(mtime.sec);
        self.date_width = self.date_width.max(date.len());
        let date_pad = self.date_width;
        let mut line = format!("{} {owner}{size:>pad$} {date:<date_pad$} {}", mode(item), quoted(&name));
        match &item.kind {
            NodeKind::Symlink(target) => line.push_str(&format!(" -> {}", quoted(target))),
            NodeKind::Hardlink(target) => line.push_str(&format!(" link to {}", quoted(&archived(target, false)))),
            _ => {}
        }
        line.push('\n');
        line
    }
}

fn mode(item: &Item) -> String {
    let bits = item.meta.mode;
    let kind = match &item.kind {
        NodeKind::File => '-',
        NodeKind::Hardlink(_) => 'h',
        NodeKind::Symlink(_) => 'l',
        NodeKind::Char(..) => 'c',
        NodeKind::Block(..) => 'b',
        NodeKind::Dir => 'd',
        NodeKind::Fifo => 'p',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits_here = bits >> shift;
        text.push(if bits_here & 4 != 0 { 'r' } else { '-' });
        text.push(if bits_here & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & special != 0, bits_here & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Escapes a name as GNU tar does in the C locale: backslashes, control characters and everything outside ASCII.
fn quoted(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                '\u{7}' => text.push_str("\\a"),
                '\u{8}' => text.push_str("\\b"),
                '\u{b}' => text.push_str("\\v"),
                '\u{c}' => text.push_str("\\f"),
                ' '..='~' => text.push(letter),
                other => {
                    other.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text.push_str(&format!("\\{byte:03o}")))
                }
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\{byte:03o}")));
    }
    text
}

/// Formats a time as `YYYY-MM-DD HH:MM` in UTC, or as seconds if the year does not fit into the C type `tm`.
fn date(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    if i32::try_from(year - 1900).is_err() {
        return seconds.to_string();
    }
    format!("{year}-{month:02}-{day:02} {:02}:{:02}", rest / 3600, rest % 3600 / 60)
}

//! Values of `[oci]`: tags, ports, users.

use super::{Checked, chars, digits};
use crate::recipe::dated;
use crate::recipe::diagnostic::Problem;

/// Accepts a tag with its placeholders.
pub(in crate::recipe) fn tag(text: &str) -> Checked {
    let made = dated(text, "20000101");
    let rest = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let problem = chars(&made, "a tag", |c| c.is_ascii_alphanumeric() || c == '_', rest).err();
    let problem = problem.or_else(|| (made.len() > 128).then(|| Problem::new("longer than 128 characters")));
    problem.map_or(Ok(()), |problem| Err(problem.help("the only placeholder of a tag is {date}")))
}

/// Accepts a port, with or without its protocol.
pub(in crate::recipe) fn port(text: &str) -> Checked {
    let help = "for example 80, 80/tcp or 53/udp";
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(Problem::new("the protocol is not tcp, udp or sctp").help(help));
    }
    match number.parse::<u16>() {
        Ok(1..) if digits(number) => Ok(()),
        _ => Err(Problem::new("not a port (1 to 65535)").help(help)),
    }
}

/// Accepts `user[:group]`, each a name or a number.
pub(in crate::recipe) fn user(text: &str) -> Checked {
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    for part in [user, group] {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        chars(part, "a user or a group", letter, |c| letter(c) || "-.".contains(c))?;
        if digits(part) && part.parse::<u32>().is_err() {
            return Err(Problem::new("more than 32 bits"));
        }
    }
    Ok(())
}

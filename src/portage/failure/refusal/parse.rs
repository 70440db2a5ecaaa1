//! Emerge's messages → refusals. Both wordings of Portage ("ebuilds", "binary packages") and both orders of its streams are read.

use super::mask::Candidate;
use super::use_flags::{self, changes};
use super::{Is, MAX, Refusal, is_cpv, without_repo};
use crate::portage::failure::text::after_spinner;

/// The limit on the lines that belong to one message.
const MAX_LINES: usize = 400;
/// The limit on names in one refusal.
const MAX_NAMES: usize = 20;

/// Beginnings of messages. A message ends where another one begins.
const HEADS: [&str; 12] = [
    "!!! All ebuilds that could satisfy ",
    "!!! All binary packages that could satisfy ",
    "emerge: there are no ",
    "!!! The ebuild selected to satisfy ",
    "!!! Multiple package instances",
    "* Error: ",
    "emerge: There are ",
    "The following keyword changes",
    "The following mask changes",
    "The following USE changes",
    "The following license changes",
    ">>> ",
];

/// Reads the refusals of an output, in its order.
pub(in crate::portage::failure) fn parse(lines: &[String]) -> Vec<Refusal> {
    let mut refusals: Vec<Refusal> = Vec::new();
    let is_head = |line: &String| HEADS.iter().any(|head| line.trim_start().starts_with(head));
    let mut heads = (0..lines.len()).filter(|at| is_head(&lines[*at])).peekable();
    for (at, line) in lines.iter().enumerate() {
        let line = after_spinner(line).trim();
        // All messages that are known begin with a mark or with the name of a program.
        if !line.starts_with(['!', '*', '[', '-', 'e', 'u', 'g']) {
            continue;
        }
        while heads.next_if(|head| *head <= at).is_some() {}
        let end = heads.peek().copied().unwrap_or(lines.len()).min(at + 1 + MAX_LINES);
        let (rest, message) = (&lines[at + 1..], &lines[at + 1..end]);
        let found = of_resolution(line, &lines[..at], message)
            .or_else(|| of_names(line, &lines[..at], rest))
            .or_else(|| of_merge(line, &lines[..at], rest));
        if let Some(is) = found
            && refusals.len() < MAX
        {
            let refusal = Refusal { builder: is_for_builder(&is, line, message), is, chain: chain(message) };
            if !refusals.iter().any(|known| known.is_same(&refusal)) {
                refusals.push(refusal);
            }
        }
    }
    refusals
}

/// Returns the text between `before` and `after`.
fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(before)?;
    rest.split_once(after).map(|(text, _)| text)
}

/// Returns true for a refusal whose message names no root: Portage names each but `/`.
fn is_for_builder(is: &Is, line: &str, message: &[String]) -> bool {
    match is {
        Is::Masked { .. }
        | Is::UseFlags { .. }
        | Is::NoSuchFlag { .. }
        | Is::RequiredUse { .. }
        | Is::NoEbuild { .. }
        | Is::NoBinary { .. } => !line.contains("\" for /"),
        Is::SlotConflict { slot, .. } => !message
            .iter()
            .any(|line| line.trim().strip_prefix(slot.as_str()).is_some_and(|rest| rest.starts_with(" for /"))),
        Is::Circular { .. } => !message.iter().any(|line| line.contains(" to '/")),
        _ => false,
    }
}

/// Returns the packages and arguments that need the refused package.
fn chain(message: &[String]) -> Vec<String> {
    let by = |line: &String| {
        let (node, kind) = line.trim().strip_prefix("(dependency required by \"")?.split_once("\" [")?;
        Some(if kind.starts_with("argument") { format!("{node} (argument)") } else { node.to_owned() })
    };
    message.iter().filter_map(by).take(MAX_NAMES).collect()
}

/// Reads packages with changes: `- category/package-1::repository (Change USE: +foo)`.
fn proposals(message: &[String]) -> Vec<(String, Vec<String>)> {
    let proposal = |line: &String| {
        let (package, text) = line.trim_start().strip_prefix("- ")?.split_once(" (Change USE: ")?;
        let words = changes(text.split_once(')').map_or(text, |(text, _)| text));
        (is_cpv(without_repo(package)) && !words.is_empty()).then(|| (package.to_owned(), words))
    };
    message.iter().filter_map(proposal).take(MAX_NAMES).collect()
}

/// Reads refusals that end a resolution.
fn of_resolution(line: &str, before: &[String], message: &[String]) -> Option<Is> {
    if let Some(atom) = between(line, " that could satisfy \"", "\"").filter(|_| line.contains("have been masked")) {
        return Some(Is::Masked { atom: atom.to_owned(), candidates: Candidate::read(before, message) });
    }
    if let Some(atom) = between(line, "built with USE flags to satisfy \"", "\"") {
        let missing = message.iter().find_map(|line| {
            let (package, flags) = line.strip_prefix("- ")?.split_once(" (Missing IUSE: ")?;
            Some((package.to_owned(), flags.trim_end_matches(')').to_owned()))
        });
        let changes = proposals(message);
        return Some(match missing {
            Some((package, flags)) if changes.is_empty() => Is::NoSuchFlag { atom: atom.to_owned(), package, flags },
            _ => Is::UseFlags { atom: atom.to_owned(), changes },
        });
    }
    if line.starts_with("!!! The ebuild selected to satisfy ") {
        return required_use(message);
    }
    if let Some(atom) = between(line, "emerge: there are no ebuilds to satisfy \"", "\"") {
        let similar = message.iter().find_map(|line| {
            let (_, names) = line.split_once("Maybe you meant ")?;
            let names = names.trim_start_matches("any of these: ").trim_end_matches('?');
            Some(names.split(", ").take(MAX_NAMES).map(str::to_owned).collect())
        });
        return Some(Is::NoEbuild { atom: atom.to_owned(), similar: similar.unwrap_or_default() });
    }
    if let Some(atom) = between(line, "emerge: there are no binary packages to satisfy \"", "\"") {
        return Some(Is::NoBinary { atom: atom.to_owned() });
    }
    if line.ends_with("Error: circular dependencies:") {
        let node = |line: &String| {
            Some(line.trim().strip_prefix('(')?.split_once(':')?.0.to_owned()).filter(|cpv| is_cpv(cpv))
        };
        let mut packages: Vec<String> = Vec::new();
        for package in message.iter().filter_map(node).take(MAX_NAMES) {
            if !packages.contains(&package) {
                packages.push(package);
            }
        }
        return Some(Is::Circular { packages, changes: proposals(message) });
    }
    if line.ends_with("resulting in a slot conflict:") {
        return slot_conflict(message);
    }
    // A blocker in lower case is one that emerge resolves.
    if line.starts_with("[blocks B") {
        let (_, rest) = line.split_once("] ")?;
        let (atom, blockers) = rest.split_once(" (\"")?;
        let (_, blockers) = blockers.split_once(" blocking ")?;
        return Some(Is::Blocked { blocker: blockers.trim_end_matches(')').to_owned(), atom: atom.to_owned() });
    }
    None
}

fn required_use(message: &[String]) -> Option<Is> {
    let (package, flags) = message.iter().find_map(|line| {
        let rest = line.strip_prefix("- ")?;
        Some(rest.split_once(' ').unwrap_or((rest, "")))
    })?;
    let after = |what: &str| {
        let at = message.iter().position(|line| line.contains(what))?;
        message[at + 1..].iter().map(|line| line.trim()).find(|line| !line.is_empty() && !line.ends_with(':'))
    };
    let unsatisfied = after("flag constraints are unsatisfied")?.to_owned();
    let complete = after("complete expression").unwrap_or(&unsatisfied).to_owned();
    is_cpv(without_repo(package)).then(|| Is::RequiredUse {
        package: package.to_owned(),
        unsatisfied,
        complete,
        flags: use_flags::flags(flags),
    })
}

fn slot_conflict(message: &[String]) -> Option<Is> {
    let slot = message.iter().map(|line| line.trim()).find(|line| !line.is_empty())?;
    let slot = slot.split_whitespace().next().unwrap_or_default().to_owned();
    let need = |line: &String| {
        let (atom, by) = line.trim().split_once(" required by (")?;
        Some(format!("{} needs {atom}", by.split_once(':')?.0))
    };
    let mut needs: Vec<String> = message.iter().filter_map(need).take(MAX_NAMES).collect();
    needs.dedup();
    Some(Is::SlotConflict { slot, needs, changes: proposals(message) })
}

/// Reads refusals of names: sets, atoms, lines, the profile and options.
fn of_names(line: &str, before: &[String], rest: &[String]) -> Option<Is> {
    if let Some(name) = between(line, " sets to satisfy '", "'") {
        return Some(Is::NoSet { name: name.to_owned() });
    }
    if let Some(name) = between(line, "The short ebuild name \"", "\" is ambiguous") {
        // The candidates follow in a list or, without --quiet, stand above as results of a search.
        let below = rest.iter().take_while(|line| !line.starts_with("emerge")).map(|line| line.trim());
        let below: Vec<String> = below.filter(|line| is_cpv(line)).take(MAX_NAMES).map(str::to_owned).collect();
        let above = || before.iter().filter_map(|line| line.trim().strip_prefix("* ")).map(str::trim);
        let candidates = match below.is_empty() {
            true => above().filter(|name| is_cpv(name)).take(MAX_NAMES).map(str::to_owned).collect(),
            false => below,
        };
        return Some(Is::Ambiguous { name: name.to_owned(), candidates });
    }
    if let Some((before, _)) = line.split_once("' is not a valid package atom") {
        return Some(Is::InvalidAtom { atom: before.split_once('\'')?.1.to_owned() });
    }
    if let Some((file, line)) = line.strip_prefix("--- Invalid atom in ").and_then(|rest| rest.split_once(": ")) {
        return Some(Is::InvalidLine { file: file.to_owned(), line: line.to_owned() });
    }
    if line.contains("Your current profile is invalid") {
        return Some(Is::InvalidProfile);
    }
    if let Some((_, words)) = line.split_once("error: unrecognized arguments: ") {
        return Some(Is::UnknownOption { words: words.to_owned() });
    }
    if let Some(package) = between(line, "!!! aux_get(): ebuild for '", "' does not exist at") {
        return Some(Is::Changed { package: package.to_owned() });
    }
    None
}

/// Reads refusals of single packages, from emerge's output or a build log.
fn of_merge(line: &str, before: &[String], rest: &[String]) -> Option<Is> {
    let words = line.trim_start_matches(['*', '!', ' ']);
    if let Some((package, _)) = words.split_once(" has fetch restriction turned on") {
        return is_cpv(package).then(|| Is::FetchRestricted { package: package.to_owned(), files: Vec::new() });
    }
    if let Some(why) = words.strip_prefix("Reason: ") {
        return digest(why, before, rest);
    }
    let missing = [
        "A file is not listed in the Manifest: '",
        "Missing digest for '",
        "A file listed in the Manifest could not be found: '",
    ];
    if let Some(path) = missing.iter().find_map(|said| between(words, said, "'")) {
        return Some(Is::NotInManifest { file: name(path) });
    }
    if words.starts_with("Package '")
        && (words.contains("NOT merged due to file") || words.contains("NOT merged since it has"))
    {
        return Some(collision(between(words, "Package '", "'")?, before));
    }
    if words.starts_with("Binary package is not usable") {
        let summary = rest.iter().take(20).skip_while(|line| !line.contains("Summary:")).nth(1);
        let summary = summary.map(|line| line.trim_start_matches(['*', ' ']).to_owned()).unwrap_or_default();
        return Some(Is::BinarySignature { summary });
    }
    let account = ["groupadd: ", "useradd: ", "usermod: ", "groupmod: "].iter().any(|tool| words.starts_with(tool));
    if account && (words.contains("cannot lock ") || words.contains("cannot open ")) {
        let file = words.split_whitespace().find(|word| word.contains("/etc/"))?;
        return Some(Is::NoPasswd { file: file.trim_end_matches(';').to_owned() });
    }
    None
}

/// Returns the last component of a path.
fn name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// Reads a file that does not match its Manifest. The file is named above the reason, and its new name below.
fn digest(why: &str, before: &[String], rest: &[String]) -> Option<Is> {
    let above = &before[before.len().saturating_sub(4)..];
    let fetched = above.iter().rev().find_map(|line| {
        between(line, "etched file: ", " VERIFY FAILED").or_else(|| between(line, "Previously fetched file: '", "'"))
    });
    let checked = || {
        let at = above.iter().position(|line| line.contains("Digest verification failed"))?;
        above.get(at + 1).map(|line| line.trim_start_matches(['*', '!', ' ']))
    };
    let file = name(fetched.or_else(checked)?);
    if why.starts_with("Insufficient data") {
        return Some(Is::NotInManifest { file });
    }
    let hash =
        why.strip_prefix("Failed on ").and_then(|rest| rest.strip_suffix(" verification")).unwrap_or(why).to_owned();
    let renamed = rest.iter().take(6).find_map(|line| between(line, "File renamed to '", "'")).map(name);
    Some(Is::Digest { file, hash, renamed })
}

/// Reads the files of a collision and their owner from the lines above its summary.
fn collision(package: &str, before: &[String]) -> Is {
    let text = |line: &String| line.trim_start_matches([' ', '*']).to_owned();
    let start = before
        .iter()
        .rposition(|line| line.contains("Detected file collision(s)") || line.contains("symlinks and directories"));
    let after: Vec<String> = before[start.map_or(before.len(), |at| at + 1)..].iter().map(text).collect();
    let files: Vec<String> = after.iter().filter(|line| line.starts_with('/')).take(MAX_NAMES).cloned().collect();
    let owner = after.iter().find(|line| line.split_once(':').is_some_and(|(cpv, _)| is_cpv(cpv))).cloned();
    let mut unique = files;
    unique.dedup();
    let half = unique.iter().skip(1).position(|file| *file == unique[0]).map_or(unique.len(), |at| at + 1);
    unique.truncate(half);
    Is::Collision { package: package.to_owned(), files: unique, owner }
}

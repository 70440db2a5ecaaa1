//! What a single word of a recipe may look like: names, atoms, profiles, addresses. Pure; each rule says what is wrong in a
//! few words that fit beside a caret. Most of these words end up in file names, configuration files or command lines.

use crate::base::text::quoted;
use std::path::PathBuf;

use super::atom::digits;
use super::diagnostic::Problem;
use super::{ProfileName, SnapshotFormat};

/// What a rule makes of a word, or what is wrong with it.
pub(super) type Rule<T = ()> = Result<T, Problem>;

/// A name that results, directories and tags are called after.
pub(super) fn name(text: &str) -> Rule {
    chars(text, "a name", |c| c.is_ascii_alphanumeric(), |c| c.is_ascii_alphanumeric() || "._+-".contains(c))?;
    if text.len() > 128 {
        return Err(Problem::new("longer than 128 characters"));
    }
    Ok(())
}

/// A base name of results; the suffix that they get anyway may be written.
pub(super) fn image_name(text: &str, suffix: &str) -> Rule<String> {
    let base = text.strip_suffix(suffix).unwrap_or(text);
    name(base)?;
    if let Some(other) = [".tar", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".gz"].iter().find(|end| base.ends_with(**end))
    {
        return Err(Problem::new(format!("`{other}` is not what is made"))
            .help(format!("the result is packed as {suffix}; build.compression says how")));
    }
    Ok(base.to_owned())
}

/// A stage3 variant, as in the name of its pointer.
pub(super) fn variant(text: &str) -> Rule {
    let example = "write only the variant, for example amd64-musl";
    if text.starts_with("stage3-") || text.starts_with("latest-") {
        return Err(Problem::new("this is a file's name").help(example));
    }
    let rest = |c: char| c.is_ascii_alphanumeric() || "_-+.".contains(c);
    chars(text, "a variant", |c| c.is_ascii_alphanumeric(), rest).map_err(|problem| problem.help(example))?;
    if text.contains("..") || text.contains(".tar") || text.len() > 128 {
        return Err(Problem::new("not the name of a variant").help(example));
    }
    Ok(())
}

/// A build's timestamp, `YYYYMMDDTHHMMSSZ`.
pub(super) fn timestamp(text: &str) -> Rule {
    let help = "write \"latest\" or a timestamp as in the mirror's directories, for example 20260719T170103Z";
    let number = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<u32>().ok());
    let formed = text.len() == 16
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    let inside = |value: Option<u32>, from: u32, to: u32| value.is_some_and(|value| (from..=to).contains(&value));
    if !formed {
        return Err(Problem::new("not a timestamp").help(help));
    }
    let real = inside(number(4, 6), 1, 12)
        && inside(number(6, 8), 1, 31)
        && inside(number(9, 11), 0, 23)
        && inside(number(11, 13), 0, 59)
        && inside(number(13, 15), 0, 60);
    if real { Ok(()) } else { Err(Problem::new("no such date or time").help(help)) }
}

/// How a snapshot is packed.
pub(super) fn snapshot_format(text: &str) -> Rule<SnapshotFormat> {
    match text {
        "tar" => Ok(SnapshotFormat::Tar),
        "squashfs" => Ok(SnapshotFormat::Squashfs),
        _ => {
            Err(Problem::new("neither tar nor squashfs").help("mirrors have snapshots as \"tar\" and as \"squashfs\""))
        }
    }
}

/// A day, `YYYYMMDD`.
pub(super) fn day(text: &str) -> Rule {
    let help = "write \"latest\" or a day as in the names on a mirror, for example 20261121";
    if text.len() != 8 || !digits(text) {
        return Err(Problem::new("neither latest nor a day").help(help));
    }
    timestamp(&format!("{text}T000000Z")).map_err(|_| Problem::new("no such day").help(help))
}

/// The id of a git commit, in lower case.
pub(super) fn commit(text: &str) -> Rule<String> {
    let help = "`git rev-parse HEAD` prints the whole id: 40 or 64 digits";
    if !text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(Problem::new("not hexadecimal").help(help));
    }
    if !matches!(text.len(), 40 | 64) {
        return Err(Problem::new(format!("{} digits", text.len())).help(help));
    }
    Ok(text.to_ascii_lowercase())
}

/// The name of a git branch; of what git allows, what nothing reads anything into.
pub(super) fn branch(text: &str) -> Rule {
    let letter = |c: char| c.is_ascii_alphanumeric();
    chars(text, "a branch", letter, |c| letter(c) || "._+-/".contains(c))?;
    let bad = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock") || part.ends_with('.');
    if text.len() > 128 || text.contains("..") || text.split('/').any(bad) {
        return Err(Problem::new("not the name of a branch"));
    }
    Ok(())
}

/// An age in seconds: days, or a number with the unit `h`, `d` or `w`.
pub(super) fn age(text: &str) -> Rule<u64> {
    let help = "write days, for example 14, or \"36h\", \"14d\", \"4w\"";
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        Some((at, 'w')) => (&text[..at], 7 * 86_400),
        _ => (text, 86_400),
    };
    let number = digits(number).then(|| number.parse::<u64>().ok()).flatten();
    match number.and_then(|number| number.checked_mul(unit)) {
        Some(0) => Err(Problem::new("nothing is that fresh").help(help)),
        Some(seconds) if seconds <= 100 * 366 * 86_400 => Ok(seconds),
        Some(_) => Err(Problem::new("more than a hundred years").help(help)),
        None => Err(Problem::new("not an age").help(help)),
    }
}

/// A path below a server's root, with placeholders.
pub(super) fn server_path(text: &str) -> Rule {
    let help = "for example \"{release}/{subarch}/stage3-latest.tar.xz\"";
    let mut plain = text.to_owned();
    for name in ["release", "arch", "subarch", "version"] {
        plain = plain.replace(&format!("{{{name}}}"), "x");
    }
    let letter = |c: char| c.is_ascii_alphanumeric();
    chars(&plain, "a path", letter, |c| letter(c) || "._+-/".contains(c)).map_err(|problem| problem.help(help))?;
    if plain.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Problem::new("an empty part, `.` or `..`").help(help));
    }
    Ok(())
}

/// What the name of a file ends with; nothing is well.
pub(super) fn ending(text: &str) -> Rule {
    if text.is_empty() {
        return Ok(());
    }
    chars(text, "an ending", |c| ".-_".contains(c), |c| c.is_ascii_alphanumeric() || "._+-".contains(c))
}

/// The root of a server, without its trailing slashes.
pub(super) fn url(text: &str) -> Rule<String> {
    let lower = text.to_ascii_lowercase();
    let help = "for example https://distfiles.gentoo.org";
    let Some(scheme) = ["https://", "http://"].into_iter().find(|scheme| lower.starts_with(scheme)) else {
        return Err(Problem::new("neither http:// nor https://").help(help));
    };
    let rest = &text[scheme.len()..];
    // The characters that a URL consists of, less those that a shell or make.conf would read something into.
    if let Some(bad) = rest.chars().find(|c| !(c.is_ascii_alphanumeric() || "-._~:/[]@+,=%!*()&".contains(*c))) {
        let help = if "?#".contains(bad) { "write the address of a directory" } else { help };
        return Err(Problem::new(format!("{} may not stand in an address", quoted(&bad.to_string()))).help(help));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(Problem::new("a user or a password in an address would be recorded in the results"));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() {
        return Err(Problem::new("no host").help(help));
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(Problem::new("not a port"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A primary fingerprint in upper case; blanks are how other programs group it.
pub(super) fn fingerprint(text: &str) -> Rule<String> {
    let hex: String = text.chars().filter(|c| *c != ' ').collect::<String>().to_ascii_uppercase();
    let hex = hex.strip_prefix("0X").unwrap_or(&hex);
    if !hex.chars().all(|c| c.is_ascii_hexdigit()) || hex.is_empty() {
        return Err(Problem::new("not hexadecimal"));
    }
    match hex.len() {
        40 | 64 => Ok(hex.to_owned()),
        8 | 16 => Err(Problem::new("a key ID, which anybody can forge")
            .help("write the whole fingerprint of the primary key: 40 or 64 digits")),
        length => {
            Err(Problem::new(format!("{length} digits")).help("the fingerprint of a primary key has 40 or 64 digits"))
        }
    }
}

/// A SHA-512 in lower case.
pub(super) fn sha512(text: &str) -> Rule<String> {
    if !text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(Problem::new("not hexadecimal"));
    }
    if text.len() != 128 {
        return Err(Problem::new(format!("{} digits", text.len())).help("a SHA-512 has 128 digits"));
    }
    Ok(text.to_ascii_lowercase())
}

/// `repo:path`, or a path in the main repository.
pub(super) fn profile(text: &str) -> Rule<ProfileName> {
    let help = "a profile is written repository:path, for example gentoo:default/linux/amd64/23.0/musl";
    let (repo, path) = match text.split_once(':') {
        Some((repo, path)) => (Some(repo), path),
        None => (None, text),
    };
    if let Some(repo) = repo {
        repository(repo).map_err(|problem| problem.help(help))?;
    }
    if path.is_empty() {
        return Err(Problem::new("no path").help(help));
    }
    for part in path.split('/') {
        if part == ".." || part == "." {
            return Err(Problem::new(format!("`{part}` leads out of the repository's profiles")).help(help));
        }
        let part_of = |c: char| c.is_ascii_alphanumeric() || "_+.-@".contains(c);
        chars(part, "a part of a profile's path", |c| c.is_ascii_alphanumeric() || "_.".contains(c), part_of)
            .map_err(|problem| problem.help(help))?;
    }
    Ok(ProfileName { repo: repo.map(str::to_owned), path: path.to_owned() })
}

/// A repository's name (PMS 3.1.5).
pub(super) fn repository(text: &str) -> Rule {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    chars(text, "a repository's name", letter, |c| letter(c) || c == '-')
}

/// An absolute path inside the image, tidied.
pub(super) fn image_path(text: &str) -> Rule<String> {
    printable(text)?;
    if !text.starts_with('/') {
        return Err(Problem::new("not absolute")
            .help(format!("a path in the image starts with `/`: /{}", text.trim_start_matches("./"))));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(Problem::new("`..` in a path of the image"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// A path of this host.
pub(super) fn host_path(text: &str) -> Rule<PathBuf> {
    printable(text)?;
    if !text.starts_with('/') {
        return Err(Problem::new("not absolute").help("a path of the host starts with `/`"));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(Problem::new("`..` in a path of the host"));
    }
    if parts.is_empty() {
        return Err(Problem::new("this is the whole host"));
    }
    if text.contains(['*', '?', '[']) {
        return Err(Problem::new("a glob, which means nothing here").help("name the directory"));
    }
    Ok(parts.into_iter().fold(PathBuf::from("/"), |path, part| path.join(part)))
}

/// A path of this host that a build can see: not where it has something of its own.
pub(super) fn shown_path(text: &str) -> Rule<PathBuf> {
    const OWN: [&str; 8] = ["/dev", "/proc", "/quern", "/run", "/sys", "/tmp", "/var/db/repos", "/var/tmp"];
    let path = host_path(text)?;
    match OWN.iter().find(|own| path.starts_with(own)) {
        Some(own) => Err(Problem::new(format!("a build has its own {own}"))),
        None => Ok(path),
    }
}

/// A path to strip: its last component may be a glob.
pub(super) fn strip_path(text: &str) -> Rule<String> {
    let path = image_path(text)?;
    let (parents, last) = path.rsplit_once('/').unwrap_or(("", ""));
    if path == "/" || (parents.is_empty() && last.chars().all(|c| c == '*')) {
        return Err(Problem::new("this is the whole image"));
    }
    if parents.contains(['*', '?', '[']) {
        return Err(Problem::new("a glob before the last `/`").help("only the last component of a path may be a glob"));
    }
    Ok(path)
}

/// A make.conf variable that the recipe may set.
pub(super) fn variable(text: &str) -> Rule {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    chars(text, "a variable's name", letter, |c| letter(c) || c.is_ascii_digit())?;
    match OWNED.iter().find(|(name, _)| *name == text) {
        Some((_, instead)) => Err(Problem::new("set by quern-builder itself").help(*instead)),
        None => Ok(()),
    }
}

/// Variables that say where things are; a recipe that sets them breaks the build, or leaves its place.
const OWNED: &[(&str, &str)] = &[
    ("ROOT", "the image's root is always made fresh; leave it out"),
    ("SYSROOT", "leave it out"),
    ("EPREFIX", "prefixes are not supported; leave it out"),
    ("EROOT", "leave it out"),
    ("ESYSROOT", "leave it out"),
    ("BROOT", "leave it out"),
    (
        "PORTAGE_CONFIGROOT",
        "the configuration is written from the recipe; a directory of your own is `config` in [portage]",
    ),
    ("PORTAGE_REPOSITORIES", "repositories are listed in `repositories` in [portage]"),
    ("PORTDIR", "repositories are listed in `repositories` in [portage]"),
    ("PORTDIR_OVERLAY", "repositories are listed in `repositories` in [portage]"),
    ("PKGDIR", "the cache of binary packages is `binpkg` in [portage]"),
    ("DISTDIR", "the cache of sources is `distfiles` in [portage]"),
    ("PORTAGE_TMPDIR", "packages are built on a tmpfs with `workdir-storage = \"tmpfs:4G\"` in [build]"),
    ("BUILD_PREFIX", "leave it out"),
    ("PORT_LOGDIR", "the logs of all packages are kept with the results' store; leave it out"),
    ("PORTAGE_LOGDIR", "the logs of all packages are kept with the results' store; leave it out"),
    ("EMERGE_LOG_DIR", "the logs of all packages are kept with the results' store; leave it out"),
    ("GENTOO_MIRRORS", "mirrors are listed in `mirrors` in [source]"),
    ("PORTAGE_BINHOST", "binary package hosts are listed in `binhost` in [portage]"),
    ("EMERGE_DEFAULT_OPTS", "options for every emerge are listed in `options` in [emerge]"),
];

/// A line of text: nothing in it may end the line or steer a terminal.
pub(super) fn printable(text: &str) -> Rule {
    match text.chars().find(|c| c.is_control()) {
        Some('\n' | '\r') => Err(Problem::new("more than one line")),
        Some(c) => Err(Problem::new(format!("a control character ({})", c.escape_unicode()))),
        None => Ok(()),
    }
}

/// What can be an argument or an environment variable of a program.
pub(super) fn argument(text: &str) -> Rule {
    if text.contains('\0') { Err(Problem::new("a NUL byte")) } else { Ok(()) }
}

/// A USE flag, perhaps with a minus.
pub(super) fn use_flag(text: &str) -> Rule {
    let flag = text.strip_prefix('-').unwrap_or(text);
    if flag == "*" {
        return Ok(());
    }
    chars(flag, "a USE flag", |c| c.is_ascii_alphanumeric(), |c| c.is_ascii_alphanumeric() || "+_@-".contains(c))
}

/// An option for emerge; those that would change what the tool does with its result are refused.
pub(super) fn option(text: &str) -> Rule {
    printable(text)?;
    const OURS: &[(&str, &str)] = &[
        ("--ask", "nobody is there to answer during a build"),
        ("--root", "the image's root is quern-builder's"),
        ("--sysroot", "the image's root is quern-builder's"),
        ("--config-root", "the configuration is written from the recipe"),
        ("--prefix", "prefixes are not supported"),
        ("--pretend", "`--dry-run` shows what would be done"),
        ("--help", "this would build nothing"),
        ("--version", "this would build nothing"),
        ("--jobs", "write `jobs` in [emerge]"),
    ];
    let long = text.split('=').next().unwrap_or(text);
    if let Some((_, why)) = OURS.iter().find(|(option, _)| *option == long) {
        return Err(Problem::new("not an option for a recipe").help(*why));
    }
    let short = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')).unwrap_or_default();
    if let Some(letter) = short.chars().take_while(char::is_ascii_alphabetic).find(|c| "aphVj".contains(*c)) {
        return Err(Problem::new(format!("`-{letter}` is not an option for a recipe")));
    }
    if text.trim().is_empty() {
        return Err(Problem::new("empty"));
    }
    Ok(())
}

/// A number of bytes: alone, or with the unit `K`, `M`, `G` or `T` (powers of 1024), which may be written `GiB` and behind a blank.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.strip_suffix("iB").filter(|rest| rest.ends_with(char::is_alphabetic)).unwrap_or(text);
    let (number, unit) = match text.char_indices().last()? {
        (at, 'K' | 'k') => (&text[..at], 1 << 10),
        (at, 'M' | 'm') => (&text[..at], 1 << 20),
        (at, 'G' | 'g') => (&text[..at], 1 << 30),
        (at, 'T' | 't') => (&text[..at], 1 << 40),
        _ => (text, 1_u64),
    };
    let number = if unit > 1 { number.strip_suffix(' ').unwrap_or(number) } else { number };
    let number = digits(number).then(|| number.parse::<u64>().ok()).flatten();
    number.and_then(|number| number.checked_mul(unit)).filter(|bytes| *bytes <= i64::MAX as u64)
}

/// A size that something may have at most.
pub(super) fn most_bytes(text: &str) -> Rule<u64> {
    let help = "write bytes, or for example \"20 GiB\"";
    match bytes(text) {
        Some(0) => Err(Problem::new("nothing is that small").help(help)),
        Some(bytes) => Ok(bytes),
        None if text.ends_with('B') => Err(Problem::new("not a size").help("GB may mean two things: write GiB")),
        None => Err(Problem::new("not a size").help(help)),
    }
}

/// How many of something there may be at most.
pub(super) fn most(text: &str) -> Rule<u64> {
    match digits(text).then(|| text.parse::<u64>().ok()).flatten() {
        Some(number) if (1..=i64::MAX as u64).contains(&number) => Ok(number),
        _ => Err(Problem::new("not a number of entries").help("1 or more")),
    }
}

/// The size of `tmpfs:<size>` in bytes; none for `disk`.
pub(super) fn storage(text: &str) -> Rule<Option<u64>> {
    let help = "write \"disk\" or a size, for example \"tmpfs:4G\"";
    if text == "disk" {
        return Ok(None);
    }
    let Some(size) = text.strip_prefix("tmpfs:") else {
        return Err(Problem::new("neither disk nor tmpfs").help(help));
    };
    match bytes(size) {
        Some(bytes) if bytes >= 1 << 20 => Ok(Some(bytes)),
        Some(_) => Err(Problem::new("less than a mebibyte").help(help)),
        None => Err(Problem::new("not a size").help(help)),
    }
}

/// A tag, with its placeholders still in it.
pub(super) fn tag(text: &str) -> Rule {
    let made = super::dated(text, "20000101");
    let rest = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let problem = chars(&made, "a tag", |c| c.is_ascii_alphanumeric() || c == '_', rest).err();
    let problem = problem.or_else(|| (made.len() > 128).then(|| Problem::new("longer than 128 characters")));
    problem.map_or(Ok(()), |problem| Err(problem.help("the one placeholder of a tag is {date}")))
}

/// A port of an image, perhaps with its protocol.
pub(super) fn port(text: &str) -> Rule {
    let help = "for example 80, 80/tcp or 53/udp";
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(Problem::new("neither tcp, udp nor sctp").help(help));
    }
    match number.parse::<u16>() {
        Ok(1..) if digits(number) => Ok(()),
        _ => Err(Problem::new("not a port (1 to 65535)").help(help)),
    }
}

/// `user[:group]`, each a name or a number.
pub(super) fn user(text: &str) -> Rule {
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    for part in [user, group] {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        chars(part, "a user or a group", letter, |c| letter(c) || "-.".contains(c))?;
        if digits(part) && part.parse::<u32>().is_err() {
            return Err(Problem::new("beyond 32 bits"));
        }
    }
    Ok(())
}

/// Not empty, first and other characters as allowed.
pub(super) fn chars(text: &str, what: &str, first: impl Fn(char) -> bool, rest: impl Fn(char) -> bool) -> Rule {
    let Some(begin) = text.chars().next() else {
        return Err(Problem::new(format!("{what} may not be empty")));
    };
    if !first(begin) {
        return Err(Problem::new(format!("{what} may not start with {}", quoted(&begin.to_string()))));
    }
    match text.chars().find(|c| !rest(*c)) {
        Some(bad) => Err(Problem::new(format!("{} may not stand in {what}", quoted(&bad.to_string())))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(url("http://127.0.0.1:8080/gentoo//"), Ok("http://127.0.0.1:8080/gentoo".to_owned()));
        assert_eq!(url("https://[::1]:443/x"), Ok("https://[::1]:443/x".to_owned()));
        let bad = [
            "ftp://x",
            "file:///x",
            "https://",
            "https:///x",
            "https://u:p@x",
            "https://x y",
            "https://x/$(id)",
            "https://x/?a",
            "https://x:99999",
            "https://x\n",
            "x",
        ];
        for text in bad {
            assert!(url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn profiles() {
        let name = profile("quern:musl-python3").unwrap();
        assert_eq!((name.repo.as_deref(), name.path.as_str()), (Some("quern"), "musl-python3"));
        assert_eq!(profile("default/linux/amd64/23.0/musl").unwrap().repo, None);
        for text in ["", ":", "a:", ":b", "a:../b", "a:b//c", "a:/b", "a:b/.", "a b:c", "a:b c"] {
            assert!(profile(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_rest() {
        assert!(timestamp("20260719T170103Z").is_ok());
        assert!(timestamp("20261319T170103Z").is_err());
        assert!(timestamp("latets").is_err());
        assert!(server_path("{release}/{arch}/a-{subarch}.tar.xz").is_ok());
        for text in ["", "/a", "a//b", "a/../b", "{what}/a", "a b", "a?b", "a/"] {
            assert!(server_path(text).is_err(), "{text}");
        }
        assert!(ending("").is_ok() && ending(".gpg").is_ok() && ending("gpg").is_err() && ending("./x").is_err());
        assert_eq!((age("14"), age("36h"), age("2w")), (Ok(14 * 86_400), Ok(36 * 3600), Ok(14 * 86_400)));
        for text in ["0", "", "d", "-1", "1y", "99999999999999999999", "9999999999w", "1é"] {
            assert!(age(text).is_err(), "{text}");
        }
        for (text, size) in [("7", 7), ("7k", 7 << 10), ("20GiB", 20 << 30), ("20 GiB", 20 << 30), ("2 T", 2 << 40)] {
            assert_eq!((bytes(text), most_bytes(text)), (Some(size), Ok(size)), "{text}");
        }
        for text in ["", "G", "iB", "7iB", "7 ", " 7", "7GB", "7B", "7  G", "-7", "1.5G", "99999999999T", "é", "7 éiB"]
        {
            assert!(most_bytes(text).is_err() && bytes(text).is_none(), "{text}");
        }
        assert!(most_bytes("0").is_err() && most("0").is_err() && most("-1").is_err() && most("9k").is_err());
        assert_eq!(most("1000"), Ok(1000));
        assert_eq!(storage("tmpfs:4G"), Ok(Some(4 << 30)));
        assert_eq!(storage("disk"), Ok(None));
        for text in ["tmpfs:", "tmpfs:0", "tmpfs:4X", "tmpfs:99999999999T", "tmpfs:-1G", "file:/x", "tmpfs:é"] {
            assert!(storage(text).is_err(), "{text}");
        }
        assert!(tag("{date}").is_ok() && tag("v1-$$DATE$$").is_ok());
        for text in ["", "{day}", "-x", "a/b", "a b"] {
            assert!(tag(text).is_err(), "{text}");
        }
        assert!(port("80").is_ok() && port("53/udp").is_ok());
        for text in ["0", "65536", "80/icmp", "+80", "", "80-90"] {
            assert!(port(text).is_err(), "{text}");
        }
        assert_eq!(strip_path("/usr//share/./doc/"), Ok("/usr/share/doc".to_owned()));
        for text in ["usr", "/usr/../etc", "/", "/*", "/a*/b", "/a\u{1b}", "/.."] {
            assert!(strip_path(text).is_err(), "{text}");
        }
        assert_eq!(fingerprint(&"ab ".repeat(20)), Ok("AB".repeat(20)));
        assert!(fingerprint("BB572E0E2D182910").is_err());
        assert!(sha512(&"a".repeat(127)).is_err());
        for text in ["-a", "--ask", "--ask=y", "-va", "--root=/x", "", "-j4", "a\nb"] {
            assert!(option(text).is_err(), "{text}");
        }
        assert!(option("--with-bdeps=y").is_ok() && option("-v").is_ok());
        for suffix in [".tar.gz", ".tar.xz", ".tar.zst", ".tar"] {
            assert_eq!(image_name(&format!("rootfs{suffix}"), suffix), Ok("rootfs".to_owned()));
            assert_eq!(image_name("root.fs", suffix), Ok("root.fs".to_owned()));
            for other in ["rootfs.tar.bz2", "rootfs.tar.gz.tar", "rootfs.tgz", "a/b", suffix] {
                assert!(image_name(other, suffix).is_err(), "{other}");
            }
        }
        assert!(image_name("rootfs.tar", ".tar.gz").is_err() && image_name("rootfs.tar.gz", ".tar").is_err());
    }
}

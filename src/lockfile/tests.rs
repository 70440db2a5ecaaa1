use proptest::prelude::*;

use super::*;
use crate::base::digest::{Blake2b, Sha512};

fn sha512(byte: u8) -> Sha512 {
    Sha512::from([byte; 64])
}

fn file() -> LockedFile {
    LockedFile {
        asked: "stage3 amd64-musl (latest)".to_owned(),
        name: "stage3-amd64-musl-20260810T204554Z.tar.xz".to_owned(),
        url: Some("https://example.org/releases/amd64/autobuilds/x.tar.xz".to_owned()),
        size: 3,
        sha512: sha512(0xaa),
        blake2b: Some(Blake2b::from([0xbb; 64])),
        timestamp: Some("20260810T204554Z".to_owned()),
        signer: Some("A".repeat(40)),
        subkey: Some("B".repeat(40)),
        signed: Some(1_786_404_601),
        trust_basis: "clearsigned DIGESTS".to_owned(),
    }
}

fn of(stage3: LockedFile) -> Locked {
    Locked { stage3: Some(stage3), ..Locked::default() }
}

fn entry() -> Locked {
    of(file())
}

#[test]
fn the_text_is_sorted() {
    let mut lockfile = Lockfile::default();
    assert_eq!(lockfile.set("zeta", entry()), Update::Added);
    assert_eq!(lockfile.set("a.b", entry()), Update::Added);
    let text = lockfile.text().unwrap();
    let expected = format!(
        "{HEADER}version = 1\n\n\
         [recipe.\"a.b\".stage3]\nasked = \"stage3 amd64-musl (latest)\"\n\
         name = \"stage3-amd64-musl-20260810T204554Z.tar.xz\"\n\
         url = \"https://example.org/releases/amd64/autobuilds/x.tar.xz\"\nsize = 3\nsha512 = \"{a}\"\nblake2b = \"{b}\"\n\
         timestamp = \"20260810T204554Z\"\nsigner = \"{s}\"\nsubkey = \"{k}\"\nsigned = 1786404601\n\
         verified = \"clearsigned DIGESTS\"\n\n[recipe.zeta.stage3]\n",
        a = "a".repeat(128),
        b = "b".repeat(128),
        s = "A".repeat(40),
        k = "B".repeat(40),
    );
    assert!(text.starts_with(&expected), "{text}");
    assert_eq!(Lockfile::parse("x", &text).unwrap(), lockfile);
    let least =
        LockedFile { url: None, blake2b: None, timestamp: None, signer: None, subkey: None, signed: None, ..file() };
    lockfile.set("zeta", of(least));
    assert_eq!(Lockfile::parse("x", &lockfile.text().unwrap()).unwrap(), lockfile);
}

#[test]
fn an_entry_of_the_same_inputs_is_not_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    assert_eq!(Lockfile::read(&path).unwrap(), None);
    assert_eq!(Lockfile::update(&path, "a", entry()).unwrap(), Update::Added);
    let before = fs_err::read(&path).unwrap();
    // The same bytes from another mirror, signed again by another key of the same signer.
    let again = LockedFile {
        url: Some("https://other.example.org/x".to_owned()),
        subkey: Some("C".repeat(40)),
        signed: Some(1),
        ..file()
    };
    assert_eq!(Lockfile::update(&path, "a", of(again)).unwrap(), Update::Same);
    assert_eq!(fs_err::read(&path).unwrap(), before);
    let name = "stage3-amd64-musl-20260817T204554Z.tar.xz";
    let newer = LockedFile { name: name.to_owned(), sha512: sha512(0xcc), ..file() };
    let Update::Moved(changes) = Lockfile::update(&path, "a", of(newer.clone())).unwrap() else { panic!() };
    assert_eq!(changes, [format!("stage3 {} → {name}", file().name)]);
    assert_eq!(Lockfile::update(&path, "b", entry()).unwrap(), Update::Added);
    assert_eq!(Lockfile::entry(&path, "a").unwrap(), of(newer));
    assert_eq!(Lockfile::entry(&path, "b").unwrap(), entry());
    let error = Lockfile::entry(&path, "c").unwrap_err();
    assert!(error.kind() == Kind::Usage && error.to_string().contains("(it locks a, b)"), "{error}");
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
    // A killed run leaves a file that does not disturb the next one.
    fs_err::write(dir.path().join(".quern.lock.new"), "half").unwrap();
    assert_eq!(Lockfile::update(&path, "c", entry()).unwrap(), Update::Added);
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
    // A symlink stays a symlink.
    let link = dir.path().join("link.lock");
    std::os::unix::fs::symlink(NAME, &link).unwrap();
    assert_eq!(Lockfile::update(&link, "d", entry()).unwrap(), Update::Added);
    assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
    assert!(Lockfile::entry(&path, "d").is_ok());
}

#[test]
fn concurrent_updates_keep_every_entry() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let path = &path;
            scope.spawn(move || Lockfile::update(path, &format!("r{number}"), entry()).unwrap());
        }
    });
    assert_eq!(Lockfile::read(&path).unwrap().unwrap().recipes().count(), 8);
}

#[test]
fn changes_are_listed() {
    let moved = |new: LockedFile| file().changes(&new);
    assert!(moved(file()).is_empty());
    assert_eq!(
        moved(LockedFile { asked: "file x".to_owned(), ..file() }),
        ["asked for stage3 amd64-musl (latest) → file x"]
    );
    assert_eq!(moved(LockedFile { sha512: sha512(0xcc), ..file() }).len(), 1);
    assert_eq!(moved(LockedFile { signer: None, ..file() }), [format!("signer {} → nobody", "A".repeat(40))]);
    let older = LockedFile { timestamp: Some("20260803T204554Z".to_owned()), ..file() };
    assert_eq!(file().not_older(&older).unwrap_err().kind(), Kind::Refused);
    assert!(older.not_older(&file()).is_ok());
    assert!(file().not_older(&LockedFile { asked: "other".to_owned(), ..older }).is_ok());
}

#[test]
fn repositories_keep_the_order_of_the_recipe() {
    let repository = |name: &str, commit: Option<char>| LockedRepository {
        name: name.to_owned(),
        commit: commit.map(|digit| digit.to_string().repeat(40)),
        ..LockedRepository::default()
    };
    let of = |repositories: &[LockedRepository]| Locked { repository: repositories.to_vec(), ..entry() };
    let (gentoo, own) = (repository("gentoo", Some('a')), repository("own", None));
    let locked = of(&[gentoo.clone(), own.clone()]);
    let mut lockfile = Lockfile::default();
    lockfile.set("a", locked.clone());
    let text = lockfile.text().unwrap();
    let end = format!(
        "\n[[recipe.a.repository]]\nname = \"gentoo\"\ncommit = \"{}\"\n\n[[recipe.a.repository]]\nname = \"own\"\n",
        "a".repeat(40)
    );
    assert!(text.ends_with(&end), "{text}");
    assert_eq!(Lockfile::parse("x", &text).unwrap(), lockfile);
    let bad = Lockfile::parse("x", &text.replace(&"a".repeat(40), "main")).unwrap_err();
    assert!(bad.details().unwrap().contains("a commit of"), "{bad:?}");

    let moved = of(&[repository("gentoo", Some('b')), own.clone()]);
    let change = format!("repository gentoo: commit {} → {}", "a".repeat(40), "b".repeat(40));
    assert_eq!(locked.changes(&moved), [change]);
    assert_eq!(locked.changes(&of(&[own.clone(), gentoo.clone()])).len(), 2);
    assert_eq!(locked.changes(&of(std::slice::from_ref(&gentoo))), ["2 repositories → 1"]);
    // Entries that did not change stay as they were written.
    let again = LockedFile { signed: Some(1), ..file() };
    lockfile.set("a", Locked { stage3: Some(again), ..moved.clone() });
    assert_eq!(lockfile.get("a"), Some(&moved));

    // A build needs the locked commits; a directory without a locked commit may have any.
    let present = [gentoo.clone(), repository("own", Some('c'))];
    assert!(locked.check_repositories(&present).is_ok());
    for other in [vec![repository("gentoo", None), own.clone()], vec![own.clone(), gentoo.clone()], vec![gentoo]] {
        assert_eq!(locked.check_repositories(&other).unwrap_err().kind(), Kind::Usage);
    }
    assert_eq!(entry().changes(&Locked::default()), [format!("stage3 {} → none", file().name)]);
}

#[test]
fn a_locked_commit_is_written_and_read() {
    let id = |digit: &str| digit.repeat(40);
    let pin = LockedCommit {
        branch: Some("stable".to_owned()),
        url: "https://example.org/own.git".to_owned(),
        commit: id("a"),
        signer: Some("A".repeat(40)),
        trust_basis: "commit signed".to_owned(),
    };
    let repository = |git: &LockedCommit| LockedRepository {
        name: "own".to_owned(),
        git: Some(git.clone()),
        ..LockedRepository::default()
    };
    let of = |git: &LockedCommit| Locked { repository: vec![repository(git)], ..Locked::default() };
    let mut lockfile = Lockfile::default();
    lockfile.set("a", of(&pin));
    let text = lockfile.text().unwrap();
    assert!(
        text.contains("\n[[recipe.a.repository]]\nname = \"own\"\n\n[recipe.a.repository.git]\nbranch = "),
        "{text}"
    );
    assert_eq!(Lockfile::parse("x", &text).unwrap(), lockfile);
    assert!(Lockfile::parse("x", &text.replace(&id("a"), "HEAD")).is_err());
    let moved = of(&pin).changes(&of(&LockedCommit { commit: id("b"), ..pin.clone() }));
    assert!(moved.len() == 1 && moved[0].contains("stable") && moved[0].contains(&id("b")), "{moved:?}");
    let directory =
        Locked { repository: vec![LockedRepository { git: None, ..repository(&pin) }], ..Locked::default() };
    assert!(of(&pin).changes(&directory)[0].ends_with("→ a directory"));
}

#[test]
fn mistakes_are_shown_with_their_line() {
    let mut lockfile = Lockfile::default();
    lockfile.set("a", entry());
    let good = lockfile.text().unwrap();
    let sha = "a".repeat(128);
    for (from, to, why) in [
        ("version = 1", "version = 2", "its format is version 2"),
        ("version = 1", "version = 1\nversion = 1", "duplicate key"),
        ("version = 1", "", "missing field `version`"),
        ("size = 3", "size = 0", "no stage3 has this size"),
        ("size = 3", "size = -1", "invalid value"),
        ("size = 3", "size = 99999999999999", "no stage3 has this size"),
        ("size = 3", "", "missing field `size`"),
        ("size = 3", "size = 3\nsise = 3", "unknown field `sise`"),
        ("name = \"stage3-amd64", "name = \"../stage3-amd64", "the name of a file"),
        ("name = \"stage3-amd64", "name = \".stage3-amd64", "the name of a file"),
        ("name = \"stage3-amd64", "name = \"\\u001b[2J", "the name of a file"),
        ("url = \"https:", "url = \"file:", "begins with http"),
        (sha.as_str(), "AAAA", "128 lower-case hex"),
        ("timestamp = \"2026", "timestamp = \"../6", "YYYYMMDD"),
        ("signer = \"A", "signer = \"a", "a fingerprint"),
        ("verified = \"", "verified = \"\\n", "a line of text"),
        ("[recipe.a.stage3]", "[recipe.a.stage4]", "unknown field `stage4`"),
        ("[recipe.a.stage3]", "<<<<<<< HEAD\n[recipe.a.stage3]", "TOML parse error at line 4"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = Lockfile::parse("x.lock", &good.replacen(from, to, 1)).unwrap_err();
        let text = format!("{error}\n{}", error.details().unwrap_or_default());
        assert!(error.kind() == Kind::Usage && text.contains(why) && text.contains("x.lock"), "{to}: {text}");
        assert!(text.contains("line") || text.contains("version"), "{to}: no line is named: {text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*|(version = 1\n)?(\\[recipe\\.[a-z.\"]{0,5}(stage3)?\\]\n)?([a-z0-9]{0,9} ?= ?[\"a-f0-9]{0,9}\n){0,9}") {
        if let Err(error) = Lockfile::parse("x", &text) {
            prop_assert_eq!(error.kind(), Kind::Usage);
        }
    }

    #[test]
    fn a_damaged_file_is_read_or_refused(at in 0usize..900, with in "\\PC|\n|\"|\\[|=", cut in 0usize..40) {
        let mut lockfile = Lockfile::default();
        lockfile.set("a", entry());
        let good = lockfile.text().unwrap();
        let at = (0..=at.min(good.len())).rev().find(|at| good.is_char_boundary(*at)).unwrap();
        let end = (at + cut).min(good.len());
        prop_assume!(good.is_char_boundary(end));
        let text = format!("{}{with}{}", &good[..at], &good[end..]);
        if let Ok(read) = Lockfile::parse("x", &text) {
            // A file that was read can be written and read again.
            prop_assert_eq!(Lockfile::parse("x", &read.text().unwrap()).unwrap(), read);
        }
    }

    #[test]
    fn written_text_is_read_back(names in proptest::collection::btree_set("[A-Za-z0-9][A-Za-z0-9._+-]{0,12}", 0..5), asked in "[^\\p{C}]{0,30}", size in 1u64..(1 << 36)) {
        let mut lockfile = Lockfile::default();
        for name in &names {
            lockfile.set(name, of(LockedFile { asked: asked.clone(), size, ..file() }));
        }
        let text = lockfile.text().unwrap();
        let read = Lockfile::parse("x", &text).unwrap();
        prop_assert_eq!(read.text().unwrap(), text);
        prop_assert!(read.recipes().eq(names.iter()));
    }
}

#[test]
fn indexes_of_binary_packages_are_locked_by_their_address() {
    let index =
        |url: &str, byte| LockedIndex { url: url.to_owned(), sha512: sha512(byte), timestamp: Some(1_795_825_081) };
    let of = |indexes: &[LockedIndex]| Locked { binhost: indexes.to_vec(), ..entry() };
    let mut lockfile = Lockfile::default();
    lockfile.set("a", of(&[index("https://one.example", 1), index("https://two.example", 2)]));
    let text = lockfile.text().unwrap();
    assert!(text.contains("[[recipe.a.binhost]]\nurl = \"https://one.example\"\n"), "{text}");
    assert_eq!(Lockfile::parse("x", &text).unwrap(), lockfile);
    let locked = lockfile.get("a").unwrap();
    assert_eq!(locked.index("https://two.example").unwrap().sha512, sha512(2));
    assert!(locked.index("https://three.example").unwrap_err().hint().unwrap().contains("quern-builder lock"));
    assert_eq!(locked.changes(&of(&[index("https://two.example", 2), index("https://one.example", 1)])), [""; 0]);
    let changes = locked.changes(&of(&[index("https://one.example", 3), index("https://three.example", 2)]));
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert!(changes[0].starts_with("binary packages of https://one.example: 010101010101 (2026-11-"), "{changes:?}");
    assert!(changes[1].ends_with("→ none") && changes[2].contains("none → 0202"), "{changes:?}");
}

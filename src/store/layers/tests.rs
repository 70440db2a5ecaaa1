use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::*;
use crate::archive::changes;
use crate::base::progress::Silent;
use crate::fs::rootfs::Rootfs;
use crate::store::clean::Category;

fn key(name: &str) -> Sha256 {
    Sha256::of(name.as_bytes())
}

/// Writes a layer with one file, as a step that took over `partial` would, and keeps it.
fn make(partial: Partial, key: &Sha256, text: &str) -> Layer {
    let (record, changes) = made(&partial, key, text);
    partial.keep(record, &changes).unwrap()
}

fn made(partial: &Partial, key: &Sha256, text: &str) -> (LayerRecord, [(&'static str, Changes); 2]) {
    let changes = ["/", "/quern/50% image"].map(|place| {
        let upper = partial.upper(place);
        fs_err::create_dir_all(&upper).unwrap();
        fs_err::write(upper.join("file"), text).unwrap();
        (place, changes::read(&Rootfs::open(&upper).unwrap(), SystemTime::UNIX_EPOCH, &|_| false, &Silent).unwrap())
    });
    let record = LayerRecord {
        format: FORMAT,
        key: *key,
        parent: Sha256::of(b"base"),
        result: result(&changes),
        volumes: BTreeMap::new(),
        image: "image".into(),
        step: "step".into(),
        inputs: BTreeMap::from([("script".to_owned(), "1".to_owned())]),
        why: String::new(),
        started: 1_700_000_000,
        milliseconds: 5,
        bytes: changes.iter().map(|(_, changes)| changes.bytes()).sum(),
        notes: Vec::new(),
        packages: None,
    };
    (record, changes)
}

fn find(store: &Store, key: &Sha256) -> Found {
    store.find_layer(key, |_| true, || panic!("nobody holds it")).unwrap()
}

fn missing(store: &Store, key: &Sha256) -> Partial {
    match find(store, key) {
        Found::Missing(partial) => partial,
        Found::There(layer) => panic!("{layer:?}"),
    }
}

fn there(store: &Store, key: &Sha256) -> Layer {
    match find(store, key) {
        Found::There(layer) => *layer,
        Found::Missing(partial) => panic!("{partial:?}"),
    }
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The names of everything in the store's layers that is not a lock.
fn layers(store: &Store) -> Vec<String> {
    names(&store.root().join("layers")).into_iter().filter(|name| !name.ends_with(".lock")).collect()
}

#[test]
fn a_layer_is_kept_without_what_is_not_a_part_of_it() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let key = key("a");
    assert!(store.layer(&key).unwrap().is_none());
    let partial = missing(&store, &key);
    assert!(store.layer(&key).unwrap().is_none(), "it is not kept yet");
    fs_err::create_dir_all(partial.directory().join("work/%2F/work/incompat/volatile")).unwrap();
    fs_err::write(partial.log(), "output\n").unwrap();
    let layer = make(partial, &key, "text");
    assert_eq!(
        names(layer.directory()),
        ["layer.json", "log.zst", "manifest.zst", "manifests", "upper", "uppers", "used"]
    );
    assert_eq!(names(&layer.directory().join("uppers")), ["%2Fquern%2F50%25 image"]);
    drop(layer);

    let layer = there(&store, &key);
    let mut log = String::new();
    layer.log(None).unwrap().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!((log.as_str(), layer.record().bytes, layer.record().key), ("output\n", 8, key));
    for place in ["/", "/quern/50% image"] {
        assert_eq!(fs_err::read(layer.upper(place).unwrap().join("file")).unwrap(), b"text");
        assert_eq!(layer.manifest(place).unwrap().unwrap().entries().len(), 2);
    }
    assert!(layer.upper("/none").is_none() && layer.manifest("/none").unwrap().is_none());
    assert!(store.layer(&key).unwrap().is_some());
}

#[test]
fn an_abandoned_layer_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let key = key("a");
    let partial = missing(&store, &key);
    fs_err::write(partial.directory().join("x"), "").unwrap();
    drop(partial);
    assert!(layers(&store).is_empty());
    let partial = missing(&store, &key);
    fs_err::write(partial.directory().join("x"), "").unwrap();
    partial.move_to(&home.path().join("builds/failed")).unwrap();
    assert!(layers(&store).is_empty());
    assert_eq!(names(&home.path().join("builds/failed")), ["x"]);
    let partial = missing(&store, &key);
    let (record, changes) = made(&partial, &self::key("other"), "");
    assert!(partial.keep(record, &changes).is_err(), "the record of another key");
    assert!(layers(&store).is_empty());
}

#[test]
fn one_of_many_makes_a_layer_and_the_others_wait_for_it() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let key = key("a");
    let (makers, waits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let first = missing(&store, &key);
    std::thread::scope(|scope| {
        let found: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let waiting = || _ = waits.fetch_add(1, Ordering::SeqCst);
                    match store.find_layer(&key, |_| true, waiting).unwrap() {
                        Found::There(layer) => *layer,
                        Found::Missing(partial) => {
                            makers.fetch_add(1, Ordering::SeqCst);
                            make(partial, &key, "late")
                        }
                    }
                })
            })
            .collect();
        while waits.load(Ordering::SeqCst) < 4 {
            std::thread::yield_now();
        }
        let layer = make(first, &key, "first");
        let found: Vec<Layer> = found.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(makers.load(Ordering::SeqCst), 0);
        for found in found {
            assert_eq!(found.record(), layer.record());
        }
    });
}

#[test]
fn a_waiting_process_makes_the_layer_if_the_first_one_fails() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let key = key("a");
    let first = missing(&store, &key);
    let waited = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let second =
            scope.spawn(|| match store.find_layer(&key, |_| true, || waited.store(true, Ordering::SeqCst)).unwrap() {
                Found::Missing(partial) => make(partial, &key, "second").record().bytes,
                Found::There(layer) => panic!("{layer:?}"),
            });
        while !waited.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        drop(first);
        assert_eq!(second.join().unwrap(), 12);
    });
    there(&store, &key);
}

/// The test starts itself as the process that is killed.
#[test]
#[allow(clippy::disallowed_methods, reason = "the test kills a process of its own")]
fn a_killed_maker_leaves_what_the_next_one_removes() {
    const HOME: &str = "QUERN_TEST_KILLED_MAKER";
    let key = key("a");
    if let Some(home) = std::env::var_os(HOME) {
        let partial = missing(&Store::open(Path::new(&home)).unwrap(), &key);
        fs_err::create_dir(partial.upper("/")).unwrap();
        loop {
            std::thread::park();
        }
    }
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let own = "store::layers::tests::a_killed_maker_leaves_what_the_next_one_removes";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([own, "--exact"])
        .env(HOME, home.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let partial = store.layer_directory(&key).unwrap().with_extension("partial");
    while !partial.join("upper").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the child ended");
        std::thread::yield_now();
    }
    assert!(store.layer(&key).unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(partial.join("upper").exists());
    let partial = missing(&store, &key);
    assert_eq!(names(partial.directory()), [""; 0]);
    make(partial, &key, "text");
    assert_eq!(layers(&store).len(), 1);
}

#[test]
fn a_layer_that_is_refused_or_damaged_is_made_again() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let key = key("a");
    drop(make(missing(&store, &key), &key, "old"));
    let refused = |waiting: &dyn Fn()| match store.find_layer(&key, |record| record.started > 1_700_000_000, waiting) {
        Ok(Found::Missing(partial)) => make(partial, &key, "new").record().bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&|| panic!("nobody uses it")), 6);
    let user = there(&store, &key);
    let waited = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| refused(&|| waited.store(true, Ordering::SeqCst)));
        while !waited.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        assert_eq!(fs_err::read(user.upper("/").unwrap().join("file")).unwrap(), b"new", "it stays while it is used");
        drop(user);
        assert_eq!(second.join().unwrap(), 6);
    });
    let directory = there(&store, &key).directory().to_owned();
    for text in ["{}", "", "{\"format\": 2}"] {
        fs_err::write(directory.join(RECORD), text).unwrap();
        assert!(store.layer(&key).unwrap().is_none(), "{text}");
    }
    drop(make(missing(&store, &key), &key, "text"));
    there(&store, &key);
}

#[test]
fn layers_of_another_id_mapping_are_not_found() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let key = key("a");
    let layer = make(missing(&store, &key), &key, "text");
    let own = layer.directory().to_owned();
    drop(layer);
    fs_err::rename(&own, own.with_file_name(format!("{}-0123456789ab", &key.hex()[..40]))).unwrap();
    assert!(store.layer(&key).unwrap().is_none());
    missing(&store, &key);
}

#[test]
fn only_a_use_is_recorded_as_one() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let key = key("a");
    let used = make(missing(&store, &key), &key, "text").directory().join(USED);
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let time = || fs_err::metadata(&used).unwrap().modified().unwrap();
    fs_err::File::open(&used).unwrap().set_modified(old).unwrap();
    store.layer(&key).unwrap().unwrap();
    assert_eq!(time(), old);
    there(&store, &key);
    assert!(time() > old);
}

#[test]
fn equal_results_lead_to_the_same_state() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let record = |name: &str, text: &str| make(missing(&store, &key(name)), &key(name), text).record().clone();
    let (one, same, other) = (record("a", "text"), record("b", "text"), record("c", "other"));
    assert_eq!(one.chain(), same.chain());
    assert_ne!(one.chain(), other.chain());
    assert_ne!(one.chain(), LayerRecord { parent: key("x"), ..one.clone() }.chain());
    let changes = |place| [(place, Changes::default())];
    assert_ne!(result(&changes("/")), result(&changes("/a")));
}

/// A store with the layers `a` ← `b` ← `c` and `b` ← `d`, and `z` beside them. Each was used an hour after the one before it in `uses`.
fn chains(uses: &str) -> (tempfile::TempDir, Store) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let mut chain = BTreeMap::new();
    for (name, below) in [("a", ""), ("b", "a"), ("c", "b"), ("d", "b"), ("z", "")] {
        let partial = missing(&store, &key(name));
        let (mut record, changes) = made(&partial, &key(name), name);
        record.parent = chain.get(below).copied().unwrap_or(record.parent);
        record.step = name.to_owned();
        let layer = partial.keep(record, &changes).unwrap();
        chain.insert(name, layer.record().chain());
        let hours = uses.find(name).unwrap() as u64;
        let time = SystemTime::now() - Duration::from_secs(3600 * (uses.len() as u64 - hours));
        fs_err::File::open(layer.directory().join(USED)).unwrap().set_modified(time).unwrap();
    }
    (home, store)
}

/// The names of the layers that `clean` lists, in that order; those that stay in upper case.
fn cleaned(store: &Store, limits: Limits, pretend: bool) -> String {
    let names: BTreeMap<PathBuf, String> =
        store.layers().unwrap().into_iter().map(|layer| (layer.directory, layer.record.step)).collect();
    let mut said = String::new();
    let mut each = |item: &crate::store::clean::Item| {
        assert!(item.bytes > 0);
        let name = names.get(&item.path).map_or("?", String::as_str);
        said += &if item.busy { name.to_uppercase() } else { name.to_owned() };
    };
    store.clean(&[Category::Layers(limits)], pretend, &mut each).unwrap();
    said
}

#[test]
fn layers_are_removed_from_above_and_those_in_use_stay() {
    let (_home, store) = chains("abcdz");
    assert_eq!(cleaned(&store, Limits::default(), true), "cdbaz");
    assert_eq!(store.layers().unwrap().len(), 5);
    let used = there(&store, &key("c"));
    assert_eq!(cleaned(&store, Limits::default(), true), "dzCBA");
    assert_eq!(cleaned(&store, Limits::default(), false), "dzCBA", "those below a layer in use stay");
    drop(used);
    assert_eq!(cleaned(&store, Limits::default(), false), "cba");
    assert!(layers(&store).is_empty());
}

#[test]
fn the_least_recently_used_layers_go_first() {
    let unused = |hours: u64| Limits { unused: Some(Duration::from_secs(3600 * hours)), ..Limits::default() };
    // `a` was not used since, but `d` was, which lies above it.
    for (hours, removed) in [(6, ""), (4, ""), (3, "c"), (2, "cz"), (1, "czdba")] {
        let (_home, store) = chains("abczd");
        assert_eq!(cleaned(&store, unused(hours), false), removed, "{hours}");
        assert_eq!(store.layers().unwrap().len(), 5 - removed.len());
    }
    let (_home, store) = chains("abczd");
    let sizes: Vec<u64> =
        store.layers().unwrap().iter().map(|layer| super::super::clean::disk_usage(&layer.directory)).collect();
    assert_eq!(sizes.iter().max(), sizes.iter().min(), "the layers of this test have equal sizes");
    let keep = |bytes| Limits { keep: Some(bytes), ..Limits::default() };
    assert_eq!(cleaned(&store, keep(5 * sizes[0]), true), "");
    assert_eq!(cleaned(&store, keep(5 * sizes[0] - 1), true), "c");
    assert_eq!(cleaned(&store, Limits { keep: Some(4 * sizes[0]), ..unused(2) }, true), "cz");
    assert_eq!(cleaned(&store, keep(2 * sizes[0]), false), "czd");
    assert_eq!(cleaned(&store, keep(0), false), "ba");
}

#[test]
fn layers_are_chosen_by_their_keys() {
    let of = |name: &str, above| Limits { of: Some(Chosen { keys: vec![key(name)], above }), ..Limits::default() };
    for (name, above, removed) in [("b", false, "B"), ("b", true, "cdb"), ("a", true, "cdba"), ("z", false, "z")] {
        let (_home, store) = chains("abcdz");
        assert_eq!(cleaned(&store, of(name, above), false), removed, "{name} {above}");
        assert_eq!(store.layers().unwrap().len(), 5 - removed.chars().filter(|name| name.is_lowercase()).count());
    }
}

#[test]
fn leftovers_are_removed_and_layers_that_are_being_made_stay() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let making = missing(&store, &key("a"));
    let of = |name: &str| store.root().join("layers").join(name);
    fs_err::create_dir_all(of("killed.partial/upper")).unwrap();
    fs_err::create_dir(of("damaged")).unwrap();
    let mut said = BTreeMap::new();
    let mut each = |item: &crate::store::clean::Item| _ = said.insert(item.path.clone(), item.busy);
    store.clean(&[Category::Layers(Limits { keep: Some(1 << 40), ..Limits::default() })], false, &mut each).unwrap();
    let own = making.directory().to_owned();
    assert_eq!(said, BTreeMap::from([(own, true), (of("killed.partial"), false), (of("damaged"), false)]));
    assert_eq!(layers(&store).len(), 1);
    make(making, &key("a"), "text");
    assert_eq!(store.layers().unwrap().len(), 1);
}

#[test]
fn a_chain_is_merged_into_one_layer() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let layers = ["a", "b", "c"].map(|name| {
        let partial = missing(&store, &key(name));
        let upper = partial.upper("/");
        fs_err::create_dir_all(upper.join("dir")).unwrap();
        fs_err::write(upper.join("dir").join(name), name).unwrap();
        make(partial, &key(name), name)
    });
    let [a, b, c] = &layers;
    let merged = || store.flattened(&[c, b, a], || panic!("nobody holds it")).unwrap();
    let layer = merged();
    let upper = layer.upper("/").unwrap();
    assert_eq!(names(&upper.join("dir")), ["a", "b", "c"]);
    assert_eq!(fs_err::read(upper.join("file")).unwrap(), b"c");
    assert_eq!(fs_err::read(layer.upper("/quern/50% image").unwrap().join("file")).unwrap(), b"c");
    assert_eq!(layer.record().step, "step to step");
    assert_eq!(merged().record(), layer.record(), "it is made once");
    assert_ne!(store.flattened(&[c, b], || {}).unwrap().record().key, layer.record().key);
    assert!(store.flattened(&[], || {}).is_err());
}

use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::base::error::Kind;

/// A directory with an ebuild repository in `repo`, and a good recipe in `good.toml`.
pub(super) struct Place {
    dir: TempDir,
}

const GOOD: &str = r#"
[source]
stage3 = "amd64-musl"
[portage]
repositories = ["repo"]
[build]
profile = "main:base"
"#;

impl Place {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(dir.path().join("repo/profiles/base")).unwrap();
        let place = Self { dir };
        place.write("repo/profiles/repo_name", "main\n");
        place.write("good.toml", GOOD);
        place
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    pub(super) fn request(&self, files: &[&str]) -> Request {
        let files = files.iter().map(PathBuf::from).collect();
        Request { files, cwd: self.path().to_owned(), ..Request::default() }
    }

    pub(super) fn with(&self, env: &[(&str, &str)], sets: &[&str]) -> Request {
        let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        Request { env, sets, ..self.request(&["good.toml"]) }
    }
}

pub(super) fn job(request: &Request) -> Job {
    match load(request) {
        Ok(loaded) => Arc::unwrap_or_clone(loaded.job),
        Err(error) => panic!("{error}\n{}", error.details().unwrap_or_default()),
    }
}

pub(super) fn refusal(request: &Request) -> String {
    let error = load(request).expect_err("a mistake");
    assert_eq!(error.kind(), Kind::Usage);
    let hint = error.hint().unwrap_or_default();
    format!("{error}\n{}\n{hint}", error.details().unwrap_or_default())
}

#[test]
fn helpers_of_compilers_are_switches_or_tables() {
    let place = Place::new();
    let of = |sets: &[&str]| job(&place.with(&[], sets)).accelerate;
    assert_eq!(of(&[]), Accelerate::default());
    let cache = of(&["accelerate.ccache=true"]).ccache.unwrap();
    assert_eq!(cache, Ccache::default());
    let cache = of(&["accelerate.ccache.dir=cache", "accelerate.ccache.max-size=2 GiB"]).ccache.unwrap();
    assert_eq!((cache.dir, cache.max_size), (Some(place.path().join("cache")), Some(2 << 30)));
    assert_eq!(of(&["accelerate.ccache={ max-size = \"1M\" }", "accelerate.ccache=false"]).ccache, None);
    assert_eq!(of(&["accelerate.distcc.hosts=a/2 [::1]:3632,lzo --localslots=1"]).distcc.len(), 3);
    for (value, jobserver) in
        [("auto", Jobserver::Auto), ("\"auto\"", Jobserver::Auto), ("1", Jobserver::Jobs(1)), ("false", Jobserver::Off)]
    {
        assert_eq!(of(&[&format!("accelerate.jobserver={value}")]).jobserver, jobserver, "{value}");
    }
    // They are not a part of the provenance, because they change no result.
    let json = |sets: &[&str]| serde_json::to_string(&job(&place.with(&[], sets))).unwrap();
    assert_eq!(json(&[]), json(&["accelerate.ccache=true", "accelerate.jobserver=2"]));
}

#[test]
fn helpers_of_compilers_that_cannot_work_are_refused() {
    let place = Place::new();
    for (sets, said) in [
        (&["accelerate.distcc=true"][..], "distcc needs the hosts that compile"),
        (&["accelerate.distcc={ hosts = [] }"], "distcc needs the hosts that compile"),
        (&["accelerate.distcc.hosts=me@far"], "ssh has no keys in the build"),
        (&["accelerate.distcc.hosts=far,cpp,lzo"], "pump mode does not work in a build"),
        (&["accelerate.distcc={ hosts = [\"a b\"] }"], "a host must not contain"),
        (
            &["accelerate.distcc.hosts=a", "portage.make-conf={ COMMON_FLAGS = \"-march=native\" }"],
            "this machine's processor",
        ),
        (
            &["accelerate.jobserver=2", "portage.make-conf={ MAKEOPTS = \"-j9\" }"],
            "MAKEOPTS in portage.make-conf replaces",
        ),
        (&["accelerate.jobserver=0"], "not a valid jobserver"),
        (&["accelerate.jobserver=/dev/steve"], "not a valid jobserver"),
        (&["accelerate.ccache.size=1G"], "known keys of `ccache`: dir, max-size"),
        (&["accelerate.ccache=yes please"], "expected true, false or a table"),
        (&["accelerate.ccache.max-size=0"], "a size must be greater than 0"),
        (&["emerge.load-average=0"], "not a valid value of `load-average`"),
    ] {
        let refused = refusal(&place.with(&[], sets));
        assert!(refused.contains(said), "{sets:?}: {refused}");
    }
}

#[test]
fn an_image_has_defaults() {
    let place = Place::new();
    let job = job(&place.request(&["good.toml"]));
    assert_eq!(job.name, "good");
    assert_eq!(job.build.kind, TreeKind::Image);
    assert_eq!(job.build.outdir, place.path().join("out"));
    assert_eq!(job.build.baselayout_atoms, ["sys-apps/baselayout"]);
    assert!(job.build.keep_failed);
    assert_eq!(job.emerge.packages, ["@profile"]);
    assert_eq!(job.source.mirrors, [DEFAULT_MIRROR]);
    assert_eq!(job.portage.repositories[0].location(), Some(place.path().join("repo").as_path()));
    assert!(job.oci.is_none());
}

#[test]
fn the_example_of_every_key_is_valid() {
    for key in keys::KEYS.iter().filter(|key| key.name != "include") {
        let mut texts = diagnostic::Texts::default();
        let section = if key.section.is_empty() { String::new() } else { format!("[{}]\n", key.section) };
        let text = texts.add(diagnostic::Text {
            label: key.name.to_owned(),
            text: format!("{section}{}", key.example),
            dir: PathBuf::from("/"),
            kind: diagnostic::TextKind::File,
            rank: 0,
        });
        let layer = parse::document(&mut texts, text).unwrap();
        shape::check(&mut texts, layer);
        assert!(!texts.is_wrong(), "{}", texts.error(Default::default(), false).details().unwrap_or_default());
        assert!(key.example.starts_with(key.name));
    }
}

#[test]
fn a_relative_path_is_relative_to_its_file() {
    let place = Place::new();
    place.write("sub/a.toml", "include = ['deep/b.toml']\n[portage]\nbinpkg = 'a'\n");
    place.write("sub/deep/b.toml", "[portage]\nbinpkg = 'b'\ndistfiles = '../b'\n[build]\noutdir = './x/./y'\n");
    let mut request = place.request(&["good.toml", "sub/a.toml"]);
    request.sets.push("source.keyring=good.toml".to_owned());
    let job = job(&request);
    assert_eq!(job.name, "a");
    assert_eq!(job.portage.binpkg, Some(place.path().join("sub/a")));
    assert_eq!(job.portage.distfiles, Some(place.path().canonicalize().unwrap().join("sub/b")));
    assert_eq!(job.build.outdir, place.path().join("sub/deep/x/y"));
    assert_eq!(job.source.keyring, Some(place.path().join("good.toml")));
}

#[test]
fn a_repository_answers_to_its_aliases() {
    let place = Place::new();
    let with = |sets: &[&str]| place.with(&[], sets);
    assert!(refusal(&with(&["build.profile=gentoo:base"])).contains("no repository is named `gentoo`"));
    place.write("repo/metadata/layout.conf", "# aliases = wrong\naliases = old\naliases = gentoo main2\n");
    place.write("own/profiles/repo_name", "own\n");
    let own =
        r#"portage.repositories=["repo", { location = "own", masters = ["gentoo"], eclass-overrides = ["main2"] }]"#;
    let job = job(&with(&["build.profile=gentoo:base", own]));
    let gentoo = ProfileName { repo: Some("gentoo".into()), path: "base".into() };
    assert_eq!(job.build.profile, ProfileSpec::Named(gentoo));
    assert!(refusal(&with(&["build.profile=old:base"])).contains("no repository is named `old`"));
}

#[test]
fn a_tilde_is_the_home_directory() {
    let place = Place::new();
    let loaded = job(&place.with(&[("HOME", "/home/me"), ("QUERN_BUILD_OUTDIR", "~/out")], &[]));
    assert_eq!(loaded.build.outdir, Path::new("/home/me/out"));
    assert!(refusal(&place.with(&[("QUERN_BUILD_OUTDIR", "~you/out")], &[])).contains("home"));
}

#[test]
fn include_cycles_and_too_many_includes_are_refused() {
    let place = Place::new();
    place.write("one.toml", "include = ['two.toml']");
    place.write("two.toml", "include = ['./sub/../one.toml']");
    fs_err::create_dir(place.path().join("sub")).unwrap();
    assert!(refusal(&place.request(&["good.toml", "one.toml"])).contains("in a cycle"));
    // Including a file twice is not a cycle.
    place.write("a.toml", "include = ['c.toml']");
    place.write("b.toml", "include = ['c.toml']\n[emerge]\njobs = 2");
    place.write("c.toml", "[emerge]\njobs = 1");
    place.write("d.toml", "include = ['a.toml', 'b.toml']");
    assert_eq!(job(&place.request(&["good.toml", "d.toml"])).emerge.jobs, 2);
    // A tree of includes that doubles at each level is refused.
    for n in 0..20 {
        place.write(&format!("w{n}.toml"), format!("include = ['w{0}.toml', 'w{0}.toml']", n + 1));
    }
    place.write("w20.toml", "");
    assert!(refusal(&place.request(&["good.toml", "w0.toml"])).contains("too many files"));
}

#[test]
fn only_regular_files_of_limited_size_are_read() {
    let place = Place::new();
    nix::unistd::mkfifo(&place.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    place.write("large.toml", vec![b'#'; (1 << 20) + 1]);
    place.write("just.toml", vec![b'#'; 1 << 20]);
    assert!(refusal(&place.request(&["fifo"])).contains("a FIFO"));
    assert!(refusal(&place.request(&["/dev/zero"])).contains("a device"));
    assert!(refusal(&place.request(&["."])).contains("a directory"));
    assert!(refusal(&place.request(&["nowhere.toml"])).contains("does not exist"));
    assert!(refusal(&place.request(&["large.toml"])).contains("larger than 1 MiB"));
    assert_eq!(job(&place.request(&["good.toml", "just.toml"])).name, "just");
    assert!(refusal(&place.request(&[])).contains("no recipe is given"));
    let mut request = place.request(&["good.toml"]);
    request.defaults = vec!["nowhere.toml".into(), "fifo".into()];
    assert!(refusal(&request).contains("a FIFO"));
}

#[test]
fn variables_and_options_are_parsed_by_the_types_of_their_keys() {
    let place = Place::new();
    let env = [
        ("QUERN_NAME", "named"),
        ("QUERN_STRIP_DOC", "1"),
        ("QUERN_EMERGE_JOBS", "7"),
        ("QUERN_EMERGE_PACKAGES", "app-misc/a\tapp-misc/b "),
        ("QUERN_STRIP_PATHS", r#"["/a b", "/c"]"#),
        ("QUERN_PORTAGE_MAKE_CONF", r#"{ CFLAGS = "-O2", N = 3 }"#),
        ("QUERN_PORTAGE_PACKAGE_USE", "a/b c\na/d e"),
        ("QUERN_PORTAGE_DISFTILES", "/nonexistent/d"),
        ("QUERN_OCI_COMMAND", "sh"),
        ("QUERN_HOME", "x"),
        ("QUERN_TEST_STAGE3", "x"),
        ("QUERN_WORLD", "x"),
    ];
    let sets = [
        "portage.make-conf.CFLAGS=-O3",
        "oci.env.A=b=c",
        "portage.package.use.>=a/b-1=x y",
        "build.keep-failed=no",
        "portage.repositories=[{ location = 'repo', priority = 3 }]",
    ];
    let loaded = load(&place.with(&env, &sets)).unwrap();
    let job = loaded.job;
    assert_eq!((job.name.as_str(), job.strip.doc, job.emerge.jobs), ("named", true, 7));
    assert_eq!(job.emerge.packages, ["app-misc/a", "app-misc/b"]);
    assert_eq!(job.strip.paths, ["/a b", "/c"]);
    assert_eq!(job.portage.make_conf["CFLAGS"], "-O3");
    assert_eq!(job.portage.make_conf["N"], "3");
    // A list under a table is replaced by it.
    assert_eq!(job.portage.package_files["package.use"], [">=a/b-1 x y"]);
    assert_eq!(job.portage.distfiles.as_deref(), Some(Path::new("/nonexistent/d")));
    let oci = job.oci.as_ref().unwrap();
    assert_eq!((oci.cmd[0].as_str(), oci.env["A"].as_str()), ("sh", "b=c"));
    assert!(!job.build.keep_failed);
    assert_eq!(job.portage.repositories[0].priority, Some(3));
    assert_eq!(loaded.warnings, ["DISFTILES: `disftiles` is deprecated: write `distfiles`"]);
}

#[test]
fn quotes_around_a_value_are_those_of_a_toml_string() {
    let place = Place::new();
    let sets = [
        r#"name="quoted""#,
        "build.kind='stage4'",
        r#"emerge.packages=["a/b"]"#,
        r#"source.max-age="36h""#,
        r#"portage.use="nls -doc""#,
        r#"portage.package-use."a/b"="nls""#,
        r#"portage.make-conf."CFLAGS"="-O2 -DX=\"y\"""#,
        r#"portage.make-conf.LDFLAGS=-Wl,-rpath="x""#,
        r#"oci.labels."org.example.key"="z""#,
        "oci.labels.'org.example.other'='C:\\x'",
        r#"oci.labels.plain="a" "b""#,
        r#"oci.maintainer="Me" <me@example.org>"#,
        r#"oci.entrypoint=python3 -c print("it's")"#,
    ];
    let job = job(&place.with(&[("QUERN_BUILD_OUTDIR", "\"/x y\""), ("QUERN_OCI_USER", "'me'")], &sets[..8]));
    assert_eq!((job.name.as_str(), job.build.kind, job.source.max_age), ("quoted", TreeKind::Stage4, 36 * 3600));
    assert_eq!(job.build.outdir, Path::new("/x y"));
    assert_eq!(job.portage.make_conf["USE"], "nls -doc");
    assert_eq!(job.portage.package_files["package.use"], ["a/b nls"]);
    assert_eq!(job.portage.make_conf["CFLAGS"], r#"-O2 -DX="y""#);
    assert_eq!(job.portage.make_conf["LDFLAGS"], r#"-Wl,-rpath="x""#);
    assert_eq!(job.oci.unwrap().user.as_deref(), Some("me"));
    let oci = self::job(&place.with(&[], &sets[8..])).oci.unwrap();
    let labels: Vec<(&str, &str)> = oci.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [("org.example.key", "z"), ("org.example.other", "C:\\x"), ("plain", r#""a" "b""#)];
    assert_eq!(labels, expected);
    assert_eq!(oci.maintainer.as_deref(), Some(r#""Me" <me@example.org>"#));
    assert_eq!(oci.entrypoint, ["python3", "-c", r#"print("it's")"#]);
}

#[test]
fn quotes_that_would_stay_in_a_value_are_refused() {
    let place = Place::new();
    for (set, expected) in [
        (r#"oci.cmd=sh -c "echo hi""#, "quotes do not group words"),
        ("oci.cmd=sh -c 'echo hi'", "quotes do not group words"),
        (r#"oci.cmd="sh" "-c""#, "quotes do not group words"),
        (r#"emerge.options=--exclude="a/b c/d""#, "quotes do not group words"),
        (r#"oci.cmd="sh""#, "wrong type for `cmd`"),
        (r#"emerge.packages="@profile""#, "wrong type for `packages`"),
        (r#"emerge.jobs="4""#, "wrong type for `jobs`"),
        (r#"strip.doc="true""#, "wrong type for `doc`"),
        (r#"portage.package-use="a/b c""#, "wrong type for `package-use`"),
        (r#"oci.maintainer="C:\d""#, "not valid TOML"),
    ] {
        let refusal = refusal(&place.with(&[], &[set]));
        assert!(refusal.contains(expected), "{set}: {refusal}");
        let (name, value) = set.split_once('=').unwrap();
        let name = format!("QUERN_{}", name.replace(['.', '-'], "_").to_uppercase());
        assert!(self::refusal(&place.with(&[(&name, value)], &[])).contains(expected), "{name}={value}");
    }
}

#[test]
fn a_value_made_for_set_means_itself() {
    let place = Place::new();
    for outdir in ["/plain", "\"/in quotes\"", "'/in apostrophes'", "/it's", "\"a\" \"b\"", "/a\"b"] {
        let job = job(&place.with(&[], &[&format!("build.outdir={}", set_value(outdir))]));
        assert_eq!(job.build.outdir, place.path().join(outdir), "{outdir}");
    }
}

#[test]
fn a_variable_that_is_not_utf8_is_refused() {
    let place = Place::new();
    let mut request = place.request(&["good.toml"]);
    request.env.insert("QUERN_BUILD_OUTDIR".into(), OsString::from_vec(b"/x\xff\x1b".to_vec()));
    assert!(refusal(&request).contains("not UTF-8"));
    request.env = BTreeMap::from([(OsString::from_vec(b"QUERN_BUILD_\xff".to_vec()), "x".into())]);
    assert!(load(&request).is_ok());
}

#[test]
fn a_later_file_replaces_a_stage3_and_a_later_stage3_a_file() {
    let place = Place::new();
    place.write("local.toml", "[source]\nfile = 'good.toml'\nallow-unsigned = true\n");
    let local = job(&place.request(&["good.toml", "local.toml"]));
    assert!(matches!(local.source.base, BaseSpec::File { allow_unsigned: true, .. }), "{:?}", local.source.base);
    let mut request = place.request(&["local.toml", "good.toml"]);
    assert!(matches!(job(&request).source.base, BaseSpec::Gentoo { .. }));
    // `allow-unsigned` of one file does not apply to another.
    request = place.request(&["good.toml", "local.toml"]);
    request.sets.push("source.file=local.toml".to_owned());
    let loaded = load(&request).unwrap();
    assert!(matches!(loaded.job.source.base, BaseSpec::File { allow_unsigned: false, .. }));
    assert!(loaded.warnings[0].contains("`allow-unsigned` is not used"), "{:?}", loaded.warnings);
    request.env.insert("QUERN_SOURCE_ALLOW_UNSIGNED".into(), "1".into());
    assert!(matches!(job(&request).source.base, BaseSpec::File { allow_unsigned: true, .. }));
}

#[test]
fn a_large_file_of_junk_is_refused_in_few_words() {
    let place = Place::new();
    let (many, long) = ("k = 1\n".repeat(150_000), format!("name = \"{}\u{1b}\"", "é".repeat(500_000)));
    let deep = format!("x = {}", "[".repeat(1 << 19));
    let keys: String = (0..60_000).map(|n| format!("k{n} = {n}\n")).collect();
    for text in [many, long, deep, keys] {
        place.write("junk.toml", text);
        let refusal = refusal(&place.request(&["good.toml", "junk.toml"]));
        assert!(refusal.len() < 100_000, "{} bytes", refusal.len());
    }
}

#[test]
fn mistakes_are_coloured_only_on_request() {
    let place = Place::new();
    let mut request = place.with(&[], &["build.kind=x"]);
    assert!(!refusal(&request).contains('\u{1b}'));
    request.colour = true;
    assert!(refusal(&request).contains('\u{1b}'));
}

#[test]
fn equal_recipes_have_equal_json() {
    let place = Place::new();
    let request = place.with(&[], &["oci.tag=v-{date}-$$DATE$$"]);
    let json = serde_json::to_string(&job(&request)).unwrap();
    assert_eq!(json, serde_json::to_string(&job(&request)).unwrap());
    assert!(json.starts_with(r#"{"name":"good","source":{"base":{"gentoo":{"#), "{json}");
    assert_eq!(job(&request).oci.unwrap().tag_on("20260810"), "v-20260810-20260810");
}

/// Generates lines that look like a recipe, so that most of them are valid TOML.
fn recipe_like() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        prop::sample::select(keys::KEYS.iter().map(|key| key.name.to_owned()).collect::<Vec<_>>()),
        "[a-z\"._-]{1,12}",
    ];
    let value = prop_oneof![
        r#""[^"\\]{0,30}""#,
        r#"\["[^"\\]{0,12}", ?"[^"\\]{0,12}"\]"#,
        "-?[0-9]{1,20}",
        "true|false|1979-05-27|1\\.5|\\{ A = 'b' \\}|\\[\\]|\\{\\}|\\[\\{ location = 'repo' \\}\\]",
        r#""(\\u00[01][0-9a-f]|\\n|[<>=@/:.*-]|[a-z]){0,20}""#,
    ];
    let line = prop_oneof![
        4 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => prop::sample::select(keys::SECTIONS.to_vec()).prop_map(|section| format!("[{section}]")),
        1 => "\\PC{0,40}",
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

/// Checks what must be true for every refusal.
fn check_refusal(request: &Request) -> Result<(), TestCaseError> {
    if let Err(error) = load(request) {
        prop_assert_eq!(error.kind(), Kind::Usage);
        let details = error.details().unwrap_or_default();
        prop_assert!(details.contains("error: "), "no snippet: {}", details);
        prop_assert!(details.contains("--> ") || details.contains(" | "), "no place: {}", details);
        let raw = details.chars().find(|c| (c.is_control() && *c != '\n') || ('\u{80}'..='\u{9f}').contains(c));
        prop_assert!(raw.is_none(), "{:?} in {:?}", raw, details);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_bytes_are_refused_or_loaded(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let place = Place::new();
        place.write("any.toml", bytes);
        check_refusal(&place.request(&["good.toml", "any.toml"]))?;
    }

    #[test]
    fn any_text_is_refused_or_loaded(text in "(\\PC|[\\x00-\\x20\\u{80}-\\u{9f}\"'=\\[\\]{}.])*") {
        let place = Place::new();
        place.write("any.toml", text);
        check_refusal(&place.request(&["good.toml", "any.toml"]))?;
    }

    #[test]
    fn any_recipe_is_refused_or_loaded(text in recipe_like()) {
        let place = Place::new();
        place.write("any.toml", &text);
        check_refusal(&place.request(&["good.toml", "any.toml"]))?;
        check_refusal(&place.request(&["any.toml"]))?;
    }

    #[test]
    fn any_option_and_variable_is_refused_or_loaded(
        key in prop::sample::select(keys::KEYS.iter().collect::<Vec<_>>()),
        item in "|\\.\\PC{0,9}",
        value in "\\PC{0,30}|[\\[{]\\PC{0,30}[\\]}]|(.|\n){0,20}",
        loose in "(.|\n){0,30}",
    ) {
        let place = Place::new();
        let section = if key.section.is_empty() { String::new() } else { format!("{}.", key.section) };
        check_refusal(&place.with(&[], &[&format!("{section}{}{item}={value}", key.name)]))?;
        check_refusal(&place.with(&[], &[&loose]))?;
        check_refusal(&place.with(&[(&keys::variable(key.section, key.name), &value.replace('\0', ""))], &[]))?;
    }

    /// A later layer replaces the keys that it contains and leaves the others alone.
    #[test]
    fn the_later_layer_wins(layers in prop::collection::vec(prop::option::of(0..1000_u32), 7)) {
        let place = Place::new();
        let mut request = place.request(&["good.toml"]);
        for (n, jobs) in layers.iter().enumerate() {
            let Some(jobs) = jobs else { continue };
            let text = format!("[emerge]\njobs = {jobs}\n[portage.make-conf]\nV{n} = '{jobs}'\n");
            match n {
                0 | 1 => {
                    place.write(&format!("default{n}.toml"), text);
                    request.defaults.push(place.path().join(format!("default{n}.toml")));
                }
                2 | 3 => {
                    place.write(&format!("recipe{n}.toml"), text);
                    request.files.push(format!("recipe{n}.toml").into());
                }
                4 => {
                    request.env.insert("QUERN_EMERGE_JOBS".into(), jobs.to_string().into());
                    request.env.insert("QUERN_PORTAGE_MAKE_CONF".into(), format!("{{ V4 = '{jobs}' }}").into());
                }
                _ => {
                    request.sets.push(format!("emerge.jobs={jobs}"));
                    request.sets.push(format!("portage.make-conf.V{n}={jobs}"));
                }
            }
        }
        let job = job(&request);
        prop_assert_eq!(job.emerge.jobs, layers.iter().rev().find_map(|jobs| *jobs).unwrap_or(0));
        let expected: BTreeMap<String, String> = layers
            .iter()
            .enumerate()
            .filter_map(|(n, jobs)| Some((format!("V{n}"), jobs.as_ref()?.to_string())))
            .collect();
        prop_assert_eq!(job.portage.make_conf, expected);
    }
}

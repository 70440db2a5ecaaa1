use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::base::error::Result;
use crate::recipe::tests::{Place, job, refusal};
use crate::recipe::{
    Answers, BindContent, FetchFrom, Question, Ready, Request, Secrets, Sharing, User, load, load_with,
};

fn request(place: &Place, lines: &str, env: &[(&str, &str)], sets: &[&str]) -> Request {
    place.write("u.toml", lines);
    let mut request = place.with(env, sets);
    request.files.push("u.toml".into());
    request
}

#[test]
fn a_step_gets_what_it_names() {
    let place = Place::new();
    place.write("g", b"{{A}} {} \xff");
    place.write("t", "{{A}}\n");
    let lines = "[vars]\nA = '1'\n[bind.f]\nat = '/tmp/f'\ntext = \"{{A}}\\n\"\ntemplate = true\n[bind.g]\nfile = 'g'\n\
                 at = '/tmp/g'\n[bind.t]\nfile = 't'\nat = '/tmp/t'\ntemplate = true\n[bind.w]\nfrom = 'repo'\nat = '/a{{A}}'\n\
                 [cache.c]\nat = '/c'\nsharing = 'locked'\nmode = '0700'\nuid = 250\n[volume.v]\nat = '/v'\n\
                 [fetch.p]\nurl = 'https://example.org/p'\n[daemon.d]\nrun = ['d', '--x']\nready = 'tcp:[::1]:80'\n\
                 [[step]]\nname = 's'\nrun = 'x'\nbinds = ['t', 'g', 'f', 'w', { from = 'repo', at = '/0', write = true }]\n\
                 caches = ['c', 'binpkgs']\nvolumes = ['v']\nfetch = ['p']\ndaemons = ['d']\n";
    let digest = "a".repeat(64);
    let sets = [format!("fetch.p.sha256={digest}"), "bind.w.write=true".to_owned(), "daemon.d.timeout=5s".to_owned()];
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let step = job(&request(&place, lines, &[], &sets)).steps.remove(0);
    let at: Vec<&str> = step.binds.iter().filter_map(|bind| bind.at.to_str()).collect();
    assert_eq!(at, ["/0", "/a1", "/tmp/f", "/tmp/g", "/tmp/t"]);
    assert!(step.binds[0].write && step.binds[1].write && !step.binds[2].write);
    assert_eq!(step.binds[2].content, BindContent::Text { bytes: b"1\n".to_vec(), mode: 0o644 });
    // A file that is not a template is bound itself, with its bytes and mode.
    assert_eq!(step.binds[3].content, BindContent::From(place.path().join("g")));
    assert!(matches!(&step.binds[4].content, BindContent::Text { bytes, .. } if bytes == b"1\n"));
    let cache = &step.caches[0];
    assert_eq!((cache.sharing, cache.mode, cache.uid, cache.gid), (Sharing::Locked, Some(0o700), Some(250), None));
    assert_eq!(step.caches[1].at.to_str(), Some("/var/cache/binpkgs"));
    assert_eq!(step.volumes[0].at.to_str(), Some("/v"));
    assert!(matches!(&step.fetch[0].from, FetchFrom::File { sha256, .. } if sha256.as_ref() == Some(&digest)));
    assert_eq!((step.daemons[0].ready.clone(), step.daemons[0].timeout), (Some(Ready::Tcp("[::1]:80".into())), 5));
}

#[test]
fn a_sysroot_is_seen_by_every_step() {
    let place = Place::new();
    place.write("root/etc/x.conf", "x");
    place.write("elsewhere/tree/file", "x");
    place.write("elsewhere/rc", "x");
    std::os::unix::fs::symlink("../elsewhere/tree", place.path().join("root/opt")).unwrap();
    std::os::unix::fs::symlink("../../elsewhere/rc", place.path().join("root/etc/rc")).unwrap();
    let lines = "[bind.s]\nsysroot = 'root'\n[[step]]\nname = 'a'\nrun = 'x'\n[[step]]\nname = 'b'\nrun = 'x'\n\
                 sysroot = false\n[[step]]\nname = 'c'\nrun = 'x'\nbinds = [{ text = 'own', at = '/opt' }]\n\
                 [[step]]\nname = 'd'\ndelete = ['/x']\n";
    let steps = job(&request(&place, lines, &[], &[])).steps;
    let at = |step: usize| steps[step].binds.iter().map(|bind| bind.at.display().to_string()).collect::<Vec<_>>();
    assert_eq!(at(0), ["/etc/rc", "/etc/x.conf", "/opt"]);
    assert_eq!((at(1).len(), at(2).len(), at(3).len()), (0, 3, 0));
    let top = place.path().canonicalize().unwrap();
    assert_eq!(steps[0].binds[0].content, BindContent::From(top.join("elsewhere/rc")));
    assert_eq!(steps[0].binds[2].content, BindContent::From(top.join("elsewhere/tree")));
    assert!(matches!(&steps[2].binds[2].content, BindContent::Text { bytes, .. } if bytes == b"own"));
    std::os::unix::fs::symlink("nowhere", place.path().join("root/dangling")).unwrap();
    assert!(refusal(&request(&place, lines, &[], &[])).contains("root/dangling"));
    fs_err::remove_file(place.path().join("root/dangling")).unwrap();
    place.write("root/proc/x", "x");
    assert!(refusal(&request(&place, lines, &[], &[])).contains("a step has its own file system there"));
}

#[test]
fn the_output_of_a_command_is_a_secret() {
    let place = Place::new();
    place.write("tool", "#!/bin/sh\nprintf '%s\\n\\n' \"$1 $TOKEN\"\necho complaint >&2\nexit $2\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(place.path().join("tool"), mode).unwrap();
    let lines = |code: u8| {
        format!(
            "[secret.s]\ncommand = ['./tool', 'an argument', '{code}']\n[[step]]\nname = 'a'\nrun = 'x'\nsecrets = ['s']\n"
        )
    };
    let mut request = request(&place, &lines(0), &[("TOKEN", "hunter2")], &[]);
    assert!(refusal(&request).contains("--allow-commands allows it"));
    request.secrets = Secrets::ReadAndRun;
    assert_eq!(job(&request).steps[0].secrets[0].value.expose(), b"an argument hunter2\n\n");
    place.write("u.toml", lines(3));
    let said = refusal(&request);
    assert!(said.contains("the command of the secret `s` failed") && said.contains("complaint"), "{said}");
}

#[test]
fn a_command_that_needs_no_secrets_leaves_them_out() {
    let place = Place::new();
    place.write("pin", "123\n");
    let lines = "[secret.e]\nenv = 'TOKEN'\n[secret.c]\ncommand = ['false']\n[ask.p]\nquestion = 'p'\nsecret = true\n\
                 [secret.pin]\nfile = 'pin'\n[ask.after]\nquestion = 'x'\nwhen = 'p'\ndefault = ''\n\
                 [[step]]\nname = 'a'\nrun = 'x'\nsecrets = ['e', 'c', 'p', 'pin']\n";
    let mut request = request(&place, lines, &[], &[]);
    request.secrets = Secrets::Leave;
    let loaded = load(&request).unwrap();
    assert!(loaded.job.steps[0].secrets.iter().all(|secret| secret.value.is_absent()));
    assert!(!loaded.warnings.iter().any(|warning| warning.contains("pin")), "{:?}", loaded.warnings);
    request.secrets = Secrets::ReadAndRun;
    request.env.insert("TOKEN".into(), "hunter2".into());
    request.answers.0.insert("p".to_owned(), Zeroizing::new("hunter3".to_owned()));
    request.sets.push("secret.c.command=['/bin/sh', '-c', 'echo x']".to_owned());
    let warnings = load(&request).unwrap().warnings;
    let short = |name: &str| warnings.iter().any(|line| line.contains(&format!("the secret `{name}` has fewer than")));
    assert!(short("pin") && short("c") && !short("e"), "{warnings:?}");
}

#[test]
fn a_command_that_only_looks_reads_the_secrets_that_are_there() {
    let place = Place::new();
    place.write("pin", "hunter2-hunter2\n");
    let lines = "[secret.e]\nenv = 'TOKEN'\n[secret.c]\ncommand = ['echo', 'hunter4']\n[ask.p]\nquestion = 'p'\nsecret = true\n\
                 [secret.pin]\nfile = 'pin'\n[secret.gone]\nfile = 'gone'\n\
                 [[step]]\nname = 'a'\nrun = 'x'\nsecrets = ['e', 'c', 'p', 'pin', 'gone']\n";
    let mut request = request(&place, lines, &[], &[]);
    request.secrets = Secrets::Known { run: false };
    let known = |request: &Request| -> Vec<bool> {
        let job = load(request).unwrap().job;
        job.steps[0].secrets.iter().map(|secret| !secret.value.is_absent()).collect()
    };
    assert_eq!(known(&request), [false, false, false, true, false]);
    request.secrets = Secrets::Known { run: true };
    request.env.insert("TOKEN".into(), "hunter2".into());
    request.answers.0.insert("p".to_owned(), Zeroizing::new("hunter3".to_owned()));
    assert_eq!(known(&request), [true, true, true, true, false]);
}

#[test]
fn secrets_are_read_for_steps_that_name_them_and_never_shown() {
    let place = Place::new();
    place.write("s", "hunter2-hunter2\n");
    let lines = "[secret.s]\nfile = 's'\n[secret.e]\nenv = 'TOKEN'\nrebuild = false\n[secret.unused]\nfile = 'nowhere'\n\
                 [[step]]\nname = 'a'\nrun = 'x'\nsecrets = ['s', 'e']\nleak = 'allow'\n[[step]]\nname = 'b'\nrun = 'x'\n\
                 skip = true\nsecrets = ['unused']\n";
    let with = request(&place, lines, &[("TOKEN", "hunter3")], &[]);
    let job = job(&with);
    let step = &job.steps[0];
    assert_eq!(step.secrets[0].value.expose(), b"hunter2-hunter2\n");
    assert_eq!((step.secrets[1].value.expose(), step.secrets[1].rebuild), (&b"hunter3"[..], false));
    assert!(step.leak_allowed && step.secrets[0].rebuild);
    let shown = format!("{job:?}{}", serde_json::to_string(&job).unwrap());
    assert!(!shown.contains("hunter") && shown.contains(r#""secrets":["s","e"]"#), "{shown}");
    assert!(refusal(&request(&place, lines, &[], &[])).contains("the environment has no variable `TOKEN`"));
    let used = request(&place, &lines.replace("skip = true", ""), &[("TOKEN", "x")], &[]);
    assert!(refusal(&used).contains("nowhere"));
}

#[test]
fn wrong_things_are_refused() {
    let place = Place::new();
    place.write("s", "x");
    let step = "[[step]]\nname = 'a'\nrun = 'x'\n";
    for (lines, said) in [
        ("[bind.b]\nfrom = 'repo'\ntext = 'x'\nat = '/x'\n", "a bind has one origin"),
        ("[bind.b]\nfrom = 'repo'\n", "a bind needs `at`"),
        ("[bind.b]\ntext = 'x'\nat = '/x'\nwrite = true\n", "`write` has no effect on `text`"),
        ("[bind.b]\nfrom = 'repo'\nat = '/x'\ntemplate = true\n", "`template` has no effect on `from`"),
        ("[bind.b]\ntext = '{{NOPE}}'\nat = '/x'\ntemplate = true\n", "unknown variable `NOPE`"),
        ("[bind.b]\nfrom = 'repo'\nat = '/'\n", "this is the whole tree"),
        ("[bind.b]\nsysroot = 'repo'\nat = '/x'\n", "`at` has no effect on `sysroot`"),
        (
            "[bind.r]\nsysroot = 'repo'\n[[step]]\nname = 'a'\nrun = 'x'\nbinds = ['r']\n",
            "remove it from binds; sysroot = false in a step leaves it out",
        ),
        ("[bind.'a b']\nfrom = 'repo'\nat = '/x'\n", "a name must not contain"),
        ("[cache.binpkgs]\nat = '/x'\n", "the cache `binpkgs` is built in"),
        ("[cache.c]\nat = '/x'\nsharing = 'lock'\n", "did you mean \"locked\"?"),
        ("[cache.c]\nat = '/x'\nuid = -1\n", "not a valid `uid`"),
        ("[volume.v]\n", "a volume needs `at`"),
        ("[fetch.f]\nurl = 'https://example.org/x'\n", "a download needs a digest"),
        ("[fetch.f]\nurl = 'ftp://example.org/x'\nsha256 = '00'\n", "not an http:// or https:// address"),
        ("[fetch.f]\ngit = 'https://example.org/x'\ncommit = '00'\nunpack = true\n", "`unpack` has no effect"),
        ("[fetch.f]\nunpack = true\n", "a download has one origin"),
        ("[daemon.d]\nready = 'tcp:x:1'\n", "a daemon needs `run`"),
        ("[daemon.d]\nrun = ['d']\nready = 'tcp:80'\n", "not HOST:PORT"),
        ("[daemon.d]\nrun = ['d']\nready = 'tcp:example.org:80'\n", "not an IP address or localhost"),
        ("[daemon.d]\nrun = ['d']\nready = 'port'\n", "not a sign of a daemon"),
        ("[secret.s]\n", "a secret has one origin"),
        ("[secret.s]\nfile = 's'\nenv = 'S'\n", "a secret has one origin"),
        ("[secret.s]\nfile = 's'\ncommand = ['cat']\n", "a secret has one origin"),
        ("[secret.s]\ncommand = []\n", "a secret has one origin"),
        (
            "[secret.s]\nenv = 'S'\n[[step]]\nname = 'e'\nemerge = ['a/b']\nsecrets = ['s']\n",
            "`secrets` has no effect on `emerge`",
        ),
        ("[secret.s]\nfile = 's'\n[oci]\ntag = '{{s}}'\n", "a secret is not a variable"),
        ("[secret.s]\nflie = 's'\n", "did you mean `file`?"),
        ("secret = { s = 's' }\n", "expected a table, found a string"),
    ] {
        let refused = refusal(&request(&place, &format!("{lines}{step}"), &[], &[]));
        assert!(refused.contains(said), "{lines}: {refused}");
    }
    for (key, said) in [
        ("binds = ['b']", "the recipe has no bind `b`"),
        ("caches = ['bin-pkgs']", "did you mean `binpkgs`?"),
        ("secrets = ['s']", "declare it in a table [secret.s]"),
        ("leak = 'allow'", "`leak` has no effect on a step without secrets"),
        ("binds = [{ text = 'x', at = '/x' }]\ntmpfs = ['/x']", "two mounts at `/x`"),
        ("caches = ['ccache']", "the recipe does not use ccache"),
        ("caches = ['binpkgs']\nat = 'start'", "the packages of the build have no key yet"),
        ("daemons = ['d', 'd']\n[daemon.d]\nrun = ['d']", "the daemon `d` is named twice"),
        ("daemons = ['d']\n[daemon.d]\nrun = ['d']\nnetwork = true", "a daemon has the network of its step"),
        ("volumes = ['v']\ntmpfs = ['/v/x']\n[volume.v]\nat = '/v'", "lies in the volume `v`"),
        ("caches = ['c']\ntmpfs = ['/v/x']\n[cache.c]\nat = '/v'", "lies in the cache `c`"),
    ] {
        let refused = refusal(&request(&place, &format!("{step}{key}\n"), &[], &[]));
        assert!(refused.contains(said), "{key}: {refused}");
    }
}

#[test]
fn steps_of_emerge_have_mounts_beside_those_of_emerge() {
    let place = Place::new();
    place.write("root/opt/file", "x");
    let step = "[bind.r]\nsysroot = 'root'\n[[step]]\nname = 'a'\n";
    for action in ["emerge = ['a/b']", "unmerge = ['a/b']", "depclean = true", "rebuild = ['preserved']"] {
        let uses = "caches = ['distfiles', 'binpkgs']\ntmpfs = ['/tmp/x']\nbinds = [{ text = 'x', at = '/x' }]\n";
        let job = job(&request(&place, &format!("{step}{action}\n{uses}"), &[], &[]));
        let at: Vec<_> = job.steps[0].binds.iter().map(|bind| bind.at.to_str().unwrap()).collect();
        assert_eq!((at, job.steps[0].tmpfs.len()), (vec!["/opt/file", "/x"], 1), "{action}");
    }
    for (key, said) in [
        ("tmpfs = ['/var/tmp/x']", "emerge has its own /var/tmp"),
        ("tmpfs = ['/var']", "emerge has its own /var/cache/binhost"),
        ("binds = [{ text = 'x', at = '/var/db/repos/own' }]", "a step of emerge cannot have a mount at"),
    ] {
        let refused = refusal(&request(&place, &format!("{step}emerge = ['a/b']\n{key}\n"), &[], &[]));
        assert!(refused.contains(said), "{key}: {refused}");
    }
    place.write("root/var/tmp/file", "x");
    let lines = format!("{step}emerge = ['a/b']\n");
    let refused = refusal(&request(&place, &lines, &[], &[]));
    assert!(refused.contains("cannot see `/var/tmp/file` of the sysroot"), "{refused}");
    let without = job(&request(&place, &format!("{lines}sysroot = false\n"), &[], &[]));
    assert!(without.steps[0].binds.is_empty());
}

#[test]
fn daemons_of_emerge_are_beside_its_own_commands_that_merge() {
    let place = Place::new();
    let lines = "[daemon.d]\nrun = ['d']\nnetwork = true\n[emerge]\ndaemons = ['d']\ndepclean = true\n\
                 rebuild = ['preserved']\n";
    let job = job(&request(&place, lines, &[], &[]));
    assert_eq!(job.emerge.daemons[0].name, "d");
    let of: Vec<_> = job.steps.iter().map(|step| (step.name.as_str(), step.daemons.len())).collect();
    assert_eq!(of, [("@depclean", 0), ("@rebuild", 1)]);
    let refused = refusal(&request(&place, "[emerge]\ndaemons = ['d']\n", &[], &[]));
    assert!(refused.contains("the recipe has no daemon `d`"), "{refused}");
}

const ASKS: &str = "[ask.host]\nquestion = 'Name'\ndefault = '{{image}}'\npattern = '[a-z0-9-]{1,9}'\n\
                    [ask.root-password]\nquestion = 'Password'\nsecret = true\n[ask.kind]\nquestion = 'Kind'\n\
                    choices = ['one', 'two']\n[ask.more]\nquestion = 'More'\nwhen = 'host'\ndefault = ''\n\
                    [[step]]\nname = 'a'\nrun = 'x'\nargs = ['{{host}}', '{{kind}}']\nsecrets = ['root-password']\n";

/// Answers questions from a list, and remembers them.
#[derive(Default)]
struct Script {
    answers: BTreeMap<&'static str, Vec<&'static str>>,
    asked: Vec<(String, Option<String>)>,
}

impl User for Script {
    fn ask(&mut self, question: &Question, wrong: Option<&str>) -> Result<Option<Zeroizing<String>>> {
        self.asked.push((question.name.clone(), wrong.map(str::to_owned)));
        let answers = self.answers.entry(question.name.clone().leak()).or_default();
        Ok((!answers.is_empty()).then(|| Zeroizing::new(answers.remove(0).to_owned())))
    }
}

#[test]
fn all_missing_answers_are_in_one_error() {
    let place = Place::new();
    let refused = refusal(&request(&place, ASKS, &[], &[]));
    assert!(refused.contains("2 mistakes") && !refused.contains("unknown variable"), "{refused}");
    assert!(refused.contains("--answer root-password=…") && refused.contains("--answer kind=…"), "{refused}");
}

#[test]
fn options_win_over_the_environment_and_that_over_the_file() {
    let place = Place::new();
    let answers = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), Zeroizing::new((*value).to_owned())));
        Answers(pairs.collect())
    };
    let env = [("QUERN_ANSWER_KIND", "one"), ("QUERN_ANSWER_ROOT_PASSWORD", "hunter2")];
    let mut request = request(&place, ASKS, &env, &[]);
    request.answers = answers(&[("kind", "two")]);
    request.saved_answers = answers(&[("kind", "one"), ("root-password", "other"), ("host", "box")]);
    let loaded = load(&request).unwrap();
    assert_eq!(loaded.job.steps[0].args, ["box", "two"]);
    assert_eq!(loaded.job.steps[0].secrets[0].value.expose(), b"hunter2");
    let saved: Vec<String> = loaded.answers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(saved, ["host=box", "kind=two", "more="]);
    assert!(!format!("{request:?}").contains("other"));
    request.answers = answers(&[("kindd", "two")]);
    assert!(refusal(&request).contains("did you mean `kind`?"));
    request.answers = answers(&[("root-password", "x\0y")]);
    let refused = refusal(&request);
    assert!(refused.contains("the answer to `root-password` is not valid") && !refused.contains("hunter"), "{refused}");
}

#[test]
fn a_user_is_asked_until_the_answer_is_valid() {
    let place = Place::new();
    let answers = BTreeMap::from([
        ("host", vec!["Not_valid", ""]),
        ("root-password", vec!["", "hunter2"]),
        ("kind", vec!["three", "two"]),
        ("more", vec![""]),
    ]);
    let mut user = Script { answers, ..Script::default() };
    let job = load_with(&request(&place, ASKS, &[], &[]), &mut user).unwrap().job;
    assert_eq!(job.steps[0].args, ["u", "two"]);
    let asked: Vec<&str> = user.asked.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(asked, ["host", "host", "root-password", "root-password", "kind", "kind", "more"]);
    assert!(user.asked[1].1.as_ref().is_some_and(|wrong| wrong.contains("pattern")), "{:?}", user.asked);
    // A recipe with mistakes asks nothing.
    let mut user = Script::default();
    let wrong = request(&place, &format!("{ASKS}tyt = true\n"), &[], &[]);
    assert!(load_with(&wrong, &mut user).is_err() && user.asked.is_empty());
}

#[test]
fn a_question_is_asked_only_when_another_has_an_answer() {
    let place = Place::new();
    let lines = "[ask.a]\nquestion = 'A'\nwhen = 'b'\n[ask.b]\nquestion = 'B'\ndefault = ''\n[[step]]\nname = 's'\n\
                 run = 'x'\nargs = ['{{a}}']\n";
    assert_eq!(job(&request(&place, lines, &[], &[])).steps[0].args, [""]);
    assert!(refusal(&request(&place, lines, &[("QUERN_ANSWER_B", "x")], &[])).contains("no answer to `a`"));
    let with = [("QUERN_ANSWER_B", "x"), ("QUERN_ANSWER_A", "y")];
    assert_eq!(job(&request(&place, lines, &with, &[])).steps[0].args, ["y"]);
}

#[test]
fn wrong_questions_are_refused() {
    let place = Place::new();
    for (lines, said) in [
        ("[ask.a]\n", "a question needs `question`"),
        ("[ask.a-b]\nquestion = 'x'\n", "not a valid name of an answer"),
        ("[ask.a]\nquestion = 'x'\npattern = '['\n", "not a regular expression"),
        ("[ask.a]\nquestion = 'x'\npattern = '(a{1000}){1000}'\n", "not a regular expression"),
        ("[ask.a]\nquestion = 'x'\npattern = '[a-z]'\ndefault = 'ab'\n", "the default of `a` is not a valid answer"),
        ("[ask.a]\nquestion = 'x'\nchoices = ['b', 'c']\ndefault = 'd'\n", "the choices are b, c"),
        ("[ask.a]\nquestion = 'x'\nwhen = 'b'\n", "not a question"),
        ("[ask.a]\nquestion = 'x'\nwhen = 'b'\n[ask.b]\nquestion = 'x'\nwhen = 'a'\n", "they wait for each other"),
        ("[vars]\na = '1'\n[ask.a]\nquestion = 'x'\n", "`a` has a value already"),
        ("[ask.a]\nquestion = 'x'\nsecret = true\n[oci]\ntag = '{{a}}'\n", "a secret is not a variable"),
    ] {
        let refused = refusal(&request(&place, lines, &[("QUERN_ANSWER_A", "b")], &[]));
        assert!(refused.contains(said), "{lines}: {refused}");
    }
}

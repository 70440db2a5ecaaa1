use crate::recipe::tests::{Place, job, refusal};
use crate::recipe::{Action, FileSpec, Init, Job, Password, Request, System};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFCxU0wjpo3R8s9c6pIqQb9fGxhXqkSJcVf0jPPoSbDp me@example.org";

/// Loads a stage4 with these settings.
fn request(place: &Place, lines: &str, sets: &[&str]) -> Request {
    place.write("system.toml", format!("[build]\nkind = 'stage4'\n{lines}"));
    let mut request = place.with(&[], sets);
    request.files.push("system.toml".into());
    request
}

fn settings(job: &Job) -> &System {
    let step = job.steps.iter().find(|step| step.name == "@settings").expect("the step @settings");
    match &step.action {
        Action::Settings(system) => system,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_setting_is_read() {
    let place = Place::new();
    place.write("me.pub", format!("# mine\n{KEY}\n\n"));
    place.write("conf", "{{V}}");
    place.write("token", "hunter2\n");
    let lines = format!(
        "[vars]\nV = 'x'\n[secret.token]\nfile = 'token'\n[system]\ninit = 'openrc'\nhostname = 'box.example.org'\n\
         timezone = 'Europe/Berlin'\nservices = ['sshd', '-cron']\nrunlevels = {{ boot = ['-hwclock', 'swclock'] }}\n\
         locale = {{ lang = 'en_US.UTF-8', generate = ['en_US.UTF-8 UTF-8'] }}\nkeymap = 'de'\nmodules = ['loop']\n\
         modules-blacklist = ['pcspkr']\nsysctl = {{ 'net.ipv4.ip_forward' = 1 }}\nmotd = 'hello {{{{V}}}}'\n\
         fstab = ['/dev/vda1 / ext4 defaults 0 1', '# more']\nusers.root = {{ password = {{ secret = 'token' }} }}\n\
         users.zoe = {{ uid = 1500, gid = 100, ssh-keys = ['me.pub', '{KEY}'], locked = false }}\n\
         users.ada = {{ password-hash = '$6$a$b', home-files = 'repo', system = true }}\n\
         groups.web = {{ gid = 80, members = ['ada'] }}\nfiles = [\n\
         {{ to = '/a', text = '{{{{V}}}}' }}, {{ to = '/b', from = 'conf', template = true, mode = '0600' }}, \
         {{ to = '/c', from = 'conf' }}]\n"
    );
    let job = job(&request(&place, &lines, &[]));
    let system = settings(&job);
    assert_eq!((system.init, system.hostname.as_deref()), (Some(Init::OpenRc), Some("box.example.org")));
    let names: Vec<&str> = system.users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(names, ["root", "zoe", "ada"]);
    let zoe = &system.users[1];
    assert_eq!((zoe.uid, zoe.gid.as_deref(), zoe.locked), (Some(1500), Some("100"), Some(false)));
    assert_eq!(zoe.ssh_keys, [KEY]);
    let Some(Password::Secret(secret)) = &system.users[0].password else { panic!("{:?}", system.users[0]) };
    assert_eq!((secret.value.expose(), job.steps[0].secrets.len()), (&b"hunter2\n"[..], 1));
    assert_eq!(system.motd.as_deref(), Some("hello x\n"));
    assert_eq!((system.services[1].name.as_str(), system.services[1].on), ("cron", false));
    let FileSpec::Write(a) = &system.files[0] else { panic!("{:?}", system.files) };
    let FileSpec::Write(b) = &system.files[1] else { panic!("{:?}", system.files) };
    assert_eq!((a.text.as_str(), b.text.as_str(), b.mode), ("{{V}}", "x", Some(0o600)));
    assert!(matches!(&system.files[2], FileSpec::Copy(copy) if copy.from == place.path().join("conf")));
    // The provenance has neither values nor hashes.
    let json = serde_json::to_string(&job).unwrap();
    assert!(!json.contains("hunter2") && !json.contains("$6$a$b") && json.contains("box.example.org"), "{json}");
}

#[test]
fn settings_are_a_step_before_those_at_the_end() {
    let place = Place::new();
    let step = |name: &str, at: &str| format!("[[step]]\nname = '{name}'\nat = '{at}'\nrun = 'true'\n");
    let lines = step("e", "end") + &step("u", "after-unmerge") + "[system]\nhostname = 'box'\n";
    let names = |job: &Job| job.steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&job(&request(&place, &lines, &[]))), ["u", "@settings", "e"]);
    // A stage4 of settings alone.
    assert_eq!(names(&job(&request(&place, "[system]\nhostname = 'box'\n", &[]))), ["@settings"]);
    let empty = "[system]\nservices = []\n[[step]]\nname = 's'\nrun = 'true'\n";
    assert_eq!(names(&job(&request(&place, empty, &[]))), ["s"]);
}

#[test]
fn options_and_variables_set_settings() {
    let place = Place::new();
    let sets = ["system.hostname=one", "system.services=a b", "system.users.me.shell=/bin/sh", "system.locale.lang=C"];
    let mut with = request(&place, "[system]\nhostname = 'box'\nmodules = ['loop']\n", &sets);
    with.env.insert("QUERN_SYSTEM_HOSTNAME".into(), "two".into());
    with.env.insert("QUERN_SYSTEM_MODULES".into(), "x y".into());
    let one = job(&with);
    let system = settings(&one);
    assert_eq!((system.hostname.as_deref(), system.services.len(), system.modules.len()), (Some("one"), 2, 2));
    assert_eq!((system.users[0].shell.as_deref(), system.lang.as_deref()), (Some("/bin/sh"), Some("C")));
    with.sets.remove(0);
    assert_eq!(settings(&job(&with)).hostname.as_deref(), Some("two"));
}

#[test]
fn a_user_without_a_name_is_left_out() {
    let place = Place::new();
    let lines = "[ask.user]\nquestion = 'User'\ndefault = ''\n[system]\nhostname = 'box'\n\
                 [system.users.\"{{user}}\"]\nshell = '/bin/bash'\n[system.users.other]\n";
    let names =
        |request: &Request| settings(&job(request)).users.iter().map(|user| user.name.clone()).collect::<Vec<_>>();
    let mut with = request(&place, lines, &[]);
    assert_eq!(names(&with), ["other"]);
    with.env.insert("QUERN_ANSWER_USER".into(), "me".into());
    assert_eq!(names(&with), ["me", "other"]);
    with.env.insert("QUERN_ANSWER_USER".into(), "other".into());
    assert!(refusal(&with).contains("`other` is given twice"));
}

#[test]
fn an_included_file_gives_settings_key_by_key() {
    let place = Place::new();
    let base = "[system]\nhostname = 'base'\nservices = ['a']\n[system.users.me]\nshell = '/bin/sh'\nuid = 1500\n";
    place.write("base.toml", base);
    let lines = "[system]\nservices = ['b', 'c']\nusers.me.shell = '/bin/zsh'\nusers.you = {}\n";
    place.write("top.toml", format!("include = ['base.toml']\n{lines}"));
    let job = job(&place.request(&["good.toml", "top.toml"]));
    let system = settings(&job);
    assert_eq!((system.hostname.as_deref(), system.services.len()), (Some("base"), 2));
    let me = &system.users[0];
    assert_eq!((me.name.as_str(), me.uid, me.shell.as_deref()), ("me", Some(1500), Some("/bin/zsh")));
    assert_eq!(system.users.len(), 2);
}

#[test]
fn an_image_does_not_have_the_settings_of_the_one_it_starts_from() {
    let place = Place::new();
    let system = "[build]\nkind = 'stage4'\n[system]\nhostname = 'p'\n";
    place.write("parent.toml", format!("include = ['good.toml']\n{system}"));
    place.write("sub/child.toml", "from = '../parent.toml'\n[[step]]\nname = 's'\nrun = 'true'\n");
    let job = job(&place.request(&["sub/child.toml"]));
    assert_eq!(job.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["s"]);
    assert_eq!(settings(&job.from.unwrap().job).hostname.as_deref(), Some("p"));
}

#[test]
fn wrong_settings_are_refused() {
    let place = Place::new();
    place.write("private", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    place.write("empty.pub", "# nothing\n");
    for (lines, said) in [
        ("hostnam = 'x'", "did you mean `hostname`?"),
        ("hostname = 'a b'", "must not contain"),
        ("hostname = \"a\\nb\"", "must not contain"),
        ("hostname = '-a'", "must not start with"),
        ("timezone = '../../etc/passwd'", "a part of a time zone"),
        ("init = 'sysv'", "known: openrc, systemd"),
        ("services = ['a/b']", "must not contain"),
        ("services = ['a', '-a']", "the service `a` is named twice"),
        ("runlevels = { '../x' = ['a'] }", "not a valid runlevel"),
        ("units = { enable = ['x'] }", "for example x.service"),
        ("units = { enable = ['x.timer'] }\nrunlevels = { boot = ['x'] }", "an image has one init system"),
        ("init = 'systemd'\nrunlevels = { boot = ['x'] }", "no effect with the init system systemd"),
        ("locale = { generate = ['en_US.UTF-8'] }", "no character set"),
        ("locale = { lnag = 'C' }", "did you mean `lang`?"),
        ("modules = ['a b']", "a module must not contain"),
        ("fstab = ['/dev/vda1 /']", "2 fields; a line has 4 to 6"),
        ("fstab = [\"a b c d\\ne f g h\"]", "more than one line"),
        ("sysctl = { 'a b' = 1 }", "not a valid variable of the kernel"),
        ("motd = \"\\u0007\"", "a control character"),
        ("users.'a:b' = {}", "not a valid name of a user"),
        ("users.me = { comment = 'a:b' }", "separates the fields"),
        ("users.me = { comment = \"a\\nroot::0:0::/:/bin/sh\" }", "more than one line"),
        ("users.me = { shell = 'sh' }", "not absolute"),
        ("users.me = { shell = '/bin/a:b' }", "separates the fields"),
        ("users.me = { home = '/home/../etc' }", "`..` is not allowed"),
        ("users.me = { uid = -1 }", "not a user or group id"),
        ("users.me = { groups = ['a,b'] }", "must not contain"),
        ("users.me = { password = 'x' }", "expected a table"),
        ("users.me = { password = { secret = 'nope' } }", "the recipe has no secret `nope`"),
        ("users.me = { password-hash = 'hunter2' }", "openssl passwd -6"),
        ("users.me = { password-hash = '$6$a$b:' }", "not a hash"),
        ("users.me = { password-hash = '$6$a$b', password = { secret = 'x' } }", "a user has one password"),
        ("users.me = { ssh-keys = ['private'] }", "this is a private key"),
        ("users.me = { ssh-keys = ['empty.pub'] }", "has no public key"),
        ("users.me = { ssh-keys = ['ssh-ed25519 AAAA'] }", "not a key of type ssh-ed25519"),
        ("users.me = { sell = '/bin/sh' }", "known keys of a user"),
        ("files = [{ to = '/x' }]", "a file has one origin"),
        ("files = [{ to = 'x', text = '' }]", "not absolute"),
        ("files = [{ to = '/x', from = 'nope' }]", "it does not exist"),
    ] {
        let refused = refusal(&request(&place, &format!("[system]\n{lines}\n"), &[]));
        assert!(refused.contains(said), "{lines}: {refused}");
    }
}

//! Secrets that steps read, and the ways in which they could leave the sandbox.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Stand, ask, text};
use crate::env::{PROGRAM, Privilege, output, twins};

/// The value of the secret `token`.
const VALUE: &str = "hunter2/hunter2?x1";

/// The same in a test that looks for it in the whole store, in which another test runs a script with [`VALUE`].
const MASKED: &str = "hunter2/hunter3?x1";

/// The beginning of recipes with the secret `token`.
const TOKEN: &str = "kind = \"stage4\"\n[emerge]\npackages = []\n[secret.token]\nfile = \"token\"\n";

/// Returns a step in TOML.
fn step(name: &str, keys: &str, script: &str) -> String {
    format!("[[step]]\nname = \"{name}\"\n{keys}\nrun = '''\n{script}\n'''\n")
}

/// Checks that neither the store nor the results have the value in a file.
#[track_caller]
fn nowhere(stand: &Stand, value: &str) {
    let (store, outdir) = (stand.store(), stand.env.outdir());
    let places = [&store, &outdir].into_iter().filter(|place| place.exists());
    let found = Command::new("grep").args(["-rlaF", "-e", value]).args(places).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

/// Returns the content of a file of a tarball.
fn content(tarball: &Path, path: &str) -> String {
    ask("tar", &["--extract", "--to-stdout", "--file", text(tarball), path])
}

twins!(secrets_stay_out_of_the_image => root_secrets_stay_out_of_the_image, userns_secrets_stay_out_of_the_image);

fn secrets_stay_out_of_the_image(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("secrets-{privilege:?}").to_lowercase();
    let reversed: String = VALUE.chars().rev().collect();
    let recipe = |secret: &str, more: &str| {
        let script = format!(
            "# {VALUE}\ntest \"$(rev /run/secrets/token)\" = '{reversed}'\n\
             (env; cat /proc/*/environ /proc/*/cmdline || true) 2>/dev/null | tr '\\0' '\\n' > /tmp/seen\n\
             if grep -q x1 /tmp/seen; then exit 9; fi\n\
             stat -c %a:%u:%s /run/secrets /run/secrets/token | tail -1 > /{name}"
        );
        let use_it = step("use", "secrets = [\"token\"]", &script);
        stand.recipe(&name, &format!("{TOKEN}{secret}\n{use_it}{more}"))
    };
    stand.env.write("token", format!("{VALUE}\n"));
    let plan = stand.env.run(["build", "--dry-run", "-v", text(&recipe("", ""))]).success();
    assert!(!plan.stdout.contains(VALUE) && !plan.stderr.contains(VALUE), "{}", plan.stdout);
    let used = stand.env.run(["build", "-v", text(&recipe("", ""))]).success();
    assert!(!used.stderr.contains(VALUE), "{}", used.stderr);
    assert_eq!(content(&used.results()[0], &format!("./{name}")), "400:0:19\n");
    nowhere(&stand, VALUE);

    let runs = |secret: &str| {
        let built = stand.build_changed(&recipe(secret, "")).success();
        built.stderr.contains("running the step use")
    };
    assert!(!runs(""));
    // The step fails if it runs.
    stand.env.write("token", "hunter3/hunter3?x1\n");
    let failed = stand.build_changed(&recipe("", "")).code(1);
    assert!(failed.stderr.contains("the step use exited with code 1"), "{}", failed.stderr);
    stand.env.write("token", VALUE);
    assert!(runs("rebuild = false"));
    stand.env.write("token", "hunter4/hunter4?x1\n");
    assert!(!runs("rebuild = false"));

    // A step that ran before its text was a secret.
    let literal = "a-text-of-more-than-sixteen-bytes";
    let writes = step("literal", "", &format!("echo {literal} > /literal-{name}"));
    let _ = stand.build_changed(&recipe("rebuild = false", &writes)).success();
    stand.env.write("token", literal);
    let failed = stand.build_changed(&recipe("rebuild = false", &writes)).code(1);
    assert!(failed.stderr.contains(&format!("the secret token in /literal-{name}")), "{}", failed.stderr);
    let accepts = writes.replace("run =", "secrets = [\"token\"]\nleak = \"allow\"\nrun =");
    let built = stand.build_changed(&recipe("rebuild = false", &accepts)).success();
    assert_eq!(content(&built.results()[0], &format!("./literal-{name}")), format!("{literal}\n"));
}

twins!(a_step_cannot_leave_a_secret => root_a_step_cannot_leave_a_secret, userns_a_step_cannot_leave_a_secret);

fn a_step_cannot_leave_a_secret(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("leaks-{privilege:?}").to_lowercase();
    stand.env.write("token", format!("{VALUE}\n"));
    // The script, the path that the error names, and the text that must be nowhere in the store.
    let leaks = [
        ("cp $s /etc/x", "/etc/x", VALUE),
        ("cp $s /etc/x; chmod 0 /etc/x", "/etc/x", VALUE),
        ("base64 $s > /etc/y", "/etc/y", "aHVudGVyMi9odW50ZXIyP3gx"),
        ("(printf x; cat $s) | base64 | tr -d = > /etc/y", "/etc/y", "h1bnRlcjIvaHVudGVyMj94M"),
        ("od -An -tx1 $s | tr -d ' \\n' > /hex", "/hex", "68756e746572322f"),
        ("mkdir -p \"/var/lib/$(cat $s)\"", "/var/lib/***", "hunter2?x1"),
        ("ln -s \"$(cat $s)\" /etc/link", "/etc/link", VALUE),
        ("truncate -s 8G /sparse; dd if=$s of=/sparse bs=1 seek=4294967290 conv=notrunc", "/sparse", VALUE),
        ("head -c 262140 /dev/zero > /border; cat $s >> /border", "/border", VALUE),
        ("setfattr -n user.token -v \"$(cat $s)\" /etc/passwd", "/etc/passwd", VALUE),
        ("mkfifo \"/run-$(tr / - < $s)\"; cp $s /root/.netrc; echo before; exit 3", "/root/.netrc", VALUE),
    ];
    let keys = "secrets = [\"token\"]";
    for (script, path, form) in leaks {
        let step = step("leak", keys, &format!("s=/run/secrets/token\n{script}"));
        let recipe = stand.recipe(&name, &format!("{TOKEN}{step}"));
        if script.contains("setfattr") && !stand.shell(&recipe, &[], &["which", "setfattr"]).stdout.contains("setfattr")
        {
            continue;
        }
        let failed = stand.build(&recipe).code(1);
        let said = match script.contains("exit 3") {
            true => "the step leak exited with code 3".to_owned(),
            false => format!("the step leak left the secret token in {path}"),
        };
        let note = format!("the changes of the step leak are not kept: they have the secret token in {path}");
        for said in [said, note] {
            assert!(failed.stderr.contains(&said) && !failed.stderr.contains(VALUE), "{script}: {}", failed.stderr);
        }
        nowhere(&stand, form);
        assert!(!names_in(&stand.store().join("builds")).contains("hunter2"), "{script}");
        let log = stand.env.run(["log", text(&recipe), "leak"]).success();
        assert_eq!(log.stdout.contains("before"), script.contains("echo before"), "{}", log.stdout);
    }
    // A step that does not name the secret can only have it from one that hid it.
    let hides = [step("hide", keys, "rev /run/secrets/token > /hidden"), step("show", "", "rev /hidden > /shown")];
    let recipe = stand.recipe(&name, &format!("{TOKEN}{}", hides.concat()));
    let failed = stand.build(&recipe).code(1);
    assert!(failed.stderr.contains("the step show left the secret token in /shown"), "{}", failed.stderr);
    nowhere(&stand, VALUE);

    // The changes of a step that failed without a leak are kept. A secret that is too short to look for is one.
    let fails = |secrets: &str| {
        let step = step("fail", secrets, "echo made > /made; exit 3");
        let recipe = stand.recipe(&name, &format!("{TOKEN}[secret.pin]\nfile = \"pin\"\n{step}"));
        let failed = stand.build(&recipe).code(1);
        let looked = stand.shell(&recipe, &["--failed"], &["cat", "/made"]);
        (failed.stderr, looked.stdout)
    };
    stand.env.write("pin", "123\n");
    assert_eq!(fails(keys).1, "made\n");
    let (said, looked) = fails("secrets = [\"pin\"]");
    assert!(said.contains("the secret pin is too short to look for") && looked.is_empty(), "{said}");
}

/// Returns the names of all files below a directory.
fn names_in(directory: &Path) -> String {
    ask("find", &[text(directory)])
}

twins!(secrets_are_masked_in_output => root_secrets_are_masked_in_output, userns_secrets_are_masked_in_output);

fn secrets_are_masked_in_output(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("masks-{privilege:?}").to_lowercase();
    let big: Vec<u8> = (0..1 << 20).map(|number: u32| (number.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let lines = "first-line-of-a-key\nsecond-line-of-a-key\n";
    let values = [("token", MASKED.as_bytes()), ("pin", b"qzq"), ("big", &big), ("lines", lines.as_bytes())];
    let mut declared = TOKEN.to_owned();
    for (name, value) in values {
        stand.env.write(name, value);
        if name != "token" {
            declared += &format!("[secret.{name}]\nfile = \"{name}\"\n");
        }
    }
    let script = "cd /run/secrets; s=$(cat token)\n\
                  printf 'split %s' \"${s:0:7}\"; sleep 0.3; printf '%s' \"${s:7:4}\"; sleep 0.3; echo \"${s:11} end\"\n\
                  set -x; : \"$s\"; set +x\n\
                  echo \"pin: $(cat pin)\"; base64 token; base64 big; sed 's/^/> /' lines; cat lines; cat big; echo\n\
                  for i in {1..20000}; do echo \"line $i $s\"; done\n(exec -a \"$s\" sleep 1000 >/dev/null 2>&1) &\n\
                  echo \"$s\"; exit 3";
    let step = step("tell", "secrets = [\"token\", \"pin\", \"big\", \"lines\"]", script);
    let recipe = stand.recipe(&name, &format!("{declared}{step}"));
    let failed = stand.env.run(["build", "-v", text(&recipe)]).code(1);
    let log = stand.env.run(["log", text(&recipe), "tell"]).success().stdout;
    let raw = std::fs::read(failed_log(&stand, &name)).unwrap();
    for (shown, of) in [(&failed.stderr, "terminal"), (&log, "log")] {
        for value in [MASKED, "qzq", "first-line", "second-line", "aHVudGVyMi9", "hunter2"] {
            assert!(!shown.contains(value), "{value} is in the {of}");
        }
    }
    for line in ["split *** end", "pin: ***", "> ***", "line 1 ***", "line 20000 ***"] {
        assert!(log.lines().any(|own| own == line), "{line}: {}", log.chars().take(2000).collect::<String>());
    }
    assert!(failed.stderr.contains("line 20000 ***"), "{}", failed.stderr);
    assert!(raw.len() < 1 << 20, "{} bytes of output are shown", raw.len());
    let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &big);
    let windows = big.chunks(64).chain(encoded.as_bytes().chunks(40));
    let finder = |window: &[u8]| raw.windows(window.len()).any(|part| part == window);
    assert!(!windows.step_by(997).any(finder), "a part of the long value is shown");
    nowhere(&stand, MASKED);
}

/// Returns the path of the output of the step that failed.
fn failed_log(stand: &Stand, name: &str) -> PathBuf {
    let builds = std::fs::read_dir(stand.store().join("builds")).unwrap().map(|entry| entry.unwrap().path());
    let own = |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
    let mut logs = builds.filter(own).map(|build| build.join("failed/log")).filter(|log| log.exists());
    logs.next().expect("the output of a step that failed")
}

twins!(a_step_sees_its_own_secrets_only => root_a_step_sees_its_own_secrets_only, userns_a_step_sees_its_own_secrets_only);

fn a_step_sees_its_own_secrets_only(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("others-{privilege:?}").to_lowercase();
    stand.env.write("token", VALUE);
    stand.env.write("other", "correct-horse-battery\n");
    let script = "rev <<< 'yrettab-esroh-tcerroc' > /tmp/needle; ls /run/secrets > /listed; touch /leaks\n\
                  for file in /proc/[0-9]*/{environ,cmdline} /run/secrets/* /dev/shm/* /quern/*; do\n\
                      if cat \"$file\" 2>/dev/null | grep -aqFf /tmp/needle; then echo \"$file\" >> /leaks; fi\ndone\n\
                  for file in mem environ root/; do\n\
                      if ( : < /proc/1/$file ) 2>/dev/null; then echo \"/proc/1/$file\" >> /leaks; fi\ndone\n\
                  readlink /proc/1/fd/* /proc/1/exe >> /leaks || true";
    let steps = [
        step("one", "secrets = [\"token\"]", script),
        step(
            "two",
            "secrets = [\"other\"]\nuser = \"7:8\"",
            "test \"$(wc -c < /run/secrets/other)\" = 22\nstat -c %a:%u:%g /run/secrets/other",
        ),
        step("none", "", "test ! -e /run/secrets"),
    ];
    let recipe = stand.recipe(&name, &format!("{TOKEN}[secret.other]\nfile = \"other\"\n{}", steps.concat()));
    let built = stand.build(&recipe).success();
    assert_eq!(content(&built.results()[0], "./listed"), "token\n");
    assert_eq!(content(&built.results()[0], "./leaks"), "");
    assert_eq!(stand.env.run(["log", text(&recipe), "two"]).success().stdout.trim(), "400:7:8");
}

twins!(a_shell_has_secrets_on_request => root_a_shell_has_secrets_on_request, userns_a_shell_has_secrets_on_request);

fn a_shell_has_secrets_on_request(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    let name = format!("shells-{privilege:?}").to_lowercase();
    stand.env.set("TOKEN_OF_TEST", VALUE);
    let tool = stand.env.write("tool", format!("#!/bin/sh\necho $1 {}\n", VALUE.replace('1', "2")));
    std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = "cat /run/secrets/of-command > /dev/null; cat /run/secrets/token; exit 3";
    let recipe = stand.recipe(
        &name,
        &format!(
            "kind = \"stage4\"\n[emerge]\npackages = []\n[secret.token]\nenv = \"TOKEN_OF_TEST\"\n[secret.of-command]\n\
             command = [\"./tool\", \"argument\"]\n{}",
            step("use", "secrets = [\"token\", \"of-command\"]", script)
        ),
    );
    let refused = stand.build(&recipe).code(2);
    assert!(refused.stderr.contains("--allow-commands allows it"), "{}", refused.stderr);
    let failed = stand.env.run(["build", "--allow-commands", text(&recipe)]).code(1);
    assert!(failed.stderr.contains("the step use exited with code 3"), "{}", failed.stderr);
    nowhere(&stand, VALUE);

    let read = ["cat", "/run/secrets/of-command", "/run/secrets/token"];
    let with = stand.shell(&recipe, &["--failed", "--with-secrets", "--allow-commands"], &read).success();
    assert_eq!(with.stdout, format!("argument {}\n{VALUE}", VALUE.replace('1', "2")));
    for place in [&["--failed"][..], &["--before", "use"], &["--at", "@configure"]] {
        // Without the variable: nothing needs the value.
        let mut command = stand.env.program([&["shell", text(&recipe)], place, &["--"], &read].concat());
        let without = crate::env::output(command.env_remove("TOKEN_OF_TEST"));
        if place[0] == "--before" {
            // The last build does not have a layer of the step.
            assert_eq!(without.code, 2);
            continue;
        }
        assert_eq!((without.stdout.as_str(), without.code), ("", 1), "{}", without.stderr);
        let noted =
            without.stderr.contains("the step use reads secrets, which this shell has only with --with-secrets");
        assert_eq!(noted, place[0] == "--failed", "{}", without.stderr);
    }
    let explained = stand.env.run(["explain", "--allow-commands", text(&recipe), "use"]).success();
    assert!(explained.stdout.contains("secret token") && !explained.stdout.contains(VALUE), "{}", explained.stdout);
}

/// Runs a program on a terminal, types each line after its prompt, and prints everything that the terminal shows.
const TYPE: &str = r#"
import os, pty, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[3], sys.argv[3:])
shown = b""
def read():
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
for pair in zip(sys.argv[1].split(","), sys.argv[2].split(",")):
    prompt, line = (word.encode() for word in pair)
    since = len(shown)
    while prompt not in shown[since:]:
        part = read()
        if not part:
            sys.exit(f"the terminal never showed {prompt}: {shown.decode()}")
        shown += part
    time.sleep(0.5)
    os.write(fd, line + b"\n")
while part := read():
    shown += part
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

twins!(a_terminal_asks_for_answers => root_a_terminal_asks_for_answers, userns_a_terminal_asks_for_answers);

fn a_terminal_asks_for_answers(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("typed-{privilege:?}").to_lowercase();
    let script = "wc -c < /run/secrets/password > /who; echo \"$who\" >> /who";
    let recipe = stand.recipe(
        &name,
        &format!(
            "kind = \"stage4\"\n[emerge]\npackages = []\n[ask.who]\nquestion = \"Name\"\npattern = \"[a-z]+\"\n[ask.password]\n\
             question = \"Password\"\nsecret = true\nconfirm = true\n{}",
            step("use", "secrets = [\"password\"]\nvars = [\"who\"]", script)
        ),
    );
    let saved = stand.env.path("saved.toml");
    let value = format!("typed-hunter2-{name}");
    // The pattern refuses the first name, and the second password differs from the first one.
    let prompts = "Name,Name,Password,Password (again),Password,Password (again)";
    let lines = format!("M e,me,{value},other,{value},{value}");
    let mut command = stand.env.command("python3");
    command.args(["-c", TYPE, prompts, &lines, PROGRAM, "build", text(&recipe), "--save-answers", text(&saved)]);
    let built = output(&mut command).success();
    assert!(!built.stdout.contains(&value) && built.stdout.contains("differ"), "{}", built.stdout);
    let tarball = stand.env.outdir().read_dir().unwrap().map(|entry| entry.unwrap().path());
    let tarball =
        tarball.into_iter().find(|path| text(path).contains(&name) && text(path).ends_with(".tar.gz")).unwrap();
    assert_eq!(content(&tarball, "./who"), format!("{}\nme\n", value.len()));
    assert_eq!(std::fs::read_to_string(&saved).unwrap(), "who = \"me\"\n");
    nowhere(&stand, &value);
}

twins!(answers_are_secrets => root_answers_are_secrets, userns_answers_are_secrets);

fn answers_are_secrets(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("asks-{privilege:?}").to_lowercase();
    let script = "cat /run/secrets/password; echo \"$who\" > /who";
    let recipe = stand.recipe(
        &name,
        &format!(
            "kind = \"stage4\"\n[emerge]\npackages = []\n[ask.who]\nquestion = \"Name\"\n[ask.password]\n\
             question = \"Password\"\nsecret = true\n{}",
            step("use", "secrets = [\"password\"]\nvars = [\"who\"]", script)
        ),
    );
    let asked = stand.server.requests().len();
    let refused = stand.build(&recipe).code(2);
    assert!(refused.stderr.contains("no answer to `who`"), "{}", refused.stderr);
    assert!(refused.stderr.contains("no answer to `password`"), "{}", refused.stderr);
    assert_eq!(stand.server.requests().len(), asked);

    let saved = stand.env.path("saved.toml");
    let answers = stand.env.write("answers.toml", format!("password = \"{VALUE}\"\n"));
    let built = stand.env.run([
        "build",
        "-v",
        text(&recipe),
        "--answer",
        "who=me",
        "--answers",
        text(&answers),
        "--save-answers",
        text(&saved),
    ]);
    let built = built.success();
    assert!(built.stderr.contains("***") && !built.stderr.contains(VALUE), "{}", built.stderr);

    // A command that only looks needs no secret, and knows the state with it.
    let look = |words: &[&str], more: &[&str]| {
        let looked = stand.env.run([words, &["--answer", "who=me"], more].concat()).success();
        assert!(!looked.stdout.contains(VALUE) && !looked.stderr.contains(VALUE), "{}", looked.stdout);
        looked.stdout
    };
    for words in [&["build", "--dry-run", text(&recipe)][..], &["explain", text(&recipe), "use"]] {
        let unknown = look(words, &[]);
        assert!(unknown.contains("unknown until the secret password has a value"), "{unknown}");
        let known = look(words, &["--answers", text(&answers)]);
        assert!(known.contains("cached") && !known.contains("unknown"), "{known}");
    }
    assert_eq!(content(&built.results()[0], "./who"), "me\n");
    assert_eq!(std::fs::read_to_string(&saved).unwrap(), "who = \"me\"\n");
    nowhere(&stand, VALUE);
}

//! Records of a build beside its terminal: events, the output of steps in files, and output as it comes.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Stand, text};
use crate::env::{Privilege, twins, wait_for};

/// Steps with output, one of which leaves a process behind.
const STEPS: &str = r#"kind = "stage4"
[emerge]
packages = []
[vars]
COLOUR = "red"
[[step]]
name = "one"
vars = ["COLOUR"]
run = 'printf "\033[31m$COLOUR\033[0m \033[2Jone\n"; echo two >&2'
[[step]]
name = "group"
run = 'sleep 98763 & sleep 0.3'
[[step.step]]
name = "inner"
write = [{ to = "/inner", text = "x" }]
[[step]]
name = "left"
skip = true
run = 'exit 1'
"#;

/// Checks a file of events against the rules of eliot, and returns its messages. Actions begin and end in order, all in one task, and every
/// action has ended.
fn messages(events: &Path) -> Vec<Value> {
    let content = std::fs::read_to_string(events).unwrap();
    let messages: Vec<Value> = content.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The levels of the open actions, each with the number of its next message.
    let mut open: Vec<(Vec<u64>, u64, String)> = Vec::new();
    let mut time = 0.0;
    for (number, message) in messages.iter().enumerate() {
        assert_eq!(message["task_uuid"], messages[0]["task_uuid"]);
        assert!(message["timestamp"].as_f64().unwrap() >= time, "{message}");
        time = message["timestamp"].as_f64().unwrap();
        let level: Vec<u64> = message["task_level"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        let starts = message["action_status"] == "started";
        if starts {
            let outer = open.last_mut().map(|(level, next, _)| {
                *next += 1;
                [&level[..], &[*next - 1]].concat()
            });
            assert_eq!(outer.is_none(), number == 0, "a second task: {message}");
            open.push((outer.unwrap_or_default(), 1, message["action_type"].as_str().unwrap().to_owned()));
        }
        let (own, next, kind) = open.last_mut().expect("an open action");
        assert_eq!(level, [&own[..], &[*next]].concat(), "{message}");
        *next += 1;
        assert_ne!(message.get("action_type").is_some(), message.get("message_type").is_some(), "{message}");
        if message.get("action_type").is_some() {
            assert_eq!(message["action_type"], kind.as_str());
            if !starts {
                assert!(["succeeded", "failed"].contains(&message["action_status"].as_str().unwrap()), "{message}");
                open.pop();
            }
        }
    }
    assert!(open.is_empty(), "{open:?} in {content}");
    messages
}

/// Returns the names of the steps with their states.
fn states(messages: &[Value]) -> Vec<String> {
    let mut names = Vec::new();
    let mut states = Vec::new();
    for message in messages.iter().filter(|message| message["action_type"] == "step") {
        match message["action_status"].as_str().unwrap() {
            "started" => names.push(message["name"].as_str().unwrap().to_owned()),
            _ => states.push(format!("{} {}", names.pop().unwrap(), message["state"].as_str().unwrap())),
        }
    }
    states
}

/// Returns the contents of the logs in a directory by their names, without the times.
fn logs(directory: &Path) -> Vec<(String, String)> {
    let mut logs: Vec<(String, String)> =
        directory.read_dir().unwrap().map(|log| log.unwrap().path()).map(log).collect();
    logs.sort();
    logs
}

fn log(path: PathBuf) -> (String, String) {
    let name = path.file_name().unwrap().to_str().unwrap();
    // yyyy-mm-ddTHH:MM:SS.log
    let (stem, time) = name.split_at(name.len() - 23);
    assert!(time.starts_with("20") && time.as_bytes()[10] == b'T' && time.ends_with(".log"), "{name}");
    (stem.trim_end_matches('-').to_owned(), std::fs::read_to_string(&path).unwrap())
}

twins!(a_build_is_recorded => root_a_build_is_recorded, userns_a_build_is_recorded);

fn a_build_is_recorded(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("recorded-{privilege:?}").to_lowercase();
    let recipe = stand.recipe(&name, STEPS);
    let (events, directory) = (stand.env.path("home/events"), stand.env.path("home/logs/deep"));
    let records = ["--events", text(&events), "--log-dir", text(&directory), "--watch"];
    let build = |more: &[&str]| stand.env.run([&["build", text(&recipe)], &records[..], more].concat());

    let first = build(&["--again", "all"]).success();
    let messages_of_first = messages(&events);
    let all = ["one run", "group/inner run", "group run", "left skipped"];
    assert_eq!(states(&messages_of_first), all);
    let kinds: Vec<_> = messages_of_first.iter().filter_map(|message| message["action_type"].as_str()).collect();
    assert_eq!((kinds[..3].join(" "), kinds.contains(&"publish")), ("build image configure".to_owned(), true));
    assert_eq!(messages_of_first[1]["keychain"], name.as_str());
    let run = messages_of_first.iter().find(|message| message["message_type"] == "run").unwrap();
    assert_eq!((&run["variables"]["COLOUR"], &run["why"]), (&"red".into(), &"--again".into()));
    let warned = messages_of_first.iter().find(|message| message["message_type"] == "warning").unwrap();
    let survivor = "the step group left a process behind, which was ended: sleep 98763";
    assert_eq!(warned["text"], survivor);
    assert!(first.stderr.contains(&format!("warning: {survivor}")), "{}", first.stderr);
    let written = logs(&directory.join(&name));
    let names: Vec<&str> = written.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["02-one", "03-group-inner", "04-group"]);
    assert_eq!(written[0].1, "\u{1b}[31mred\u{1b}[0m \u{1b}[2Jone\ntwo\n");
    // On the terminal, the output steers nothing.
    assert!(first.stderr.contains("red \\x1b[2Jone\ntwo\n"), "{}", first.stderr);
    let ended = messages_of_first.iter().find(|message| message["state"] == "run").unwrap();
    assert_eq!(log(ended["log"].as_str().unwrap().into()).0, "02-one");

    // Cached steps repeat their warnings and have no new logs. The log of a cached step is the one in the store.
    let second = build(&[]).success();
    let messages_of_second = messages(&events);
    assert_eq!(states(&messages_of_second), ["one cached", "group/inner cached", "group cached", "left skipped"]);
    assert!(second.stderr.contains(&format!("warning: {survivor}")), "{}", second.stderr);
    assert_eq!(logs(&directory.join(&name)), written);
    let cached = messages_of_second.iter().find(|message| message["state"] == "cached").unwrap();
    assert!(cached["log"].as_str().unwrap().ends_with("/log.zst"), "{cached}");

    stand.recipe(&name, &STEPS.replace("sleep 98763 & sleep 0.3", "echo out of luck; exit 7"));
    let failed = build(&["--until", "group"]).code(1);
    assert!(failed.stderr.contains("out of luck"), "{}", failed.stderr);
    let messages_of_third = messages(&events);
    assert_eq!(states(&messages_of_third), ["one cached", "group/inner cached", "group failed"]);
    let last = messages_of_third.last().unwrap();
    let reason = "the step group exited with code 7";
    assert_eq!((&last["reason"], &last["exception"]), (&reason.into(), &"Build".into()));
    let failed = messages_of_third.iter().find(|message| message["state"] == "failed").unwrap();
    assert_eq!(log(failed["log"].as_str().unwrap().into()).1, "out of luck\n");
}

#[test]
fn userns_a_record_ends_when_a_signal_ends_the_build() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let recipe = stand.recipe("ended", &STEPS.replace("sleep 98763 & sleep 0.3", "echo begun; sleep 98762"));
    let (running, waiting) = (stand.env.path("home/running"), stand.env.path("home/waiting"));
    let (mut first, log) = stand.env.start(["build", "--watch", "--events", text(&running), text(&recipe)]);
    let said = |log: &Path, words: &str| std::fs::read_to_string(log).unwrap_or_default().contains(words);
    wait_for("the step", || said(&log, "\nbegun\n"));
    // The second build waits for the first one, without a child that a signal could reach.
    let (mut second, log) = stand.env.start(["build", "--events", text(&waiting), text(&recipe)]);
    wait_for("the second build", || said(&log, "waiting for another build of this recipe"));
    for child in [&mut second, &mut first] {
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
    let (first, second) = (messages(&running), messages(&waiting));
    assert_eq!(states(&first).last().unwrap(), "group failed");
    assert_eq!(first.last().unwrap()["reason"], "stopped by SIGINT");
    assert_eq!(second.last().unwrap()["reason"], "stopped by a signal");
}

#[test]
fn userns_a_record_that_cannot_be_written_does_not_stop_a_build() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let recipe = stand.recipe("full", STEPS);
    let full = stand.env.run(["build", text(&recipe), "--events", "/dev/full"]).code(4);
    assert!(
        full.stdout.trim_end().ends_with(".tar.gz") && Path::new(full.stdout.trim_end()).is_file(),
        "{}",
        full.stdout
    );
    for part in ["warning: writing the events to /dev/full", "goes on without this record", "No space left on device"] {
        assert!(full.stderr.contains(part), "{part}: {}", full.stderr);
    }
    assert_eq!(full.stderr.matches("goes on without").count(), 1, "{}", full.stderr);
    let pipe = "build \"$1\" --until one --events /dev/fd/3 3>&1 >/dev/null | head -n1; exit ${PIPESTATUS[0]}";
    let mut command = stand.env.command("bash");
    command.args(["-c", &format!("\"$0\" {pipe}"), crate::env::PROGRAM, text(&recipe)]);
    let closed = crate::env::output(&mut command).code(4);
    assert!(closed.stdout.contains("\"started\"") && closed.stderr.contains("Broken pipe"), "{}", closed.stderr);
    for (file, hint) in [("-", "standard output has the paths"), ("/nonexistent/x", "/nonexistent/x")] {
        let refused = stand.env.run(["build", text(&recipe), "--events", file]).code(2);
        assert!(refused.stderr.contains(hint), "{}", refused.stderr);
    }
}

//! Downloads that are killed at any point and resumed, and their memory use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use sha2::{Digest as _, Sha512};

use crate::env::{PROGRAM, Server, TestEnv, output, require_program, wait_for};
use crate::keys::Gpg;
use crate::source::recipe;

const TIMESTAMP: &str = "20260810T204554Z";

/// A mirror with one stage3 and signatures by GnuPG, and a recipe that uses it.
struct Stand {
    env: TestEnv,
    recipe: PathBuf,
    server: Server,
    size: u64,
    /// The path of the partial download.
    part: PathBuf,
    blob: PathBuf,
}

impl Stand {
    /// Makes a mirror whose stage3 `fill` writes, or returns `None` without GnuPG or root.
    fn new(sha512: &str, fill: impl Fn(&Path)) -> Option<Self> {
        let (mut env, recipe) = recipe("stage3 = \"amd64-musl\"")?;
        let gpg = Gpg::new()?;
        gpg.key("release", "never");
        let name = format!("stage3-amd64-musl-{TIMESTAMP}.tar.xz");
        let autobuilds = env.path("mirror/releases/amd64/autobuilds");
        let stage3 = autobuilds.join(format!("{TIMESTAMP}/{name}"));
        fs::create_dir_all(stage3.parent().unwrap()).unwrap();
        fill(&stage3);
        let size = fs::metadata(&stage3).unwrap().len();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        for (file, text) in [
            ("latest-stage3-amd64-musl.txt".to_owned(), format!("# ts={now}\n{TIMESTAMP}/{name} {size}\n")),
            (format!("{TIMESTAMP}/{name}.DIGESTS"), format!("# SHA512 HASH\n{sha512}  {name}\n")),
        ] {
            let plain = env.write("plain", text);
            let signed = autobuilds.join(file);
            gpg.run(&["--output", signed.to_str().unwrap(), "--clearsign", plain.to_str().unwrap()]);
        }
        let keyring = env.write("release.asc", fs::read(gpg.export("release.asc")).unwrap());
        let server = Server::start(&env.path("mirror"));
        env.set("QUERN_SOURCE_MIRRORS", format!("[{:?}]", server.url())).set("QUERN_SOURCE_KEYRING", keyring);
        let blobs = env.store().join("blobs");
        let part = blobs.join(format!("partial/{name}-{}.part", &sha512[..16]));
        let blob = blobs.join("sha512").join(sha512);
        Some(Self { env, recipe, server, size, part, blob })
    }

    fn start(&self) -> Child {
        self.env.start([Path::new("fetch"), &self.recipe]).0
    }

    fn kept(&self) -> u64 {
        fs::metadata(&self.part).map_or(0, |metadata| metadata.len())
    }

    /// Returns the offset at which each answer with bytes of the stage3 began, in the order of the requests.
    fn ranges(&self) -> Vec<u64> {
        let asked = self.server.requests();
        let asked = asked.iter().filter_map(|request| request.split_once(".tar.xz")).map(|(_, rest)| rest.trim());
        let from = |range: &str| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok();
        asked.filter(|rest| !rest.starts_with('.')).map(|rest| from(rest).unwrap_or(0)).collect()
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Returns pseudorandom bytes, so that misplaced ones are noticed.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..size / 8).flat_map(|_| next()).collect()
}

fn sha512(bytes: &[u8]) -> String {
    Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn userns_a_killed_download_resumes_without_fetching_a_byte_twice() {
    let data = noise(8 << 20);
    let Some(stand) = Stand::new(&sha512(&data), |path| fs::write(path, &data).unwrap()) else { return };
    // The server pauses after so many bytes, and the program is killed when it has written them.
    let steps = [65_536, 1, 4095, 262_144, 262_145, 1_000_003, 16_384, 3_000_000, 7, 2_097_152];
    let mut at = 0;
    for step in steps {
        // The small documents are sent completely.
        let step = u64::max(step, 2000);
        stand.server.hold(Some(step));
        let child = stand.start();
        at += step;
        wait_for("the bytes", || stand.kept() == at && stand.server.is_holding());
        kill(child);
        assert!(!stand.blob.exists());
        assert!(
            fs::read(&stand.part).unwrap() == data[..at as usize],
            "the partial download differs from the bytes that were sent"
        );
    }
    stand.server.hold(None);
    let done = stand.env.run([Path::new("fetch"), &stand.recipe]).success();
    assert_eq!(done.results(), [stand.blob.as_path()]);
    assert!(fs::read(&stand.blob).unwrap() == data);
    // Every answer began where the previous one ended: each byte was sent once.
    let expected: Vec<u64> =
        steps.iter().scan(0, |at, step| Some(std::mem::replace(at, *at + u64::max(*step, 2000)))).chain([at]).collect();
    assert_eq!(stand.ranges(), expected);
    assert!(!stand.part.exists() && stand.part.parent().unwrap().read_dir().unwrap().next().is_none());
    let _ = stand.env.run([Path::new("fetch"), &stand.recipe]).success();
    assert_eq!(stand.ranges().len(), expected.len(), "the file was fetched again");
}

#[test]
fn userns_a_download_killed_at_any_time_resumes() {
    let data = noise(24 << 20);
    let Some(stand) = Stand::new(&sha512(&data), |path| fs::write(path, &data).unwrap()) else { return };
    let mut kept = Vec::new();
    for moment in 0..40u64 {
        let child = stand.start();
        std::thread::sleep(Duration::from_millis(2 + moment * 13 % 120));
        kill(child);
        if stand.blob.exists() {
            break;
        }
        // With a user namespace, the inner process dies a moment after the outer one and then frees the lock.
        wait_for("the part to be let go", || programs(&stand.env).is_empty());
        let part = fs::read(&stand.part).unwrap_or_default();
        assert!(part == data[..part.len()], "after {} bytes", part.len());
        kept.push(part.len() as u64);
    }
    let _ = stand.env.run([Path::new("fetch"), &stand.recipe]).success();
    assert!(fs::read(&stand.blob).unwrap() == data);
    // No byte of the partial download is requested again.
    let mut ranges = stand.ranges().into_iter();
    assert!(ranges.all(|from| from == 0 || kept.contains(&from)), "{:?} {kept:?}", stand.ranges());
    let asked = stand.ranges();
    assert!(asked.windows(2).all(|pair| pair[0] <= pair[1]), "an offset decreased: {asked:?}");
}

#[test]
fn userns_a_program_killed_while_it_finishes_a_blob_continues() {
    let data = noise(1 << 20);
    let Some(stand) = Stand::new(&sha512(&data), |path| fs::write(path, &data).unwrap()) else { return };
    if !require_program("strace") {
        return;
    }
    // Killed before each call that turns a partial download into a blob.
    for call in ["fsync", "rename", "fchmod", "unlink"] {
        let _ = fs::remove_file(&stand.blob);
        let before = stand.ranges().len();
        let inject = format!("inject={call}:signal=KILL:when=1+");
        let path = if call == "fsync" { stand.part.clone() } else { stand.env.store().join("blobs") };
        let mut strace = stand.env.command("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
        if call == "fsync" {
            strace.arg("-P").arg(path);
        }
        let killed = output(strace.arg(PROGRAM).arg("fetch").arg(&stand.recipe));
        assert_eq!(killed.code, 137, "{call}: {}", killed.stderr);
        let _ = stand.env.run([Path::new("fetch"), &stand.recipe]).success();
        assert!(fs::read(&stand.blob).unwrap() == data, "{call}");
        let ranges = stand.ranges().split_off(before);
        let whole = ranges.iter().filter(|from| **from == 0).count();
        assert!(whole <= 1, "{call}: {ranges:?}");
        assert!(stand.part.parent().unwrap().read_dir().unwrap().next().is_none(), "{call}");
    }
}

#[test]
fn userns_memory_does_not_grow_with_the_download() {
    let size = 400 << 20;
    let sparse = |path: &Path| fs::File::create(path).unwrap().set_len(size).unwrap();
    let Some(stand) = Stand::new(&"0".repeat(128), sparse) else { return };
    stand.server.hold(Some(stand.size - 1));
    let child = stand.start();
    wait_for("all bytes but one", || stand.kept() == stand.size - 1);
    let peaks: Vec<u64> = programs(&stand.env).iter().map(|pid| peak(pid)).collect();
    kill(child);
    stand.server.hold(None);
    assert!(peaks.iter().all(|peak| *peak > 1 << 20) && !peaks.is_empty(), "{peaks:?}");
    assert!(peaks.iter().sum::<u64>() < 64 << 20, "{peaks:?} bytes");
}

/// Returns the process ids of the programs that run in this environment.
fn programs(env: &TestEnv) -> Vec<String> {
    let root = env.path("");
    let here = |pid: &String| {
        let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap_or_default();
        link("exe") == Path::new(PROGRAM) && link("cwd") == root.components().as_path()
    };
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    processes.filter(here).collect()
}

/// Returns the peak memory of a process, in bytes.
fn peak(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kib| kib << 10)
}

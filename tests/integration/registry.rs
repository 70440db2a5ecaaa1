//! `push`, `pull`, `oci archive` and `oci index` with a real registry, judged by skopeo, umoci and podman.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::env::{Output, PROGRAM, TestEnv, output, require_program, wait_for};

/// A user with the password `pass:word`, in the only form that the registry reads.
const USERS: &str = "me:$2a$04$abcdefghijklmnopqrstuu7govE5p0NSk1WUEk5C2Qm3hpPC6VJ66\n";
const PASSWORD: &str = "pass:word";

/// Debian's registry on loopback.
pub(crate) struct Registry {
    child: Child,
    host: String,
    log: PathBuf,
}

impl Registry {
    pub(crate) fn start(env: &TestEnv, guarded: bool) -> Option<Self> {
        if !require_program("docker-registry") || !require_program("skopeo") {
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let name = format!("registry-{port}");
        let users = env.write(format!("{name}/users"), USERS);
        let auth = match guarded {
            true => format!("auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n", users.display()),
            false => String::new(),
        };
        let data = env.path(format!("{name}/data"));
        let text = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: \"127.0.0.1:{port}\" }}\n{auth}",
            data.display()
        );
        let config = env.write(format!("{name}/config.yml"), text);
        let log = env.path(format!("{name}/log"));
        let file = fs::File::create(&log).unwrap();
        let mut command = Command::new("docker-registry");
        // The collector of traces is on another machine.
        command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none").stdin(Stdio::null());
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().expect("starting docker-registry");
        let registry = Self { child, host: format!("127.0.0.1:{port}"), log };
        wait_for("docker-registry", || TcpStream::connect(&registry.host).is_ok());
        Some(registry)
    }

    /// Returns the number of requests with this method whose target contains `part`.
    fn count(&self, method: &str, part: &str) -> usize {
        let log = fs::read_to_string(&self.log).unwrap();
        let is = |line: &&str| line.contains(&format!("\"{method} ")) && line.contains(part);
        log.lines().filter(is).count()
    }

    pub(crate) fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }

    /// Returns what skopeo says about an image.
    fn inspect(&self, env: &TestEnv, rest: &str, more: &[&str]) -> Value {
        let mut skopeo = env.command("skopeo");
        skopeo.args(["inspect", "--tls-verify=false"]).args(more).arg(format!("docker://{}", self.reference(rest)));
        serde_json::from_str(&output(&mut skopeo).success().stdout).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SCRIPT: &str = r#"
mkdir -p tree/etc; echo "$2" >tree/etc/name; head -c "$3" /dev/urandom >tree/data
tar --sort=name --mtime=@0 -C tree -cf layer.tar .; rm -r tree
"#;

fn digest(env: &TestEnv, path: &Path) -> String {
    let sum = output(env.command("sha256sum").arg(path)).success().stdout;
    format!("sha256:{}", &sum[..64])
}

/// Makes a layout with the tag `1` for an architecture, with one layer of about `size` random bytes.
fn layout(env: &TestEnv, name: &str, architecture: &str, size: u64) -> PathBuf {
    let dir = env.path(name);
    let _ = output(env.command("bash").args(["-ec", SCRIPT, "bash", "", name, &size.to_string()])).success();
    let diff_id = digest(env, &env.path("layer.tar"));
    // Other programs would compress a plain one.
    let _ = output(env.command("gzip").args(["-1", "-n", "layer.tar"])).success();
    layout_of(env, &dir, architecture, ("layer.v1.tar+gzip", &env.path("layer.tar.gz"), &diff_id));
    dir
}

/// Makes a layout of a layer: its media type, its file, and its diff ID.
fn layout_of(env: &TestEnv, dir: &Path, architecture: &str, (kind, layer, diff_id): (&str, &Path, &str)) {
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let name = digest(env, layer);
    let describe = |kind: &str, digest: &str, size: u64| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size });
    let size = fs::metadata(layer).unwrap().len();
    fs::rename(layer, dir.join("blobs").join(name.replace(':', "/"))).unwrap();
    let layer = describe(kind, &name, size);
    let add = |kind: &str, value: &Value| {
        let text = value.to_string();
        let path = dir.join("new");
        fs::write(&path, &text).unwrap();
        let name = digest(env, &path);
        fs::rename(&path, dir.join("blobs").join(name.replace(':', "/"))).unwrap();
        describe(kind, &name, text.len() as u64)
    };
    let config = add(
        "config.v1+json",
        &json!({ "os": "linux", "architecture": architecture, "config": { "Cmd": ["/bin/true"] },
                 "rootfs": { "type": "layers", "diff_ids": [diff_id] } }),
    );
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                           "config": config, "layers": [layer] });
    let mut manifest = add("manifest.v1+json", &manifest);
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns the digest in the answer of a push.
#[track_caller]
fn pushed(ended: &Output) -> String {
    ended.stdout.trim().rsplit_once('@').expect("a reference").1.to_owned()
}

#[test]
fn a_pushed_image_is_the_same_for_others() {
    let env = TestEnv::new();
    let Some(registry) = Registry::start(&env, false) else { return };
    let image = layout(&env, "image", "amd64", 100_000);
    let first = env.run(["push", text(&image), &registry.reference("a/demo"), "--tag", "latest"]).success();
    assert!(first.stderr.contains("2 blobs sent") && first.stderr.contains("0 already there"), "{}", first.stderr);
    for tag in ["1", "latest"] {
        let seen = registry.inspect(&env, &format!("a/demo:{tag}"), &[]);
        assert_eq!(seen["Digest"], pushed(&first));
        assert_eq!(seen["Architecture"], "amd64");
    }
    let uploads = registry.count("POST", "/blobs/uploads/");
    let second = env.run(["push", text(&image), &registry.reference("a/demo:1")]).success();
    assert!(second.stderr.contains("0 blobs sent (0 bytes), 2 already there"), "{}", second.stderr);
    assert_eq!((registry.count("POST", "/blobs/uploads/"), pushed(&second)), (uploads, pushed(&first)));

    // Another repository of the registry has the blobs.
    let third = env.run(["push", text(&image), &registry.reference("b/demo"), "--mount-from", "a/demo"]).success();
    assert!(third.stderr.contains("0 blobs sent (0 bytes), 2 taken from another repository"), "{}", third.stderr);
    assert_eq!(registry.inspect(&env, "b/demo:1", &[])["Digest"], pushed(&first));

    let ended = env.run(["pull", &registry.reference("b/demo:1"), "back"]).success();
    assert_eq!(ended.stdout, "back\n");
    let _ = env.run(["oci", "validate", "back"]).success();
    let _ = output(env.command("diff").args(["-r", "image/blobs", "back/blobs"])).success();
    let by_digest = format!("b/demo@{}", pushed(&first));
    let _ = env.run(["pull", &registry.reference(&by_digest), "by-digest"]).success();
    let _ = output(env.command("diff").args(["-r", "back/blobs", "by-digest/blobs"])).success();
    let copied = format!("docker://{}", registry.reference("a/demo:1"));
    let _ = output(env.command("skopeo").args(["copy", "--src-tls-verify=false", &copied, "oci:skopeo:1"])).success();
    let _ = output(env.command("diff").args(["-r", "image/blobs", "skopeo/blobs"])).success();

    let refused = env.run(["pull", &registry.reference("a/demo:2"), "none"]).code(5);
    assert!(refused.stderr.contains("MANIFEST_UNKNOWN") && !env.path("none").exists(), "{}", refused.stderr);
    let refused = env.run(["push", text(&image), "demo:1"]).code(2);
    assert!(refused.stderr.contains("put the host first"), "{}", refused.stderr);
    let refused = env.run(["pull", &registry.reference("a/demo:1"), "back"]).code(2);
    assert!(refused.stderr.contains("not an empty directory"), "{}", refused.stderr);
    assert!(hidden(&env).is_empty());
}

#[test]
fn credentials_are_found_and_never_shown() {
    let env = TestEnv::new();
    let Some(registry) = Registry::start(&env, true) else { return };
    let image = layout(&env, "image", "amd64", 1000);
    let to = registry.reference("demo");
    let refused = env.run(["push", text(&image), &to]).code(5);
    assert!(refused.stderr.contains("podman login"), "{}", refused.stderr);
    let entry = |password: &str| {
        json!({ "auths": { registry.host.as_str(): { "auth": BASE64_STANDARD.encode(format!("me:{password}")) } } })
            .to_string()
    };
    env.write("home/.docker/config.json", entry("a wrong one"));
    let refused = env.run(["-vv", "push", text(&image), &to]).code(5);
    assert!(refused.stderr.contains("refuses these credentials"), "{}", refused.stderr);
    for secret in ["a wrong one", &BASE64_STANDARD.encode("me:a wrong one")] {
        assert!(!refused.stderr.contains(secret) && !refused.stdout.contains(secret), "{}", refused.stderr);
    }
    env.write("home/.config/containers/auth.json", entry(PASSWORD));
    let done = env.run(["-vv", "push", text(&image), &to]).success();
    assert!(
        !done.stderr.contains(PASSWORD) && !done.stderr.contains(&BASE64_STANDARD.encode(format!("me:{PASSWORD}")))
    );
    fs::remove_file(env.path("home/.config/containers/auth.json")).unwrap();
    let _ = env.run(["pull", &registry.reference("demo:1"), "back"]).code(5);
    env.write("own.json", entry(PASSWORD));
    let _ = env.run(["pull", &registry.reference("demo:1"), "back", "--auth-file", "own.json"]).success();
    assert_eq!(env.run(["pull", &registry.reference("demo:1"), "x", "--auth-file", "none.json"]).code, 4);
}

#[test]
fn podman_stores_credentials_that_are_found() {
    let mut env = TestEnv::new();
    if !require_program("podman") {
        return;
    }
    let Some(registry) = Registry::start(&env, true) else { return };
    let image = layout(&env, "image", "amd64", 1000);
    fs::create_dir(env.path("run")).unwrap();
    let run = env.path("run");
    env.set("XDG_RUNTIME_DIR", run);
    let mut login = env.command("podman");
    login.args(["login", "--tls-verify=false", "-u", "me", "-p", PASSWORD, &registry.host]);
    let _ = output(&mut login).success();
    let _ = env.run(["push", text(&image), &registry.reference("demo")]).success();
}

#[test]
fn an_index_of_two_platforms_goes_to_a_registry_and_back() {
    let env = TestEnv::new();
    let Some(registry) = Registry::start(&env, false) else { return };
    for (name, architecture) in [("one", "amd64"), ("two", "arm64")] {
        layout(&env, name, architecture, 1000);
    }
    let same = env.run(["oci", "index", "one", "one", "-o", "no"]).code(2);
    assert!(same.stderr.contains("two images are for linux/amd64") && !env.path("no").exists(), "{}", same.stderr);
    let made = env.run(["oci", "index", "two", "one", "--tag", "7", "-o", "both"]).success();
    assert_eq!(made.stdout, "both\n");
    let _ = env.run(["oci", "validate", "both"]).success();
    let again = env.run(["oci", "index", "one", "two", "--tag", "7", "-o", "again"]).success();
    assert!(again.stderr.contains("the digest of the index is sha256:"));
    let _ = output(env.command("diff").args(["-r", "both", "again"])).success();
    let ended = env.run(["push", "both", &registry.reference("demo")]).success();
    let raw = registry.inspect(&env, "demo:7", &["--raw"]);
    let platforms: Vec<_> =
        raw["manifests"].as_array().unwrap().iter().map(|image| image["platform"]["architecture"].clone()).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    for architecture in ["amd64", "arm64"] {
        let seen = registry.inspect(&env, "demo:7", &["--override-arch", architecture]);
        assert_eq!(seen["Architecture"], architecture);
    }
    let _ = env.run(["pull", &registry.reference(&format!("demo@{}", pushed(&ended))), "back"]).success();
    let _ = output(env.command("diff").args(["-r", "both/blobs", "back/blobs"])).success();
}

#[test]
fn archives_are_read_by_other_programs() {
    let env = TestEnv::new();
    if !require_program("skopeo") {
        return;
    }
    layout(&env, "image", "amd64", 1000);
    let _ = env.run(["oci", "archive", "image", "-o", "image.tar"]).success();
    let _ = env.run(["oci", "archive", "image", "-o", "again.tar"]).success();
    let _ = output(env.command("cmp").args(["image.tar", "again.tar"])).success();
    let _ = output(env.command("skopeo").args(["copy", "oci-archive:image.tar:1", "oci:copied:1"])).success();
    let _ = output(env.command("diff").args(["-r", "image/blobs", "copied/blobs"])).success();
    let _ = env.run(["oci", "archive", "image", "--docker", "--name", "demo:1", "-o", "docker.tar"]).success();
    // Other readers look for the exact names.
    for (archive, name) in [("image.tar", "oci-layout"), ("image.tar", "index.json"), ("docker.tar", "manifest.json")] {
        let listed = output(env.command("tar").args(["-tf", archive])).success().stdout;
        assert!(listed.lines().any(|line| line == name), "{listed}");
    }
    let piped = output(env.command("bash").args([
        "-c",
        "\"$0\" oci archive image --docker --name demo:1 | cmp docker.tar",
        PROGRAM,
    ]));
    let _ = piped.success();
    let told =
        output(env.command("skopeo").args(["inspect", "--config", "docker-archive:docker.tar:demo:1"])).success();
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["config"]["Cmd"][0], "/bin/true");
    let _ = output(env.command("skopeo").args(["copy", "docker-archive:docker.tar", "dir:plain"])).success();
    let manifest: Value = serde_json::from_slice(&fs::read(env.path("plain/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    let refused = env.run(["oci", "archive", "image", "--docker", "--name", "Demo", "-o", "x.tar"]).code(2);
    assert!(refused.stderr.contains("is not a name for an image"), "{}", refused.stderr);
    // A damaged blob makes no archive.
    let blobs = fs::read_dir(env.path("image/blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let blob = blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[700] ^= 1;
    fs::write(&blob, bytes).unwrap();
    for form in [&[][..], &["--docker"]] {
        let refused = env.run([&["oci", "archive", "image", "-o", "bad.tar"], form].concat()).code(3);
        assert!(refused.stderr.contains("digest-mismatch") && !env.path("bad.tar").exists(), "{}", refused.stderr);
    }
}

/// A proxy that breaks the first connection which carries more than `limit` bytes to the server.
fn breaking_proxy(to: String, limit: u64) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (carried, broken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&carried);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&to).unwrap();
            let (carried, broken) = (Arc::clone(&counter), Arc::clone(&broken));
            let (mut from, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let (mut client, mut server, mut here) = (client, server, 0);
                let mut buffer = [0; 65536];
                while let Ok(count @ 1..) = client.read(&mut buffer) {
                    here += count as u64;
                    carried.fetch_add(count as u64, Ordering::Relaxed);
                    if here > limit && broken.fetch_add(1, Ordering::Relaxed) == 0 {
                        break;
                    }
                    if server.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            });
        }
    });
    (host, carried)
}

/// This registry does not go on in the middle of a piece, so the upload begins anew.
#[test]
fn an_upload_survives_a_broken_connection() {
    const SIZE: u64 = 80 << 20;
    let env = TestEnv::new();
    let Some(registry) = Registry::start(&env, false) else { return };
    let image = layout(&env, "image", "amd64", SIZE);
    let (host, carried) = breaking_proxy(registry.host.clone(), SIZE / 2);
    let ended = env.run(["push", text(&image), &format!("{host}/demo")]).success();
    assert!(ended.stderr.contains("trying again"), "{}", ended.stderr);
    assert_eq!(registry.inspect(&env, "demo:1", &[])["Digest"], pushed(&ended));
    let carried = carried.load(Ordering::Relaxed);
    assert!(carried > SIZE && carried < 2 * SIZE, "{carried} bytes for {SIZE}");
    assert!(registry.count("PATCH", "/blobs/uploads/") >= 3);
}

/// A proxy that carries `limit` bytes of each connection to the client and then nothing more.
fn holding_proxy(to: String, limit: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&to).unwrap();
            let (mut from, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let (mut server, mut client) = (server, client);
                let _ = std::io::copy(&mut (&mut server).take(limit), &mut client);
                // The client ends the connection.
                let _ = client.read(&mut [0; 1]);
            });
        }
    });
    host
}

/// Returns the hidden directories that incomplete results are in.
fn hidden(env: &TestEnv) -> Vec<PathBuf> {
    let entries = fs::read_dir(env.path("")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".quern")).collect()
}

#[test]
fn an_interrupted_pull_leaves_nothing() {
    const SIZE: u64 = 4 << 20;
    let env = TestEnv::new();
    let Some(registry) = Registry::start(&env, false) else { return };
    let image = layout(&env, "image", "amd64", SIZE);
    let _ = env.run(["push", text(&image), &registry.reference("demo:1")]).success();
    let slow = format!("{}/demo:1", holding_proxy(registry.host.clone(), SIZE / 2));
    for (signal, code) in [("TERM", 143), ("KILL", 137)] {
        let (mut child, _) = env.start(["pull", &slow, "back"]);
        let is_large = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.len() > SIZE / 4);
        let blobs = |dir: &PathBuf| -> Vec<PathBuf> {
            let entries = fs::read_dir(dir.join("layout/blobs/sha256")).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        wait_for("a half of the layer", || hidden(&env).iter().flat_map(blobs).any(|path| is_large(&path)));
        let _ = output(Command::new("kill").args(["-s", signal, &child.id().to_string()])).success();
        let status = child.wait().unwrap();
        assert_eq!(status.code().unwrap_or_else(|| 128 + status.signal().unwrap()), code);
        assert!(!env.path("back").exists());
        assert_eq!(hidden(&env).len(), usize::from(signal == "KILL"), "{signal}");
    }
    // The next run removes the directory of the killed one.
    let _ = env.run(["pull", &registry.reference("demo:1"), "back"]).success();
    assert!(hidden(&env).is_empty() && env.path("back/index.json").exists());
}

/// Runs the program and returns its largest resident memory in KiB.
const MEASURE: &str = "
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)";

#[test]
fn a_large_layer_needs_little_memory() {
    const SIZE: u64 = 1 << 30;
    const LIMIT: u64 = 64 << 10;
    let env = TestEnv::new();
    let Some(registry) = Registry::start(&env, false) else { return };
    // A file of holes: the test is about memory and not about the disk.
    let layer = env.path("layer");
    fs::File::create(&layer).unwrap().set_len(SIZE).unwrap();
    let diff_id = digest(&env, &layer);
    layout_of(&env, &env.path("image"), "amd64", ("layer.v1.tar", &layer, &diff_id));
    let to = registry.reference("demo:1");
    for arguments in [["push", "image", &to], ["pull", &to, "back"]] {
        let mut python = env.command("python3");
        let measured = output(python.args(["-c", MEASURE, PROGRAM]).args(arguments)).success();
        let most: u64 = measured.stdout.trim().parse().unwrap();
        assert!(most < LIMIT, "{arguments:?} needs {most} KiB");
    }
}

//! The helpers of compilers: ccache, distcc with a real daemon, and the jobserver that all packages share.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Stand, ask, text};
use crate::env::{Output, Privilege, output, require_program, twins, wait_for};

/// Makes ten C files and a program of them. One more file has a compiler of its own, which differs by `MARK`, but not in its times.
const COMPILED: &str = r#"
src_unpack() {
	local i
	for i in {0..9}; do
		echo "int puts(const char *); int f$i(void) { return puts(__FILE__ \"$i\"); }" >f$i.c || die
	done
	echo 'int f0(void); int main(void) { return f0(); }' >main.c || die
	printf '#!/bin/sh\n# %s\nexec /usr/bin/gcc "$@"\n' "${MARK}" >own-gcc || die
	chmod +x own-gcc && touch -d @1000000000 own-gcc || die
	printf 'p: main.o %s\n\t/usr/bin/gcc -o $@ $^\n' "$(echo f{0..9}.o)" >Makefile || die
}
src_compile() {
	emake CC=gcc
	[[ -z ${MARK} ]] || ccache ./own-gcc -c main.c -o own.o || die
}
src_install() {
	dobin p
}
"#;

const RECIPE: &str = "[emerge]\npackages = [\"app-own/compiled\"]\n";

fn stand(privilege: Privilege) -> Option<Stand> {
    let stand = Stand::sharing(privilege).map(Stand::with_own_packages)?;
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let stand = stand.with_repositories(&[&overlay]);
    stand.ebuild("app-own", "compiled", COMPILED);
    Some(stand)
}

/// Builds a recipe with options, after all packages were removed from the cache. Returns the output and the program of the image.
#[track_caller]
fn built(stand: &Stand, recipe: &Path, options: &[&str]) -> (Output, Vec<u8>) {
    drop(fs::remove_dir_all(stand.packages()));
    let output = stand.env.run([&["build", "--again=all", text(recipe)], options].concat()).success();
    let tarball = output.results().remove(0);
    let program = Command::new("tar").args(["-xOzf", text(&tarball), "./usr/bin/p"]).output().unwrap().stdout;
    (output, program)
}

twins!(a_compiler_cache_saves_compilations => root_a_compiler_cache_saves_compilations, userns_a_compiler_cache_saves_compilations);

fn a_compiler_cache_saves_compilations(privilege: Privilege) {
    let Some(stand) = stand(privilege) else { return };
    let accelerate = "[accelerate]\nccache = { max-size = \"1 GiB\" }\njobserver = \"auto\"\n";
    let recipe = stand.recipe("cached", &format!("{RECIPE}{accelerate}"));
    let marked = |mark: &str| format!("portage.make-conf={{ MARK = \"{mark}\" }}");
    let (first, program) = built(&stand, &recipe, &["-v", "--set", &marked("one")]);
    assert!(first.stderr.contains("ccache: 0 of 12 compilations"), "{}", first.stderr);
    assert!(first.stderr.contains("the builder has GNU make 4.3, and a jobserver needs 4.4"), "{}", first.stderr);
    let (second, cached) = built(&stand, &recipe, &["--set", &marked("one")]);
    assert!(second.stderr.contains("ccache: 12 of 12 compilations came from the cache (100 %)"), "{}", second.stderr);
    assert!(!program.is_empty() && program == cached);
    if privilege == Privilege::Userns {
        return;
    }
    // Another compiler with the same times does not get the objects of the first.
    let (other, _) = built(&stand, &recipe, &["--set", &marked("two")]);
    assert!(other.stderr.contains("ccache: 11 of 12 compilations came from the cache (91 %)"), "{}", other.stderr);
    // The result is the same without the cache.
    let (plain, program) = built(&stand, &recipe, &["--set", "accelerate.ccache=false"]);
    assert!(!plain.stderr.contains("ccache:") && program == cached);
}

/// A distcc daemon on loopback.
struct Daemon {
    child: Child,
    port: u16,
    log: std::path::PathBuf,
}

impl Daemon {
    fn start(stand: &Stand) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = stand.env.path("distccd.log");
        fs::write(&log, "").unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
        let mut command = Command::new("distccd");
        command.args(["--daemon", "--no-detach", "--listen", "127.0.0.1", "--allow", "127.0.0.1", "--user", "nobody"]);
        command.args(["--enable-tcp-insecure", "--log-level", "info", "--jobs", "2"]);
        // The daemon does not run as root, which cannot enter the directory of every test.
        command.env("TMPDIR", "/tmp").current_dir("/").arg("--port").arg(port.to_string()).arg("--log-file").arg(&log);
        let child = command.stdin(Stdio::null()).process_group(0).spawn().expect("starting distccd");
        let daemon = Self { child, port, log };
        wait_for("distccd", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        daemon
    }

    /// Returns how many files it compiled.
    fn compiled(&self) -> usize {
        fs::read_to_string(&self.log).unwrap().matches("COMPILE_OK").count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its workers accept connections too.
        let group = format!("-{}", self.child.id());
        let _ = output(Command::new("kill").args(["-KILL", "--", &group]));
        drop(self.child.wait());
    }
}

#[test]
fn root_distcc_compiles_on_other_machines_or_says_so() {
    let Some(stand) = stand(Privilege::Root) else { return };
    if !require_program("distccd") {
        return;
    }
    let daemon = Daemon::start(&stand);
    let recipe = stand.recipe("distributed", RECIPE);
    let hosts = format!("accelerate.distcc.hosts=127.0.0.1:{}/2", daemon.port);
    // Debian's distcc does not know the proxy of the network sandbox.
    let refused = stand.env.run(["build", text(&recipe), "--set", &hosts]).code(2);
    assert!(refused.stderr.contains("cannot leave Portage's network sandbox"), "{}", refused.stderr);
    let native = ["--set", &hosts, "--set", "portage.make-conf={ CFLAGS = \"-O2 -march=native\" }"];
    let refused = stand.env.run([&["build", text(&recipe)], &native[..]].concat()).code(2);
    assert!(refused.stderr.contains("CFLAGS is for this machine's processor"), "{}", refused.stderr);

    let open = ["--set", &hosts, "--set", "portage.make-conf={ FEATURES = \"-network-sandbox\" }"];
    let (first, _) = built(&stand, &recipe, &open);
    assert_eq!(daemon.compiled(), 11, "{}", fs::read_to_string(&daemon.log).unwrap());
    assert!(!first.stderr.contains("warning: distcc"), "{}", first.stderr);
    drop(daemon);
    let (second, program) = built(&stand, &recipe, &open);
    let warning = "warning: distcc reached no host for a part of app-own/compiled-1, which this machine compiled";
    assert!(second.stderr.contains(warning) && !program.is_empty(), "{}", second.stderr);
}

/// Runs four jobs, each of which counts how many of all packages run at the same time.
const COUNTING: &str = r#"
src_unpack() {
	printf '%s\n' 'all: 1 2 3 4' '1 2 3 4:' '	@sh ./job' >Makefile || die
	cat >job <<-'EOF' || die
	count() { flock /tmp/lock sh -c 'n=$(($(cat /tmp/now || echo 0) '"$1"')); echo $n >/tmp/now; echo $n >>/tmp/seen' 2>/dev/null; }
	count +1; sleep 0.4; count -1
	EOF
}
src_compile() {
	emake
}
src_install() { :; }
"#;

/// Installs the counts of the other packages.
const COUNTED: &str = "DEPEND=\"app-own/one app-own/two app-own/three app-own/four\"\n\
                       src_install() {\n\tinsinto /usr/share\n\tdoins /tmp/seen\n}\n";

#[test]
fn root_a_jobserver_limits_all_packages_together() {
    let Some(stand) = stand(Privilege::Root) else { return };
    for name in ["one", "two", "three", "four"] {
        stand.ebuild("app-own", name, COUNTING);
    }
    stand.ebuild("app-own", "counted", COUNTED);
    let recipe = stand.env.write(
        "jobs.toml",
        "[source]\nstage3 = \"amd64-openrc\"\n[build]\nprofile = \"gentoo:default/linux/amd64/23.0\"\n[emerge]\n\
         jobs = 4\nload-average = 1000\npackages = [\"app-own/counted\"]\n[accelerate]\njobserver = 2\n",
    );
    let output = stand.build(&recipe).success();
    assert!(!output.stderr.contains("warning"), "{}", output.stderr);
    let tarball = output.results().remove(0);
    let seen = ask("tar", &["-xOzf", text(&tarball), "./usr/share/seen"]);
    let seen: Vec<i32> = seen.lines().map(|count| count.parse().unwrap()).collect();
    assert_eq!((seen.len(), seen.iter().max()), (32, Some(&2)), "{seen:?}");
}

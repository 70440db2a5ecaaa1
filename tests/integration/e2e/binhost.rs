//! Binary packages from one store to another: exported and signed, served on loopback, and installed by the Portage of another builder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use super::{Stand, ask, fetched, text};
use crate::env::{Output, Privilege, output, require_program, twins, wait_for};

/// The end of a recipe for one small package and nothing else.
const ONE: &str = "baselayout-atoms = []\n[emerge]\npackages = [\"app-test/tiny\"]\n";

/// A running `binhost serve`, which is killed at the end.
pub(super) struct Served {
    child: Child,
    log: PathBuf,
    pub(super) url: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().expect("ending the server");
        self.child.wait().expect("waiting for the server");
    }
}

impl Served {
    fn start(stand: &Stand, directory: &Path) -> Self {
        let (child, log) = stand.env.start(["binhost", "serve", text(directory)]);
        let url = || fs::read_to_string(&log).unwrap_or_default().lines().next().map(str::to_owned);
        wait_for("the address of the server", || url().is_some_and(|url| url.starts_with("http")));
        let url = url().expect("a line");
        Self { child, log, url }
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log of the server")
    }
}

impl Stand {
    /// Runs gpg with a home below the environment.
    #[track_caller]
    fn gpg(&self, home: &str, arguments: &[&str]) -> Output {
        let mut gpg = self.env.command("gpg");
        gpg.arg("--homedir").arg(self.env.path(home)).args([
            "--batch",
            "--quiet",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
        ]);
        output(gpg.args(arguments)).success()
    }

    /// Makes a key in a new home. Returns its fingerprint, and writes its certificate beside the home.
    fn key(&self, home: &str) -> String {
        let made = output(self.env.command("mkdir").args(["-m", "700"]).arg(self.env.path(home)));
        let _ = made.success();
        let _ = self
            .gpg(home, &["--quick-generate-key", &format!("{home} <{home}@example.org>"), "ed25519", "sign", "never"]);
        let listed = self.gpg(home, &["--with-colons", "--list-keys"]).stdout;
        let fingerprint = listed.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).expect("a fingerprint");
        self.certificate(home);
        fingerprint.trim_end_matches(':').to_owned()
    }

    fn certificate(&self, home: &str) {
        let armored = self.gpg(home, &["--armor", "--export"]).stdout;
        self.env.write(format!("{home}.asc"), armored);
        let _ = output(self.env.command("gpgconf").args(["--kill", "all"]).env("GNUPGHOME", self.env.path(home)));
    }

    /// Exports the packages of a recipe to `hosts/NAME`.
    #[track_caller]
    fn export(&self, recipe: &Path, name: &str, options: &[&str]) -> Output {
        let to = self.env.path(format!("hosts/{name}"));
        let from = self.packages();
        let fixed = ["binhost", "export", text(recipe), "--from", text(&from), "--to", text(&to)];
        self.env.run([&fixed, options].concat()).success()
    }

    /// Writes a recipe that takes its packages from a host only, and has an empty cache of packages.
    pub(super) fn installing(&self, name: &str, host: &str) -> PathBuf {
        let cache = self.env.path(format!("home/cache-{name}"));
        self.recipe(name, &format!("{ONE}[portage]\nbinpkg = {cache:?}\nbinhost = [{host}]\n"))
    }

    /// Builds such a recipe.
    pub(super) fn install(&self, name: &str, host: &str) -> Output {
        let recipe = self.installing(name, host);
        // The variable with the store's own packages would win over the recipe.
        output(self.env.program(["build", "--again=all", text(&recipe)]).env_remove("QUERN_PORTAGE_BINPKG"))
    }
}

twins!(packages_move_between_stores => root_packages_move_between_stores, userns_packages_move_between_stores);

fn packages_move_between_stores(privilege: Privilege) {
    let (Some(stand), true) = (Stand::sharing(privilege), require_program("gpg")) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let stand = stand.with_own_packages().with_repositories(&[&overlay]);
    let recipe = stand.recipe("maker", ONE);
    let _ = stand.built(&recipe);
    let (one, two) = (stand.key("one"), stand.key("two"));
    let sign = |key: &str, home: &str| {
        ["--sign".to_owned(), key.to_owned(), "--key-home".to_owned(), text(&stand.env.path(home)).to_owned()]
    };
    let signing = sign(&one, "one");
    let signing: Vec<&str> = signing.iter().map(String::as_str).collect();
    let said = stand.export(&recipe, "signed", &signing);
    assert!(said.stderr.contains("1 package"), "{said:#?}");
    let hosts = stand.env.path("hosts");
    let package = hosts.join("signed/app-test/tiny/tiny-1-1.gpkg.tar");
    // Plain GnuPG verifies what Portage signed.
    let manifest = ask("tar", &["-xOf", text(&package), "tiny-1-1/Manifest"]);
    let manifest = stand.env.write("Manifest", manifest);
    let _ = stand.gpg("one", &["--verify", text(&manifest)]);
    // A second export changes nothing.
    let bytes = |name: &str| fs::read(hosts.join("signed").join(name)).expect(name);
    let before = (bytes("Packages"), bytes("app-test/tiny/tiny-1-1.gpkg.tar"), bytes("packages.asc"));
    let _ = stand.export(&recipe, "signed", &signing);
    assert!(before == (bytes("Packages"), bytes("app-test/tiny/tiny-1-1.gpkg.tar"), bytes("packages.asc")));

    let served = Served::start(&stand, &hosts);
    let host = |name: &str, keys: &str| format!("{{ url = \"{}/{name}\", {keys} }}", served.url);
    let keyring = |home: &str| format!("keyring = {:?}", stand.env.path(format!("{home}.asc")));
    let installed = stand.install("signed", &host("signed", &keyring("one"))).success();
    assert!(installed.stderr.contains("app-test/tiny-1") && installed.stderr.contains("1 reused"), "{installed:#?}");
    let results = installed.results();
    let provenance = fs::read_to_string(results[0].to_str().unwrap().replace(".tar.gz", ".json")).unwrap();
    for part in [one.as_str(), "app-test/tiny-1", "/signed"] {
        assert!(provenance.contains(part), "{part}: {provenance}");
    }
    let listed = ask("tar", &["-tf", text(&results[0])]);
    assert!(listed.contains("usr/bin/tiny") && !listed.contains("binhost"), "{listed}");
    assert!(served.log().contains("200 GET /signed/Packages.gz"), "{}", served.log());
    // The same index is not sent again. A signature by another key does not help.
    let other = stand.install("other", &host("signed", &keyring("two"))).code(3);
    assert!(served.log().contains("304 GET /signed/Packages.gz"), "{}", served.log());
    assert!(other.stderr.contains(&one) && other.stderr.contains("does not trust"), "{other:#?}");
    if privilege == Privilege::Userns {
        return;
    }

    fetched::an_interrupted_download_is_resumed(&stand, &served, &keyring("one"));
    fetched::a_locked_index_is_used_or_refused(&stand, &served, &keyring("one"));
    fetched::no_package_finds_the_signing_key(&stand, &host("signed", &keyring("one")));

    let _ = stand.export(&recipe, "unsigned", &[]);
    let unsigned = stand.install("unsigned", &host("unsigned", &keyring("one"))).code(3);
    assert!(
        unsigned.stderr.contains("it is not signed") && unsigned.stderr.contains("allow-unsigned"),
        "{unsigned:#?}"
    );
    let _ = stand.install("allowed", &host("unsigned", "allow-unsigned = true")).success();
    let bare = stand.install("bare", &format!("\"{}/signed\"", served.url)).code(3);
    assert!(bare.stderr.contains("Gentoo signed") && bare.stderr.contains("keyring = "), "{bare:#?}");
    let both = [fs::read(stand.env.path("one.asc")).unwrap(), fs::read(stand.env.path("two.asc")).unwrap()].concat();
    stand.env.write("both.asc", both);
    let pinned = format!("{}, fingerprints = [\"{two}\"]", keyring("both"));
    let pinned = stand.install("pinned", &host("signed", &pinned)).code(3);
    assert!(pinned.stderr.contains("does not trust"), "{pinned:#?}");

    let copy = |name: &str| ask("cp", &["-a", text(&hosts.join("signed")), text(&hosts.join(name))]);
    let _ = copy("tampered");
    let tampered = hosts.join("tampered/app-test/tiny/tiny-1-1.gpkg.tar");
    let mut bytes = fs::read(&tampered).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&tampered, bytes).unwrap();
    let tampered = stand.install("tampered", &host("tampered", &keyring("one"))).code(3);
    assert!(tampered.stderr.contains("its digest differs"), "{tampered:#?}");

    // Nobody signs an index: this one gives a package another USE flag.
    let _ = copy("relabelled");
    let index = hosts.join("relabelled/Packages");
    let lines = fs::read_to_string(&index).unwrap();
    let relabelled =
        lines.replace("\nUSE: amd64 elibc_musl foo kernel_linux\n", "\nUSE: amd64 bar elibc_musl kernel_linux\n");
    assert_ne!(lines, relabelled);
    fs::write(&index, relabelled).unwrap();
    fs::remove_file(hosts.join("relabelled/Packages.gz")).unwrap();
    let flags = format!("{} ]\npackage-use = [\"app-test/tiny bar -foo\"", host("relabelled", &keyring("one")));
    let relabelled = stand.install("relabelled", &flags).code(3);
    assert!(relabelled.stderr.contains("not the package that the index of its host describes"), "{relabelled:#?}");
    assert!(relabelled.stderr.contains("USE: the index says") && relabelled.results().is_empty(), "{relabelled:#?}");

    let _ = stand.gpg("one", &["--quick-set-expire", &one, "seconds=1"]);
    stand.certificate("one");
    std::thread::sleep(Duration::from_secs(2));
    let expired = stand.install("expired", &host("signed", &keyring("one"))).code(3);
    assert!(expired.stderr.contains("has expired"), "{expired:#?}");
}

//! Importing, renewing and removing certificates made by GnuPG.

use std::path::PathBuf;

use crate::env::{TestEnv, output, require_program};

/// A GnuPG home directory.
pub(crate) struct Gpg {
    pub(crate) env: TestEnv,
}

impl Gpg {
    pub(crate) fn new() -> Option<Self> {
        let env = require_program("gpg").then(TestEnv::new)?;
        std::fs::create_dir(env.path("gnupg")).unwrap();
        Some(Self { env })
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let mut gpg = self.env.command("gpg");
        gpg.arg("--homedir").arg(self.env.path("gnupg"));
        gpg.args(["--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""]);
        output(gpg.args(arguments)).success().stdout
    }

    /// Makes a key that expires after `expires`. Returns its fingerprint.
    pub(crate) fn key(&self, name: &str, expires: &str) -> String {
        self.run(&["--quick-gen-key", &format!("{name} <{name}@example.org>"), "ed25519", "cert,sign", expires]);
        let listing = self.run(&["--with-colons", "--list-keys", name]);
        listing.lines().find_map(|line| line.strip_prefix("fpr:")?.split(':').nth(8)).unwrap().to_owned()
    }

    pub(crate) fn export(&self, file: &str) -> PathBuf {
        let path = self.env.path(file);
        let _ = std::fs::remove_file(&path);
        self.run(&["--armor", "--output", path.to_str().unwrap(), "--export"]);
        path
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ =
            self.env.command("gpgconf").arg("--homedir").arg(self.env.path("gnupg")).args(["--kill", "all"]).status();
    }
}

fn list(env: &TestEnv) -> String {
    env.run(["keys", "list"]).success().stdout
}

#[test]
fn the_built_in_certificates_are_listed() {
    let listed = list(&TestEnv::new());
    for part in [
        "13EBBDBEDE7A12775DFDB1BABB572E0E2D182910  built in",
        "DCD05B71EAB94199527F44ACDB6B8C1F96D8BF6D  built in",
        "signs with 534E4209AB49EEE1C19D96162C44695DB9F6043D until 2028-07-01",
    ] {
        assert!(listed.contains(part), "{listed}");
    }
}

#[test]
fn certificates_are_imported_renewed_and_removed() {
    let Some(gpg) = Gpg::new() else { return };
    let env = TestEnv::new();
    let (ours, other) = (gpg.key("ours", "30d"), gpg.key("other", "never"));
    let file = gpg.export("both.asc");
    let none = env.run(["keys", "import", file.to_str().unwrap(), "--fingerprint", &"0".repeat(40)]).code(2);
    assert!(none.stderr.contains(&ours), "{}", none.stderr);
    let refresh = |env: &TestEnv, file: &PathBuf| env.run(["keys", "refresh", "--from", file.to_str().unwrap()]);
    assert!(refresh(&env, &file).code(2).stderr.contains("newer copy of a known certificate"));
    let imported = env.run(["keys", "import", file.to_str().unwrap(), "--fingerprint", &ours.to_lowercase()]).success();
    assert!(imported.stdout.contains(&ours) && imported.stdout.contains("ours@example.org"), "{}", imported.stdout);
    let listed = list(&env);
    assert!(listed.contains(&format!("{ours}  imported")) && !listed.contains(&other), "{listed}");
    assert!(listed.contains("days left"), "{listed}");
    assert!(refresh(&env, &file).success().stdout.contains("unchanged"));
    // The owner extended the certificate. The other certificate in the file is not imported.
    gpg.run(&["--quick-set-expire", &ours, "5y"]);
    let longer = gpg.export("longer.asc");
    let renewed = refresh(&env, &longer).success().stdout;
    assert!(renewed.contains("valid until") && renewed.contains("before: "), "{renewed}");
    assert!(!list(&env).contains("days left") && !list(&env).contains(&other));
    // An old copy does not undo the extension.
    let _ = env.run(["keys", "import", file.to_str().unwrap(), "--fingerprint", &ours]).success();
    assert!(!list(&env).contains("days left"));
    // An old copy does not undo a revocation.
    let revocation = gpg.env.path(format!("gnupg/openpgp-revocs.d/{ours}.rev"));
    let text = std::fs::read_to_string(&revocation).unwrap().replace(":-----BEGIN", "-----BEGIN");
    std::fs::write(&revocation, text).unwrap();
    gpg.run(&["--import", revocation.to_str().unwrap()]);
    assert!(refresh(&env, &gpg.export("revoked.asc")).success().stdout.contains(": revoked"));
    let _ = refresh(&env, &longer).success();
    assert!(list(&env).contains("  revoked\n"), "{}", list(&env));
    let _ = env.run(["keys", "remove", &ours]).success();
    assert!(!list(&env).contains(&ours));
    let _ = env.run(["keys", "remove", &ours]).code(2);
    let _ = env.run(["keys", "remove", "../../x"]).code(2);
    let _ = env.run(["keys", "import", "/dev/null"]).code(2);
    let _ = env.run(["keys", "import", "no-such-file"]).code(2);
}

//! The downloads that steps see: files and archives with digests, offline, in the key and in the provenance.

use super::{EPOCH, Stand, ask, text};
use crate::env::{Privilege, Server, twins};

/// A step that looks at its downloads, and tries to write to them.
const FETCHES: &str = r#"kind = "stage4"
[emerge]
packages = []
[fetch.patch]
url = "URL/patch"
sha256 = "SHA256"
[fetch.archive]
url = "URL/archive.tar.gz"
sha512 = "SHA512"
unpack = true
[fetch.unused]
url = "URL/nowhere"
sha256 = "SHA256"
[[step]]
name = "use"
fetch = ["patch", "archive"]
run = '''
if touch /quern/fetch/archive/new 2> /dev/null; then exit 1; fi
'''
[[step]]
name = "read"
fetch = ["patch"]
user = "nobody"
run = 'cat /quern/fetch/patch'
[[step]]
name = "keep"
fetch = ["patch", "archive"]
run = '''
cat "$QUERN_FETCH/patch" /quern/fetch/archive/top/inside > /seen
cp -a "$QUERN_FETCH" /kept
if echo x 2> /dev/null >> /quern/fetch/patch; then exit 1; fi
'''
[[step]]
name = "without"
run = 'test ! -e /quern/fetch/patch'
"#;

twins!(steps_see_verified_downloads => root_steps_see_verified_downloads, userns_steps_see_verified_downloads);

fn steps_see_verified_downloads(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let name = format!("fetch-{privilege:?}").to_lowercase();
    stand.env.write("www/patch", format!("a patch for {name}\n"));
    stand.env.write("made/top/inside", "inside\n");
    let www = stand.env.path("www");
    let archive = www.join("archive.tar.gz");
    let made = stand.env.path("made");
    let _ = ask("tar", &["--create", "--gzip", "--file", text(&archive), "--directory", text(&made), "top"]);
    let digest = |tool: &str, file: &str| ask(tool, &[text(&www.join(file))])[..].split(' ').next().unwrap().to_owned();
    let (sha256, sha512) = (digest("sha256sum", "patch"), digest("sha512sum", "archive.tar.gz"));
    let server = Server::start(&www);
    let written = FETCHES.replace("URL", &server.url()).replace("SHA256", &sha256).replace("SHA512", &sha512);
    let recipe = stand.recipe(&name, &written);

    let plan = stand.env.run(["build", text(&recipe), "--dry-run"]).success().stdout;
    assert!(plan.contains("downloads\n  archive  http") && !plan.contains("unused"), "{plan}");
    let built = stand.build_changed(&recipe).success();
    let tarball = built.results().remove(0);
    let content = |path: &str| ask("tar", &["--extract", "--to-stdout", "--file", text(&tarball), path]);
    assert_eq!(content("./seen"), format!("a patch for {name}\ninside\n"));
    let listing = ask("tar", &["--list", "--verbose", "--full-time", "--file", text(&tarball)]);
    assert!(!listing.contains(" ./quern"), "{listing}");
    assert!(listing.contains("1970-01-01 00:00:00 ./kept/patch"), "{listing}");
    let provenance = fs_err::read_to_string(text(&tarball).replace(".tar.gz", ".json")).unwrap();
    assert!(provenance.contains(&sha256) && provenance.contains(&sha512), "{provenance}");

    // Without the server: the store has all of it, also after a change of the step.
    let asked = server.requests().len();
    let offline = stand.env.run(["build", text(&recipe), "--offline", "--again=all"]).success();
    assert!(offline.stderr.contains("running the step keep"), "{}", offline.stderr);
    let cached = stand.env.run(["build", text(&recipe), "--offline"]).success();
    assert!(cached.stderr.contains("4 of 4 steps are cached"), "{}", cached.stderr);
    let shell = stand.shell(&recipe, &["--at", "keep"], &["cat", "/quern/fetch/patch"]).success();
    assert_eq!(shell.stdout, format!("a patch for {name}\n"));

    assert_eq!(server.requests().len(), asked);

    // Another file: other inputs, and a wrong digest.
    stand.env.write("www/patch", "another patch\n");
    let moved =
        |sha256: &str| FETCHES.replace("URL", &server.url()).replace("SHA256", sha256).replace("SHA512", &sha512);
    let refused = stand.recipe(&format!("{name}-wrong"), &moved(&"0".repeat(64)));
    let refused = stand.build_changed(&refused).code(3);
    assert!(
        refused.stderr.contains("the SHA-256 of patch") && !refused.stderr.contains("running the step"),
        "{refused:#?}"
    );
    stand.recipe(&name, &moved(&digest("sha256sum", "patch")));
    let states = stand.env.run(["build", text(&recipe), "--dry-run"]).success().stdout;
    assert!(states.contains("run: fetch patch changed"), "{states}");
    let fetched = stand.env.run(["fetch", text(&recipe)]).success();
    assert_eq!(fetched.results().len(), 3);
    assert_eq!(stand.build_changed(&recipe).success().results(), std::slice::from_ref(&tarball));
    assert_eq!(content("./seen"), "another patch\ninside\n");
}

#[test]
fn root_a_hostile_archive_is_refused_before_a_step_runs() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let www = stand.env.path("www");
    stand.env.write("made/evil", "evil\n");
    fs_err::create_dir_all(&www).unwrap();
    let archive = www.join("a.tar");
    let made = stand.env.path("made");
    let pack = |more: &[&str]| {
        let words = ["--create", "--file", text(&archive), "--directory", text(&made)];
        let _ = ask("tar", &[&words[..], more].concat());
    };
    let server = Server::start(&www);
    let build = || {
        let sha256 = ask("sha256sum", &[text(&archive)])[..64].to_owned();
        let recipe = format!(
            "kind = \"stage4\"\n[emerge]\npackages = []\n[fetch.a]\nurl = \"{}/a.tar\"\nsha256 = \"{sha256}\"\nunpack = true\n\
             [[step]]\nname = \"s\"\nfetch = [\"a\"]\nrun = 'ls /quern/fetch/a > /list'\n",
            server.url()
        );
        stand.env.run(["build", text(&stand.recipe("hostile-fetch", &recipe)), "--until", "s"])
    };
    pack(&["--absolute-names", "--transform", "s,evil,../../../../../../../../tmp/evil-of-a-test,", "evil"]);
    let refused = build().code(3);
    assert!(refused.stderr.contains("..") && !refused.stderr.contains("running the step"), "{}", refused.stderr);
    std::os::unix::fs::symlink("/tmp", made.join("link")).unwrap();
    pack(&["link", "--transform", "s,^evil,link/evil-of-a-test,", "evil"]);
    let _ = build().code(3);
    assert!(!std::path::Path::new("/tmp/evil-of-a-test").exists());
    // A device is left out, and the rest is there.
    let _ = ask("mknod", &[text(&made.join("null")), "c", "1", "3"]);
    pack(&["evil", "null", "link"]);
    let built = build().success();
    assert!(built.stderr.contains("1 device nodes of the download"), "{}", built.stderr);
}

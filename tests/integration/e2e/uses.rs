//! The things of this machine that steps use: binds, a sysroot, caches, file systems in memory.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::{EPOCH, Stand, ask, text};
use crate::env::{Privilege, twins};

/// A step that looks at everything that it uses, and tries to write to it.
const USES: &str = r#"kind = "stage4"
[emerge]
packages = []
[vars]
A = "1"
[bind.text]
at = "/tmp/text"
text = "{{A}}\n"
template = true
[bind.file]
at = "/root/file"
file = "used/file"
[bind.directory]
at = "/mnt/none/directory"
from = "used/directory"
[bind.helpers]
at = "/quern/lib"
text = "echo helped"
[bind.sysroot]
sysroot = "used/sysroot"
[cache.kept-NAME]
at = "/var/kept"
sharing = "locked"
mode = "1750"
gid = 250
[[step]]
name = "see"
binds = ["text", "file", "directory", "helpers"]
caches = ["kept-NAME", "distfiles"]
tmpfs = ["/big:1M"]
run = '''
cat /tmp/text /root/file /mnt/none/directory/inside /etc/own/x.conf /root/.rc /opt/tree/leaf > /seen
stat -c %a /root/file /var/kept >> /seen
for place in /root/file /mnt/none/directory/new /etc/own/x.conf /root/.rc /opt/tree/new /tmp/text /var/cache/distfiles/new; do
    if echo x 2>/dev/null >> $place; then echo "$place" >> /written; fi
done
if head -c 2000000 /dev/zero 2>/dev/null > /big/file; then echo /big/file >> /written; fi
echo line >> /var/kept/lines
cp /var/kept/lines /lines
test "$(. /quern/lib)" = helped
'''
"#;

twins!(steps_see_files_of_this_machine => root_steps_see_files_of_this_machine, userns_steps_see_files_of_this_machine);

fn steps_see_files_of_this_machine(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let name = format!("uses-{privilege:?}").to_lowercase();
    let recipe = stand.recipe(&name, &USES.replace("NAME", &name));
    let used = recipe.with_file_name("used");
    for directory in ["directory", "sysroot/etc/own", "sysroot/root", "sysroot/opt", "elsewhere"] {
        fs_err::create_dir_all(used.join(directory)).unwrap();
    }
    let files = [
        ("file", "file {{A}} {}"),
        ("directory/inside", " inside\n"),
        ("sysroot/etc/own/x.conf", "conf\n"),
        ("rc", "rc\n"),
        ("elsewhere/leaf", "leaf\n"),
    ];
    for (path, content) in files {
        fs_err::write(used.join(path), content).unwrap();
    }
    let allow = |mode| fs_err::set_permissions(used.join("file"), PermissionsExt::from_mode(mode)).unwrap();
    allow(0o705);
    symlink("../../rc", used.join("sysroot/root/.rc")).unwrap();
    symlink("../../elsewhere", used.join("sysroot/opt/tree")).unwrap();

    let tarball = stand.build_changed(&recipe).success().results().remove(0);
    let content = |path: &str| ask("tar", &["--extract", "--to-stdout", "--file", text(&tarball), path]);
    assert_eq!(content("./seen"), "1\nfile {{A}} {} inside\nconf\nrc\nleaf\n705\n1750\n");
    assert_eq!(content("./lines"), "line\n");
    let listing = ask("tar", &["--list", "--verbose", "--full-time", "--file", text(&tarball)]);
    for path in
        ["./written", "./root/file", "./mnt/none", "./etc/own", "./root/.rc", "./opt/tree", "./big", "./var/kept"]
    {
        assert!(!listing.contains(&format!(" {path}")), "{path}: {listing}");
    }
    let of_root = |listing: &str| listing.lines().find(|line| line.ends_with(" ./root/")).map(str::to_owned);
    assert!(of_root(&listing).is_some());

    // Times do not count, bytes and permissions do. A cache keeps its content.
    let runs = || stand.build_changed(&recipe).success().stderr.contains("running the step see");
    let touched = fs_err::File::open(used.join("directory/inside")).unwrap();
    touched.file().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(!runs());
    fs_err::write(used.join("elsewhere/leaf"), "leaf\n\n").unwrap();
    assert!(runs());
    allow(0o755);
    assert!(runs());
    assert_eq!(content("./lines"), "line\nline\nline\n");

    // The parents of mount points are those of the tree without them.
    stand.recipe(
        &name,
        &USES
            .replace("NAME", &name)
            .replace("run = '''", "sysroot = false\nrun = '''\ntrue\nexit\n")
            .replace("\"text\", \"file\", \"directory\"", "\"text\""),
    );
    assert_eq!(stand.build_changed(&recipe).success().results(), std::slice::from_ref(&tarball));
    assert_eq!(
        of_root(&ask("tar", &["--list", "--verbose", "--full-time", "--file", text(&tarball)])),
        of_root(&listing)
    );

    // A step that writes to this machine always runs.
    let writes = "kind = \"stage4\"\n[emerge]\npackages = []\n[[step]]\nname = \"write\"\nrun = 'echo line >> /out/lines'\n\
                  binds = [{ from = \"used/directory\", at = \"/out\", write = true }]\n";
    let opened = fs_err::set_permissions(used.join("directory"), PermissionsExt::from_mode(0o777));
    opened.unwrap();
    let recipe = stand.recipe(&format!("{name}-writes"), writes);
    for _ in 0..2 {
        let built = stand.env.run(["build", text(&recipe), "--until", "write"]).success();
        assert!(built.stderr.contains("running the step write"), "{}", built.stderr);
    }
    assert_eq!(fs_err::read_to_string(used.join("directory/lines")).unwrap(), "line\nline\n");
}

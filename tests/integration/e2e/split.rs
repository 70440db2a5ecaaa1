//! Archives of their own for parts of an image.

use std::fs;
use std::path::Path;

use super::{EPOCH, Stand, ask, text};
use crate::env::{Privilege, twins};

const SPLIT: &str = r#"kind = "stage4"
[emerge]
packages = []
[[step]]
name = "kernel"
run = '''
mkdir -p /boot/efi && chmod 700 /boot && echo kernel > /boot/vmlinuz && echo x > /boot/efi/loader
ln /boot/vmlinuz /usr/lib/vmlinuz && mkdir -p /data && echo secret > /boot/key && mkdir -p /real && ln -s real /alias
echo real > /real/file
'''
[[step]]
name = "last"
run = 'echo last > /last; echo more > /boot/more'
[strip]
paths = ["/boot/key"]
empty = ["/dev"]
[split]
boot = ["/boot"]
other = ["/alias", "/data"]
[oci]
tag = "v1"
cuts = ["kernel"]
"#;

fn names(archive: &Path) -> Vec<String> {
    ask("tar", &["--list", "--file", text(archive)]).lines().map(str::to_owned).collect()
}

twins!(parts_go_to_archives_of_their_own => root_parts_go_to_archives_of_their_own, userns_parts_go_to_archives_of_their_own);

fn parts_go_to_archives_of_their_own(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let name = format!("split-{privilege:?}").to_lowercase();
    let recipe = stand.recipe(&name, SPLIT);
    let results = stand.built(&recipe);
    let [tarball, boot, other, layout] = &results[..] else { panic!("{results:?}") };
    assert!(boot.ends_with(format!("{name}-2023-11-14.boot.tar.gz")), "{results:?}");
    assert_eq!(names(boot), ["./", "./boot/", "./boot/efi/", "./boot/efi/loader", "./boot/more", "./boot/vmlinuz"]);
    assert_eq!(names(other), ["./", "./data/", "./real/", "./real/file"]);
    let image = names(tarball);
    let below = |path: &str| image.iter().filter(|name| name.starts_with(path)).cloned().collect::<Vec<_>>();
    assert_eq!([below("./boot"), below("./real"), below("./dev")], [["./boot/"], ["./real/"], ["./dev/"]]);
    for blob in fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()) {
        if fs::read(&blob).unwrap().starts_with(b"{") {
            continue;
        }
        let hidden: Vec<_> =
            names(&blob).into_iter().filter(|name| name.starts_with("./boot/") && name.len() > 7).collect();
        assert_eq!(hidden, Vec::<String>::new());
    }
    let directory = tarball.parent().unwrap();
    let sums = format!("cd {} && sha256sum --check --strict *.sha256", text(directory));
    assert_eq!(ask("sh", &["-c", &sums]).lines().filter(|line| line.ends_with(": OK")).count(), 3);
    // All archives together are the whole image: modes, owners and data.
    let tree = stand.env.path("tree");
    fs::create_dir(&tree).unwrap();
    ask("tar", &["-xpf", text(tarball), "-C", text(&tree), "./boot", "./usr/lib/vmlinuz"]);
    ask("tar", &["-xpf", text(boot), "-C", text(&tree)]);
    assert_eq!(ask("stat", &["--format=%a", text(&tree.join("boot"))]), "700\n");
    assert_eq!(fs::read_to_string(tree.join("boot/vmlinuz")).unwrap(), "kernel\n");
    assert_eq!(fs::read_to_string(tree.join("usr/lib/vmlinuz")).unwrap(), "kernel\n");
    let _ = stand.env.run(["oci", "unpack", text(layout), "v1", "unpacked", "--record", "record"]).success();
    let same = "\"$0\" raw pack unpacked --record record > packed && cmp packed \"$1\"";
    let mut command = stand.env.command("sh");
    let _ = crate::env::output(command.args(["-ec", same, crate::env::PROGRAM, text(tarball)])).success();

    let missing = stand.recipe(&name, &SPLIT.replace("\"/data\"", "\"/no/such\""));
    let refused = stand.build_changed(&missing).code(1);
    assert!(refused.stderr.contains("packing the archive other: the image has no directory /no/such"), "{refused:#?}");
}

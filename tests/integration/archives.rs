//! `raw unpack`, `pack`, `ls` and `xzcat` beside GNU tar and xz.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::env::{PROGRAM, TestEnv, output, require_root, require_userns};

/// Runs the program with a file as its standard input and another as its output.
fn piped(env: &TestEnv, arguments: &[&str], input: &Path, to: &str) -> crate::env::Output {
    let mut command = env.program(arguments);
    output(command.stdin(File::open(input).unwrap()).stdout(File::create(env.path(to)).unwrap()))
}

fn tar(arguments: &[&str]) -> String {
    output(Command::new("tar").env("LC_ALL", "C").env("TZ", "UTC").args(arguments)).success().stdout
}

/// A tree with most kinds of things, as an archive of GNU tar.
fn sample(env: &TestEnv) -> std::path::PathBuf {
    let script = "umask 022; mkdir -p tree/d/empty; echo data > tree/d/file; chmod 4711 tree/d/file; ln tree/d/file tree/hard; \
                  ln -s ../d/file tree/soft; mkfifo tree/pipe; truncate -s 3M tree/sparse; echo x >> tree/sparse; \
                  printf y > \"tree/$(printf 'n%0120d' 1)\"; touch -d '2001-02-03 04:05:06.789 UTC' tree/d/file; \
                  tar -C tree --sort=name --format=pax --pax-option=delete=atime,delete=ctime --sparse -cf sample.tar .";
    let _ = output(Command::new("sh").args(["-ec", script]).current_dir(env.path(""))).success();
    env.path("sample.tar")
}

#[test]
fn ls_and_unpack_say_the_same_as_tar() {
    let env = TestEnv::new();
    let archive = sample(&env);
    let listed = piped(&env, &["raw", "ls"], &archive, "listing").success();
    assert_eq!(listed.stderr, "");
    let listing = fs::read_to_string(env.path("listing")).unwrap();
    assert_eq!(listing, tar(&["--numeric-owner", "-tvf", archive.to_str().unwrap()]));

    let _ = piped(&env, &["raw", "ls", "--json"], &archive, "lines").success();
    let lines = fs::read_to_string(env.path("lines")).unwrap();
    let objects: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), listing.lines().count());
    let of = |path: &str| objects.iter().find(|object| object["path"] == path).unwrap_or_else(|| panic!("{path}"));
    assert_eq!((of("")["type"].as_str(), of("pipe")["type"].as_str()), (Some("dir"), Some("fifo")));
    assert_eq!((of("soft")["link"].as_str(), of("hard")["link"].as_str()), (Some("../d/file"), Some("d/file")));
    let file = of("d/file");
    assert_eq!((file["mode"].as_u64(), file["size"].as_u64()), (Some(0o4711), Some(5)));
    assert_eq!((file["mtime"].as_i64(), file["mtime_nsec"].as_u64()), (Some(981_173_106), Some(789_000_000)));
    assert_eq!((of("sparse")["size"].as_u64(), of("sparse")["sparse"].is_array()), (Some((3 << 20) + 2), true));
}

#[test]
fn root_what_is_unpacked_and_packed_is_what_it_was() {
    if !require_root() {
        return;
    }
    let env = TestEnv::new();
    let archive = sample(&env);
    fs::create_dir(env.path("new")).unwrap();
    let _ = piped(&env, &["raw", "unpack", "--root", "new", "--json"], &archive, "lines").success();
    let _ = piped(&env, &["raw", "ls", "--json"], &archive, "listed").success();
    assert_eq!(fs::read(env.path("lines")).unwrap(), fs::read(env.path("listed")).unwrap());
    let _ = piped(&env, &["raw", "ls"], &archive, "before").success();
    for format in ["tar", "tar.gz", "tar.xz", "tar.zst"] {
        let name = format!("packed.{format}");
        let _ = piped(&env, &["raw", "pack", "new", "--format", format, "--level", "1"], Path::new("/dev/null"), &name)
            .success();
        let _ = piped(&env, &["raw", "ls"], &env.path(&name), "after").success();
        assert_eq!(fs::read(env.path("before")).unwrap(), fs::read(env.path("after")).unwrap(), "{format}");
        assert_eq!(
            tar(&["-tf", env.path(&name).to_str().unwrap()]),
            tar(&["-tf", archive.to_str().unwrap()]),
            "{format}"
        );
    }
}

#[test]
fn userns_what_an_ordinary_user_unpacks_is_packed_as_root_would() {
    if !require_userns() || !require_root() {
        return;
    }
    let root = TestEnv::new();
    let script = "mkdir -p tree/dev; mknod -m 640 tree/dev/sda b 8 0; mknod -m 666 tree/dev/null c 1 3; echo x > tree/f; chown 250:12 tree/f; \
                  tar -C tree --sort=name --format=pax -cf nodes.tar .";
    let _ = output(Command::new("sh").args(["-ec", script]).current_dir(root.path(""))).success();
    let archive = fs::read(root.path("nodes.tar")).unwrap();
    let mut packed = Vec::new();
    for env in [root, TestEnv::as_user()] {
        let new = env.path("home/new");
        fs::create_dir(&new).unwrap();
        if let Some((uid, gid)) = env.owner() {
            std::os::unix::fs::chown(&new, Some(uid), Some(gid)).unwrap();
        }
        let unpack = ["raw", "unpack", "--root", "home/new", "--record", "home/record"];
        let copy = env.write("copy.tar", &archive);
        let _ = piped(&env, &unpack, &copy, "nothing").success();
        assert_eq!(fs::read(env.path("nothing")).unwrap(), b"");
        let pack = ["raw", "pack", "home/new", "--record", "home/record", "--format", "tar"];
        let _ = piped(&env, &pack, Path::new("/dev/null"), "again.tar").success();
        packed.push(fs::read(env.path("again.tar")).unwrap());
        let remove = ["-ec", "rm -r \"$1\"", "sh", new.to_str().unwrap()];
        let _ = output(Command::new("sh").args(remove)).success();
    }
    assert!(packed[0] == packed[1], "another archive for an ordinary user");
    assert!(packed[0].windows(8).any(|window| window == b"dev/null"), "with its device nodes");
}

#[test]
fn userns_owners_that_an_ordinary_user_cannot_know_are_told() {
    if !require_userns() || !require_root() {
        return;
    }
    let env = TestEnv::as_user();
    let (uid, _) = env.owner().unwrap();
    let ranges = fs::read_to_string("/etc/subuid").unwrap();
    let first: u32 =
        ranges.lines().find_map(|line| line.strip_prefix("quern-test:")?.split(':').next()?.parse().ok()).unwrap();
    // Inside, the user is 0 and the range begins with 1.
    for (owner, packed, told) in [(0, 65534, true), (first + 65533, 65534, false), (uid, 0, false), (first, 1, false)] {
        let tree = env.path(format!("tree-{owner}"));
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        for path in [&tree, &tree.join("file")] {
            std::os::unix::fs::chown(path, Some(owner), Some(first)).unwrap();
        }
        let pack = ["raw", "pack", tree.to_str().unwrap(), "--format", "tar"];
        let ended = piped(&env, &pack, Path::new("/dev/null"), "packed.tar").success();
        assert_eq!(ended.stderr.matches("range of ids").count(), usize::from(told), "{owner}: {}", ended.stderr);
        let listed = tar(&["--numeric-owner", "-tvf", env.path("packed.tar").to_str().unwrap()]);
        assert_eq!(listed.matches(&format!(" {packed}/1 ")).count(), 2, "{owner}: {listed}");
    }
}

#[test]
fn userns_layers_that_an_ordinary_user_unpacks_are_packed_as_root_would() {
    if !require_userns() || !require_root() {
        return;
    }
    // The second layer takes one node away, replaces one by a file, and links to one that only the first has.
    let script = "umoci init --layout image; umoci new --image image; umoci unpack --image image b; \
                  mkdir b/rootfs/dev; mknod -m 640 b/rootfs/dev/sda b 8 0; mknod -m 666 b/rootfs/dev/null c 1 3; \
                  mknod b/rootfs/dev/tty c 5 0; mknod b/rootfs/dev/zero c 1 5; umoci repack --image image --refresh-bundle b; \
                  rm b/rootfs/dev/sda b/rootfs/dev/tty; echo x > b/rootfs/dev/tty; umoci repack --image image b; chmod -R a+rX image";
    let root = TestEnv::new();
    let _ = output(Command::new("sh").args(["-ec", script]).current_dir(root.path(""))).success();
    let image = root.path("image");
    let mut packed = Vec::new();
    for mut env in [TestEnv::new(), TestEnv::as_user()] {
        env.set("SOURCE_DATE_EPOCH", "1");
        let _ = output(Command::new("cp").arg("-r").arg(&image).arg(env.path("image"))).success();
        let _ = env.run(["oci", "unpack", "image", "latest", "home/new", "--record", "home/record"]).success();
        let pack = ["raw", "pack", "home/new", "--record", "home/record", "--format", "tar"];
        let _ = piped(&env, &pack, Path::new("/dev/null"), "again.tar").success();
        packed.push(tar(&["--xattrs", "--numeric-owner", "-tvvf", env.path("again.tar").to_str().unwrap()]));
        let _ = output(Command::new("rm").arg("-r").arg(env.path("home/new"))).success();
    }
    assert_eq!(packed[0], packed[1]);
    assert!(packed[0].contains("./dev/null") && !packed[0].contains("./dev/sda"), "{}", packed[0]);
}

#[test]
fn refusals_have_codes() {
    let env = TestEnv::new();
    fs::create_dir(env.path("new")).unwrap();
    let plain = fs::read(sample(&env)).unwrap();
    let mut flipped = plain.clone();
    flipped[10] ^= 1;
    let cases: [(&str, Vec<u8>); 6] = [
        ("bad-checksum", flipped),
        ("truncated", plain[..plain.len() / 2].to_vec()),
        ("truncated", Vec::new()),
        ("corrupt", [&b"\x1f\x8b\x08\0"[..], &[0xff; 100]].concat()),
        ("corrupt", [&b"\xfd7zXZ\0"[..], &[0; 100]].concat()),
        ("bad-checksum", vec![b'x'; 2048]),
    ];
    for (code, bytes) in cases {
        let archive = env.write("hostile", &bytes);
        for verb in [&["raw", "ls", "--json"][..], &["raw", "unpack", "--json", "--root", "new"]] {
            if verb[1] == "unpack" && !crate::env::is_root() {
                continue;
            }
            let ended = piped(&env, verb, &archive, "lines").code(3);
            assert!(ended.stderr.contains("error: "), "{}", ended.stderr);
            let lines = fs::read_to_string(env.path("lines")).unwrap();
            let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
            assert_eq!(last["refused"], code, "{verb:?}: {last}");
        }
    }
}

#[test]
fn root_the_digest_of_the_archive_is_checked() {
    if !require_root() {
        return;
    }
    let env = TestEnv::new();
    let archive = sample(&env);
    let packed = env.path("sample.tar.xz");
    let _ = output(Command::new("xz").arg("-k").arg(&archive)).success();
    // What stands behind the archive is a part of the file.
    let padded = env.write("padded.tar", [fs::read(&archive).unwrap(), vec![0; 100_000]].concat());
    for file in [&archive, &packed, &padded] {
        let sum = output(Command::new("sha512sum").arg(file)).success().stdout;
        let sum = sum.split(' ').next().unwrap();
        let wrong = format!("{}{}", if sum.starts_with('0') { '1' } else { '0' }, &sum[1..]);
        for (number, (digest, code)) in [(sum.to_uppercase(), 0), (wrong, 3)].into_iter().enumerate() {
            let tree = format!("{}-{number}", file.file_name().unwrap().display());
            fs::create_dir(env.path(&tree)).unwrap();
            let ended =
                piped(&env, &["raw", "unpack", "--root", &tree, "--sha512", &digest], file, "printed").code(code);
            assert_eq!(ended.stderr.contains("SHA-512"), code != 0, "{}", ended.stderr);
        }
    }
    let usage = piped(&env, &["raw", "unpack", "--sha512", "abc"], &archive, "printed").code(2);
    assert!(usage.stderr.contains("128 hexadecimal digits"), "{}", usage.stderr);
}

#[test]
fn xzcat_is_xz() {
    let env = TestEnv::new();
    let _ = output(Command::new("sh").args(["-ec", "seq 300000 > plain; xz -k1 plain"]).current_dir(env.path("")))
        .success();
    let (plain, xz) = (fs::read(env.path("plain")).unwrap(), fs::read(env.path("plain.xz")).unwrap());
    let twice = env.write("twice.xz", [&xz[..], &[0; 8], &xz].concat());
    for (input, expected) in [(env.path("plain.xz"), plain.clone()), (twice, [&plain[..], &plain].concat())] {
        let _ = piped(&env, &["raw", "xzcat"], &input, "decoded").success();
        assert!(fs::read(env.path("decoded")).unwrap() == expected);
    }
    let mut damaged = xz.clone();
    damaged[xz.len() / 2] ^= 4;
    for wrong in [damaged, xz[..xz.len() - 1].to_vec(), plain, Vec::new(), [&xz[..], &[0; 3]].concat()] {
        let input = env.write("wrong.xz", &wrong);
        let ended = piped(&env, &["raw", "xzcat"], &input, "decoded").code(3);
        assert!(ended.stderr.starts_with("error: decoding standard input"), "{}", ended.stderr);
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let env = TestEnv::new();
    let _ = sample(&env);
    let _ =
        output(Command::new("sh").args(["-ec", "seq 3000000 | xz -0 > big.xz"]).current_dir(env.path(""))).success();
    for verb in ["xzcat < big.xz", "pack tree --format tar"] {
        if verb.starts_with("pack") && !crate::env::is_root() {
            continue;
        }
        let script = format!("{PROGRAM} raw {verb} | head -c 5 > /dev/null; exit ${{PIPESTATUS[0]}}");
        let mut command = env.command("bash");
        let ended = output(command.args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null()));
        assert!([0, 141].contains(&ended.code), "{verb}: {}", ended.code);
    }
}

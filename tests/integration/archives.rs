//! `raw unpack`, `pack`, `ls` and `xzcat`, compared with GNU tar and xz.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::env::{PROGRAM, Privilege, TestEnv, output};

/// Runs the program with its standard input and output redirected to files.
fn piped(env: &TestEnv, arguments: &[&str], input: &Path, to: &str) -> crate::env::Output {
    let mut command = env.program(arguments);
    output(command.stdin(File::open(input).unwrap()).stdout(File::create(env.path(to)).unwrap()))
}

fn tar(arguments: &[&str]) -> String {
    output(Command::new("tar").env("LC_ALL", "C").env("TZ", "UTC").args(arguments)).success().stdout
}

/// Makes an archive with GNU tar, of a tree with most kinds of files.
fn sample(env: &TestEnv) -> std::path::PathBuf {
    let script = "umask 022; mkdir -p tree/d/empty; echo data > tree/d/file; chmod 4711 tree/d/file; ln tree/d/file tree/hard; \
                  ln -s ../d/file tree/soft; mkfifo tree/pipe; truncate -s 3M tree/sparse; echo x >> tree/sparse; \
                  printf y > \"tree/$(printf 'n%0120d' 1)\"; touch -d '2001-02-03 04:05:06.789 UTC' tree/d/file; \
                  tar -C tree --sort=name --format=pax --pax-option=delete=atime,delete=ctime --sparse -cf sample.tar .";
    let _ = output(Command::new("sh").args(["-ec", script]).current_dir(env.path(""))).success();
    env.path("sample.tar")
}

#[test]
fn ls_prints_the_same_as_gnu_tar() {
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
fn root_unpacking_and_packing_keep_all_entries() {
    let Some(env) = TestEnv::root() else { return };
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
fn userns_an_ordinary_user_packs_the_same_archive_as_root() {
    let (Some(root), Some(user)) = (TestEnv::root(), TestEnv::userns()) else { return };
    let script = "mkdir -p tree/dev; mknod -m 640 tree/dev/sda b 8 0; mknod -m 666 tree/dev/null c 1 3; echo x > tree/f; chown 250:12 tree/f; \
                  tar -C tree --sort=name --format=pax -cf nodes.tar .";
    let _ = output(Command::new("sh").args(["-ec", script]).current_dir(root.path(""))).success();
    let archive = fs::read(root.path("nodes.tar")).unwrap();
    let mut packed = Vec::new();
    for env in [root, user] {
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
    assert!(packed[0] == packed[1], "the archive of an ordinary user differs");
    assert!(packed[0].windows(8).any(|window| window == b"dev/null"), "the device nodes are missing");
}

#[test]
fn userns_an_ordinary_user_packs_unpacked_layers_as_root_does() {
    let (Some(root), Some(user)) = (TestEnv::root(), TestEnv::userns()) else { return };
    // The second layer removes one node and replaces another with a file.
    let script = "umoci init --layout image; umoci new --image image; umoci unpack --image image b; \
                  mkdir b/rootfs/dev; mknod -m 640 b/rootfs/dev/sda b 8 0; mknod -m 666 b/rootfs/dev/null c 1 3; \
                  mknod b/rootfs/dev/tty c 5 0; mknod b/rootfs/dev/zero c 1 5; umoci repack --image image --refresh-bundle b; \
                  rm b/rootfs/dev/sda b/rootfs/dev/tty; echo x > b/rootfs/dev/tty; umoci repack --image image b; chmod -R a+rX image";
    let made = TestEnv::new();
    let _ = output(Command::new("sh").args(["-ec", script]).current_dir(made.path(""))).success();
    let image = made.path("image");
    let mut packed = Vec::new();
    for mut env in [root, user] {
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
fn userns_owners_that_are_not_mapped_are_not_packed_as_nobody() {
    let Some(env) = TestEnv::userns().filter(|_| Privilege::Root.available()) else { return };
    let script = "mkdir -p tree/d; echo x > tree/d/f; echo x > tree/g; ln -s f tree/d/l; mkfifo tree/p; chown -Rh 65534:65534 tree/d; \
                  chgrp 65534 tree/g; tar -C tree --numeric-owner --format=pax -cf sample.tar .";
    let _ = output(Command::new("sh").args(["-ec", script]).current_dir(env.path(""))).success();
    let archive = env.write("copy.tar", fs::read(env.path("sample.tar")).unwrap());
    fs::create_dir(env.path("home/new")).unwrap();
    let (uid, gid) = env.owner().unwrap();
    std::os::unix::fs::chown(env.path("home/new"), Some(uid), Some(gid)).unwrap();
    let _ = piped(&env, &["raw", "unpack", "--root", "home/new"], &archive, "nothing").success();
    let pack = || piped(&env, &["raw", "pack", "home/new", "--format", "tar"], Path::new("/dev/null"), "again.tar");
    // Files of the namespace's nobody are packed as files of nobody.
    let _ = pack().success();
    let listed = tar(&["--numeric-owner", "-tvf", env.path("again.tar").to_str().unwrap()]);
    assert_eq!(listed.matches("65534/65534").count(), 3, "{listed}");
    assert_eq!(listed.matches("0/65534").count(), 1, "{listed}");

    // Packing fails where the program cannot make a nested user namespace to tell the owners apart.
    let limited = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\" raw pack home/new > /dev/null";
    let told = env.run_in_namespace(limited).code(4);
    let error = "asking the process that tells owners apart: making a user namespace: ENOSPC";
    assert!(told.stderr.contains(error), "{}", told.stderr);

    let sh = |script: &str| output(Command::new("sh").args(["-ec", script]).current_dir(env.path("home/new")));
    let mine = |path: &str| {
        let stat = fs::symlink_metadata(env.path("home/new").join(path)).unwrap();
        use std::os::unix::fs::MetadataExt as _;
        format!("{}:{}", stat.uid(), stat.gid())
    };
    for (path, owner) in [("d/f", "0"), ("d/l", ":0"), ("d", "0:0"), ("g", "0"), ("g", ":0"), ("p", ":0"), ("p", "0")] {
        let before = mine(path);
        let _ = sh(&format!("chown -h {owner} {path}")).success();
        let told = pack().code(4);
        let error = format!("packing {path} in home/new: its owner or its group is not mapped");
        assert!(told.stderr.contains(&error) && told.stderr.contains("/etc/subuid"), "{}", told.stderr);
        let _ = sh(&format!("chown -h {before} {path}")).success();
    }
    let _ = sh("setfacl -m u:0:r g").success();
    let told = pack().code(4);
    assert!(told.stderr.contains("a user or group in its ACL is not mapped"), "{}", told.stderr);
    let _ = sh("setfacl -b g").success();
    let _ = pack().success();
    let _ = output(Command::new("rm").arg("-r").arg(env.path("home/new"))).success();
}

#[test]
fn a_tree_is_not_packed_into_itself() {
    let env = TestEnv::new();
    fs::create_dir_all(env.path("tree/d")).unwrap();
    fs::write(env.path("tree/f"), "f").unwrap();
    let names = || {
        let find = Command::new("find").arg(env.path("tree")).stdin(Stdio::null()).output().unwrap();
        String::from_utf8(find.stdout).unwrap().lines().count()
    };
    let pack = |more: &[&str], to: &str| {
        piped(&env, &[&["raw", "pack", "tree", "--format", "tar"], more].concat(), Path::new("/dev/null"), to)
    };
    let refused = |more: &[&str], to: &str, what: &str| {
        let told = pack(more, to).code(2);
        assert!(told.stderr.contains(what) && told.stderr.contains("outside of the tree"), "{}", told.stderr);
        assert_eq!(fs::metadata(env.path(to)).unwrap().len(), 0);
    };
    refused(&[], "tree/d/z.tar", "the archive would be written into it");
    fs::remove_file(env.path("tree/d/z.tar")).unwrap();
    refused(&["--manifest", "tree/d/m"], "z.tar", "the manifest would be written into it");
    refused(&["--digests", "tree/d/m"], "z.tar", "the file of digests would be written into it");
    refused(&["--cache", "tree/pieces"], "z.tar", "the cache would be written into it");
    assert_eq!(names(), 3);
    let absolute = env.path("m");
    for both in [
        &["--manifest", "z.tar"][..],
        &["--digests", "z.tar"],
        &["--manifest", "m", "--digests", absolute.to_str().unwrap()],
    ] {
        let told = pack(both, "z.tar").code(2);
        assert!(told.stderr.contains("to the same file"), "{both:?}: {}", told.stderr);
    }
    assert!(!absolute.exists());
    let _ = pack(&["--manifest", "m", "--cache", "pieces"], "z.tar").success();

    // A hard link to the output is also detected.
    fs::hard_link(env.path("z.tar"), env.path("tree/hard.tar")).unwrap();
    let told = pack(&[], "z.tar").code(2);
    assert!(told.stderr.contains("packing hard.tar in tree: a result is written there"), "{}", told.stderr);
}

#[test]
fn a_manifest_is_complete_or_unchanged() {
    let env = TestEnv::new();
    fs::create_dir_all(env.path("tree/deep")).unwrap();
    fs::create_dir(env.path("lists")).unwrap();
    fs::write(env.path("tree/f"), "f").unwrap();
    fs::write(env.path("lists/m"), "old").unwrap();
    std::os::unix::fs::symlink("m", env.path("lists/link")).unwrap();
    let pack = |manifest: &str| {
        let command = ["raw", "pack", "tree", "--format", "tar", "--manifest", manifest];
        piped(&env, &command, Path::new("/dev/null"), "z.tar")
    };
    // The last path, after all others are packed, is too long for an archive.
    let script = "cd tree/deep; for n in $(seq 17); do d=$(printf %0250d $n); mkdir $d; cd -P ./$d || exit; done";
    let _ = output(Command::new("bash").args(["-c", script]).current_dir(env.path(""))).success();
    let told = pack("lists/m").code(4);
    assert!(told.stderr.contains("the path is too long"), "{}", told.stderr);
    let listed = || fs::read_dir(env.path("lists")).unwrap().count();
    assert_eq!((fs::read_to_string(env.path("lists/m")).unwrap().as_str(), listed()), ("old", 2));

    fs::remove_dir_all(env.path("tree/deep")).unwrap();
    let _ = pack("lists/link").success();
    let text = fs::read_to_string(env.path("lists/m")).unwrap();
    assert!(text.starts_with("#mtree\n") && text.contains("./f type=file"), "{text}");
    assert!(fs::symlink_metadata(env.path("lists/link")).unwrap().is_symlink() && listed() == 2);
    let _ = pack("/dev/null").success();
    let told = pack("/dev/stderr").success();
    assert_eq!(told.stderr, text);
}

#[test]
fn digests_are_those_of_the_output() {
    let env = TestEnv::new();
    fs::create_dir(env.path("tree")).unwrap();
    fs::write(env.path("tree/f"), vec![b'x'; 5 << 20]).unwrap();
    let word = |script: &str| {
        let told = output(Command::new("sh").args(["-c", script]).current_dir(env.path("")).stdin(Stdio::null()));
        told.success().stdout.split_whitespace().next().unwrap().to_owned()
    };
    let sum = |script: &str| format!("sha256:{}", word(script));
    for (format, decode) in [("tar", "cat"), ("tar.gz", "gzip -dc"), ("tar.xz", "xz -dc"), ("tar.zst", "zstd -dcq")] {
        let command = ["raw", "pack", "tree", "--format", format];
        let _ = piped(&env, &command, Path::new("/dev/null"), "without").success();
        let command = [&command[..], &["--digests", "told"]].concat();
        let _ = piped(&env, &command, Path::new("/dev/null"), "z").success();
        assert!(fs::read(env.path("z")).unwrap() == fs::read(env.path("without")).unwrap(), "{format}");
        let told: serde_json::Value = serde_json::from_slice(&fs::read(env.path("told")).unwrap()).unwrap();
        assert_eq!(told["digest"], sum("sha256sum z"), "{format}");
        assert_eq!(told["diff_id"], sum(&format!("{decode} < z | sha256sum")), "{format}");
        assert_eq!(told["size"], fs::metadata(env.path("z")).unwrap().len(), "{format}");
        assert_eq!(told["tar_size"].to_string(), word(&format!("{decode} < z | wc -c")), "{format}");
        assert_eq!(told["entries"], 2, "{format}");
    }
}

#[test]
fn refusals_have_codes_and_positions() {
    let env = TestEnv::new();
    fs::create_dir(env.path("new")).unwrap();
    let plain = fs::read(sample(&env)).unwrap();
    let mut flipped = plain.clone();
    flipped[10] ^= 1;
    let cases: [(&str, Vec<u8>); 6] = [
        ("bad-checksum", flipped),
        ("truncated", plain[..plain.len() / 2 - 100].to_vec()),
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
    // An archive truncated in the data of an entry: the entry's path and offset are reported.
    let script = "echo a > a; head -c 9000 /dev/zero > b; tar -cf cut.tar a b; truncate -s 5000 cut.tar";
    let _ = output(env.command("sh").args(["-ec", script])).success();
    for verb in [&["raw", "ls", "--json"][..], &["raw", "unpack", "--json", "--root", "new"]] {
        if verb[1] == "ls" || crate::env::is_root() {
            let _ = piped(&env, verb, &env.path("cut.tar"), "lines").code(3);
            let lines = fs::read_to_string(env.path("lines")).unwrap();
            let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
            assert_eq!(
                (&last["refused"], &last["path"], &last["offset"]),
                (&"truncated".into(), &"b".into(), &1024.into())
            );
        }
    }
}

#[test]
fn root_the_digest_of_the_archive_is_checked() {
    let Some(env) = TestEnv::root() else { return };
    let archive = sample(&env);
    let packed = env.path("sample.tar.xz");
    let _ = output(Command::new("xz").arg("-k").arg(&archive)).success();
    // Bytes after the archive are part of the file, and of its digest.
    let padded = env.write("padded.tar", [fs::read(&archive).unwrap(), vec![0; 100_000]].concat());
    for file in [&archive, &packed, &padded] {
        let sum = output(Command::new("sha512sum").arg(file)).success().stdout;
        let sum = sum.split(' ').next().unwrap();
        let wrong = format!("{}{}", if sum.starts_with('0') { '1' } else { '0' }, &sum[1..]);
        for (number, (digest, code)) in [(sum.to_uppercase(), 0), (wrong, 3)].into_iter().enumerate() {
            let tree = format!("{}-{number}", file.file_name().unwrap().display());
            fs::create_dir(env.path(&tree)).unwrap();
            let arguments = ["raw", "unpack", "--json", "--root", &tree, "--sha512", &digest];
            let ended = piped(&env, &arguments, file, "printed").code(code);
            assert_eq!(ended.stderr.contains("SHA-512"), code != 0, "{}", ended.stderr);
            let printed = fs::read_to_string(env.path("printed")).unwrap();
            let last = printed.lines().last().unwrap();
            assert_eq!(last.contains(r#""refused":"digest-mismatch""#), code != 0, "{last}");
        }
    }
    // An archive that is refused before it is read also has a line.
    fs::create_dir(env.path("small")).unwrap();
    let arguments = ["raw", "unpack", "--json", "--root", "small", "--max-bytes", "10"];
    let _ = piped(&env, &arguments, &packed, "printed").code(3);
    assert!(fs::read_to_string(env.path("printed")).unwrap().contains(r#""refused":"too-large""#));
    let usage = piped(&env, &["raw", "unpack", "--sha512", "abc"], &archive, "printed").code(2);
    assert!(usage.stderr.contains("128 hexadecimal digits"), "{}", usage.stderr);
}

#[test]
fn xzcat_decodes_as_xz_does() {
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
fn a_closed_pipe_ends_the_program_without_a_message() {
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

/// Python writes times as they are given to it.
#[test]
fn ls_prints_times_like_tar() {
    let env = TestEnv::new();
    let script = "import tarfile\n\
                  with tarfile.open('times.tar', 'w', format=tarfile.PAX_FORMAT) as archive:\n \
                  for time in (1, 253402300800, 67768036191676800, 2**63 - 1, -62135596801, -2**63, 5):\n  \
                  entry = tarfile.TarInfo('f')\n  \
                  entry.pax_headers['mtime'] = str(time)\n  \
                  archive.addfile(entry)\n";
    let _ = output(Command::new("python3").args(["-c", script]).current_dir(env.path(""))).success();
    let archive = env.path("times.tar");
    let _ = piped(&env, &["raw", "ls"], &archive, "listing").success();
    let expected = tar(&["--numeric-owner", "-tvf", archive.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(env.path("listing")).unwrap().replace("./f", "f"), expected);
}

/// `raw pack` writes times of 19 digits where the file system has them, as tmpfs does.
#[test]
fn times_of_nineteen_digits_are_packed_and_read() {
    let env = TestEnv::new();
    let tree = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let touch = ["-d", "@1000000000000000000", tree.path().join("f").to_str().unwrap()].map(str::to_owned);
    let _ = output(Command::new("touch").args(touch)).success();
    let pack = ["raw", "pack", tree.path().to_str().unwrap(), "--format", "tar"];
    let _ = piped(&env, &pack, Path::new("/dev/null"), "f.tar").success();
    let _ = piped(&env, &["raw", "ls", "--json"], &env.path("f.tar"), "lines").success();
    assert!(fs::read_to_string(env.path("lines")).unwrap().contains("\"mtime\":1000000000000000000,"));
}

/// `umoci insert` ends a layer after its last entry, without blocks of zeros.
#[test]
fn layers_of_umoci_insert_are_accepted() {
    let env = TestEnv::new();
    let script = "umoci init --layout image; umoci new --image image:latest; echo inserted > file; \
                  umoci insert --image image:latest file /etc/file; chmod -R a+rX image";
    let _ = output(Command::new("sh").args(["-ec", script]).current_dir(env.path(""))).success();
    let _ = env.run(["oci", "validate", "image"]).success();
    let unpacked = env.run(["oci", "unpack", "image", "latest", "tree"]).success();
    assert!(!unpacked.stderr.contains("end mark"), "the digest shows that the layer is complete: {}", unpacked.stderr);
    assert_eq!(fs::read_to_string(env.path("tree/etc/file")).unwrap(), "inserted\n");
}

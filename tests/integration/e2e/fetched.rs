//! Downloads from a host of binary packages: interrupted ones, those of a locked index, and a hostile package beside them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use super::binhost::Served;
use super::listing::content;
use super::{Stand, ask, text};
use crate::env::{Output, output};

/// Bytes of the first answer with a package that arrive.
const CUT: u64 = 4096;

/// Starts a proxy for a server that cuts the first answer with a package. Returns its address.
fn cutting_proxy(served: &Served) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = served.url.strip_prefix("http://").unwrap().to_owned();
    std::thread::spawn(move || {
        let mut whole = 0;
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
                request.push(byte[0]);
            }
            // Each connection carries one request.
            let request = String::from_utf8(request).unwrap();
            let own = |line: &&str| !line.is_empty() && !line.to_ascii_lowercase().starts_with("connection:");
            let lines: Vec<&str> = request.split("\r\n").filter(own).collect();
            server.write_all(format!("{}\r\nConnection: close\r\n\r\n", lines.join("\r\n")).as_bytes()).unwrap();
            let is_package = lines.first().is_some_and(|line| line.contains(".gpkg.tar"));
            let limit = if is_package && std::mem::replace(&mut whole, u64::MAX) == 0 { CUT } else { u64::MAX };
            drop(std::io::copy(&mut server.take(limit), &mut client));
        }
    });
    url
}

/// Installs a package whose download is interrupted: Portage asks for the rest.
pub(super) fn an_interrupted_download_is_resumed(stand: &Stand, served: &Served, keys: &str) {
    let host = format!("{{ url = \"{}/signed\", {keys} }}", cutting_proxy(served));
    let installed = stand.install("resumed", &host).success();
    assert!(installed.stderr.contains("1 reused"), "{installed:#?}");
    let log = served.log();
    assert!(log.contains("206 GET /signed/app-test/tiny/tiny-1-1.gpkg.tar"), "{log}");
}

/// Builds with a locked index after the host has got another one.
pub(super) fn a_locked_index_is_used_or_refused(stand: &Stand, served: &Served, keys: &str) {
    let hosts = stand.env.path("hosts");
    let _ = ask("cp", &["-a", text(&hosts.join("signed")), text(&hosts.join("moving"))]);
    let recipe = stand.installing("moving", &format!("{{ url = \"{}/moving\", {keys} }}", served.url));
    let run = |words: &[&str]| -> Output {
        output(stand.env.program([words, &[text(&recipe)]].concat()).env_remove("QUERN_PORTAGE_BINPKG"))
    };
    let _ = run(&["lock"]).success();
    let index = hosts.join("moving/Packages");
    let other = fs::read_to_string(&index).unwrap().replace("PATH: app-test/tiny/", "PATH: app-test/other/");
    fs::write(&index, other).unwrap();
    fs::remove_file(hosts.join("moving/Packages.gz")).unwrap();
    let asked = || served.log().matches(" GET /moving/Packages").count();
    let before = asked();
    let locked = run(&["build", "--again=all", "--locked"]).success();
    assert!(locked.stderr.contains("1 reused"), "{locked:#?}");
    assert_eq!(asked(), before, "the stored index is used");
    // On another machine, the store does not have it.
    let lock = recipe.with_file_name("quern.lock");
    let text = fs::read_to_string(&lock).unwrap();
    let (head, entry) = text.split_once("[[recipe.moving.binhost]]").expect("a locked index");
    let at = entry.find("sha512 = \"").expect("a digest") + "sha512 = \"".len();
    let digit = if entry[at..].starts_with('0') { "1" } else { "0" };
    fs::write(&lock, format!("{head}[[recipe.moving.binhost]]{}{digit}{}", &entry[..at], &entry[at + 1..])).unwrap();
    let refused = run(&["build", "--locked"]).code(3);
    assert!(refused.stderr.contains("/moving is not the locked one"), "{refused:#?}");
    fs::remove_file(lock).unwrap();
}

/// Looks for the key that signed packages, from inside a build that takes such packages.
pub(super) fn no_package_finds_the_signing_key(stand: &Stand, host: &str) {
    let names = ["private-keys*", "*.rev", "secring*", "*.key"].map(|name| format!("-name '{name}'"));
    let find = format!("find / \\( {} \\) -print", names.join(" -o "));
    stand.ebuild("app-own", "seeker", &format!("pkg_postinst() {{\n\t{find} 2>/dev/null >\"${{EROOT}}/found\"\n}}\n"));
    assert!(stand.env.path("one/private-keys-v1.d").is_dir());
    let recipe = stand.installing("seeker", host);
    let rest = fs::read_to_string(&recipe).unwrap().replace("app-test/tiny", "app-own/seeker\", \"app-test/tiny");
    fs::write(&recipe, rest).unwrap();
    let built =
        output(stand.env.program(["build", "--again=all", text(&recipe)]).env_remove("QUERN_PORTAGE_BINPKG")).success();
    assert!(built.stderr.contains("1 reused"), "{built:#?}");
    let result: &Path = &built.results()[0];
    assert_eq!(content(result, "found"), "");
}

//! `raw verify`: checks one signature, as the program checks those of a mirror.

use crate::base::text::printable;
use crate::base::time::readable;
use std::error::Error as StdError;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::base::error::{Context, Error, Kind, Result};
use crate::cli::session;
use crate::ui::Terminal;
use crate::verify::{self, GENTOO_RELEASE, Keyring, MAX_DOCUMENT, Signer};

/// Check a detached signature or a cleartext-signed document
///
/// With DATA, SIG is a detached signature of DATA, armored or binary. Without DATA, SIG is a cleartext-signed document. The signature
/// must come from a trusted key that may sign, that was valid at the time of the signature and that is not revoked. Its digest
/// algorithm must be secure. The file must contain nothing besides the signature and the signed text.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Verdict:
  A line of JSON on standard output. If \"verdict\" is \"good\", the object has \"form\" (detached or clearsigned), \"primary\" and \"key\"
  (fingerprints of the certificate and of the signing key) and \"created\" (seconds since 1970). If it is \"refused\", the object has
  \"reason\", \"causes\" and \"hint\". The exit code is 0 for good and 3 for refused.

Examples:
  quern-builder raw verify stage3.tar.xz.asc stage3.tar.xz
  quern-builder raw verify --keyring ours.asc latest-stage3-amd64-musl.txt --output list.txt")]
pub(super) struct Args {
    /// File of OpenPGP certificates, armored or binary [default: the built-in and the imported certificates]
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Fingerprint of a trusted certificate; may be repeated [default: all of --keyring, otherwise Gentoo's release key]
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Vec<String>,
    /// Write the signed text of a good cleartext-signed document to this file
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    output: Option<PathBuf>,
    /// Signature or cleartext-signed document; - is standard input
    sig: PathBuf,
    /// Signed data; - is standard input
    data: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let stdin = Path::new("-");
        if self.sig == stdin && self.data.as_deref() == Some(stdin) {
            return Err(Error::usage("SIG and DATA cannot both be standard input"));
        }
        let keyring = self.keyring()?;
        let mut signature = Vec::new();
        open(&self.sig)?
            .take(MAX_DOCUMENT + 1)
            .read_to_end(&mut signature)
            .context(Kind::Usage, || format!("reading {}", shown(&self.sig)))?;
        let verdict = match &self.data {
            Some(data) => {
                verify::detached(&shown(data), &signature, open(data)?, &keyring).map(|signer| ("detached", signer))
            }
            None => verify::clearsigned(&shown(&self.sig), &signature, &keyring).and_then(|signed| {
                self.output.as_deref().map_or(Ok(()), |path| write(path, &signed.text))?;
                Ok(("clearsigned", signed.signer))
            }),
        };
        match verdict {
            Ok((form, signer)) => {
                ui.plan(&good(form, &signer));
                Ok(0)
            }
            Err(error) => {
                if error.kind() == Kind::Refused {
                    ui.plan(&refused(&error));
                }
                Err(error)
            }
        }
    }

    fn keyring(&self) -> Result<Keyring> {
        let fingerprints: Vec<String> =
            self.fingerprint.iter().map(|text| text.split_whitespace().collect::<String>()).collect();
        match &self.keyring {
            Some(path) => Keyring::load(path, &fingerprints),
            None if fingerprints.is_empty() => {
                Keyring::known(&session::store()?.certificates()?, &[GENTOO_RELEASE.to_owned()])
            }
            None => Keyring::known(&session::store()?.certificates()?, &fingerprints),
        }
    }
}

fn open(path: &Path) -> Result<Box<dyn Read + Send + Sync>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let file = fs_err::File::open(path).context(Kind::Usage, || format!("opening {}", shown(path)))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::usage(format!("{} is a directory", shown(path))));
    }
    Ok(Box::new(file))
}

/// Replaces the file `path` in one step, so that a reader never sees part of the signed text.
fn write(path: &Path, text: &str) -> Result<()> {
    let writing = || format!("writing {}", shown(path));
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(directory).system(writing)?;
    file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).system(writing)?;
    file.persist(path).system(writing)?;
    Ok(())
}

fn good(form: &str, signer: &Signer) -> String {
    json!({
        "verdict": "good",
        "form": form,
        "primary": signer.primary,
        "key": signer.key,
        "created": signer.created,
        "created-at": readable(signer.created),
    })
    .to_string()
}

fn refused(error: &Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(printable(&cause.to_string()));
        next = cause.source();
    }
    json!({ "verdict": "refused", "reason": error.to_string(), "causes": causes, "hint": error.hint() }).to_string()
}

fn shown(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { printable(&path.display().to_string()) }
}

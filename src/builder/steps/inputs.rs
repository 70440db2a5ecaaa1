//! The inputs of a step, on which its result depends: its text, its parameters, and the content of the files that it names.

use super::{files, settings};
use crate::base::digest::Sha256;
use crate::base::error::{Error, Result};
use crate::builder::chain::Chain;
use crate::fs::contents;
use crate::plan::Plan;
use crate::plan::nodes::Inputs;
use crate::recipe::{Action, BindContent, Step, StepRoot};
use crate::store::Store;

/// Returns the inputs of a step of `plan` on the volumes of `chain`. Its name, its time limit, and places on this machine are not among
/// them. Values of secrets are sealed by `store`.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if a file that it names cannot be read, and those of [`Store::seal`].
pub(in crate::builder) fn inputs(step: &Step, plan: &Plan, chain: &Chain, store: &Store) -> Result<Inputs> {
    let mut inputs = Inputs::new();
    let mut add = |name: &str, value: String| _ = inputs.insert(name.to_owned(), value);
    match &step.action {
        Action::Run(script) => {
            add("script", Sha256::of(&script.bytes).hex());
            add("shell", format!("{:?}", step.shell));
            add("args", format!("{:?}", step.args));
            add("user", step.user.clone().unwrap_or_default());
            add("workdir", step.workdir.display().to_string());
            add("terminal", step.tty.to_string());
            // Also for a build that is offline: a result made with the network is a valid one.
            add("network", step.network.to_string());
            add("epoch", plan.epoch.to_string());
        }
        Action::Copy(copies) => {
            for (number, copy) in (1..).zip(copies) {
                add(&format!("copy {number}"), files::copied(copy)?);
            }
        }
        Action::Write(texts) => {
            for (number, text) in (1..).zip(texts) {
                add(&format!("write {number}"), files::written(text));
            }
        }
        Action::Delete(paths) => add("delete", format!("{paths:?}")),
        Action::Emerge(atoms) | Action::Unmerge(atoms) => add("atoms", format!("{atoms:?}")),
        Action::Depclean => add("depclean", String::new()),
        Action::Rebuild(kinds) => add("rebuild", format!("{kinds:?}")),
        Action::Settings(system) => settings::inputs(system, plan.epoch, &mut add)?,
    }
    inputs.extend(uses(step, plan, chain, store)?);
    Ok(inputs)
}

/// Returns the inputs of a step besides its action: its mounts, its variables, its daemons.
///
/// # Errors
/// Those of [`inputs`].
pub(in crate::builder) fn uses(step: &Step, plan: &Plan, chain: &Chain, store: &Store) -> Result<Inputs> {
    let mut inputs = Inputs::new();
    let mut add = |name: &str, value: String| _ = inputs.insert(name.to_owned(), value);
    if matches!(step.action, Action::Emerge(_) | Action::Rebuild(_)) && !step.network {
        add("network", "false".to_owned());
    }
    if step.root == StepRoot::Builder {
        add("in", "builder".to_owned());
    }
    if !step.creates.is_empty() {
        add("creates", format!("{:?}", step.creates));
    }
    for tmpfs in &step.tmpfs {
        add(&format!("tmpfs {}", tmpfs.at.display()), String::new());
    }
    for bind in &step.binds {
        let content = match &bind.content {
            // Such a step always runs.
            BindContent::From(_) if bind.write => "writable".to_owned(),
            BindContent::From(path) => contents::digest(path, &|_| false)?.hex(),
            BindContent::Text { bytes, mode } => format!("text {mode:o} {}", Sha256::of(bytes).hex()),
        };
        add(&format!("bind {}", bind.at.as_os_str().as_encoded_bytes().escape_ascii()), content);
    }
    for fetch in &step.fetch {
        let identity = plan.fetched.get(&fetch.name).cloned();
        add(&format!("fetch {}", fetch.name), identity.ok_or_else(|| unknown(&fetch.name))?);
    }
    for cache in &step.caches {
        add(&format!("cache {}", cache.at.display()), format!("{:?} {:?} {:?}", cache.mode, cache.uid, cache.gid));
    }
    for secret in &step.secrets {
        let value = match secret.rebuild {
            // No key is made of this: the state of such a step is not known.
            true if secret.value.is_absent() => "unknown".to_owned(),
            true => store.seal(secret.value.expose())?.hex(),
            false => String::new(),
        };
        add(&format!("secret {}", secret.name), value);
    }
    if step.leak_allowed {
        add("leak", "allow".to_owned());
    }
    for volume in &step.volumes {
        add(
            &format!("volume {}", volume.name),
            format!("{} {}", volume.at.display(), chain.volume_state(&volume.name)),
        );
    }
    for (number, daemon) in (1..).zip(&step.daemons) {
        // Its name and its time limit change no result.
        add(&format!("daemon {number}"), format!("{:?} {:?} {}", daemon.run, daemon.ready, daemon.network));
    }
    for (name, value) in &step.env {
        add(&format!("variable {name}"), value.clone());
    }
    Ok(inputs)
}

/// Returns the error for a download that was not fetched.
pub(super) fn unknown(fetch: &str) -> Error {
    Error::system(format!("the download {fetch} was not fetched"))
}

//! Variables of a recipe, and `{{NAME}}` in its values.

use std::collections::{BTreeMap, BTreeSet};

use super::ask::{self, User};
use super::diagnostic::{Finding, Place, Problem, Texts};
use super::lineage::TreePlace;
use super::parse::{Is, Item, Table, Value};
use super::words::{self, DATE};
use super::{AxisValue, OtherImage, Request, SecretValue};
use crate::base::error::Result;
use crate::base::text::{nearest, quoted};

/// Variables that a recipe does not declare.
const BUILT_IN: [&str; 3] = ["image", "arch", "date"];
/// The same for a recipe in a tree.
const OF_TREE: [&str; 2] = ["path", "tree"];
/// Keys whose values stay as they are: names, texts and patterns.
const LITERAL: [&str; 4] = ["vars", "ask", "secret", "tree"];
/// Keys of a step whose values stay as they are. Texts are filled in later, if the recipe asks for it.
const LITERAL_OF_STEP: [&str; 11] =
    ["name", "run", "before", "after", "vars", "fetch", "caches", "volumes", "daemons", "secrets", "leak"];
/// The values in which the date can be used.
const DATED: [&str; 2] = ["oci.tag", "build.image-name"];

/// The values that `{{NAME}}` stands for.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables {
    values: BTreeMap<String, String>,
    /// Answers that are variables, by name.
    pub(super) answers: BTreeMap<String, String>,
    /// Answers that are secrets, by name.
    pub(super) secrets: BTreeMap<String, SecretValue>,
    /// The names of all secrets.
    secret_names: BTreeSet<String>,
}

/// The recipes around a recipe.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// The place of the recipe in a tree of recipes.
    pub(super) place: Option<TreePlace>,
    /// The image that this one starts from.
    pub(super) parent: Option<OtherImage>,
    /// The images that this one needs.
    pub(super) needs: Vec<OtherImage>,
    /// The answers of the recipes that the image starts from, which are variables.
    pub(super) answers: BTreeMap<String, String>,
    /// The names of the questions of these recipes.
    pub(super) questions: BTreeSet<String>,
    /// The values of a tuple, by the name of the axis.
    pub(super) axes: BTreeMap<String, AxisValue>,
}

/// Returns true for the name of a variable that a recipe cannot declare.
pub(super) fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name) || OF_TREE.contains(&name)
}

/// Collects the variables of a tree, asks for those that a user must give, and fills the values of the tree in. Notes mistakes in
/// `texts`.
///
/// # Errors
/// Those of the user.
pub(super) fn fill_in(
    texts: &mut Texts,
    tree: &mut Table,
    request: &Request,
    family: &Family,
    user: &mut dyn User,
) -> Result<Variables> {
    let mut variables = Variables { values: family.answers.clone(), ..Variables::default() };
    if let Some(place) = &family.place {
        variables.values.insert("path".to_owned(), place.path());
        variables.values.insert("tree".to_owned(), place.tree_name(tree_name(tree)));
    }
    variables.values.extend(family.axes.iter().map(|(axis, value)| (axis.clone(), value.name().to_owned())));
    variables.declare(texts, tree, &family.axes);
    // A question may name the image, if its name is known without an answer.
    let known = name(tree, request, family).filter(|name| !name.contains("{{"));
    variables.values.extend(known.map(|name| ("image".to_owned(), name)));
    ask::ask(texts, tree, (request, &family.questions), &mut variables, user)?;
    variables.values.remove("image");
    for key in ["name", "source"] {
        if let Some(item) = tree.get_mut(key) {
            variables.value(texts, &mut item.value, key);
        }
    }
    variables.values.extend(name(tree, request, family).map(|name| ("image".to_owned(), name)));
    variables.values.extend(arch(tree).map(|arch| ("arch".to_owned(), arch)));
    for (key, item) in tree.iter_mut().filter(|(key, _)| !["name", "source"].contains(&key.as_str())) {
        match &mut item.value.is {
            _ if LITERAL.contains(&key.as_str()) => {}
            Is::Table(binds) if key == "bind" => {
                binds.values_mut().for_each(|bind| variables.without_text(texts, &mut bind.value));
            }
            Is::Steps(steps) => steps.iter_mut().for_each(|step| variables.step(texts, step)),
            Is::Table(settings) if key == "system" => variables.system(texts, settings),
            Is::Table(section) => {
                for (name, item) in section {
                    variables.value(texts, &mut item.value, &format!("{key}.{name}"));
                }
            }
            _ => variables.value(texts, &mut item.value, key),
        }
    }
    Ok(variables)
}

/// Returns the name of the image.
fn name(tree: &Table, request: &Request, family: &Family) -> Option<String> {
    let stem = || match &family.place {
        Some(place) => Some(place.name(tree_name(tree))),
        None => Some(request.files.last()?.file_stem()?.to_str()?.to_owned()),
    };
    tree.get("name").and_then(|item| item.value.as_str()).map(str::to_owned).or_else(stem)
}

/// Returns the name of the tree that `[tree]` gives.
pub(super) fn tree_name(tree: &Table) -> Option<&str> {
    let Is::Table(table) = &tree.get("tree")?.value.is else { return None };
    table.get("name")?.value.as_str()
}

/// Returns the architecture of the stage3, if the recipe names it.
fn arch(tree: &Table) -> Option<String> {
    let Is::Table(source) = &tree.get("source")?.value.is else { return None };
    let text = |key: &str| source.get(key).and_then(|item| item.value.as_str());
    let stage3 = text("stage3").map(|stage3| stage3.split('-').next().unwrap_or(stage3));
    stage3.or_else(|| text("arch")).map(str::to_owned)
}

impl Variables {
    /// Adds an answer.
    pub(super) fn answer(&mut self, name: String, answer: &str) {
        self.answers.insert(name.clone(), answer.to_owned());
        self.values.insert(name, answer.to_owned());
    }

    /// Adds the variables of `[vars]`, and the names of the secrets.
    fn declare(&mut self, texts: &mut Texts, tree: &Table, axes: &BTreeMap<String, AxisValue>) {
        for (key, secret) in [("secret", true), ("ask", false)] {
            let Some(Is::Table(tables)) = tree.get(key).map(|item| &item.value.is) else { continue };
            let is_secret = |item: &Item| match &item.value.is {
                Is::Table(table) => table.get("secret").is_some_and(|item| matches!(item.value.is, Is::Bool(true))),
                _ => false,
            };
            let names = tables.iter().filter(|(_, item)| secret || is_secret(item)).map(|(name, _)| name.clone());
            self.secret_names.extend(names);
        }
        let Some(Is::Table(table)) = tree.get("vars").map(|item| &item.value.is) else { return };
        for (name, item) in table {
            let problem = match words::environment_variable(name) {
                Err(problem) => Some(problem),
                Ok(()) if OF_TREE.contains(&name.as_str()) => {
                    Some(Problem::new("every recipe in a tree has this variable"))
                }
                Ok(()) if axes.contains_key(name) => Some(Problem::new("every tuple has this variable")),
                Ok(()) if BUILT_IN.contains(&name.as_str()) => Some(Problem::new("every recipe has this variable")),
                Ok(()) => None,
            };
            if let Some(problem) = problem {
                texts.problem(&item.key_at, format!("not a valid variable: {}", quoted(name)), problem);
            }
            let Some(value) = item.value.as_str() else { continue };
            if let Err(problem) = words::argument(value) {
                texts.problem(&item.value.at, format!("not a valid value of {}", quoted(name)), problem);
            }
            self.values.insert(name.clone(), value.to_owned());
        }
    }

    /// Returns the value of a variable that a step names. Notes an unknown one.
    pub(super) fn get(&self, texts: &mut Texts, name: &str, at: &Place) -> Option<String> {
        if let Some(value) = self.values.get(name) {
            return Some(value.clone());
        }
        texts.find(self.unknown(name, at, ""));
        None
    }

    /// Describes the use of an unknown variable in the value of `key`.
    fn unknown(&self, name: &str, at: &Place, key: &str) -> Finding {
        let title = format!("unknown variable {}", quoted(name));
        let why = match name {
            _ if self.secret_names.contains(name) => {
                "a secret is not a variable: a step that names it in `secrets` can read it"
            }
            "date" => "the date can be used in oci.tag and build.image-name only",
            "arch" if key == "source" => "the architecture is not known before the stage3",
            "arch" => "the recipe does not name an architecture",
            "image" => "the name of the image is not known here",
            "path" | "tree" => "the recipe is not in a tree",
            _ => {
                let known = self.values.keys().map(String::as_str);
                let meant = nearest(name, known).map(|meant| format!("did you mean {}?", quoted(meant)));
                let declare = format!("declare it: in [vars] write {name} = \"…\"");
                let declare = words::environment_variable(name).is_ok().then_some(declare);
                return Finding::at(at, title, "not a variable").maybe_help(meant.or(declare));
            }
        };
        Finding::at(at, title, "not a variable here").help(why)
    }

    fn step(&self, texts: &mut Texts, step: &mut Item) {
        let Is::Table(table) = &mut step.value.is else { return };
        for (key, item) in table.iter_mut().filter(|(key, _)| !LITERAL_OF_STEP.contains(&key.as_str())) {
            match &mut item.value.is {
                Is::Steps(steps) => steps.iter_mut().for_each(|step| self.step(texts, step)),
                Is::List(list) if ["write", "binds"].contains(&key.as_str()) => {
                    list.iter_mut().for_each(|entry| self.without_text(texts, entry));
                }
                _ => self.value(texts, &mut item.value, "step"),
            }
        }
    }

    /// Fills the settings in, with the names of users and groups. One whose name is empty then is left out.
    fn system(&self, texts: &mut Texts, settings: &mut Table) {
        for (key, item) in settings.iter_mut() {
            match &mut item.value.is {
                Is::List(list) if key == "files" => {
                    list.iter_mut().for_each(|entry| self.without_text(texts, entry));
                }
                Is::Table(accounts) if ["users", "groups"].contains(&key.as_str()) => {
                    for (name, item) in std::mem::take(accounts) {
                        let filled = self.replace(texts, &name, &item.key_at, "system").0;
                        if filled.is_empty() && name.contains("{{") {
                            continue;
                        }
                        if let Some(first) = accounts.get(&filled) {
                            let title = format!("{} is given twice", quoted(&filled));
                            let finding = Finding::at(&item.key_at, title, "again here");
                            texts.find(finding.also(&first.key_at, "first here"));
                            continue;
                        }
                        accounts.insert(filled, item);
                    }
                    self.value(texts, &mut item.value, "system");
                }
                _ => self.value(texts, &mut item.value, &format!("system.{key}")),
            }
        }
    }

    /// Fills a table in, except for its text.
    fn without_text(&self, texts: &mut Texts, value: &mut Value) {
        let Is::Table(table) = &mut value.is else { return };
        for (_, item) in table.iter_mut().filter(|(key, _)| *key != "text") {
            self.value(texts, &mut item.value, "step");
        }
    }

    /// Fills a value in, and the values in it.
    fn value(&self, texts: &mut Texts, value: &mut Value, key: &str) {
        match &mut value.is {
            // After a mistake, the name stands for the value, so that the value itself is not a mistake as well.
            Is::Str(text) => *text = self.replace(texts, text, &value.at, key).0,
            Is::List(list) => list.iter_mut().for_each(|value| self.value(texts, value, key)),
            Is::Table(table) => table.values_mut().for_each(|item| self.value(texts, &mut item.value, key)),
            _ => {}
        }
    }

    /// Replaces each `{{NAME}}` of a text by the value of the variable, and `{{{{` by `{{`. Values are not filled in again. Returns
    /// `None` after a mistake.
    pub(super) fn fill(&self, texts: &mut Texts, text: &str, at: &Place, key: &str) -> Option<String> {
        let (filled, right) = self.replace(texts, text, at, key);
        right.then_some(filled)
    }

    /// Replaces variables, and unknown ones by their names. Returns false after a mistake.
    fn replace(&self, texts: &mut Texts, text: &str, at: &Place, key: &str) -> (String, bool) {
        let (mut filled, mut rest, mut right) = (String::new(), text, true);
        while let Some((before, after)) = rest.split_once("{{") {
            filled.push_str(before);
            if let Some(after) = after.strip_prefix("{{") {
                filled.push_str("{{");
                rest = after;
                continue;
            }
            let Some((name, after)) = after.split_once("}}") else {
                let finding = Finding::at(&part(texts, at, "{{"), "`{{` without `}}`", "not closed");
                texts.find(finding.help("write `{{{{` for two braces"));
                return (filled + after, false);
            };
            rest = after;
            match self.values.get(name) {
                Some(value) => filled.push_str(value),
                None if name == "date" && DATED.contains(&key) => filled.push_str(DATE),
                None => {
                    let at = part(texts, at, &format!("{{{{{name}}}}}"));
                    let finding = self.unknown(name, &at, key);
                    texts.find(finding.help("write `{{{{` for two braces that begin no variable"));
                    filled.push_str(name);
                    right = false;
                }
            }
        }
        filled.push_str(rest);
        (filled, right)
    }

    /// Returns the first variable that a text without a template mentions as `{{NAME}}`.
    pub(super) fn mentioned<'a>(&self, text: &'a str) -> Option<&'a str> {
        let names = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
        names.map(|(name, _)| name).find(|name| self.values.contains_key(*name))
    }
}

/// Returns the place of a part of a value, or of the whole value if its spelling is another one.
fn part(texts: &Texts, at: &Place, part: &str) -> Place {
    let found = texts.get(at.text).text.get(at.span.clone()).and_then(|spelled| spelled.find(part));
    found.map_or_else(
        || at.clone(),
        |start| Place { text: at.text, span: at.span.start + start..at.span.start + start + part.len() },
    )
}

#[cfg(test)]
mod tests {
    use crate::recipe::tests::{Place, job, refusal};
    use crate::recipe::{Action, load};

    const LINES: &str = "[vars]\nA = '1'\nHost_Name = 'box'\nB = '{{A}}'\n[oci]\ntag = '{{Host_Name}}-{{date}}'\n\
                         labels = { l = '{{{{A}} {{B}} {{arch}}' }\n[build]\nimage-name = '{{image}}-{{date}}'\n\
                         [[step]]\nname = 's'\nargs = ['{{A}}{{A}}', '{{image}}']\nvars = ['Host_Name', 'image']\n";

    fn request(place: &Place, lines: &str, env: &[(&str, &str)], sets: &[&str]) -> crate::recipe::Request {
        place.write("v.toml", lines);
        let mut request = place.with(env, sets);
        request.files.push("v.toml".into());
        request
    }

    #[test]
    fn values_are_filled_in_once() {
        let place = Place::new();
        let lines = format!("{LINES}run = 'echo {{{{A}}}}'\n");
        let loaded = load(&request(&place, &lines, &[], &[])).unwrap();
        let oci = loaded.job.oci.as_ref().unwrap();
        assert_eq!((oci.tag_on("20260101"), oci.labels["l"].as_str()), ("box-20260101".into(), "{{A}} {{A}} amd64"));
        assert_eq!(loaded.job.build.image_name.as_deref(), Some("v-{date}"));
        let step = &loaded.job.steps[0];
        assert_eq!(step.args, ["11", "v"]);
        let env: Vec<(&str, &str)> = step.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(env, [("Host_Name", "box"), ("image", "v")]);
        // A script keeps its bytes, with a warning.
        let Action::Run(script) = &step.action else { panic!("{:?}", step.action) };
        assert_eq!(script.bytes, b"echo {{A}}");
        assert!(
            loaded.warnings[0].contains("write $A and vars = [\"A\"], or template = true"),
            "{:?}",
            loaded.warnings
        );
    }

    #[test]
    fn templates_are_filled_in() {
        let place = Place::new();
        place.write("script", "#!/bin/python\nprint('{{A}}', {'{{Host_Name}}'})\n");
        let lines = format!("{LINES}script = 'script'\ntemplate = true\n[[step]]\nname = 'w'\n");
        let lines =
            lines + "write = [{ to = '/{{A}}', text = '{{A}}', template = true }, { to = '/b', text = '{}' }]\n";
        let job = job(&request(&place, &lines, &[], &[]));
        let Action::Run(script) = &job.steps[0].action else { panic!("{:?}", job.steps[0].action) };
        assert_eq!(script.bytes, b"#!/bin/python\nprint('1', {'box'})\n");
        let Action::Write(writes) = &job.steps[1].action else { panic!("{:?}", job.steps[1].action) };
        assert_eq!((writes[0].to.to_str(), writes[0].text.as_str()), (Some("/1"), "1"));
        assert_eq!(writes[1].text, "{}");
    }

    #[test]
    fn variables_and_options_set_variables() {
        let place = Place::new();
        let lines = format!("{LINES}run = 'true'\n");
        let env = [("QUERN_VARS_HOST_NAME", "other"), ("QUERN_VARS_A", "2")];
        let job = job(&request(&place, &lines, &env, &["vars.A=x=3"]));
        assert_eq!((job.steps[0].args[0].as_str(), job.steps[0].env["Host_Name"].as_str()), ("x=3x=3", "other"));
        for (env, said) in [
            (("QUERN_VARS_HOST_NAMES", "1"), "did you mean QUERN_VARS_HOST_NAME?"),
            (("QUERN_VARS_C", "1"), "the recipe has no variable `C`"),
        ] {
            let refused = refusal(&request(&place, &lines, &[env], &[]));
            assert!(refused.contains(said), "{refused}");
        }
        let both = refusal(&request(&place, &lines.replace("B =", "a ="), &[("QUERN_VARS_A", "1")], &[]));
        assert!(both.contains("two variables have this name: `A` and `a`"), "{both}");
        // An option may declare a variable.
        let declared = request(&place, &lines.replace("{{arch}}", "{{C}}"), &[], &["vars.C=new"]);
        assert_eq!(self::job(&declared).oci.unwrap().labels["l"], "{{A}} {{A}} new");
    }

    #[test]
    fn defaults_of_steps_apply_to_scripts() {
        let place = Place::new();
        let lines = "[steps]\nenv = { A = '1', B = '2' }\nshell = ['/bin/sh']\nnetwork = true\ntimeout = '1h'\nuser = 'me'\n\
                     workdir = '/srv'\n[[step]]\nname = 'a'\nrun = 'x'\nenv = { B = '3' }\nnetwork = false\n\
                     [[step]]\nname = 'b'\ndelete = ['/x']\n[[step]]\nname = 'c'\ndepclean = true\n";
        let steps = job(&request(&place, lines, &[("QUERN_STEPS_USER", "you")], &[])).steps;
        assert_eq!((steps[0].env["A"].as_str(), steps[0].env["B"].as_str()), ("1", "3"));
        assert_eq!((steps[0].network, steps[0].timeout, steps[0].user.as_deref()), (false, Some(3600), Some("you")));
        assert_eq!((steps[1].timeout, steps[1].env.len(), steps[1].user.as_deref()), (None, 0, None));
        assert_eq!((steps[2].timeout, steps[2].env.len(), steps[2].shell.is_none()), (Some(3600), 2, true));
        let refused = refusal(&request(&place, &lines.replace("'1h'", "'1 h'"), &[], &[]));
        assert_eq!(refused.matches("not a valid timeout").count(), 1, "{refused}");
    }

    #[test]
    fn wrong_uses_of_variables_are_refused() {
        let place = Place::new();
        for (lines, said) in [
            ("[vars]\nHOST = '1'\n[oci]\nlabels = { a = '{{HOTS}}' }\n", "did you mean `HOST`?"),
            ("[oci]\nlabels = { a = '{{HOTS}}' }\n", "declare it: in [vars] write HOTS"),
            ("[oci]\nlabels = { a = '{{ .Name }}' }\n", "write `{{{{` for two braces that begin no variable"),
            ("[oci]\nlabels = { a = 'x{{y' }\n", "`{{` without `}}`"),
            ("[oci]\nworkdir = '/{{date}}'\n", "the date can be used in oci.tag and build.image-name only"),
            ("[source]\nstage3 = '{{arch}}-musl'\n", "not known before the stage3"),
            ("name = '{{image}}'\n", "the name of the image is not known here"),
            ("[vars]\n'A-B' = '1'\n", "not a valid variable"),
            ("[vars]\nimage = '1'\n", "every recipe has this variable"),
            ("[vars]\npath = '1'\n", "every recipe in a tree has this variable"),
            ("[vars]\nA = 1\n", "wrong type for `vars`"),
            ("[vars]\nA = '1'\n[[step]]\nname = 's'\nrun = 'x'\nvars = ['AA']\n", "did you mean `A`?"),
            ("[vars]\nA = '1'\n[[step]]\nname = 's'\nrun = 'x'\nvars = ['A']\nenv = { A = '2' }\n", "given twice"),
            ("[[step]]\nname = 's'\nrun = 'x'\nvars = ['date']\n", "not a variable here"),
            ("[[step]]\nname = 's'\nrun = '{{X}}'\ntemplate = true\n", "unknown variable `X`"),
            ("[[step]]\nname = 's'\ndelete = ['/x']\nvars = ['image']\n", "`vars` has no effect on `delete`"),
        ] {
            let refused = refusal(&request(&place, lines, &[], &[]));
            assert!(refused.contains(said), "{lines}: {refused}");
        }
    }
}

//! The tuples of a tree: one value of each axis makes an image.

use std::collections::BTreeMap;

use super::family::Tree;
use crate::base::text::{nearest, quoted};
use crate::recipe::diagnostic::{Finding, Place, Problem, Texts};
use crate::recipe::keys;
use crate::recipe::parse::{Is, Item, Table, Value};
use crate::recipe::variables;
use crate::recipe::words;

/// The limit on the tuples of a tree.
const MAX_TUPLES: usize = 1024;
/// The limit on the axes of a tree.
const MAX_AXES: usize = 16;

/// An image of a tree that is made of a value of each axis.
#[derive(Debug)]
pub(super) struct Tuple {
    pub(super) name: String,
    /// The values in the order of the axes.
    pub(super) values: Vec<Chosen>,
    /// Its own keys.
    pub(super) own: Table,
}

/// A value of an axis.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) axis: String,
    pub(super) value: String,
    pub(super) at: Place,
}

impl Tree {
    /// Lists the axes in the order in which they were written. Notes mistakes in their names.
    fn axes_in_order(&self, texts: &mut Texts) -> Vec<&str> {
        let mut axes: Vec<(&String, &Item)> = self.axes.iter().collect();
        axes.sort_by_key(|(_, item)| (texts.rank(&item.key_at), item.key_at.text, item.key_at.span.start));
        for (name, item) in &axes {
            let problem = match words::environment_variable(name) {
                Ok(()) if variables::is_built_in(name) || keys::TUPLE.iter().any(|key| key.name == *name) => {
                    Some(Problem::new("this name has another meaning"))
                }
                accepted => accepted.err(),
            };
            if let Some(problem) = problem {
                texts.problem(&item.key_at, format!("not a valid name of an axis: {}", quoted(name)), problem);
            }
        }
        if let Some((_, item)) = axes.get(MAX_AXES) {
            let problem = Problem::new(format!("more than {MAX_AXES} axes"));
            texts.problem(&item.key_at, "a tree has too many axes", problem);
            axes.truncate(MAX_AXES);
        }
        axes.into_iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Lists the tuples: each product of values. Notes mistakes in them.
    pub(super) fn tuples(&self, texts: &mut Texts) -> Vec<Tuple> {
        let axes = self.axes_in_order(texts);
        let (mut tuples, mut places): (Vec<Tuple>, BTreeMap<String, Place>) = (Vec::new(), BTreeMap::new());
        for value in &self.tuples {
            let Is::Table(table) = &value.is else { continue };
            for (tuple, at) in products(texts, &axes, table, &value.at) {
                if tuples.len() >= MAX_TUPLES {
                    let problem = Problem::new(format!("more than {MAX_TUPLES} tuples"));
                    texts.problem(&at, "a tree has too many tuples", problem);
                    return tuples;
                }
                if let Some(first) = places.get(&tuple.name) {
                    let title = format!("two tuples have the name {}", quoted(&tuple.name));
                    let finding = Finding::at(&at, title, "again here").also(first, "first here");
                    texts.find(finding.help("give one of them a `name`"));
                    continue;
                }
                if fs_err::symlink_metadata(self.root.join(&tuple.name)).is_ok() {
                    let title = format!("the tuple {} has the name of a file or directory", quoted(&tuple.name));
                    let finding = Finding::at(&at, title, "two images would have this name");
                    texts.find(finding.help("give the tuple another `name`"));
                    continue;
                }
                places.insert(tuple.name.clone(), at);
                tuples.push(tuple);
            }
        }
        tuples
    }
}

/// Lists the tuples that a table of quern-tree.toml stands for, each with the place of its name.
fn products(texts: &mut Texts, axes: &[&str], table: &Table, at: &Place) -> Vec<(Tuple, Place)> {
    let is_own = |name: &str| keys::TUPLE.iter().any(|key| key.name == name);
    for (name, item) in table.iter().filter(|(name, _)| !is_own(name) && !axes.contains(&name.as_str())) {
        let title = format!("no axis is named {}", quoted(name));
        let known = axes.iter().copied().chain(keys::TUPLE.iter().map(|key| key.name));
        let meant = nearest(name, known).map(|meant| format!("did you mean `{meant}`?"));
        let finding = Finding::at(&item.key_at, title, "not an axis").maybe_help(meant);
        texts.find(finding.help(format!("define it: [axis.{}] with `from`", quoted(name).trim_matches('`'))));
    }
    let mut products: Vec<Vec<Chosen>> = vec![Vec::new()];
    for axis in axes {
        let Some(item) = table.get(*axis) else {
            let title = format!("a tuple has no value for the axis {}", quoted(axis));
            texts.find(Finding::at(at, title, "this tuple"));
            return Vec::new();
        };
        let values = values(axis, &item.value);
        if values.is_empty() {
            texts.problem(&item.value.at, format!("no value for the axis {}", quoted(axis)), Problem::new("empty"));
        }
        if products.len().saturating_mul(values.len()) > MAX_TUPLES {
            let problem = Problem::new(format!("more than {MAX_TUPLES} tuples"));
            texts.problem(at, "a tree has too many tuples", problem);
            return Vec::new();
        }
        let longer = |product: &Vec<Chosen>| {
            let product = product.clone();
            values.clone().into_iter().map(move |value| [product.clone(), vec![value]].concat())
        };
        products = products.iter().flat_map(longer).collect();
    }
    let given = table.get("name").map(|item| &item.value);
    if let Some(given) = given.filter(|_| products.len() > 1) {
        let problem = Problem::new(format!("{} tuples", products.len())).help("write one tuple for each name");
        texts.problem(&given.at, "a name is for one tuple", problem);
        return Vec::new();
    }
    let own = own(table);
    let named = |values: Vec<Chosen>| {
        let joined = || values.iter().map(|chosen| chosen.value.as_str()).collect::<Vec<_>>().join("-");
        let name = given.and_then(Value::as_str).map_or_else(joined, str::to_owned);
        let at = given.map_or_else(|| values.last().map_or(at, |chosen| &chosen.at), |given| &given.at).clone();
        if let Err(problem) = words::name(&name) {
            let problem = problem.help("give the tuple a `name`");
            texts.problem(&at, format!("not a valid name of a tuple: {}", quoted(&name)), problem);
            return None;
        }
        Some((Tuple { name, values, own: own.clone() }, at))
    };
    products.into_iter().filter_map(named).collect()
}

/// Lists the values that a tuple gives an axis.
fn values(axis: &str, value: &Value) -> Vec<Chosen> {
    let list = match &value.is {
        Is::List(list) => list.as_slice(),
        _ => std::slice::from_ref(value),
    };
    let chosen =
        |value: &Value| Some(Chosen { axis: axis.to_owned(), value: value.as_str()?.to_owned(), at: value.at.clone() });
    list.iter().filter_map(chosen).collect()
}

/// Returns the keys of a tuple in the form of a recipe.
fn own(table: &Table) -> Table {
    let mut own: Table =
        ["publish", "needs"].iter().filter_map(|key| Some(((*key).to_owned(), table.get(*key)?.clone()))).collect();
    if let Some(item) = table.get("binary-only") {
        let emerge = Is::Table(Table::from([("binary-only".to_owned(), item.clone())]));
        let value = Value { at: item.value.at.clone(), is: emerge };
        own.insert("emerge".to_owned(), Item { key_at: item.key_at.clone(), value });
    }
    own
}

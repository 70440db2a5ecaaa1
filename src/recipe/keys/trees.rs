//! The keys of trees of images: types, axes and tuples.

use super::uses::named;
use super::{Entries, Key, Type, key};

const TYPES: Entries = named(
    "type",
    "a type",
    &[
        key("", "parents", Type::Strs, r#"parents = ["target", "stage4"]"#),
        key("", "requires", Type::Strs, r#"requires = ["portage.config", "ask"]"#),
        key("", "forbids", Type::Strs, r#"forbids = ["portage.binhost"]"#),
        key("", "include", Type::Strs, r#"include = ["appliance.toml"]"#),
        key("", "kind", Type::Str, r#"kind = "stage4""#),
    ],
);

const AXES: Entries = named("axis", "an axis", &[key("", "from", Type::StrOr(AXIS_FROM), r#"from = "cpu""#)]);

/// The keys of `axis.NAME.from` as a table.
pub(super) const AXIS_FROM: &[Key] = &[key("", "git", Type::Str, r#"git = "config/portage""#)];

/// The keys of a tuple. Its other keys are axes.
pub(in crate::recipe) const TUPLE: &[Key] = &[
    key("", "name", Type::Str, r#"name = "desktop""#),
    key("", "publish", Type::Bool, "publish = false"),
    key("", "needs", Type::Strs, r#"needs = ["builder"]"#),
    key("", "binary-only", Type::Bool, "binary-only = true"),
];

/// The tables by name.
pub(super) const NAMED: [&Entries; 2] = [&TYPES, &AXES];

/// The keys at the top of a recipe, of quern-tree.toml or of a fragment.
pub(super) const TOP: [Key; 5] = [
    key("", "type", Type::NameOr(&TYPES), r#"type = "stage4""#),
    key("", "tuples", Type::Str, r#"tuples = "all""#),
    key("", "override", Type::Bool, "override = true"),
    key("", "axis", Type::Named(&AXES), r#"axis = { cpu = { from = "cpu" } }"#),
    key("", "tuple", Type::Tuples, r#"tuple = [{ cpu = ["zen2", "core-avx2"] }]"#),
];

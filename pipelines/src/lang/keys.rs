//! What the language declares of its tables: each key with its type, its default and what it means. The readers in
//! [`super::structure`] take from here which keys there are, and the JSON Schema ([`super::schema`]) is made of it, so that
//! the two cannot drift apart.

use super::fields::closest;

/// The keys of a table.
pub(super) struct Keys {
    /// What this table is called in the JSON Schema.
    pub name: &'static str,
    /// What it is, for people.
    pub doc: &'static str,
    /// The keys that it may have.
    pub known: &'static [Key],
    /// Part of the language, but not of this version; with what to do instead.
    pub planned: &'static [(&'static str, &'static str)],
    /// What holds between its keys.
    pub rules: &'static [Rule],
    /// The tables it stands for, where it is not known yet which: it may have every key of theirs.
    pub any_of: &'static [&'static Keys],
}

/// One key.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub name: &'static str,
    pub is: Kind,
    pub must: bool,
    /// As it would be written; or in words.
    pub default: Option<&'static str>,
    pub doc: &'static str,
}

/// What a value is.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Text into which values may be interpolated.
    Text,
    /// The same, and it may be empty.
    AnyText,
    /// Text that must stand in the file.
    Literal,
    /// A secret, best interpolated.
    Secret,
    /// A secret that must be interpolated.
    OutsideSecret,
    /// This word, which says what kind of table it is.
    Is(&'static str),
    /// One of these words.
    Choice(&'static Choices),
    /// One of the names of these kinds.
    Word(&'static [&'static str]),
    /// One ASCII character.
    Character,
    /// The version of the language.
    Version,
    Int(i64, i64),
    /// A number between two others, and whether it may be these.
    Number(f64, f64, bool),
    /// A p-value, or a condition on a prognosis.
    Threshold,
    /// `"auto"` or a number from 0 to 1.
    AutoOrShare,
    /// Pairs of numbers, each from a lower to a higher.
    Ranges,
    Bool,
    /// A duration of at least so many milliseconds, which may be interpolated.
    Duration(i64),
    /// A duration of at least so many milliseconds, which must stand in the file.
    LiteralDuration(i64),
    /// A size from so many bytes to so many.
    Size(i64, i64),
    /// Several texts that stand in the file; with `true` also one alone.
    Names(bool),
    /// Names of fields with their types.
    Fields,
    /// A table.
    Table(&'static Keys),
    /// A table of one of these kinds.
    OneOf(&'static [&'static Keys]),
    /// Tables of one of these kinds, each under a name of the user's.
    Named(&'static [&'static Keys]),
    /// An array of tables.
    Tables(&'static Keys),
    /// An array of tables, each of one of these kinds.
    TablesOf(&'static [&'static Keys]),
    /// Whole numbers.
    Ints,
    /// A text into which values may be interpolated, or several.
    OneOrMore,
    /// An amount of ether: a number and `wei`, `gwei` or `ether`.
    Ether,
    /// Texts, or none.
    Texts,
    /// A text, or a table instead.
    TextOr(&'static Keys),
}

/// What holds between the keys of a table.
pub(super) enum Rule {
    /// The first one needs the second.
    Needs(&'static str, &'static str),
    /// Both together contradict each other.
    Not(&'static str, &'static str),
    /// One of them must be there.
    OneOf(&'static [&'static str]),
    /// Where the first one is one of these words, these others must be there.
    When(&'static str, &'static [&'static str], &'static [&'static str]),
    /// At least one key must be there.
    NotEmpty,
}

/// A choice among names: those supported, and those planned.
pub(super) struct Choices {
    pub what: &'static str,
    pub known: &'static [&'static str],
    pub planned: &'static [&'static str],
}

impl Key {
    /// A key that must be there.
    pub const fn must(name: &'static str, is: Kind, doc: &'static str) -> Self {
        Self { name, is, must: true, default: None, doc }
    }

    /// A key that may be there.
    pub const fn may(name: &'static str, is: Kind, doc: &'static str) -> Self {
        Self { name, is, must: false, default: None, doc }
    }

    /// What holds where it is not there.
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }
}

impl Keys {
    /// A table of these keys.
    pub const fn new(name: &'static str, doc: &'static str, known: &'static [Key]) -> Self {
        Self { name, doc, known, planned: &[], rules: &[], any_of: &[] }
    }

    /// A table that may be any of these.
    pub const fn any(any_of: &'static [&'static Keys]) -> Self {
        Self { name: "", doc: "", known: &[], planned: &[], rules: &[], any_of }
    }

    /// With keys that are planned.
    pub const fn planned(mut self, planned: &'static [(&'static str, &'static str)]) -> Self {
        self.planned = planned;
        self
    }

    /// With rules between its keys.
    pub const fn rules(mut self, rules: &'static [Rule]) -> Self {
        self.rules = rules;
        self
    }

    /// The names of its keys, in order, each once.
    pub fn names(&self) -> Vec<&'static str> {
        let mut out: Vec<&'static str> = self.known.iter().map(|k| k.name).collect();
        for part in self.any_of {
            // What only some kind has planned is no unknown key before the kind is known.
            for name in part.names().into_iter().chain(part.planned.iter().map(|(k, _)| *k)) {
                if !out.contains(&name) {
                    out.push(name);
                }
            }
        }
        out
    }

    /// Whether it may have a key.
    pub fn has(&self, key: &str) -> bool {
        self.known.iter().any(|k| k.name == key)
            || self.any_of.iter().any(|part| part.has(key) || part.planned.iter().any(|(k, _)| *k == key))
    }

    /// The tables it may be, with `key` among their keys.
    pub fn tables_with(&self, key: &str) -> Vec<&'static str> {
        let own = self.known.iter().any(|k| k.name == key).then_some(self.name);
        own.into_iter().chain(self.any_of.iter().flat_map(|part| part.tables_with(key))).collect()
    }

    /// The key a person most likely meant.
    pub fn closest(&self, typed: &str) -> Option<&'static str> {
        closest(typed, self.names().into_iter().chain(self.planned.iter().map(|(k, _)| *k)))
    }
}

//! What checks find.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Finding, MOST_FINDINGS};
use crate::lane::hex;
use crate::verdict::Hash32;

/// What one check has found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub findings: Vec<Finding>,
    pub count: u64,
}

impl Found {
    pub fn add(&mut self, index: impl Into<Option<u64>>, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(Finding { index: index.into(), what: what() });
        }
    }
}

/// Sizes at which a root is not the one that the records give. Once one differs, all later ones do: what matters is between
/// which two it begins.
#[derive(Debug, Default)]
pub(super) struct Apart {
    agreed: u64,
    /// The first that differs: its size, the root that was claimed, and what the records give.
    first: Option<(u64, Hash32, Option<Hash32>)>,
    sizes: BTreeSet<u64>,
}

impl Apart {
    pub fn compare(&mut self, size: u64, claimed: &Hash32, roots: &BTreeMap<u64, Hash32>) {
        let made = roots.get(&size);
        if made == Some(claimed) {
            self.agreed = self.agreed.max(size);
            return;
        }
        self.sizes.insert(size);
        if self.first.is_none_or(|(first, ..)| size < first) {
            self.first = Some((size, *claimed, made.copied()));
        }
    }

    pub fn tell(self, found: &mut Found, which: &str) {
        let Some((size, claimed, made)) = self.first else { return };
        let made = made.map_or_else(|| "none".into(), |r| hex(&r));
        let from = self.agreed.min(size);
        let later = match self.sizes.len() - 1 {
            0 => String::new(),
            n => format!("; {n} later ones differ with it"),
        };
        found.add(None, || {
            format!(
                "the records are not those that {which}: up to size {from} they are, and at size {size} the root is {}, but they give \
                 {made}{later}",
                hex(&claimed)
            )
        });
        found.count += self.sizes.len() as u64 - 1;
    }
}

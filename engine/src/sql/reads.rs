//! Which columns a query reads, so that those nobody reads can be named.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;

use super::rows::{RowPipeline, Stage};
use super::windowed::WindowedQuery;

fn add(columns: &mut BTreeSet<usize>, e: &Arc<dyn PhysicalExpr>) {
    columns.extend(collect_columns(e).iter().map(|c| c.index()));
}

impl RowPipeline {
    /// The input columns that these output columns rest on, with those that its conditions and joins look at.
    pub fn reads(&self, outputs: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut needed = outputs.clone();
        for stage in self.stages.iter().rev() {
            match stage {
                Stage::Filter(predicate) => add(&mut needed, predicate),
                Stage::Project(exprs, _) => {
                    let mut below = BTreeSet::new();
                    for e in needed.iter().filter_map(|&i| exprs.get(i)) {
                        add(&mut below, e);
                    }
                    needed = below;
                }
                // A column each, after all others; a call may read the column of one before it.
                Stage::Remember(_, calls, schema) => {
                    let first = schema.fields().len() - calls.len();
                    for (i, call) in calls.iter().enumerate().rev() {
                        if needed.remove(&(first + i)) {
                            add(&mut needed, &call.value);
                        }
                    }
                }
                // The columns of the reference stand after those of the rows.
                Stage::Join(lookup) => {
                    needed.retain(|&i| i < lookup.width());
                    add(&mut needed, &lookup.value);
                }
            }
        }
        needed
    }
}

impl WindowedQuery {
    /// The input columns that it reads.
    pub fn reads(&self) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        for e in self.kept.channels.iter().chain(&self.kept.gathered) {
            add(&mut needed, e);
        }
        self.before.reads(&needed)
    }
}

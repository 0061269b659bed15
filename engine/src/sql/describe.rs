//! What a planned query does and keeps, for people: `avouch explain`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_common::physical_expr::fmt_sql;

use super::functions;
use super::rows::{RowPipeline, Stage};
use super::windowed::WindowedQuery;
use crate::window::{Aggregate, Keep};

/// One operator of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// `filter`, `project`, `look up`, `remember` or `aggregate`.
    pub name: &'static str,
    /// Its expressions, as SQL.
    pub expressions: Vec<String>,
}

/// What a row function keeps of each device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The call.
    pub call: String,
    /// Bytes a device, if they are the same for every device; texts are not.
    pub bytes: Option<usize>,
}

/// What is gathered of the rows of a pane, for aggregates that cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    /// Which rows.
    pub keep: Keep,
    /// What of each row.
    pub values: Vec<String>,
    /// For which aggregates.
    pub aggregates: Vec<String>,
}

/// A windowed query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowedParts {
    /// From the step's input to its columns.
    pub operators: Vec<Operator>,
    /// Numeric inputs that statistics are kept of, and the bytes of each, a device and pane.
    pub channels: Vec<(String, usize)>,
    /// Bytes for what pairs of them have in common, a device and pane.
    pub pairs: usize,
    /// Rows kept.
    pub gathered: Vec<Gathered>,
}

/// The scalar functions of a query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FunctionsUsed {
    /// Those that are exact or correctly rounded.
    pub exact: BTreeSet<String>,
    /// Transcendental ones, from `libm`.
    pub transcendental: BTreeSet<String>,
}

impl FunctionsUsed {
    fn add(&mut self, e: &Arc<dyn PhysicalExpr>) {
        if let Some(f) = e.downcast_ref::<ScalarFunctionExpr>() {
            let name = f.fun().name().to_owned();
            match functions::is_transcendental(&name) {
                true => self.transcendental.insert(name),
                false => self.exact.insert(name),
            };
        }
        e.children().into_iter().for_each(|child| self.add(child));
    }
}

/// The planner counts a constant where `count(*)` was written.
fn as_written(text: &str) -> String {
    text.replace("count(Int64(1))", "count(*)")
}

fn sql(e: &Arc<dyn PhysicalExpr>) -> String {
    as_written(&fmt_sql(e.as_ref()).to_string())
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Keep::All => "every row",
            Keep::First => "the first row",
            Keep::Last => "the last row",
            Keep::Smallest => "the row with the smallest value",
            Keep::Largest => "the row with the largest value",
        })
    }
}

impl RowPipeline {
    /// Its operators, in the order in which rows pass them. None: rows stay as they are.
    pub fn operators(&self) -> Vec<Operator> {
        let mut out = Vec::new();
        for stage in self.stages() {
            out.push(match stage {
                Stage::Filter(predicate) => Operator { name: "filter", expressions: vec![sql(predicate)] },
                Stage::Project(exprs, schema) => {
                    let mut same = Vec::new();
                    let mut computed = Vec::new();
                    for (e, field) in exprs.iter().zip(schema.fields()) {
                        let text = sql(e);
                        match text == *field.name() {
                            true => same.push(text),
                            false => computed.push(format!("{text} AS {}", field.name())),
                        }
                    }
                    if !same.is_empty() {
                        computed.insert(0, same.join(", "));
                    }
                    Operator { name: "project", expressions: computed }
                }
                Stage::Remember(first, calls, _) => {
                    let text =
                        calls.iter().enumerate().map(|(i, c)| format!("{c} AS {}", super::rows::hidden(first + i)));
                    Operator { name: "remember", expressions: text.collect() }
                }
                Stage::Join(lookup) => Operator { name: "look up", expressions: vec![lookup.to_string()] },
            });
        }
        out
    }

    /// What its row functions keep of each device.
    pub fn remembered(&self) -> Vec<Remembered> {
        let calls = self.stages().iter().flat_map(|s| match s {
            Stage::Remember(_, calls, _) => calls.as_slice(),
            _ => &[],
        });
        calls.map(|c| Remembered { call: c.to_string(), bytes: c.bytes() }).collect()
    }

    /// The scalar functions it calls.
    pub fn functions(&self) -> FunctionsUsed {
        let mut used = FunctionsUsed::default();
        for stage in self.stages() {
            match stage {
                Stage::Filter(e) => used.add(e),
                Stage::Project(exprs, _) => exprs.iter().for_each(|e| used.add(e)),
                Stage::Remember(_, calls, _) => {
                    for call in calls {
                        used.add(call.value());
                        if call.is_transcendental() {
                            used.transcendental.insert("exp2".to_owned());
                        }
                    }
                }
                Stage::Join(lookup) => used.add(lookup.value()),
            }
        }
        used
    }
}

impl WindowedQuery {
    /// What it does and keeps.
    pub fn parts(&self) -> WindowedParts {
        let (before, kept, grouped, after) = self.split();
        let names: Vec<String> = grouped.fields().iter().skip(1).map(|f| as_written(f.name())).collect();
        let mut operators = before.operators();
        let mut aggregates = vec![format!("by {} and window", grouped.field(0).name())];
        aggregates.extend(names.iter().cloned());
        operators.push(Operator { name: "aggregate", expressions: aggregates });
        operators.extend(after.operators());
        let of_gather = |i: usize| {
            let named = kept.aggregates.iter().zip(&names);
            named.filter(|(a, _)| matches!(a, Aggregate::Gathered(g, _) if *g == i)).map(|(_, n)| n.clone()).collect()
        };
        WindowedParts {
            operators,
            channels: kept.channels.iter().map(sql).zip(kept.shape.channel_bytes()).collect(),
            pairs: kept.shape.pair_bytes(),
            gathered: kept
                .gathers
                .iter()
                .enumerate()
                .map(|(i, g)| Gathered {
                    keep: g.keep,
                    values: g.inputs.iter().map(|&i| sql(&kept.gathered[i])).collect(),
                    aggregates: of_gather(i),
                })
                .collect(),
        }
    }

    /// The scalar functions it calls.
    pub fn functions(&self) -> FunctionsUsed {
        let (before, kept, _, after) = self.split();
        let mut used = before.functions();
        let of_after = after.functions();
        used.exact.extend(of_after.exact);
        used.transcendental.extend(of_after.transcendental);
        kept.channels.iter().chain(&kept.gathered).for_each(|e| used.add(e));
        used
    }
}

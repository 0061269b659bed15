//! A condition over the rows of one table: what stands after WHERE.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::interval_arithmetic::{Interval, NullableInterval};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::rows::{RowPipeline, Selection};
use super::{context, message};

/// A condition, compiled once. With the same functions as SQL steps, it is as deterministic as they are.
#[derive(Debug, Clone)]
pub struct Condition {
    query: RowPipeline,
}

impl Condition {
    /// Plans a condition over a table `table` with these columns.
    ///
    /// # Errors
    /// What is wrong with it, for its author. Lines and columns in the message count from the condition's own start.
    pub fn plan(condition: &str, table: &str, schema: SchemaRef) -> std::result::Result<Self, String> {
        one_expression(condition).map_err(|e| message(&e))?;
        let sql = format!("SELECT * FROM {table} WHERE (\n{condition}\n)");
        RowPipeline::plan_alone(&sql, table, schema).map(|query| Self { query }).map_err(|e| message(&e))
    }

    /// Whether no row can fulfil a condition that plans, as far as can be seen from the condition alone. `words`: for
    /// columns of which the values are known, every combination that occurs. `shares`: columns of numbers from 0 to 1.
    pub fn never(
        condition: &str,
        table: &str,
        schema: SchemaRef,
        words: &[Vec<(&str, &str)>],
        shares: &[&str],
    ) -> bool {
        let sql = format!("SELECT * FROM {table} WHERE (\n{condition}\n)");
        let Ok(plan) = context::plan(&sql, table, schema) else { return false };
        let Some((predicate, columns)) = predicate(&plan) else { return false };
        let never = |row: &[_], numbers| impossible(predicate, columns, row, shares, numbers).unwrap_or(false);
        words.iter().all(|row| never(row, true) && never(row, false))
    }

    /// For each row whether the condition holds. Where it is null it does not; where it cannot be computed (say, a
    /// division by zero) it does, because what is asked for must not be lost to a mistake in asking.
    ///
    /// # Errors
    /// None for a batch with the planned columns.
    pub fn holds(&self, batch: &RecordBatch) -> std::result::Result<Vec<bool>, String> {
        let rows = (0..batch.num_rows() as u32).collect();
        let mut failed = Vec::new();
        let kept = self.query.run(&Selection { batch: batch.clone(), rows }, &mut failed).map_err(|e| message(&e))?;
        let mut out = vec![false; batch.num_rows()];
        for row in kept.rows.into_iter().chain(failed.into_iter().map(|(row, _)| row)) {
            out[row as usize] = true;
        }
        Ok(out)
    }
}

fn predicate(plan: &LogicalPlan) -> Option<(&Expr, &Arc<DFSchema>)> {
    match plan {
        LogicalPlan::Filter(f) => Some((&f.predicate, f.input.schema())),
        LogicalPlan::Projection(p) => predicate(&p.input),
        _ => None,
    }
}

/// Whether the condition is false or null for every row with these words, where the shares are numbers, or null.
fn impossible(
    e: &Expr,
    columns: &Arc<DFSchema>,
    words: &[(&str, &str)],
    shares: &[&str],
    numbers: bool,
) -> Result<bool> {
    let put_in = e.clone().transform_up(|e| {
        let Expr::Column(c) = &e else { return Ok(Transformed::no(e)) };
        if let Some((_, word)) = words.iter().find(|(column, _)| *column == c.name) {
            return Ok(Transformed::yes(lit(*word)));
        }
        if !numbers && shares.contains(&c.name.as_str()) {
            return Ok(Transformed::yes(lit(ScalarValue::Float64(None))));
        }
        Ok(Transformed::no(e))
    })?;
    let share = Interval::make(Some(0.0), Some(1.0))?;
    let between = columns.iter().filter(|(_, f)| numbers && shares.contains(&f.name().as_str())).map(|(q, f)| {
        let column = Expr::Column(Column::new(q.cloned(), f.name()));
        (column, NullableInterval::NotNull { values: share.clone() })
    });
    let context = SimplifyContext::builder().with_schema(columns.clone()).build();
    let simplifier = ExprSimplifier::new(context).with_guarantees(between.collect());
    Ok(match simplifier.simplify(put_in.data)? {
        Expr::Literal(value, _) => value.is_null() || value == ScalarValue::Boolean(Some(false)),
        _ => false,
    })
}

/// Refuses what would be more than a condition once it stands after WHERE.
fn one_expression(condition: &str) -> Result<()> {
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(condition)?;
    parser.parse_expr()?;
    let next = parser.peek_token();
    if next.token == Token::EOF {
        return Ok(());
    }
    let at = next.span.start;
    plan_err!("the condition ends before {} at Line: {}, Column: {}", next.token, at.line, at.column)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("severity", DataType::Utf8, false),
            Field::new("score", DataType::Float64, true),
            Field::new("n", DataType::Int64, false),
        ]);
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["normal", "warning", "critical", "critical"])),
            Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), None, Some(4.0)])),
            Arc::new(Int64Array::from(vec![1, 0, 2, 3])),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn holds(condition: &str) -> Vec<bool> {
        let batch = batch();
        Condition::plan(condition, "verdicts", batch.schema()).unwrap().holds(&batch).unwrap()
    }

    #[test]
    fn which_rows() {
        assert_eq!(holds("severity = 'critical'"), [false, false, true, true]);
        assert_eq!(holds("severity = 'critical' OR score < 1.5"), [true, false, true, true]);
        assert_eq!(holds("score >= 2 -- a comment"), [false, true, false, true]);
        assert_eq!(holds("true"), [true; 4]);
        // A row it cannot be computed for is kept; the others are as they would be alone.
        assert_eq!(holds("6 / n > 2"), [true, true, true, false]);
    }

    #[test]
    fn what_can_never_hold() {
        let severities = ["normal", "warning"].map(|s| vec![("severity", s)]);
        let never = |c: &str| Condition::never(c, "verdicts", batch().schema(), &severities, &["score"]);
        for condition in [
            "severity = 'critical'",
            "severity = 'Warning'",
            "false",
            "severity = 'warning' AND severity = 'normal'",
            "severity IN ('critical', 'grave') AND n > 1",
            "1 = 2 OR severity = 'x'",
            "score > 1.5",
            "NULL = 3",
        ] {
            assert!(never(condition), "{condition}");
        }
        for condition in [
            "severity = 'warning'",
            "true",
            "n > 1",
            "score > 0.5",
            "score IS NULL",
            "score > 1.5 OR score IS NULL",
            "severity <> 'normal' AND score < 0.1",
            "lower(severity) = 'warning'",
            "severity LIKE 'n%'",
            "6 / n > 2",
        ] {
            assert!(!never(condition), "{condition}");
        }
    }

    #[test]
    fn what_is_no_condition() {
        let why = |condition: &str| Condition::plan(condition, "verdicts", batch().schema()).unwrap_err();
        assert_eq!(why("score > 1 LIMIT 1"), "the condition ends before LIMIT at Line: 1, Column: 11");
        assert!(why("true) UNION SELECT * FROM (verdicts").contains("ends before )"));
        assert!(why("score > 1; SELECT 1").contains("ends before ;"));
        assert!(why("severty = 'critical'").starts_with("Schema error: No field named severty"));
        assert!(why("score >").contains("found: EOF"), "{}", why("score >"));
        assert!(why("score = = 1").contains("Line: 1, Column: 9"), "{}", why("score = = 1"));
        assert!(!why("score + 1").is_empty());
        assert!(why("random() < 0.5").contains("random"), "{}", why("random() < 0.5"));
        assert!(!why("count(*) > 1").is_empty());
        assert!(!why("severity IN (SELECT severity FROM verdicts)").is_empty());
    }
}

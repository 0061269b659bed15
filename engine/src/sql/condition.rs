//! A condition over the rows of one table: what stands after WHERE.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, plan_err};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::message;
use super::rows::{RowPipeline, Selection};

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
    use std::sync::Arc;

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

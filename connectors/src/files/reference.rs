//! Reference tables from files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use avouch_engine::decode::parse_timestamp;
use avouch_engine::reference::{Reference, ReferenceColumn, ReferenceError, ReferenceSpec};
use avouch_engine::spec::{FieldSpec, FieldType};
use serde_json::{Map, Value};

use super::{FilesError, Order, ReplayOptions, Row};

/// Reads a reference table from a CSV, NDJSON or Parquet file, by its ending.
///
/// With `fields` the table has these columns (sorted by name), and others of the file are ignored. Without, it has all
/// columns: `bool` where every value is true or false, `i64` where every value is an integer, `f64` where every value is a
/// number, else `utf8`; an empty value is null. The key is always `utf8!`, so that `007` stays what it is.
///
/// # Errors
/// [`FilesError`], at the line where a key stands twice or a value is not of its column's type.
pub fn read_reference(
    path: &Path,
    name: &str,
    key: &str,
    fields: Option<&[FieldSpec]>,
) -> Result<Arc<Reference>, FilesError> {
    let text = |fields: &[FieldSpec]| -> Vec<String> {
        fields.iter().filter(|f| f.ty == FieldType::Utf8).map(|f| f.name.clone()).collect()
    };
    let (fields, rows) = match fields {
        Some(fields) => (fields.to_vec(), read_rows(path, text(fields))?),
        None => {
            let rows = read_rows(path, vec![key.to_owned()])?;
            let fields = infer(key, &rows);
            let texts = text(&fields);
            // Columns that turn out to be text are read again as they stand: `1.50` among words is not 1.5.
            if texts.len() > 1 { (fields, read_rows(path, texts)?) } else { (fields, rows) }
        }
    };
    let failed = |row: usize, why: String| FilesError::Row {
        path: path.to_path_buf(),
        line: rows.get(row).map_or(1, |(line, _)| *line),
        why,
    };
    let have: BTreeSet<&String> = rows.iter().flat_map(|(_, values)| values.keys()).collect();
    // A line of NDJSON may leave out what is null; the other formats have every column in every row.
    let must = |f: &FieldSpec| f.required || !path.extension().is_some_and(|e| e == "ndjson" || e == "jsonl");
    if let Some(missing) = fields.iter().find(|f| must(f) && !rows.is_empty() && !have.contains(&f.name)) {
        return Err(FilesError::NoColumn {
            path: path.to_path_buf(),
            line: 1,
            column: missing.name.clone(),
            have: have.into_iter().cloned().collect(),
        });
    }
    let mut columns = Vec::with_capacity(fields.len());
    for f in &fields {
        let mut column = ReferenceColumn::new(f.ty);
        for (i, (_, values)) in rows.iter().enumerate() {
            let value = values.get(&f.name).filter(|v| !v.is_null());
            // An empty field of a CSV file is no text.
            let value = value.filter(|v| v.as_str() != Some(""));
            append(&mut column, value).map_err(|found| {
                failed(i, format!("`{}` is {found}, not {}; correct the file or its `schema`", f.name, f.ty.name()))
            })?;
        }
        columns.push(column.finish());
    }
    let spec = ReferenceSpec { name: name.to_owned(), fields, key: key.to_owned() };
    Reference::new(&spec, columns).map_err(|e| match &e {
        ReferenceError::DuplicateKey { key, first, row } => {
            let first = rows.get(*first).map_or(1, |(line, _)| *line);
            failed(*row, format!("the key `{key}` stands twice, first in line {first}; keep one of the rows"))
        }
        ReferenceError::Missing { column, row } => failed(*row, format!("`{column}` has no value")),
        _ => failed(0, e.to_string()),
    })
}

type Rows = Vec<(u64, Map<String, Value>)>;

fn read_rows(path: &Path, text: Vec<String>) -> Result<Rows, FilesError> {
    let mut options = ReplayOptions::new([glob::Pattern::escape(&path.to_string_lossy())]);
    options.text = text;
    options.order = Order::File;
    let mut replay = options.open()?;
    let (mut row, mut rows) = (Row::default(), Vec::new());
    while replay.next_row(&mut row)? {
        let why = match serde_json::from_slice(&row.json) {
            Ok(Value::Object(values)) if row.readable => {
                rows.push((row.line, values));
                continue;
            }
            Ok(_) => "the line is not a JSON object".to_owned(),
            Err(e) => e.to_string(),
        };
        return Err(FilesError::Row { path: path.to_path_buf(), line: row.line, why });
    }
    Ok(rows)
}

fn infer(key: &str, rows: &Rows) -> Vec<FieldSpec> {
    let mut types: BTreeMap<&str, Option<FieldType>> = BTreeMap::new();
    for (name, value) in rows.iter().flat_map(|(_, values)| values) {
        let found = match value {
            Value::Bool(_) => Some(FieldType::Bool),
            Value::Number(n) if n.is_i64() => Some(FieldType::I64),
            Value::Number(_) => Some(FieldType::F64),
            Value::String(s) if s == "true" || s == "false" => Some(FieldType::Bool),
            Value::Null => None,
            Value::String(s) if s.is_empty() => None,
            _ => Some(FieldType::Utf8),
        };
        let ty = types.entry(name).or_default();
        *ty = match (*ty, found) {
            (before, None) => before,
            (None, found) => found,
            (Some(a), Some(b)) if a == b => Some(a),
            (Some(FieldType::I64 | FieldType::F64), Some(FieldType::I64 | FieldType::F64)) => Some(FieldType::F64),
            _ => Some(FieldType::Utf8),
        };
    }
    types.entry(key).or_default();
    types
        .into_iter()
        .map(|(name, ty)| {
            let is_key = name == key;
            let ty = if is_key { FieldType::Utf8 } else { ty.unwrap_or(FieldType::Utf8) };
            FieldSpec { name: name.to_owned(), ty, required: is_key }
        })
        .collect()
}

/// Appends a value, or says what it is instead.
fn append(column: &mut ReferenceColumn, value: Option<&Value>) -> Result<(), String> {
    let Some(value) = value else {
        column.null();
        return Ok(());
    };
    let other = || value.to_string();
    match column {
        ReferenceColumn::Utf8(b) => match value {
            Value::String(s) => b.append_value(s),
            other => b.append_value(other.to_string()),
        },
        ReferenceColumn::Bool(b) => b.append_value(match value {
            Value::Bool(v) => *v,
            Value::String(s) if s == "true" || s == "false" => s == "true",
            _ => return Err(other()),
        }),
        ReferenceColumn::I64(b) => b.append_value(value.as_i64().ok_or_else(other)?),
        ReferenceColumn::F64(b) => b.append_value(value.as_f64().ok_or_else(other)?),
        ReferenceColumn::Time(b) => b.append_value(match value {
            Value::String(s) => parse_timestamp(s.as_bytes()).ok_or_else(other)?,
            _ => value.as_i64().ok_or_else(other)?,
        }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn types(table: &Reference) -> Vec<(String, &'static str, bool)> {
        table.spec().fields.iter().map(|f| (f.name.clone(), f.ty.name(), f.required)).collect()
    }

    #[test]
    fn types_are_those_of_the_values() {
        let text = "id,site,limit,rows,on,part,note\n007,north,1,1,true,1.50,\n8,,2.5,2,false,x,\n";
        let (_dir, path) = file("devices.csv", text);
        let table = read_reference(&path, "devices", "id", None).unwrap();
        let want = [
            ("id", "utf8", true),
            ("limit", "f64", false),
            ("note", "utf8", false),
            ("on", "bool", false),
            ("part", "utf8", false),
            ("rows", "i64", false),
            ("site", "utf8", false),
        ];
        assert_eq!(types(&table), want.map(|(n, t, r)| (n.to_owned(), t, r)));
        // `007` and `1.50` are text as they stand: another spelling is another table.
        for other in [text.replace("007", "7"), text.replace("1.50", "1.5")] {
            let (_dir, path) = file("devices.csv", &other);
            assert_ne!(read_reference(&path, "devices", "id", None).unwrap().version(), table.version());
        }
        // The order of rows and columns is not content.
        let (_dir, path) =
            file("devices.csv", "id,limit,site,rows,on,part,note\n8,2.5,,2,false,x,\n007,1,north,1,true,1.50,\n");
        assert_eq!(read_reference(&path, "devices", "id", None).unwrap().version(), table.version());
    }

    #[test]
    fn the_same_table_from_another_format_is_the_same_version() {
        let fields = |ty| {
            vec![
                FieldSpec { name: "id".into(), ty: FieldType::Utf8, required: true },
                FieldSpec { name: "limit".into(), ty: FieldType::F64, required: false },
                FieldSpec { name: "since".into(), ty, required: false },
            ]
        };
        let (_a, csv) = file("t.csv", "id,limit,since,more\na,1.5,2026-01-01T00:00:00Z,x\nb,,,y\n");
        let (_b, json) =
            file("t.ndjson", "{\"since\":null,\"id\":\"b\"}\n{\"id\":\"a\",\"limit\":1.5,\"since\":1767225600000}\n");
        let f = fields(FieldType::TimestampMs);
        let [a, b] = [&csv, &json].map(|p| read_reference(p, "t", "id", Some(&f)).unwrap());
        assert_eq!((a.version(), a.len()), (b.version(), 2));
        let wrong = read_reference(&csv, "t", "id", Some(&fields(FieldType::I64))).unwrap_err().to_string();
        assert!(wrong.contains("t.csv:2: `since` is \"2026-01-01T00:00:00Z\", not i64"), "{wrong}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let said = |text: &str| {
            let (dir, path) = file("t.csv", text);
            let said = read_reference(&path, "t", "id", None).unwrap_err().to_string();
            said.replace(&format!("{}/", dir.path().display()), "")
        };
        assert_eq!(
            said("id,x\na,1\nb,2\na,3\n"),
            "t.csv:4: the key `a` stands twice, first in line 2; keep one of the rows"
        );
        assert_eq!(said("id,x\na,1\n,2\n"), "t.csv:3: `id` has no value");
        assert_eq!(said("di,x\na,1\n"), "t.csv:1: there is no column `id`; the columns are `di`, `x`");
    }
}

//! `[references.*]`: tables that steps may join.

use avouch_engine::spec::{FieldSpec, FieldType};

use super::super::fields::{Fields, Key, Keys, Kind, Need, Reading, closest, list};
use super::super::pipeline::ReferenceTable;
use super::super::span::Spanned;
use super::super::tree::Entry;
use super::source::read_schema;
use super::{ReferenceDraft, name_of};

pub(super) const REFERENCE: Keys = Keys::new(
    "reference",
    "A table that row steps may join under its name.",
    &[
        Key::must(
            "file",
            Kind::Text,
            "CSV, NDJSON or Parquet by its ending; one row for each key. Read again on change.",
        ),
        Key::must("key", Kind::Literal, "The column that joins look up; text, unique."),
        Key::may("schema", Kind::Fields, "Its columns with their types; others are ignored.").or("from the values"),
    ],
);

pub(super) fn read(cx: &mut Reading<'_>, e: &Entry) -> ReferenceDraft {
    ReferenceDraft { name: name_of(e), body: read_body(cx, e) }
}

fn read_body(cx: &mut Reading<'_>, e: &Entry) -> Option<ReferenceTable> {
    let path = format!("references.{}", e.key);
    let f = Fields::open(cx, &e.node, &path, e.key_span, &REFERENCE, "[references.devices]")?;
    let file = f.text(cx, Need::Must, "file", "file = \"devices.csv\"");
    let file = file.map(|t| Spanned::new(cx.dir.join(t.as_str()), t.span));
    let key = f.literal(cx, Need::Must, "key", "key = \"device\"");
    let fields = match f.get("schema") {
        None => Some(None),
        Some(_) => read_schema(cx, &f).map(Some),
    };
    if let (Some(Some(fields)), Some(key)) = (&fields, &key) {
        check_key(cx, fields, key)?;
    }
    let fields = fields?.map(|fields| fields.into_iter().map(|f| f.value).collect());
    Some(ReferenceTable { name: name_of(e), file: file?, key: key?, fields })
}

fn check_key(cx: &mut Reading<'_>, fields: &[Spanned<FieldSpec>], key: &Spanned<String>) -> Option<()> {
    match fields.iter().find(|f| f.value.name == key.value) {
        Some(f) if f.value.ty == FieldType::Utf8 && f.value.required => Some(()),
        Some(f) => {
            cx.diags.error(
                "wrong-column",
                key.span,
                format!("the field `{}` is the key of the table and must be `utf8!`", key.value),
                format!("write `{} = \"utf8!\"` in the schema", key.value),
            );
            cx.diags.relate(key.span, f.span, "the field stands");
            None
        }
        None => {
            let names: Vec<&str> = fields.iter().map(|f| f.value.name.as_str()).collect();
            let help = match closest(&key.value, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the schema has {}", list(&names)),
            };
            let message = format!("the schema has no field `{}`", key.value);
            cx.diags.error("unknown-column", key.span, message, help);
            None
        }
    }
}

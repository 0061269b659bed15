//! `[[tests]]`: recorded readings, and what the pipeline must give of them.

use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, Rule, value_span};
use super::super::pipeline::TrainDevice;
use super::super::span::Spanned;
use super::super::testing::{DeadClass, DeadCounts, Expectation, Golden, PipelineTest, TestInput};
use super::super::tree::NodeValue;

pub(super) const TEST: Keys = Keys::new(
    "test",
    "Recorded readings, and what the pipeline must give of them (`avouch test`).",
    &[
        Key::must("name", Kind::Literal, "What it shows; unique in the file."),
        Key::must(
            "input",
            Kind::Names(true),
            "A file or pattern, or several: CSV, NDJSON or Parquet by their endings.",
        ),
        Key::may("delimiter", Kind::Character, "Between the fields of CSV files.").or("\",\""),
        Key::may("device", Kind::Literal, "The column that names the device, or `path`.").or("the source's key"),
        Key::may("arrival", Kind::Literal, "The column with the time of arrival.").or("the event time"),
        Key::may("order", Kind::Choice(&ORDER), "Rows as they stand, or sorted by time.").or("\"file\""),
        Key::may("lanes", Kind::Int(1, 1024), "Over how many lanes devices are spread.").or("1"),
        Key::may("silence", Kind::LiteralDuration(1), "How long no row comes at the end.").or("none"),
        Key::may("expect", Kind::Table(&EXPECT), "What must come of it."),
        Key::may("assert", Kind::Names(true), "SQL that must give one row with one true boolean."),
    ],
)
.rules(&[Rule::OneOf(&["expect", "assert"])]);
const EXPECT: Keys = Keys::new(
    "test_expect",
    "What must come of a test's input.",
    &[
        Key::may("verdicts", Kind::Literal, "A file of all verdicts; `avouch test --update` writes it."),
        Key::may("late", Kind::Int(0, i64::MAX), "How many rows are late."),
        Key::may("dead_letters", Kind::Table(&DEAD), "How many rows die, by reason; one that is not named has none."),
    ],
)
.rules(&[Rule::NotEmpty]);
/// As [`DeadClass`] names them; a test holds the two together.
const DEAD: Keys = Keys::new(
    "test_dead_letters",
    "Dead letters by reason.",
    &[
        Key::may("bad", COUNT, "`undecodable`, `schema`, `no_device` and `too_large` together."),
        Key::may("undecodable", COUNT, "What is no record of the format."),
        Key::may("schema", COUNT, "What has a field of another type, or lacks one."),
        Key::may("no_device", COUNT, "What names no device."),
        Key::may("late", COUNT, "What came after its windows were closed."),
        Key::may("future", COUNT, "What is dated further ahead than `max_future`."),
        Key::may("sql", COUNT, "What a step's SQL failed on."),
        Key::may("too_large", COUNT, "What is larger than a record may be."),
    ],
);
const COUNT: Kind = Kind::Int(0, i64::MAX);
const ORDER: Choices = Choices { what: "row order", known: &["file", "time"], planned: &[] };
const EXAMPLE: &str = "[[tests]]";

/// Reads all tests; one that is broken is reported and left out.
pub(super) fn read(cx: &mut Reading<'_>, file: &Fields<'_>) -> Vec<PipelineTest> {
    let Some(entry) = file.get("tests") else { return Vec::new() };
    let NodeValue::Array(items) = &entry.node.value else {
        file.wrong_type(cx, entry, "an array of tables", EXAMPLE);
        return Vec::new();
    };
    let mut tests: Vec<PipelineTest> = Vec::new();
    for item in items {
        let at = if item.span.end > item.span.start { item.span } else { entry.key_span };
        let at = super::Span::new(at.start, at.end.min(at.start + EXAMPLE.len()));
        let Some(test) = Fields::open(cx, item, "tests", at, &TEST, EXAMPLE).and_then(|f| read_one(cx, &f)) else {
            continue;
        };
        if let Some(first) = tests.iter().find(|t| t.name.value == test.name.value) {
            let first = first.name.span;
            cx.diags.error(
                "given-twice",
                test.name.span,
                format!("two tests are called `{}`", test.name.value.escape_debug()),
                "give each a name of its own, by which it can be run alone",
            );
            cx.diags.relate(test.name.span, first, "the first one stands");
        }
        tests.push(test);
    }
    tests
}

fn read_one(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<PipelineTest> {
    let name = f.literal(cx, Need::Must, "name", "name = \"a healthy pump is not called\"");
    let input = f.literals(cx, Need::Must, "input", true, "input = \"fixtures/two-pumps.jsonl\"");
    let delimiter = super::read_delimiter(cx, f);
    let device = match f.get("device") {
        None => Some(TrainDevice::Key),
        Some(_) => f.literal(cx, Need::May, "device", "device = \"path\"").map(|name| match name.value.as_str() {
            "path" => TrainDevice::Path,
            _ => TrainDevice::Column(name),
        }),
    };
    let arrival = may(f, "arrival", |key| f.literal(cx, Need::May, key, "arrival = \"arrived\""));
    let order = may(f, "order", |key| f.choice(cx, Need::May, key, &ORDER, "order = \"time\""));
    let lanes = may(f, "lanes", |key| f.int(cx, Need::May, key, (1, 1024), "lanes = 4"));
    let silence = may(f, "silence", |key| f.literal_duration(cx, Need::May, key, 1, "silence = \"5m\""));
    let expect = match f.get("expect") {
        None => Some(Expectation::default()),
        Some(_) => read_expect(cx, f),
    };
    let assertions =
        may(f, "assert", |key| f.literals(cx, Need::May, key, true, "assert = \"SELECT count(*) = 0 FROM verdicts\""));
    if f.get("expect").is_none() && f.get("assert").is_none() && !f.misspelt("expect") && !f.misspelt("assert") {
        cx.diags.error(
            "missing-key",
            name.as_ref().map_or(f.at, |n| n.span),
            "this test expects nothing, so it cannot fail",
            "add `expect = { verdicts = \"golden/name.jsonl\" }`, or `assert` with SQL that must be true",
        );
        return None;
    }
    let dir = cx.dir;
    let resolved =
        |text: Spanned<String>| TestInput { pattern: dir.join(&text.value).to_string_lossy().into_owned(), text };
    Some(PipelineTest {
        name: name?,
        input: input?.into_iter().map(resolved).collect(),
        delimiter: delimiter?,
        device: device?,
        arrival: arrival?,
        sorted: order?.is_some_and(|o| o.value == "time"),
        lanes: i32::try_from(lanes?.map_or(1, |n| n.value)).ok()?,
        silence_ms: silence?,
        expect: expect?,
        assertions: assertions?.unwrap_or_default(),
    })
}

/// `Some(None)` where the key is absent, `None` where it is broken.
fn may<T>(f: &Fields<'_>, key: &'static str, read: impl FnOnce(&'static str) -> Option<T>) -> Option<Option<T>> {
    match f.get(key) {
        None => Some(None),
        Some(_) => read(key).map(Some),
    }
}

fn read_expect(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Expectation> {
    let e = f.table(cx, Need::May, "expect", &EXPECT, "expect = { late = 2 }")?;
    if e.entries().is_empty() {
        cx.diags.error(
            "empty",
            e.at,
            "`tests.expect` names nothing",
            "add `verdicts`, `late` or `dead_letters`, or remove it",
        );
        return None;
    }
    let verdicts = may(&e, "verdicts", |key| e.literal(cx, Need::May, key, "verdicts = \"golden/name.jsonl\""));
    let late = may(&e, "late", |key| e.int(cx, Need::May, key, (0, i64::MAX), "late = 2"));
    let dead = may(&e, "dead_letters", |_| read_dead(cx, &e));
    let golden = verdicts?.map(|v| Golden { path: cx.dir.join(&v.value), text: v.value, span: v.span });
    Some(Expectation { verdicts: golden, late: late?, dead_letters: dead? })
}

fn read_dead(cx: &mut Reading<'_>, e: &Fields<'_>) -> Option<Spanned<DeadCounts>> {
    const EXAMPLE: &str = "dead_letters = { bad = 1, future = 1 }";
    let entry = e.get("dead_letters")?;
    let table = e.table(cx, Need::May, "dead_letters", &DEAD, EXAMPLE)?;
    let mut out = DeadCounts::new();
    let mut whole = true;
    for class in DeadClass::names().filter_map(DeadClass::from_name) {
        let Some(item) = table.get(class.name()) else { continue };
        let twice = out.iter().find(|(c, _)| {
            matches!((*c, class), (DeadClass::Bad, DeadClass::Reason(r)) | (DeadClass::Reason(r), DeadClass::Bad)
                if DeadClass::Bad.counts(r))
        });
        if let Some((other, _)) = twice {
            cx.diags.error(
                "given-twice",
                item.key_span,
                format!("`{}` and `{}` count the same rows", other.name(), class.name()),
                "`bad` is `undecodable`, `schema`, `no_device` and `too_large` together; name either it or these",
            );
            whole = false;
        }
        match table.int(cx, Need::May, &item.key, (0, i64::MAX), EXAMPLE) {
            Some(n) => out.push((class, n)),
            None => whole = false,
        }
    }
    let span = value_span(entry);
    whole.then_some(Spanned::new(out, span))
}

#[cfg(test)]
mod declared {
    use super::*;

    #[test]
    fn the_declared_reasons_are_those_there_are() {
        assert_eq!(DEAD.names(), DeadClass::names().collect::<Vec<_>>());
    }
}

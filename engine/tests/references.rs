//! Joins to reference tables: what they give, what changes them, and what evidence says of it.

#![allow(clippy::unwrap_used)]

mod fleet;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use avouch_engine::decode::RawRecord;
use avouch_engine::event::LaneEvent;
use avouch_engine::lane::{Lane, LaneError, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::reference::{Reference, ReferenceError, ReferenceSpec};
use avouch_engine::spec::{FieldSpec, FieldType, LaneSpec, SqlStepSpec, WindowSpec};
use fleet::{Fleet, T0, row, secret};
use proptest::prelude::*;

fn table_spec() -> ReferenceSpec {
    let field = |name: &str, ty, required| FieldSpec { name: name.into(), ty, required };
    ReferenceSpec {
        name: "devices".into(),
        fields: vec![
            field("device", FieldType::Utf8, true),
            field("scale", FieldType::F64, false),
            field("site", FieldType::Utf8, false),
        ],
        key: "device".into(),
    }
}

fn table(rows: &[(&str, Option<f64>, Option<&str>)]) -> Result<Arc<Reference>, ReferenceError> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| Some(r.0)).collect::<StringArray>()),
        Arc::new(rows.iter().map(|r| r.1).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|r| r.2).collect::<StringArray>()),
    ];
    Reference::new(&table_spec(), columns)
}

fn first() -> Arc<Reference> {
    table(&[("b", Some(10.0), Some("north")), ("a", Some(2.0), None)]).unwrap()
}

fn joined(sql: &'static str) -> impl FnOnce(&mut LaneSpec) {
    move |spec: &mut LaneSpec| {
        spec.references = vec![first()];
        spec.sql[0].from = "known".into();
        spec.sql[0].sql = "SELECT device, sum(v) AS m FROM known GROUP BY device".into();
        spec.sql.push(SqlStepSpec { name: "known".into(), from: "readings".into(), sql: sql.into(), window: None });
    }
}

/// Device, value, version in the evidence, for rows of a, b and the unknown c.
fn judged(sql: &'static str) -> Vec<(String, f64)> {
    let mut fleet = Fleet::new(joined(sql));
    fleet.lane.begin_references(&mut fleet.out).unwrap();
    for d in ["a", "b", "c"] {
        fleet.send(T0, &row(d, T0, 3.0));
    }
    fleet.tick(T0 + 1_000).unwrap();
    for v in &fleet.out.verdicts {
        let [used] = v.evidence.references.as_slice() else { panic!("{:?}", v.evidence.references) };
        assert_eq!((used.name.as_str(), used.version), ("devices", first().version()));
    }
    fleet.out.verdicts.iter().map(|v| (v.evidence.device.clone(), v.evidence.features[0].value)).collect()
}

#[test]
fn left_join_keeps_and_inner_join_drops() {
    let (a, b, c) = (("a".to_owned(), 6.0), ("b".to_owned(), 30.0), ("c".to_owned(), -3.0));
    let all = vec![a.clone(), b.clone(), c];
    for sql in [
        "SELECT *, x * coalesce(scale, -1) AS v FROM readings LEFT JOIN devices USING (device)",
        "SELECT readings.*, x * coalesce(d.scale, -1) AS v FROM readings LEFT JOIN devices d ON readings.device = d.device",
        "SELECT readings.device, ts, x * coalesce(scale, -1) AS v FROM readings LEFT JOIN devices ON devices.device = readings.device",
    ] {
        assert_eq!(judged(sql), all, "{sql}");
    }
    for sql in [
        "SELECT *, x * scale AS v FROM readings JOIN devices USING (device)",
        "SELECT readings.*, x * scale AS v FROM readings INNER JOIN devices ON readings.device = devices.device WHERE x > 0",
    ] {
        assert_eq!(judged(sql), vec![a.clone(), b.clone()], "{sql}");
    }
    // By another column than the device, with what is in the table as a condition.
    let north = "SELECT readings.*, x * scale AS v FROM readings JOIN devices ON concat('', readings.device) = devices.device WHERE site = 'north'";
    assert_eq!(judged(north), vec![b]);
}

#[test]
fn where_a_join_is_not_possible_it_says_what_to_do() {
    let mut said = String::new();
    for (sql, window) in [
        ("SELECT * FROM readings LEFT JOIN devices USING (device)", None),
        ("SELECT *, scael FROM readings LEFT JOIN devices USING (device)", None),
        ("SELECT * FROM readings LEFT JOIN devcies USING (device)", None),
        ("SELECT * FROM devices", None),
        ("SELECT * FROM readings RIGHT JOIN devices USING (device)", None),
        ("SELECT readings.* FROM devices LEFT JOIN readings USING (device)", None),
        ("SELECT readings.* FROM readings LEFT JOIN devices ON readings.x = devices.scale", None),
        ("SELECT readings.* FROM readings LEFT JOIN devices ON readings.device > devices.device", None),
        ("SELECT readings.* FROM readings CROSS JOIN devices", None),
        ("SELECT * FROM readings LEFT JOIN devices ON readings.device = devices.device", None),
        (
            "SELECT device, avg(x * scale) AS m FROM readings LEFT JOIN devices USING (device) GROUP BY device",
            Some(1_000),
        ),
    ] {
        let mut spec = fleet::spec();
        spec.references = vec![first()];
        spec.scores.clear();
        let window = window.map(|size_ms| WindowSpec::Tumbling { size_ms });
        spec.sql = vec![SqlStepSpec { name: "s".into(), from: "readings".into(), sql: sql.into(), window }];
        said.push_str(&format!("{sql}\n"));
        match LanePlan::new(&spec) {
            Ok(_) => said.push_str("    (accepted)\n"),
            Err(errors) => errors.iter().for_each(|e| said.push_str(&format!("    {e}\n"))),
        }
    }
    insta::assert_snapshot!(said);
}

#[test]
fn a_version_is_the_content_and_not_its_order() {
    let rows = [("a", Some(2.0), None), ("b", Some(10.0), Some("north"))];
    let (one, other) = (table(&rows).unwrap(), first());
    assert_eq!(one.version(), other.version());
    let bytes = one.to_bytes();
    let read = Reference::from_bytes("devices", &bytes).unwrap();
    assert_eq!((read.version(), read.spec(), read.len()), (one.version(), &table_spec(), 2));
    for changed in [
        [("a", Some(2.5), None), rows[1]],
        [("a", None, None), rows[1]],
        [("a", Some(2.0), Some("")), rows[1]],
        [("aa", Some(2.0), None), rows[1]],
    ] {
        assert_ne!(table(&changed).unwrap().version(), one.version());
    }
    for cut in 0..bytes.len() {
        assert!(Reference::from_bytes("devices", &bytes[..cut]).is_err());
    }
    // To the byte, for those who keep versions elsewhere.
    let hex: String = one.version().iter().map(|b| format!("{b:02x}")).collect();
    insta::assert_snapshot!(hex);
}

#[test]
fn keys_are_unique() {
    let twice = [("b", None, None), ("a", None, None), ("b", Some(1.0), None)];
    let e = table(&twice).unwrap_err();
    assert_eq!(e, ReferenceError::DuplicateKey { key: "b".into(), first: 0, row: 2 });
}

#[test]
fn a_change_is_recorded_where_it_happens_and_shows_in_the_evidence() {
    let mut fleet = Fleet::new(joined("SELECT *, x * scale AS v FROM readings LEFT JOIN devices USING (device)"));
    let mut out = Output::default();
    assert!(matches!(fleet.lane.step(&[record(0, &row("a", T0, 1.0))], &mut out), Err(LaneError::Reference { .. })));
    fleet.lane.begin_references(&mut out).unwrap();
    let old = first().version();
    assert_eq!(out.events, [LaneEvent::Reference { after_offset: -1, name: "devices".into(), version: old }]);
    // The same content again is no change.
    let mut none = Output::default();
    fleet
        .lane
        .take_reference(table(&[("a", Some(2.0), None), ("b", Some(10.0), Some("north"))]).unwrap(), &mut none)
        .unwrap();
    assert_eq!(none.events, []);

    fleet.send(T0, &row("a", T0, 1.0));
    fleet.send(T0, &row("b", T0, 1.0));
    let new = table(&[("a", Some(100.0), None), ("b", Some(10.0), None)]).unwrap();
    let mut out = Output::default();
    fleet.lane.take_reference(new.clone(), &mut out).unwrap();
    let version = new.version();
    assert_eq!(out.events, [LaneEvent::Reference { after_offset: 1, name: "devices".into(), version }]);
    fleet.send(T0, &row("a", T0 + 500, 1.0));
    fleet.tick(T0 + 1_000).unwrap();
    let versions = |v: &avouch_engine::verdict::VerdictRecord| -> Vec<[u8; 32]> {
        v.evidence.references.iter().map(|r| r.version).collect()
    };
    let [a, b] = fleet.out.verdicts.as_slice() else { panic!("{}", fleet.out.verdicts.len()) };
    assert_eq!((a.evidence.features[0].value, versions(a)), (102.0, vec![old, version]));
    assert_eq!((b.evidence.features[0].value, versions(b)), (10.0, vec![old]), "b had no row after the change");
    // Restored, it goes on with what is there, and says so only if that is another version.
    let snapshot = fleet.lane.snapshot();
    let mut lane = Lane::restore(fleet.plan.clone(), 0, secret(), &snapshot).unwrap();
    assert_eq!(lane.references_in_use().collect::<Vec<_>>(), [("devices".to_owned(), Some(version))]);
    let mut out = Output::default();
    lane.take_reference(new, &mut out).unwrap();
    assert_eq!((out.events.len(), lane.snapshot() == snapshot), (0, true));
    lane.begin_references(&mut out).unwrap();
    assert_eq!(out.events, [LaneEvent::Reference { after_offset: 2, name: "devices".into(), version: old }]);
    // Another shape is refused.
    let mut spec = table_spec();
    spec.fields[1].ty = FieldType::I64;
    let other = Reference::from_bytes("other", &first().to_bytes()).unwrap();
    assert!(matches!(lane.take_reference(other, &mut out), Err(LaneError::Reference { .. })));
}

fn record(offset: i64, value: &str) -> RawRecord<'_> {
    RawRecord {
        offset,
        timestamp: T0 + offset * 300,
        key: None,
        value: Some(value.as_bytes()),
        origin: None,
        signature: None,
    }
}

/// Verdicts, events and snapshot of rows with changes of the table after some of them.
fn run(
    plan: &Arc<LanePlan>,
    rows: &[(u8, f64)],
    changes: &[(usize, f64)],
    cuts: &[usize],
    restore: bool,
) -> Vec<Vec<u8>> {
    let values: Vec<String> =
        rows.iter().enumerate().map(|(i, (d, x))| row(&format!("d{d}"), T0 + i as i64 * 300, *x)).collect();
    let tables =
        |scale: f64| table(&[("d0", Some(scale), None), ("d1", None, Some("x")), ("d2", Some(1.0), None)]).unwrap();
    let mut now = plan.references[0].clone();
    let mut lane = Lane::new(plan.clone(), 0, secret());
    let mut out = Output::default();
    lane.begin_references(&mut out).unwrap();
    for i in 0..=rows.len() {
        let cut = cuts.contains(&i) || changes.iter().any(|(at, _)| *at == i) || i == rows.len();
        let from = (lane.last_offset() + 1) as usize;
        if !cut {
            continue;
        }
        let records: Vec<_> = (from..i).map(|k| record(k as i64, &values[k])).collect();
        lane.step(&records, &mut out).unwrap();
        if restore {
            lane = Lane::restore(plan.clone(), 0, secret(), &lane.snapshot()).unwrap();
            let before = out.events.len();
            lane.take_reference(now.clone(), &mut out).unwrap();
            assert_eq!(out.events.len(), before);
        }
        for (_, scale) in changes.iter().filter(|(at, _)| *at == i) {
            now = tables(*scale);
            lane.take_reference(now.clone(), &mut out).unwrap();
        }
    }
    let mut left: Vec<Vec<u8>> = out.verdicts.iter().map(|v| v.to_bytes()).collect();
    left.extend(out.events.iter().map(LaneEvent::to_bytes));
    left.extend(out.dead.iter().map(|d| d.to_bytes()));
    left.push(lane.snapshot().bytes);
    left
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn other_bytes_are_another_table_or_none(
        at in any::<prop::sample::Index>(),
        change in prop_oneof![any::<u8>().prop_map(Some), Just(None)],
    ) {
        let table = first();
        let bytes = table.to_bytes();
        prop_assert_eq!(Reference::from_bytes("devices", &bytes).unwrap().version(), table.version());
        let at = at.index(bytes.len());
        let mut other = bytes.clone();
        match change {
            Some(b) => other[at] = b,
            None => other.truncate(at),
        }
        if let Ok(read) = Reference::from_bytes("devices", &other) {
            prop_assert_eq!(read.to_bytes() == bytes, other == bytes);
            prop_assert_eq!(read.version() == table.version(), other == bytes);
        }
    }

    #[test]
    fn joins_do_not_depend_on_cutting(
        rows in proptest::collection::vec((0u8..4, -5.0f64..5.0), 1..60),
        changes in proptest::collection::btree_map(0usize..60, -3.0f64..3.0, 0..4),
        cuts in proptest::collection::vec(0usize..60, 0..20),
    ) {
        let mut spec = fleet::spec();
        joined("SELECT *, x * coalesce(scale, 0.5) AS v, 1 / (octet_length(coalesce(site, 'yy')) - 1) AS f FROM readings JOIN devices USING (device)")(&mut spec);
        let plan = Arc::new(LanePlan::new(&spec).unwrap());
        let changes: Vec<(usize, f64)> = changes.into_iter().collect();
        let whole = run(&plan, &rows, &changes, &[], false);
        let each: Vec<usize> = (0..rows.len()).collect();
        prop_assert_eq!(&run(&plan, &rows, &changes, &cuts, false), &whole);
        prop_assert_eq!(&run(&plan, &rows, &changes, &cuts, true), &whole);
        prop_assert_eq!(&run(&plan, &rows, &changes, &each, false), &whole);
    }
}

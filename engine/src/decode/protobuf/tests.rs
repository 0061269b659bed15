#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, OneofDescriptorProto,
};

use super::*;
use crate::dead_letter::DeadReason;
use crate::spec::ProtobufSpec;

/// What a producer with generated code has.
#[derive(Clone, PartialEq, prost::Message)]
struct Reading {
    #[prost(string, tag = "1")]
    device: String,
    #[prost(message, optional, tag = "2")]
    at: Option<prost_types::Timestamp>,
    #[prost(double, optional, tag = "3")]
    x: Option<f64>,
    #[prost(sint64, tag = "4")]
    n: i64,
    #[prost(bool, tag = "5")]
    ok: bool,
    #[prost(int32, tag = "6")]
    state: i32,
    #[prost(message, optional, tag = "20")]
    motor: Option<Motor>,
    #[prost(uint64, tag = "7")]
    big: u64,
    #[prost(message, optional, tag = "8")]
    wrapped: Option<f64>,
    #[prost(string, repeated, tag = "9")]
    tags: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Motor {
    #[prost(float, tag = "1")]
    temp: f32,
    #[prost(int32, tag = "2")]
    rpm: i32,
}

fn member(name: &str, number: i32, ty: Type, type_name: Option<&str>) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(ty.into()),
        type_name: type_name.map(str::to_owned),
        ..Default::default()
    }
}

fn descriptor_set(change: impl FnOnce(&mut FileDescriptorProto)) -> std::sync::Arc<[u8]> {
    let mut x = member("x", 3, Type::Double, None);
    (x.proto3_optional, x.oneof_index) = (Some(true), Some(0));
    let mut tags = member("tags", 9, Type::String, None);
    tags.label = Some(Label::Repeated.into());
    let reading = DescriptorProto {
        name: Some("Reading".into()),
        field: vec![
            member("device", 1, Type::String, None),
            member("at", 2, Type::Message, Some(".google.protobuf.Timestamp")),
            x,
            member("n", 4, Type::Sint64, None),
            member("ok", 5, Type::Bool, None),
            member("state", 6, Type::Enum, Some(".acme.Reading.State")),
            member("motor", 20, Type::Message, Some(".acme.Motor")),
            member("big", 7, Type::Uint64, None),
            member("wrapped", 8, Type::Message, Some(".google.protobuf.DoubleValue")),
            tags,
        ],
        enum_type: vec![EnumDescriptorProto {
            name: Some("State".into()),
            value: ["IDLE", "RUNNING"]
                .iter()
                .enumerate()
                .map(|(i, n)| EnumValueDescriptorProto {
                    name: Some((*n).into()),
                    number: Some(i as i32),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }],
        oneof_decl: vec![OneofDescriptorProto { name: Some("_x".into()), ..Default::default() }],
        ..Default::default()
    };
    let motor = DescriptorProto {
        name: Some("Motor".into()),
        field: vec![member("temp", 1, Type::Float, None), member("rpm", 2, Type::Int32, None)],
        ..Default::default()
    };
    let mut file = FileDescriptorProto {
        name: Some("telemetry.proto".into()),
        package: Some("acme".into()),
        message_type: vec![motor, reading],
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    change(&mut file);
    FileDescriptorSet { file: vec![file] }.encode_to_vec().into()
}

fn field(name: &str, ty: FieldType, required: bool) -> FieldSpec {
    FieldSpec { name: name.into(), ty, required }
}

fn fields() -> Vec<FieldSpec> {
    vec![
        field("at", FieldType::TimestampMs, true),
        field("big", FieldType::F64, false),
        field("device", FieldType::Utf8, true),
        field("gone", FieldType::F64, false),
        field("motor.rpm", FieldType::I64, false),
        field("motor.temp", FieldType::F64, false),
        field("n", FieldType::I64, false),
        field("ok", FieldType::Bool, false),
        field("state", FieldType::Utf8, false),
        field("wrapped", FieldType::F64, false),
        field("x", FieldType::F64, false),
    ]
}

fn plan(
    message: &str,
    framing: Framing,
    fields: &[FieldSpec],
    change: impl FnOnce(&mut FileDescriptorProto),
) -> Result<MessagePlan, Vec<DescriptorError>> {
    MessagePlan::new(&ProtobufSpec { descriptor: descriptor_set(change), message: message.into(), framing }, fields)
}

fn decoder() -> ProtobufDecoder {
    ProtobufDecoder::new(Arc::new(plan("acme.Reading", Framing::None, &fields(), |_| {}).unwrap()))
}

fn time(ms: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos: (ms.rem_euclid(1000) * 1_000_000) as i32 + 999 })
}

fn full() -> Reading {
    Reading {
        device: "p-1".into(),
        at: time(1_700_000_000_123),
        x: Some(-0.25),
        n: -7,
        ok: true,
        state: 1,
        motor: Some(Motor { temp: 41.5, rpm: -900 }),
        big: u64::MAX,
        wrapped: Some(2.5),
        tags: vec!["a".into(), "b".into()],
    }
}

#[test]
fn a_row_of_every_type() {
    let mut d = decoder();
    let payload = full().encode_to_vec();
    d.decode(&payload).unwrap();
    let s = d.slots();
    assert_eq!(d.text(&payload, s[2]), b"p-1");
    assert_eq!(d.text(&payload, s[8]), b"RUNNING");
    assert_eq!(s[0], Slot::Timestamp(1_700_000_000_123));
    assert_eq!(s[1], Slot::F64(u64::MAX as f64));
    assert_eq!(s[3], Slot::Missing);
    assert_eq!(s[4..8], [Slot::I64(-900), Slot::F64(41.5), Slot::I64(-7), Slot::Bool(true)]);
    assert_eq!(s[9..], [Slot::F64(2.5), Slot::F64(-0.25)]);
}

#[test]
fn what_is_absent() {
    let mut d = decoder();
    let payload = Reading { device: "p".into(), at: time(5), ..Default::default() }.encode_to_vec();
    d.decode(&payload).unwrap();
    let s = d.slots();
    // Without presence: the default. With it: null.
    assert_eq!((s[1], s[6], s[7]), (Slot::F64(0.0), Slot::I64(0), Slot::Bool(false)));
    assert_eq!(d.text(&payload, s[8]), b"IDLE");
    assert_eq!((s[4], s[5], s[9], s[10]), (Slot::Missing, Slot::Missing, Slot::Missing, Slot::Missing));
    // Within a message that is there, the same rules again.
    let payload = Reading {
        device: "p".into(),
        at: time(5),
        motor: Some(Motor { temp: 0.0, rpm: 3 }),
        wrapped: Some(0.0),
        ..Default::default()
    }
    .encode_to_vec();
    d.decode(&payload).unwrap();
    let s = d.slots();
    assert_eq!((s[4], s[5], s[9]), (Slot::I64(3), Slot::F64(0.0), Slot::F64(0.0)));
    let e = d.decode(&Reading { device: "p".into(), ..Default::default() }.encode_to_vec()).unwrap_err();
    assert_eq!(e.detail, "field \"at\" is missing but required");
    // proto2 has presence everywhere.
    let plan2 = plan("acme.Reading", Framing::None, &fields(), |f| f.syntax = None).unwrap();
    let mut d = ProtobufDecoder::new(Arc::new(plan2));
    d.decode(&Reading { device: "p".into(), at: time(5), ..Default::default() }.encode_to_vec()).unwrap();
    assert_eq!(d.slots()[6..9], [Slot::Missing; 3]);
}

#[test]
fn evolution() {
    let mut d = decoder();
    let mut payload = full().encode_to_vec();
    // Fields nobody knows: a varint, a fixed64, bytes, a group with a group in it, a fixed32.
    payload.extend_from_slice(&[0xa8, 0x06, 0x96, 0x01, 0xb1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8, 0xba, 0x06, 1, 9]);
    payload.extend_from_slice(&[0xc3, 0x06, 0xcb, 0x06, 0xa8, 0x06, 1, 0xcc, 0x06, 0xc4, 0x06, 0xb5, 0x06, 1, 2, 3, 4]);
    d.decode(&payload).unwrap();
    // A field that stands twice has its last value.
    payload.extend_from_slice(&[0x20, 0x08]);
    d.decode(&payload).unwrap();
    assert_eq!(d.slots()[6], Slot::I64(4));
}

#[test]
fn what_is_wrong_is_said() {
    let mut seen = String::new();
    let mut d = decoder();
    let mut nameless = full();
    nameless.state = 9;
    let mut fast = full();
    fast.x = Some(f64::INFINITY);
    let mut before = full();
    before.at = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
    let mut odd = full();
    odd.at = Some(prost_types::Timestamp { seconds: 1, nanos: -5 });
    for (what, payload) in [
        ("x became text", vec![0x0a, 1, b'p', 0x1a, 1, b'h']),
        ("n became a double", [&[0x21][..], &1f64.to_le_bytes()].concat()),
        ("a state without a name", nameless.encode_to_vec()),
        ("not a number", fast.encode_to_vec()),
        ("a time before 1970", before.encode_to_vec()),
        ("a time that is none", odd.encode_to_vec()),
        ("not UTF-8", vec![0x0a, 1, 0xff]),
        ("cut off", vec![0x0a, 9, b'p']),
        ("a group that never ends", vec![0xc3, 0x06, 0xc3, 0x06]),
        ("a group that never began", vec![0xc4, 0x06]),
        ("field 0", vec![0x00, 0x01]),
        ("wire type 7", vec![0x0f]),
        ("an endless number", vec![0xff; 12]),
        ("a length beyond the end", [&[0x0a][..], &[0xff; 9], &[1]].concat()),
        ("JSON", br#"{"device":"p"}"#.to_vec()),
        ("nothing", vec![]),
    ] {
        let e = d.decode(&payload).unwrap_err();
        seen.push_str(&format!("{what}\n    {}: {}\n", e.reason.name(), e.detail));
    }
    let deep: Vec<u8> = std::iter::repeat_n([0xc3, 0x06], 1_000).flatten().collect();
    let e = d.decode(&deep).unwrap_err();
    seen.push_str(&format!("deep groups\n    {}: {}\n", e.reason.name(), e.detail));
    insta::assert_snapshot!(seen);
}

#[test]
fn what_a_descriptor_lacks_is_said() {
    let mut seen = String::new();
    let mut say = |what: &str, p: Result<MessagePlan, Vec<DescriptorError>>| match p {
        Ok(p) => seen.push_str(&format!("{what}\n    (accepted; always null: {:?})\n", p.absent_fields())),
        Err(errors) => {
            seen.push_str(&format!("{what}\n"));
            errors.iter().for_each(|e| seen.push_str(&format!("    {:?}: {e}\n", e.field)));
        }
    };
    say("as it should be", plan("acme.Reading", Framing::None, &fields(), |_| {}));
    say("a dot before the name", plan(".acme.Reading", Framing::None, &fields(), |_| {}));
    say("another message", plan("acme.Readings", Framing::None, &fields(), |_| {}));
    say("editions", plan("acme.Reading", Framing::None, &fields(), |f| f.syntax = Some("editions".into())));
    let one = |name: &str, ty: FieldType, required: bool| {
        plan("acme.Reading", Framing::None, &[field(name, ty, required)], |_| {})
    };
    say("a repeated field", one("tags", FieldType::Utf8, false));
    say("text as a number", one("device", FieldType::F64, false));
    say("an enum as a number", one("state", FieldType::I64, true));
    say("a message as text", one("motor", FieldType::Utf8, false));
    say("a time of 32 bits", one("motor.rpm", FieldType::TimestampMs, false));
    say("a required field that is not there", one("nothing", FieldType::F64, true));
    say(
        "an enum without its definition",
        plan("acme.Reading", Framing::None, &[field("state", FieldType::Utf8, false)], |f| {
            f.message_type[1].enum_type.clear();
        }),
    );
    let spec = ProtobufSpec {
        descriptor: Arc::from(&b"syntax = \"proto3\";"[..]),
        message: "m".into(),
        framing: Framing::None,
    };
    say("the .proto file itself", MessagePlan::new(&spec, &fields()));
    insta::assert_snapshot!(seen);
}

#[test]
fn confluent_framing() {
    // Reading is the file's second message.
    let mut d = ProtobufDecoder::new(Arc::new(plan("acme.Reading", Framing::Confluent, &fields(), |_| {}).unwrap()));
    let body = full().encode_to_vec();
    let framed = |path: &[u8]| [&[0, 0, 0, 0, 7], path, &body[..]].concat();
    assert_eq!(d.decode(&framed(&[2, 2])), Ok(()));
    assert_eq!(d.decode(&framed(&[0])).unwrap_err().reason, DeadReason::Schema, "the file's first message");
    assert_eq!(d.decode(&framed(&[4, 2, 0])).unwrap_err().reason, DeadReason::Schema);
    assert_eq!(d.decode(&body).unwrap_err().reason, DeadReason::Undecodable);
    // The short form, where it is the first.
    let first = |f: &mut FileDescriptorProto| f.message_type.reverse();
    let mut d = ProtobufDecoder::new(Arc::new(plan("acme.Reading", Framing::Confluent, &fields(), first).unwrap()));
    assert_eq!(d.decode(&framed(&[0])), Ok(()));
    assert_eq!(d.decode(&framed(&[2, 0])), Ok(()));
}

fn reading() -> impl Strategy<Value = Reading> {
    let x = proptest::option::of(proptest::num::f64::NORMAL);
    let motor =
        proptest::option::of((proptest::num::f32::NORMAL, any::<i32>()).prop_map(|(temp, rpm)| Motor { temp, rpm }));
    let tags = proptest::collection::vec(".{0,5}", 0..3);
    (".{1,9}", 0..MAX_TIMESTAMP_MS, x, any::<i64>(), any::<bool>(), 0..2i32, motor, any::<u64>(), tags).prop_map(
        |(device, at, x, n, ok, state, motor, big, tags)| Reading {
            device,
            at: time(at),
            x,
            n,
            ok,
            state,
            motor,
            big,
            wrapped: x,
            tags,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn reads_what_generated_code_writes(r in reading()) {
        let mut d = decoder();
        let payload = r.encode_to_vec();
        d.decode(&payload).unwrap();
        let s = d.slots();
        let float = |v: Option<f64>| v.map_or(Slot::Missing, Slot::F64);
        let at = r.at.unwrap();
        prop_assert_eq!(s[0], Slot::Timestamp(at.seconds * 1000 + i64::from(at.nanos / 1_000_000)));
        prop_assert_eq!(s[1], Slot::F64(r.big as f64));
        prop_assert_eq!(d.text(&payload, s[2]), r.device.as_bytes());
        prop_assert_eq!(s[4], r.motor.map_or(Slot::Missing, |m| Slot::I64(i64::from(m.rpm))));
        prop_assert_eq!(s[5], r.motor.map_or(Slot::Missing, |m| Slot::F64(f64::from(m.temp))));
        prop_assert_eq!(s[6], Slot::I64(r.n));
        prop_assert_eq!(s[7], Slot::Bool(r.ok));
        prop_assert_eq!(d.text(&payload, s[8]), [&b"IDLE"[..], b"RUNNING"][r.state as usize]);
        prop_assert_eq!(s[9], float(r.wrapped));
        prop_assert_eq!(s[10], float(r.x));
    }

    /// Whatever is changed in a message, it is a row or an error, never a panic; and where `prost` reads it, so do we
    /// unless a value does not fit.
    #[test]
    fn changed_messages(
        r in reading(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut payload = r.encode_to_vec();
        for (at, byte) in &edits {
            let at = at.index(payload.len());
            payload[at] = *byte;
        }
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len()));
        }
        let mut d = decoder();
        match d.decode(&payload) {
            Ok(()) => {
                prop_assert!(matches!(d.slots()[0], Slot::Timestamp(_)));
                prop_assert!(std::str::from_utf8(d.text(&payload, d.slots()[2])).is_ok());
            }
            Err(e) if e.reason == DeadReason::Undecodable => {
                prop_assert!(Reading::decode(&payload[..]).is_err(), "{}", e.detail);
            }
            Err(_) => {}
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = decoder().decode(&bytes);
        let spec = ProtobufSpec { descriptor: bytes.into(), message: "m".into(), framing: Framing::None };
        let _ = MessagePlan::new(&spec, &fields());
    }
}

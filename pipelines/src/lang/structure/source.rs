//! `[sources.*]`: where readings come from and how they are admitted.

use avouch_engine::spec::{FieldSpec, FieldType};

use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, closest, list, value_span};
use super::super::format::Format;
use super::super::interpolate::Text;
use super::super::pipeline::{KafkaSource, Source, SourceKind, Time};
use super::super::span::Spanned;
use super::super::tree::{Entry, NodeValue};
use super::format::{FORMAT_KEYS, FORMAT_RULES};
use super::identity::{self, IDENTITY};
use super::kafka::{MEMBERSHIP_KEYS, SECURITY};
use super::repartition::REPARTITION;
use super::source_ethereum::{self, ETHEREUM_SOURCE};
use super::source_files::{self, FILES_SOURCE};
use super::source_mqtt::{self, MQTT_SOURCE};
use super::{SourceDraft, check_topic, format, name_of};

const KAFKA_SOURCE: Keys = Keys::new(
    "kafka_source",
    "Readings from a Kafka topic, one lane a partition.",
    &[
        is("kafka"),
        Key::must("brokers", Kind::Text, "`host:port`, several with commas."),
        Key::may("security", Kind::Table(&SECURITY), "How the cluster is reached, also by sinks and dead letters.")
            .or("plaintext"),
        Key::must("topic", Kind::Text, "The topic."),
        Key::may("repartition", Kind::Table(&REPARTITION), "Where `topic` is not keyed by device."),
        Key::may("group", Kind::Text, "Processes of one pipeline share its partitions through this consumer group.")
            .or("the pipeline's name"),
        MEMBERSHIP_KEYS[0],
        MEMBERSHIP_KEYS[1],
        MEMBERSHIP_KEYS[2],
        FORMAT_KEYS[0],
        FORMAT_KEYS[1],
        FORMAT_KEYS[2],
        FORMAT_KEYS[3],
        FORMAT_KEYS[4],
        SCHEMA,
        DEVICE,
        TIMES,
        DEVICE_TTL,
        MAX_RECORD_BYTES,
        IDENTITY,
    ],
)
.rules(&FORMAT_RULES);
pub(super) const SOURCE_TABLES: [&Keys; 4] = [&KAFKA_SOURCE, &FILES_SOURCE, &MQTT_SOURCE, &ETHEREUM_SOURCE];

pub(super) const fn is(kind: &'static str) -> Key {
    Key::must("kind", Kind::Is(kind), "What is read.")
}
pub(super) const SCHEMA: Key = Key::must(
    "schema",
    Kind::Fields,
    "The fields of a reading with their types; `!` behind a type: a row without the field is a dead letter. Other fields of \
     a record are ignored.",
);
pub(super) const DEVICE: Key =
    Key::must("key", Kind::Literal, "The device's field, `utf8!`. All readings of a device must be in one partition.");
pub(super) const TIMES: Key = Key::must("time", Kind::Table(&TIME), "How readings are placed in time.");
pub(super) const DEVICE_TTL: Key = Key::may(
    "device_ttl",
    Kind::LiteralDuration(1),
    "Devices silent for longer, by event time, are forgotten. At least as long as the longest window.",
)
.or("never");
pub(super) const MAX_RECORD_BYTES: Key =
    Key::may("max_record_bytes", Kind::Size(1, i32::MAX as i64), "Larger records are dead letters, undecoded.")
        .or("\"1MiB\"");

const TIME: Keys = Keys::new(
    "time",
    "How readings are placed in time.",
    &[
        Key::must("column", Kind::Literal, "Event time, `timestamp_ms!`."),
        Key::must(
            "max_disorder",
            Kind::LiteralDuration(0),
            "How far rows may be out of order; the watermark is the highest event time minus this.",
        ),
        Key::may(
            "idle_after",
            Kind::LiteralDuration(1),
            "After so long without an admitted row time goes on by the clock, and open windows close.",
        )
        .or("never"),
        Key::may(
            "max_future",
            Kind::LiteralDuration(0),
            "Rows further ahead of the broker's timestamp are dead letters.",
        )
        .or("\"5m\""),
    ],
);
const KIND: Choices = Choices { what: "source kind", known: &["kafka", "files", "mqtt", "ethereum"], planned: &[] };
const SCHEMA_EXAMPLE: &str = "schema = { device = \"utf8!\", ts = \"timestamp_ms!\", temperature = \"f64\" }";
const DEFAULT_MAX_FUTURE_MS: i64 = 300_000;
const DEFAULT_MAX_RECORD_BYTES: i64 = 1 << 20;

pub(super) fn read(cx: &mut Reading<'_>, e: &Entry, default_group: Option<Text>) -> SourceDraft {
    SourceDraft { name: name_of(e), body: read_body(cx, e, default_group) }
}

fn read_body(cx: &mut Reading<'_>, e: &Entry, default_group: Option<Text>) -> Option<Source> {
    let path = format!("sources.{}", e.key);
    let keys = match kind_of(e) {
        Some("files") => &FILES_SOURCE,
        Some("mqtt") => &MQTT_SOURCE,
        Some("ethereum") => &ETHEREUM_SOURCE,
        _ => &KAFKA_SOURCE,
    };
    let f = Fields::open(cx, &e.node, &path, e.key_span, keys, "[sources.readings]")?;
    if let (Some(entry), false) = (f.get("repartition"), keys.has("repartition")) {
        let kind = f.get("kind").map_or(e.key_span, value_span);
        cx.diags.relate(entry.key_span, kind, "only a Kafka source can be repartitioned; the kind of this one stands");
    }
    let kind = f.choice(cx, Need::Must, "kind", &KIND, "kind = \"kafka\"");
    if kind.is_none() && f.get("kind").is_some() {
        // Another kind has other keys: what is missing for Kafka says nothing about it.
        return None;
    }
    let kind = match kind.as_ref().map(|k| k.value) {
        Some("files") => source_files::read(cx, &f).map(SourceKind::Files),
        Some("mqtt") => source_mqtt::read(cx, &f, default_group).map(SourceKind::Mqtt),
        Some("ethereum") => source_ethereum::read(cx, &f).map(SourceKind::Ethereum),
        other => read_kafka(cx, &f, default_group).filter(|_| other.is_some()).map(SourceKind::Kafka),
    };
    let fields = read_schema(cx, &f);
    if let (Some(SourceKind::Ethereum(chain)), Some(fields)) = (&kind, &fields) {
        source_ethereum::check_schema(cx, chain, fields);
    }
    // The rows of a file become readings by their columns' names.
    let format = match keys.has("format") {
        true => format::read(cx, &f, fields.as_deref()),
        false => Some(Format::Json),
    };
    let key = f.literal(cx, Need::Must, "key", "key = \"device\"");
    if let (Some(fields), Some(key)) = (&fields, &key) {
        check_column(cx, fields, key, FieldType::Utf8, "names the device");
    }
    let time = read_time(cx, &f);
    if let (Some(fields), Some(time)) = (&fields, &time) {
        check_column(cx, fields, &time.column, FieldType::TimestampMs, "carries event time");
    }
    let device_ttl_ms = match f.get("device_ttl") {
        None => Some(None),
        Some(_) => f.literal_duration(cx, Need::May, "device_ttl", 1, "device_ttl = \"30d\"").map(Some),
    };
    let max_record = match f.get("max_record_bytes") {
        None => Some(DEFAULT_MAX_RECORD_BYTES),
        Some(_) => {
            let range = (1, i64::from(i32::MAX));
            f.size(cx, Need::May, "max_record_bytes", range, "max_record_bytes = \"1MiB\"").map(|s| s.value)
        }
    };
    let identity = match keys.has("identity") {
        true => identity::read(cx, &f, keys.name == KAFKA_SOURCE.name),
        false => Some(None),
    };
    if let (Some(Some(identity)), Some(format), Some(fields), Some(key)) = (&identity, &format, &fields, &key) {
        identity::check(cx, identity, format, fields, key);
    }
    let source = Source {
        name: name_of(e),
        format: format?,
        fields: fields?,
        key: key?,
        time: time?,
        device_ttl_ms: device_ttl_ms?,
        max_record_bytes: usize::try_from(max_record?).ok()?,
        identity: identity?,
        kind: kind?,
    };
    super::repartition::check_format(cx, &source);
    Some(source)
}

/// The kind as it stands there, to know which keys the table may have.
fn kind_of(e: &Entry) -> Option<&str> {
    let NodeValue::Table(entries) = &e.node.value else { return None };
    match &entries.iter().find(|x| x.key == "kind")?.node.value {
        NodeValue::Str(kind) => Some(kind),
        _ => None,
    }
}

fn read_kafka(cx: &mut Reading<'_>, f: &Fields<'_>, default_group: Option<Text>) -> Option<KafkaSource> {
    let brokers = f.text(cx, Need::Must, "brokers", "brokers = \"${env:KAFKA_BROKERS:-localhost:9092}\"");
    if let Some(b) = &brokers {
        check_brokers(cx, b);
    }
    let security = super::kafka::read_security(cx, f);
    let topic = f.text(cx, Need::Must, "topic", "topic = \"pumps.telemetry\"");
    if let Some(t) = &topic {
        check_topic(cx, t);
    }
    let repartition = super::repartition::read(cx, f, topic.as_ref());
    let group = match f.get("group") {
        None => default_group,
        Some(_) => f.text(cx, Need::May, "group", "group = \"pump-health\""),
    };
    let membership = super::kafka::read_membership(cx, f);
    Some(KafkaSource {
        brokers: brokers?,
        topic: topic?,
        repartition: repartition?.map(Box::new),
        group: group?,
        security: security?,
        membership: membership?,
    })
}

pub(super) fn check_brokers(cx: &mut Reading<'_>, brokers: &Text) {
    let good = brokers.as_str().split(',').all(|b| {
        b.trim()
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
    });
    if !good {
        cx.diags.error(
            "bad-brokers",
            brokers.span,
            format!("`{}` is not a list of brokers", brokers.raw().escape_debug()),
            "write `host:port`, several with commas: `brokers = \"kafka-1:9092,kafka-2:9092\"`",
        );
    }
}

fn read_time(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Time> {
    let t = f.table(cx, Need::Must, "time", &TIME, "time = { column = \"ts\", max_disorder = \"30s\" }")?;
    let column = t.literal(cx, Need::Must, "column", "column = \"ts\"");
    let max_disorder_ms = t.literal_duration(cx, Need::Must, "max_disorder", 0, "max_disorder = \"30s\"");
    let max_future_ms = match t.get("max_future") {
        None => Some(DEFAULT_MAX_FUTURE_MS),
        Some(_) => t.literal_duration(cx, Need::May, "max_future", 0, "max_future = \"5m\"").map(|d| d.value),
    };
    let idle_after_ms = match t.get("idle_after") {
        None => Some(None),
        Some(_) => t.literal_duration(cx, Need::May, "idle_after", 1, "idle_after = \"1m\"").map(|d| Some(d.value)),
    };
    Some(Time {
        column: column?,
        max_disorder_ms: max_disorder_ms?,
        idle_after_ms: idle_after_ms?,
        max_future_ms: max_future_ms?,
    })
}

pub(super) fn read_schema(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Vec<Spanned<FieldSpec>>> {
    let entry = f.entry(cx, Need::Must, "schema", SCHEMA_EXAMPLE)?;
    let table = Fields::open_any(cx, &entry.node, &f.name("schema"), entry.key_span, SCHEMA_EXAMPLE)?;
    let mut fields = Vec::new();
    let mut whole = true;
    for e in table.entries() {
        match read_field(cx, &table, e) {
            Some(field) => fields.push(Spanned::new(field, e.key_span)),
            None => whole = false,
        }
    }
    if table.entries().is_empty() {
        cx.diags.error("empty", value_span(entry), "the schema names no field", format!("write `{SCHEMA_EXAMPLE}`"));
        return None;
    }
    fields.sort_by(|a, b| a.value.name.cmp(&b.value.name));
    whole.then_some(fields)
}

fn read_field(cx: &mut Reading<'_>, table: &Fields<'_>, e: &Entry) -> Option<FieldSpec> {
    if e.key.is_empty() || e.key.contains(|c: char| c.is_control() || c == '"') {
        cx.diags.error(
            "bad-name",
            e.key_span,
            format!("`{}` cannot be the name of a field", e.key.escape_debug()),
            "give the field a name without quotes and control characters",
        );
        return None;
    }
    let NodeValue::Str(text) = &e.node.value else {
        table.wrong_type(cx, e, "the name of a type", &format!("{} = \"f64\"", e.key));
        return None;
    };
    let (name, required) = match text.strip_suffix('!') {
        Some(name) => (name, true),
        None => (text.as_str(), false),
    };
    let Some(ty) = FieldType::from_name(name) else {
        let names = FieldType::ALL.map(|(n, _)| n);
        let help = match alias(name).or_else(|| closest(name, names.into_iter())) {
            Some(near) => format!("did you mean `{near}{}`?", if required { "!" } else { "" }),
            None => format!("the types are {}; `!` behind one means that the field must be there", list(&names)),
        };
        cx.diags.error(
            "unknown-type",
            value_span(e),
            format!("`{}` is not a type (field `{}`)", name.escape_debug(), e.key),
            help,
        );
        return None;
    };
    Some(FieldSpec { name: e.key.clone(), ty, required })
}

/// What other systems call our types.
fn alias(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        "string" | "str" | "text" | "varchar" => Some("utf8"),
        "boolean" => Some("bool"),
        "int" | "integer" | "long" | "bigint" | "int64" | "i32" | "int32" => Some("i64"),
        "float" | "double" | "real" | "number" | "float64" | "f32" | "float32" => Some("f64"),
        "timestamp" | "datetime" | "time" | "date" => Some("timestamp_ms"),
        _ => None,
    }
}

fn check_column(
    cx: &mut Reading<'_>,
    fields: &[Spanned<FieldSpec>],
    column: &Spanned<String>,
    ty: FieldType,
    does: &str,
) {
    let wanted = format!("{}!", ty.name());
    match fields.iter().find(|f| f.value.name == column.value) {
        Some(f) if f.value.ty == ty && f.value.required => {}
        Some(f) => {
            let found = format!("{}{}", f.value.ty.name(), if f.value.required { "!" } else { "" });
            cx.diags.error(
                "wrong-column",
                column.span,
                format!("the field `{}` {does} and must be `{wanted}`, but the schema says `{found}`", column.value),
                format!("write `{} = \"{wanted}\"` in the schema", column.value),
            );
            cx.diags.relate(column.span, f.span, "the field stands");
        }
        None => {
            let help = match closest(&column.value, fields.iter().map(|f| f.value.name.as_str())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add `{} = \"{wanted}\"` to the schema", column.value),
            };
            cx.diags.error("unknown-column", column.span, format!("the schema has no field `{}`", column.value), help);
        }
    }
}

//! `repartition` of a Kafka source: the topic its records go through where its own is not keyed by device.

use super::super::fields::{Fields, Key, Keys, Kind, Need, Reading};
use super::super::format::Format;
use super::super::interpolate::Text;
use super::super::pipeline::{Repartition, Source, SourceKind};
use super::check_topic;

pub(super) const REPARTITION: Keys = Keys::new(
    "repartition",
    "The topic that records go through where their own is not keyed by device.",
    &[
        Key::must("topic", Kind::Text, "The topic, on the source's brokers. It is this pipeline's alone."),
        Key::must("partitions", Kind::Int(1, MOST_PARTITIONS), "How many it has, for good."),
    ],
);
const EXAMPLE: &str = "repartition = { topic = \"pumps.by-device\", partitions = 12 }";
/// As many as one broker can be asked for within reason.
const MOST_PARTITIONS: i64 = 10_000;

/// The table `repartition`; `Some(None)` where there is none, `None` where something is wrong with it.
pub(super) fn read(cx: &mut Reading<'_>, source: &Fields<'_>, reads: Option<&Text>) -> Option<Option<Repartition>> {
    let Some(entry) = source.get("repartition") else { return Some(None) };
    let f = source.table(cx, Need::Must, "repartition", &REPARTITION, EXAMPLE)?;
    let topic = f.text(cx, Need::Must, "topic", "topic = \"pumps.by-device\"");
    if let Some(t) = &topic {
        check_topic(cx, t);
    }
    let partitions = f.int(cx, Need::Must, "partitions", (1, MOST_PARTITIONS), "partitions = 12");
    let (topic, partitions) = (topic?, partitions?);
    if let Some(reads) = reads.filter(|r| r.as_str() == topic.as_str()) {
        cx.diags.error(
            "topic-loop",
            topic.span,
            "records would be repartitioned into the topic they come from, and be read again",
            "give `repartition` a topic of its own",
        );
        cx.diags.relate(topic.span, reads.span, "the source's topic stands");
        return None;
    }
    let partitions = i32::try_from(partitions.value).ok()?;
    Some(Some(Repartition { topic, partitions, span: entry.key_span }))
}

/// A record goes to one partition, so it must be of one device.
pub(super) fn check_format(cx: &mut Reading<'_>, source: &Source) {
    let SourceKind::Kafka(kafka) = &source.kind else { return };
    if let Some(repartition) = &kafka.repartition
        && matches!(source.format, Format::Arrow)
    {
        cx.diags.error(
            "broken-guarantee",
            repartition.span,
            "a record of `format = \"arrow\"` holds rows of several devices, which cannot go to several partitions",
            "remove `repartition` and let whoever writes the records put one device in each, with the device as their key; \
             or use a format of one row a record",
        );
    }
}

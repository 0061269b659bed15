//! `avouch state events`: what happened to a lane besides rows, in the order in which a replay needs it.

use std::fmt::Write as _;

use avouch_connectors::store::LaneReader;
use avouch_engine::bundle::utc;
use avouch_engine::event::{BEFORE_ALL, LaneEvent};
use clap::Args;
use serde_json::{Value, json};

use super::place::Place;
use super::{Format, StateError};
use crate::lang::Pipeline;
use crate::runtime::{hex, lanes_here};

/// Events read at once.
const AT_ONCE: usize = 10_000;

#[derive(Debug, Clone, Args)]
pub(super) struct EventsArgs {
    /// The pipeline file, or a state directory (of one lane or one pipeline)
    #[arg(value_name = "PIPELINE.toml|DIR")]
    place: String,

    /// The lane, which is the source's partition
    #[arg(long, value_name = "N")]
    lane: i32,

    /// Number of the first event to show, from 0
    #[arg(long, value_name = "N", conflicts_with = "last")]
    from: Option<u64>,

    /// Show the newest so many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    last: u64,

    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl EventsArgs {
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }
}

/// The events that the newest checkpoint covers.
pub(super) fn events(args: &EventsArgs) -> Result<(String, bool), StateError> {
    let place = working_copy(&args.place)?;
    let reader = LaneReader::open_read_only(&place.directory(args.lane)?)?;
    let all = reader.committed().event_count;
    let from = args.from.unwrap_or(all.saturating_sub(args.last));
    let mut out = String::new();
    if !args.json() {
        let s = if all == 1 { "" } else { "s" };
        let _ = writeln!(out, "lane {}: {all} event{s}", args.lane);
        if from > 0 && args.from.is_none() {
            let _ = writeln!(out, "the newest {}; --from 0 shows all", all - from);
        }
        out.push('\n');
    }
    let mut next = from;
    while next < all {
        let some = reader.events(next, AT_ONCE)?;
        if some.is_empty() {
            break;
        }
        for event in some {
            let _ = match args.format {
                Format::Text => writeln!(out, "  {next:>8}  {}", text(&event)),
                Format::Json => writeln!(out, "{}", value(next, &event)),
            };
            next += 1;
        }
    }
    Ok((out, true))
}

/// Of a pipeline whose checkpoints go to an object store, the directory it works in, where its lanes are brought first: events
/// are read from there.
fn working_copy(text: &str) -> Result<Place, StateError> {
    let path = std::path::Path::new(text);
    if path.is_file() {
        let pipeline = Pipeline::load(path).map_err(|d| StateError::Pipeline(d.render_text(false)))?;
        return Place::directories(text, &lanes_here(&pipeline)?);
    }
    Place::find(text)
}

/// A time of either sign.
fn time(ms: i64) -> String {
    u64::try_from(ms).map_or_else(|_| format!("{ms} ms"), utc)
}

fn text(event: &LaneEvent) -> String {
    let place = match event.after_offset() {
        BEFORE_ALL => "before all records".to_owned(),
        offset => format!("after offset {offset}"),
    };
    match event {
        LaneEvent::Tick(t) => format!("{place}: tick, time goes on to {}", time(t.watermark_ms)),
        LaneEvent::Reference { name, version, .. } => {
            format!("{place}: reference {name} is version {} from here on", hex(version))
        }
        LaneEvent::Evicted { watermark_ms, device_id, next_seq, .. } => format!(
            "{place}: device {} forgotten at {}, its next verdict has seq {next_seq}",
            hex(device_id),
            time(*watermark_ms)
        ),
        LaneEvent::Pipeline { from, to, dropped, .. } => {
            let mut out = format!("{place}: the pipeline is {} from here on, and was {}", hex(to), hex(from));
            for d in dropped {
                out += &format!(
                    "; state of {} dropped ({}): {} devices, {} rows",
                    d.step,
                    d.why.text(),
                    d.held.devices,
                    d.held.rows
                );
            }
            out
        }
        LaneEvent::Label { label, .. } => {
            let about = match label.verdict {
                Some(index) => format!("verdict {index} about {}", label.device),
                None => {
                    let time = |ms: u64| time(i64::try_from(ms).unwrap_or(i64::MAX));
                    format!("{} from {} to {}", label.device, time(label.from), time(label.to))
                }
            };
            format!("{place}: person {} says {} of {about}", hex(&label.by), label.opinion.name())
        }
    }
}

fn value(number: u64, event: &LaneEvent) -> Value {
    let mut out = match event {
        LaneEvent::Tick(t) => json!({ "kind": "tick", "watermark_ms": t.watermark_ms }),
        LaneEvent::Reference { name, version, .. } => {
            json!({ "kind": "reference", "name": name, "version": hex(version) })
        }
        LaneEvent::Evicted { watermark_ms, device_id, next_seq, .. } => json!({
            "kind": "evicted", "watermark_ms": watermark_ms, "device_id": hex(device_id), "next_seq": next_seq,
        }),
        LaneEvent::Pipeline { from, to, dropped, .. } => json!({
            "kind": "pipeline", "from": hex(from), "to": hex(to),
            "dropped": dropped
                .iter()
                .map(|d| json!({
                    "step": d.step, "why": d.why.text(), "devices": d.held.devices, "rows": d.held.rows,
                }))
                .collect::<Vec<_>>(),
        }),
        LaneEvent::Label { label, .. } => json!({
            "kind": "label", "id": hex(&label.id()), "device": label.device, "verdict": label.verdict, "step": label.step,
            "from_ms": label.from, "to_ms": label.to, "says": label.opinion.name(),
            "reason_hash": label.reason.as_ref().map(|h| hex(h)), "by": hex(&label.by), "at_ms": label.at,
        }),
    };
    if let Some(map) = out.as_object_mut() {
        map.insert("event".into(), number.into());
        map.insert("after_offset".into(), event.after_offset().into());
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use avouch_connectors::store::{Commit, LaneStore, StoreOptions};
    use avouch_engine::event::Tick;
    use avouch_engine::label::{Label, Opinion};
    use avouch_engine::lane::Snapshot;
    use avouch_engine::verdict::LogOrigin;

    use super::*;

    fn label(verdict: Option<u64>) -> Label {
        Label {
            device: "pump-7".into(),
            verdict,
            step: "anomaly".into(),
            from: 1_700_000_000_000,
            to: 1_700_000_060_000,
            opinion: Opinion::FalseAlarm,
            reason: verdict.map(|_| [0x12; 32]),
            by: [0xef; 32],
            at: 1_700_000_500_000,
        }
    }

    #[test]
    fn what_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let lane = dir.path().join("pump-health/3");
        let origin = LogOrigin::new("pump-health", 3);
        let (mut store, _) = LaneStore::open(&lane, &origin, StoreOptions::default()).unwrap();
        for event in [
            LaneEvent::Reference { after_offset: BEFORE_ALL, name: "devices".into(), version: [0xab; 32] },
            LaneEvent::Tick(Tick { after_offset: 41, watermark_ms: 1_700_000_000_500 }),
            LaneEvent::Evicted {
                after_offset: 41,
                watermark_ms: 1_700_000_000_500,
                device_id: [0xcd; 32],
                next_seq: 7,
            },
            LaneEvent::Label { after_offset: 41, label: label(Some(5)) },
            LaneEvent::Label { after_offset: 41, label: label(None) },
        ] {
            store.append_event(&event).unwrap();
        }
        store
            .commit(Commit {
                next_offset: 42,
                lane_state: Snapshot::default(),
                config_hash: [1; 32],
                topic: "pumps.telemetry",
                partition: 3,
                watermark: None,
                counters: &[],
            })
            .unwrap();
        // Not covered by a checkpoint: not shown.
        store.append_event(&LaneEvent::Tick(Tick { after_offset: 50, watermark_ms: 1_700_000_009_000 })).unwrap();

        let ask = |from, last, format| {
            let place = dir.path().join("pump-health").display().to_string();
            events(&EventsArgs { place, lane: 3, from, last, format }).unwrap().0
        };
        let all = ask(None, 1000, Format::Text);
        assert_eq!(ask(Some(0), 1000, Format::Text), all);
        let newest = ask(None, 1, Format::Text);
        insta::assert_snapshot!(format!("{all}\n{newest}\n{}", ask(None, 1000, Format::Json)));
        let args =
            EventsArgs { place: dir.path().display().to_string(), lane: 4, from: None, last: 1, format: Format::Text };
        let said = events(&args).unwrap_err().to_string().replace(&dir.path().display().to_string(), "STATE");
        assert_eq!(said, "STATE: there is no lane 4; there are 3");
    }
}

//! What the metrics say of each lane and of the process, at one moment and since the one before.

use std::collections::BTreeMap;

use avouch_engine::dead_letter::DeadReason;
use avouch_engine::verdict::Severity;

use super::exposition::Sample;

/// One lane.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaneFigures {
    /// Rows read.
    pub rows_in: u64,
    /// Records between the next one to read and the end, where that is known.
    pub lag: Option<u64>,
    /// The watermark, Unix seconds, once a row was admitted.
    pub watermark: Option<f64>,
    /// Rows that were late.
    pub late: u64,
    /// Rows that died, late ones among them.
    pub dead: u64,
    /// Verdicts by severity.
    pub verdicts: [u64; Severity::ALL.len()],
    /// Verdicts in the durable log.
    pub log: u64,
    /// Those of them that no anchor covers, where there are anchors.
    pub pending: Option<u64>,
    /// What the sink that is furthest behind has not taken.
    pub sink_lag: u64,
    /// When the last checkpoint of this process became durable, Unix seconds, if there was one.
    pub checkpoint: Option<f64>,
}

/// The process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProcessFigures {
    /// Its version.
    pub version: String,
    /// Lanes that run, and lanes that are being opened.
    pub lanes: (u64, u64),
    /// Whether the last reload failed.
    pub reload_failed: bool,
    /// Lanes whose object store fails.
    pub stores_failing: Vec<i32>,
    /// Sinks that wait before they try again, with their lanes.
    pub sinks_waiting: Vec<(String, i32)>,
    /// Failed deliveries and anchors so far.
    pub failures: u64,
    /// Sources that are not connected.
    pub disconnected: Vec<String>,
}

/// All of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// By lane.
    pub lanes: BTreeMap<i32, LaneFigures>,
    /// The process.
    pub process: ProcessFigures,
}

impl Figures {
    /// What the samples of one answer say. Series of other names are passed over.
    pub fn of(samples: &[Sample]) -> Self {
        let mut out = Self::default();
        let late = DeadReason::Late.name();
        for s in samples {
            let whole = if s.value.is_finite() && s.value > 0.0 { s.value as u64 } else { 0 };
            let process = &mut out.process;
            match s.name.as_str() {
                "avouch_build_info" => process.version = s.label("version").to_owned(),
                "avouch_lanes_owned" => process.lanes.0 = whole,
                "avouch_lanes_opening" => process.lanes.1 = whole,
                "avouch_reload_failed" => process.reload_failed = whole > 0,
                "avouch_sink_errors_total" | "avouch_anchor_errors_total" => process.failures += whole,
                "avouch_mqtt_connected" if whole == 0 => process.disconnected.push(s.label("source").to_owned()),
                _ => {}
            }
            let Ok(lane) = s.label("lane").parse::<i32>() else { continue };
            match s.name.as_str() {
                "avouch_checkpoint_store_failing" if whole > 0 => process.stores_failing.push(lane),
                "avouch_sink_next_retry_timestamp_seconds" if whole > 0 => {
                    process.sinks_waiting.push((s.label("sink").to_owned(), lane));
                }
                _ => {}
            }
            // A lane is one that reads rows here: of others that share the state only anchors are shown.
            if s.name == "avouch_lane_rows_in_total" {
                out.lanes.entry(lane).or_default().rows_in = whole;
            }
        }
        for s in samples {
            let Some(lane) = s.label("lane").parse().ok().and_then(|l: i32| out.lanes.get_mut(&l)) else { continue };
            let whole = if s.value.is_finite() && s.value > 0.0 { s.value as u64 } else { 0 };
            let moment = (s.value > 0.0).then_some(s.value);
            match s.name.as_str() {
                "avouch_lane_lag_records" => lane.lag = Some(whole),
                "avouch_lane_watermark_timestamp_seconds" => lane.watermark = moment,
                "avouch_lane_dead_letters_total" => {
                    lane.dead += whole;
                    if s.label("reason") == late {
                        lane.late = whole;
                    }
                }
                "avouch_lane_verdicts_total" => {
                    if let Some(severity) = Severity::ALL.iter().find(|v| v.name() == s.label("severity")) {
                        lane.verdicts[*severity as usize] = whole;
                    }
                }
                "avouch_log_size_entries" => lane.log = whole,
                "avouch_anchor_pending_entries" => lane.pending = Some(whole),
                "avouch_sink_lag_entries" => lane.sink_lag = lane.sink_lag.max(whole),
                "avouch_checkpoint_timestamp_seconds" => lane.checkpoint = moment,
                _ => {}
            }
        }
        out
    }
}

/// Two moments, and what lies between them.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The figures now.
    pub now: Figures,
    /// Rows a second of each lane since the moment before, where there was one.
    pub rates: BTreeMap<i32, f64>,
    /// When that is, Unix seconds, by the clock of who looks.
    pub clock: f64,
}

impl View {
    /// `before`: the figures of so many seconds earlier.
    pub fn new(now: Figures, before: Option<(&Figures, f64)>, clock: f64) -> Self {
        let mut rates = BTreeMap::new();
        if let Some((before, seconds)) = before.filter(|(_, seconds)| *seconds > 0.0) {
            for (lane, figures) in &now.lanes {
                // A counter steps back where the process was started again.
                if let Some(rows) =
                    before.lanes.get(lane).and_then(|earlier| figures.rows_in.checked_sub(earlier.rows_in))
                {
                    rates.insert(*lane, rows as f64 / seconds);
                }
            }
        }
        Self { now, rates, clock }
    }
}

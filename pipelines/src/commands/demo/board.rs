//! What is going on, read from the pipeline's own metrics: a table redrawn on a terminal, a line now and then elsewhere.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use avouch_engine::dead_letter::DeadReason;
use avouch_engine::decode::format_timestamp;
use avouch_engine::verdict::Severity;

use crate::lang::grouped;
use crate::runtime::metrics::Metrics;

const REDRAW: Duration = Duration::from_millis(250);
const LINE: Duration = Duration::from_secs(5);
const BAR: usize = 30;

/// The metrics that matter here, summed over lanes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) rows_in: u64,
    pub(super) rows_used: u64,
    pub(super) dead: [u64; DeadReason::ALL.len()],
    pub(super) verdicts: [u64; Severity::ALL.len()],
    pub(super) next_offset: i64,
    pub(super) checkpoint_offset: i64,
    pub(super) log: u64,
    pub(super) anchored: u64,
    pub(super) anchors: u64,
    pub(super) gas: u64,
    pub(super) verdicts_delivered: u64,
    pub(super) dead_delivered: u64,
    /// Failed deliveries and anchors; each is tried again.
    pub(super) failures: u64,
}

impl Seen {
    /// As the metrics stand.
    pub(super) fn now(metrics: &Metrics) -> Self {
        let mut out = Self::default();
        for family in metrics.registry.gather() {
            for m in family.get_metric() {
                let label = |name: &str| {
                    m.get_label().iter().find(|l| l.name() == name).map(|l| l.value().to_owned()).unwrap_or_default()
                };
                let (counter, gauge) = (m.get_counter().get_value() as u64, m.get_gauge().get_value());
                match family.name() {
                    "avouch_lane_rows_in_total" => out.rows_in += counter,
                    "avouch_lane_rows_used_total" => out.rows_used += counter,
                    "avouch_lane_dead_letters_total" => {
                        let reason = label("reason");
                        if let Some(r) = DeadReason::ALL.iter().find(|r| r.name() == reason) {
                            out.dead[r.index()] += counter;
                        }
                    }
                    "avouch_lane_verdicts_total" => {
                        let severity = label("severity");
                        if let Some(s) = Severity::ALL.iter().find(|s| s.name() == severity) {
                            out.verdicts[*s as usize] += counter;
                        }
                    }
                    "avouch_lane_next_offset" => out.next_offset += gauge as i64,
                    "avouch_lane_checkpoint_offset" => out.checkpoint_offset += gauge as i64,
                    "avouch_log_size_entries" => out.log += gauge as u64,
                    "avouch_anchor_size_entries" => out.anchored += gauge as u64,
                    "avouch_anchor_checkpoints_total" => out.anchors += counter,
                    "avouch_anchor_gas_used_total" => out.gas += counter,
                    "avouch_sink_records_total" if label("sink") == "dead_letter" => out.dead_delivered += counter,
                    "avouch_sink_records_total" => out.verdicts_delivered += counter,
                    "avouch_sink_errors_total" | "avouch_anchor_errors_total" => out.failures += counter,
                    _ => {}
                }
            }
        }
        out
    }

    /// Dead letters of every reason.
    pub(super) fn dead_total(&self) -> u64 {
        self.dead.iter().sum()
    }

    /// Whether everything sent was read, is covered by checkpoints, delivered and anchored.
    pub(super) fn is_finished(&self, sent: u64) -> bool {
        self.rows_in >= sent
            && self.checkpoint_offset >= self.next_offset
            && self.log == self.verdicts.iter().sum::<u64>()
            && self.verdicts_delivered >= self.log
            && self.dead_delivered >= self.dead_total()
            && self.anchored == self.log
    }
}

/// Where the board is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Lines,
    Silent,
}

/// The board.
pub(super) struct Board {
    form: Form,
    rows: u64,
    start_ms: i64,
    drawn: usize,
    last: Option<Instant>,
    /// (when, rows) over the last seconds, for the rate.
    pace: VecDeque<(Instant, u64)>,
}

impl Board {
    /// For a run of this many rows that begins at this event time.
    pub(super) fn new(silent: bool, rows: u64, start_ms: i64) -> Self {
        let form = match () {
            () if silent => Form::Silent,
            () if std::io::stderr().is_terminal() => Form::Table,
            () => Form::Lines,
        };
        // A first line that says nothing is left out.
        let last = (form == Form::Lines).then(Instant::now);
        Self { form, rows, start_ms, drawn: 0, last, pace: VecDeque::new() }
    }

    /// Shows it if it is time to.
    pub(super) fn show(&mut self, seen: &Seen, sent: u64, event_ms: i64) {
        let every = if self.form == Form::Table { REDRAW } else { LINE };
        if self.form != Form::Silent && self.last.is_none_or(|at| at.elapsed() >= every) {
            self.draw(seen, sent, event_ms);
        }
    }

    /// Shows it now.
    pub(super) fn draw(&mut self, seen: &Seen, sent: u64, event_ms: i64) {
        let now = Instant::now();
        self.last = Some(now);
        self.pace.push_back((now, seen.rows_in));
        while self.pace.len() > 2 && self.pace.front().is_some_and(|(at, _)| now - *at > LINE) {
            self.pace.pop_front();
        }
        let rate = self
            .pace
            .front()
            .map_or(0.0, |(at, rows)| (seen.rows_in - rows) as f64 / (now - *at).as_secs_f64().max(0.001));
        let text = match self.form {
            Form::Silent => return,
            Form::Table => {
                let text = self.table(seen, sent, event_ms, rate);
                let back = if self.drawn > 0 { format!("\x1b[{}F\x1b[J", self.drawn) } else { String::new() };
                self.drawn = text.lines().count();
                back + &text
            }
            Form::Lines => format!(
                "{} rows ({}/s), {} dead letters; verdicts {} normal, {} warning, {} critical; log {}, anchored {} in {}\n",
                grouped(seen.rows_in),
                grouped(rate as u64),
                grouped(seen.dead_total()),
                grouped(seen.verdicts[0]),
                grouped(seen.verdicts[1]),
                grouped(seen.verdicts[2]),
                grouped(seen.log),
                grouped(seen.anchored),
                crate::lang::plural(seen.anchors as usize, "anchor"),
            ),
        };
        // Nobody listens: no reason to stop.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn table(&self, s: &Seen, sent: u64, event_ms: i64, rate: f64) -> String {
        let done = if self.rows == 0 { 1.0 } else { (s.rows_in as f64 / self.rows as f64).min(1.0) };
        let full = (done * BAR as f64) as usize;
        let bar = format!("{}{}", "=".repeat(full), " ".repeat(BAR - full));
        let time = format_timestamp(event_ms.max(self.start_ms));
        let gas = s.gas.checked_div(s.anchors).map_or(String::new(), |gas| format!(", {} gas each", grouped(gas)));
        let rows = [
            ("event time", format!("{}  [{bar}] {:.0} %", &time[..time.len().min(19)], done * 100.0)),
            (
                "rows",
                format!(
                    "{:>9} read   {:>9}/s   {:>6} under way",
                    grouped(s.rows_in),
                    grouped(rate as u64),
                    grouped(sent.saturating_sub(s.rows_in))
                ),
            ),
            ("", format!("{:>9} used", grouped(s.rows_used))),
            ("dead letters", format!("{:>9}{}", grouped(s.dead_total()), reasons(s))),
            (
                "verdicts",
                format!(
                    "{:>9} normal {:>9} warning   {:>6} critical",
                    grouped(s.verdicts[0]),
                    grouped(s.verdicts[1]),
                    grouped(s.verdicts[2])
                ),
            ),
            ("log", format!("{:>9} durable, handed to Kafka {}", grouped(s.log), grouped(s.verdicts_delivered))),
            (
                "anchored",
                format!(
                    "{:>9} on chain by {}{gas}",
                    grouped(s.anchored),
                    crate::lang::plural(s.anchors as usize, "anchor")
                ),
            ),
            ("failures", format!("{:>9} deliveries or anchors, each tried again", grouped(s.failures))),
        ];
        rows.iter().fold(String::new(), |out, (name, value)| out + &format!("  {name:<12} {value}\n"))
    }
}

fn reasons(s: &Seen) -> String {
    let parts: Vec<String> = DeadReason::ALL
        .iter()
        .filter(|r| s.dead[r.index()] > 0)
        .map(|r| format!("{} {}", grouped(s.dead[r.index()]), r.name()))
        .collect();
    if parts.is_empty() { String::new() } else { format!(" = {}", parts.join(" + ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_a_narrow_terminal() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let seen = Seen {
            rows_in: 287_123,
            rows_used: 280_000,
            dead: [141, 0, 0, 139, 6_843, 0, 0, 0, 0, 0, 0, 0, 0],
            verdicts: [13_000, 400, 900],
            log: 14_300,
            anchors: 21,
            gas: 21 * 69_000,
            ..Seen::default()
        };
        let board = Board::new(true, 288_000, 1_767_772_800_000);
        let table = board.table(&seen, 288_000, 1_767_779_999_000, 7_200.0);
        assert!(table.lines().all(|l| l.chars().count() <= 80), "{table}");
        assert!(table.contains("7,123 = 141 undecodable + 139 late + 6,843 future"), "{table}");
    }
}

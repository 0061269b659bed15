//! What the demo says at its end, to people and to machines.

use std::collections::BTreeMap;

use avouch_engine::dead_letter::DeadReason;
use avouch_engine::decode::format_timestamp;
use serde::Serialize;

use super::evidence::{Tampered, Verified};
use super::judged::{Confusion, DEFINITION, Detection};
use crate::lang::grouped;

/// Something that had to be so.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    pub(super) what: &'static str,
    pub(super) holds: bool,
    pub(super) detail: String,
}

/// How long each part took, seconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Seconds {
    pub(super) training: f64,
    pub(super) running: f64,
    pub(super) total: f64,
}

/// Rows, counted at both ends.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Rows {
    pub(super) simulated: u64,
    pub(super) read: u64,
    pub(super) used: u64,
    pub(super) dead_letters: BTreeMap<&'static str, u64>,
    /// What the simulator says it planted.
    pub(super) planted: BTreeMap<&'static str, u64>,
}

/// What was anchored at what price.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Anchored {
    pub(super) chain_id: u64,
    pub(super) contract: String,
    pub(super) deployment_gas: Option<u64>,
    pub(super) log_size: u64,
    pub(super) anchored_size: u64,
    pub(super) anchors: u64,
    pub(super) gas: u64,
    pub(super) gas_per_anchor: f64,
    pub(super) gas_per_verdict: f64,
}

/// The bundled verdict.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Evidence {
    pub(super) bundle: String,
    pub(super) log: String,
    pub(super) index: u64,
    pub(super) device: String,
    pub(super) window_end: String,
    pub(super) offline: Verified,
    pub(super) on_chain: Verified,
    pub(super) tampered: Vec<Tampered>,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    pub(super) ok: bool,
    pub(super) directory: String,
    pub(super) brokers: String,
    pub(super) delivery: &'static str,
    pub(super) devices: u32,
    pub(super) lanes: i32,
    pub(super) training_rows: u64,
    pub(super) model: String,
    pub(super) seconds: Seconds,
    pub(super) rows: Rows,
    pub(super) verdicts: BTreeMap<&'static str, u64>,
    pub(super) definition: &'static str,
    pub(super) quality: Vec<Confusion>,
    pub(super) detections: Vec<Detection>,
    pub(super) anchored: Anchored,
    pub(super) evidence: Evidence,
    pub(super) checks: Vec<Check>,
}

/// Dead letters by reason, those that are none left out.
pub(super) fn by_reason(dead: &[u64; DeadReason::ALL.len()]) -> BTreeMap<&'static str, u64> {
    DeadReason::ALL.iter().map(|r| (r.name(), dead[r.index()])).filter(|(_, n)| *n > 0).collect()
}

fn pairs(map: &BTreeMap<&'static str, u64>) -> String {
    let parts: Vec<String> = map.iter().map(|(name, n)| format!("{} {name}", grouped(*n))).collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

fn shortened(text: String, most: usize) -> String {
    if text.chars().count() <= most { text } else { text.chars().take(most - 1).collect::<String>() + "…" }
}

fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut line = indent.to_owned();
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() >= width {
            out.push_str(line.trim_end());
            out.push('\n');
            line = indent.to_owned();
        }
        line.push_str(word);
        line.push(' ');
    }
    out + line.trim_end() + "\n"
}

impl Summary {
    /// For people.
    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        let r = &self.rows;
        line("Rows".into());
        line(format!(
            "  {} simulated, {} read = {} used + {} dead letters",
            grouped(r.simulated),
            grouped(r.read),
            grouped(r.used),
            grouped(r.dead_letters.values().sum())
        ));
        let planted: BTreeMap<_, _> = r.planted.iter().filter(|(_, n)| **n > 0).map(|(r, n)| (*r, *n)).collect();
        let same = if planted == r.dead_letters {
            "just what was planted".into()
        } else {
            format!("planted: {}", pairs(&planted))
        };
        line(format!("  dead letters: {}; {same}", pairs(&r.dead_letters)));
        line(format!(
            "  {:.1} s, {} rows/s as paced",
            self.seconds.running,
            grouped((r.read as f64 / self.seconds.running) as u64)
        ));
        line("\nVerdicts against the simulator's truth".into());
        line("  faulty if   called from   precision   recall    right   wrong  missed  not counted".into());
        let share = |s: Option<f64>| s.map_or("-".to_owned(), |s| format!("{s:.3}"));
        for c in &self.quality {
            line(format!(
                "  {:<11} {:<13} {:>9} {:>8} {:>8} {:>7} {:>7} {:>12}",
                c.faulty_if,
                c.from_severity,
                share(c.precision),
                share(c.recall),
                grouped(c.right),
                grouped(c.wrong),
                grouped(c.missed),
                grouped(c.not_counted)
            ));
        }
        line(wrap(DEFINITION, 96, "  ").trim_end().to_owned());
        line("\nFaults".into());
        line("  device     fault          onset                can be seen   called critical".into());
        let after = |s: Option<f64>| s.map_or("never".to_owned(), |s| format!("after {:.0} s", s));
        for d in &self.detections {
            let called = match d.rows_refused {
                0 => after(d.called_after_s),
                n => format!("from {:.0} s on, {} rows refused", d.called_after_s.unwrap_or_default(), grouped(n)),
            };
            line(format!(
                "  {:<10} {:<14} {:<20} {:<13} {called}",
                d.device,
                d.fault.replace('_', " "),
                &format_timestamp(d.onset_ms)[..19],
                after(d.seen_after_s)
            ));
        }
        let a = &self.anchored;
        line("\nAnchors".into());
        line(format!("  VerdictLog {} on chain {}", a.contract, a.chain_id));
        line(format!(
            "  {} of {} verdicts on chain by {} anchors: {} gas each, {:.1} gas a verdict",
            grouped(a.anchored_size),
            grouped(a.log_size),
            a.anchors,
            grouped(a.gas_per_anchor as u64),
            a.gas_per_verdict
        ));
        let e = &self.evidence;
        line("\nEvidence".into());
        line(format!("  verdict {} of {}: critical, {}, window to {}", e.index, e.log, e.device, e.window_end));
        for (how, v) in [("offline", &e.offline), ("against the chain", &e.on_chain)] {
            let word = if v.accepted { "ACCEPTED" } else { "REFUSED" };
            let why = v.why.as_ref().map_or(String::new(), |w| format!(": {w}"));
            line(format!("  verified {how:<17} {word}, {} of {} steps passed{why}", v.passed, v.steps));
        }
        for t in &e.tampered {
            let word = if t.verified.accepted { "ACCEPTED" } else { "REFUSED" };
            let why = t.verified.why.as_deref().unwrap_or_default();
            line(shortened(format!("  {} with byte {} changed: {word}: {why}", t.file, t.at), 96));
        }
        let failed: Vec<&Check> = self.checks.iter().filter(|c| !c.holds).collect();
        line("\nChecks".into());
        if failed.is_empty() {
            line(format!("  all {} hold", self.checks.len()));
        }
        for c in failed {
            line(format!("  FAILED {}: {}", c.what, c.detail));
        }
        line(format!("\n{:.0} s in all. What is left to look at, in {}:", self.seconds.total, self.directory));
        line("  pipeline.toml  models/  state/ (the verdict log)  truth.json  bundle/  avouch.log".into());
        line(format!("  avouch verify {}", e.bundle));
        out
    }
}

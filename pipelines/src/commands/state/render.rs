//! How checkpoints look, to people and to programs.

use std::fmt::Write as _;

use avouch_connectors::store::{CheckpointReport, Contents};
use avouch_engine::bundle::utc;
use serde_json::{Value, json};

use super::LaneState;
use crate::runtime::hex;

/// A table: the first column's cells and all others to the right, but for the last.
fn table(out: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let width =
        |i: usize| rows.iter().map(|r| r[i].chars().count()).chain([head[i].chars().count()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut line = |cells: &[&str]| {
        let mut text = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let gap = if i == 0 { "  " } else { "   " };
            let pad = widths[i].saturating_sub(cell.chars().count());
            let last = i + 1 == cells.len();
            let _ = if last { write!(text, "{gap}{cell}") } else { write!(text, "{gap}{}{cell}", " ".repeat(pad)) };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(head);
    for row in rows {
        line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// With thousands apart.
fn count(n: impl Into<i128>) -> String {
    let n: i128 = n.into();
    let digits = n.unsigned_abs().to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    if n < 0 { format!("-{out}") } else { out }
}

fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut x, mut unit) = (bytes as f64 / 1024.0, 0);
    while x >= 1024.0 && unit + 1 < units.len() {
        (x, unit) = (x / 1024.0, unit + 1);
    }
    format!("{x:.1} {}", units[unit])
}

/// To the second: nobody looks for milliseconds here.
fn time(ms: u64) -> String {
    utc(ms / 1000 * 1000).replace(".000Z", "Z")
}

pub(super) fn list(lanes: &[LaneState]) -> String {
    let mut out = String::new();
    for lane in lanes {
        let (all, bad) = (lane.checkpoints.len(), lane.checkpoints.iter().filter(|c| c.damaged.is_some()).count());
        let damage = if bad == 0 { String::new() } else { format!(", {bad} DAMAGED") };
        let s = if all == 1 { "" } else { "s" };
        let _ = writeln!(out, "{} lane {}: {all} checkpoint{s}{damage} in {}\n", lane.pipeline, lane.lane, lane.place);
        let rows: Vec<Vec<String>> = lane.checkpoints.iter().map(row).collect();
        let head = ["checkpoint", "generation", "made", "next offset", "log size", "state", "new", ""];
        table(&mut out, &head, &rows);
        for c in &lane.checkpoints {
            if let Some(why) = &c.damaged {
                let _ = writeln!(out, "\n  {} cannot be used: {why}", c.file);
            }
        }
        if bad > 0 {
            let usable = lane.checkpoints.iter().find(|c| c.damaged.is_none()).and_then(|c| c.contents.as_ref());
            let next = match usable {
                Some(c) if lane.checkpoints[0].damaged.is_some() => format!(
                    "a start now would use checkpoint {} and read again from offset {}",
                    c.committed.seq,
                    count(c.committed.next_offset)
                ),
                Some(_) => "the newest can be used; a start now loses nothing".to_owned(),
                None => {
                    "none can be used: restore the directory or the bucket from a backup before starting".to_owned()
                }
            };
            let _ = writeln!(out, "\n  {next}");
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn row(c: &CheckpointReport) -> Vec<String> {
    let state = if c.damaged.is_some() { "DAMAGED" } else { "ok" }.to_owned();
    let Some(Contents { committed: k, .. }) = &c.contents else {
        return ["?", "?", "?", "?", "?", "?", "?"].iter().map(|s| (*s).to_owned()).chain([state]).collect();
    };
    vec![
        k.seq.to_string(),
        k.generation.to_string(),
        time(k.made_at),
        count(k.next_offset),
        count(k.log_size),
        size(k.state_bytes),
        size(k.new_state_bytes),
        state,
    ]
}

pub(super) fn show(lane: &LaneState, c: &CheckpointReport) -> String {
    let mut out = String::new();
    let seq = c.contents.as_ref().map_or_else(|| c.file.clone(), |k| format!("checkpoint {}", k.committed.seq));
    let _ = writeln!(out, "{} lane {}, {seq} in {}\n", lane.pipeline, lane.lane, lane.place);
    if let Some(why) = &c.damaged {
        let _ = writeln!(out, "  DAMAGED: {why}\n");
    }
    let Some(contents) = &c.contents else { return out };
    let k = &contents.committed;
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "  {name:<19}{value}");
    };
    line("made", format!("{} by generation {}", time(k.made_at), k.generation));
    line("topic", format!("{} partition {}", if k.topic.is_empty() { "-" } else { &k.topic }, k.partition));
    line("next offset", count(k.next_offset));
    line("watermark", k.watermark.and_then(|w| u64::try_from(w).ok()).map_or("none yet".to_owned(), utc));
    line("log", format!("{} verdicts, root {}", count(k.log_size), hex(&k.root)));
    line("dead letters", count(k.dead_count));
    line("events", count(k.event_count));
    line("configHash", hex(&k.config_hash));
    for (name, n) in &k.counters {
        line(&name.replace('_', " "), count(*n));
    }
    for (sink, next) in &contents.cursors {
        line("cursor", format!("{sink} takes {} next", count(*next)));
    }
    let packed: u64 = contents.packs.iter().map(|p| p.1).sum();
    line(
        "state",
        format!(
            "{} in {} chunks; {} new with this checkpoint; its files hold {}",
            size(k.state_bytes),
            count(contents.chunks),
            size(k.new_state_bytes),
            size(packed)
        ),
    );
    if !contents.sections.is_empty() {
        out.push('\n');
        // Parts of one name in a row are one thing to people.
        let mut sections: Vec<(&str, u64, u64)> = Vec::new();
        for s in contents.sections.iter().filter(|s| s.bytes > 0) {
            match sections.last_mut() {
                Some((name, items, bytes)) if *name == s.name => {
                    (*items, *bytes) = (*items + s.items, *bytes + s.bytes)
                }
                _ => sections.push((&s.name, s.items, s.bytes)),
            }
        }
        let items = |n: u64| if n == 0 { String::new() } else { count(n) };
        let rows: Vec<Vec<String>> =
            sections.iter().map(|(name, n, bytes)| vec![size(*bytes), items(*n), (*name).to_owned()]).collect();
        table(&mut out, &["bytes", "items", "section"], &rows);
    }
    if !contents.packs.is_empty() {
        out.push('\n');
        let rows: Vec<Vec<String>> = contents.packs.iter().map(|(name, len)| vec![size(*len), name.clone()]).collect();
        table(&mut out, &["bytes", "file"], &rows);
    }
    out
}

fn checkpoint_json(c: &CheckpointReport, inside: bool) -> Value {
    let mut out = json!({ "file": c.file, "usable": c.damaged.is_none(), "damage": c.damaged });
    if let (Some(map), Some(contents)) = (out.as_object_mut(), &c.contents) {
        let k = &contents.committed;
        map.insert("checkpoint".into(), k.seq.into());
        map.insert("generation".into(), k.generation.into());
        map.insert("made_at_ms".into(), k.made_at.into());
        map.insert("next_offset".into(), k.next_offset.into());
        map.insert("watermark_ms".into(), k.watermark.into());
        map.insert("log_size".into(), k.log_size.into());
        map.insert("log_root".into(), hex(&k.root).into());
        map.insert("dead_letters".into(), k.dead_count.into());
        map.insert("events".into(), k.event_count.into());
        map.insert("state_bytes".into(), k.state_bytes.into());
        map.insert("new_state_bytes".into(), k.new_state_bytes.into());
        if inside {
            map.insert("topic".into(), k.topic.clone().into());
            map.insert("partition".into(), k.partition.into());
            map.insert("config_hash".into(), hex(&k.config_hash).into());
            let pairs = |p: &[(String, u64)]| -> Value { p.iter().map(|(n, v)| (n.clone(), json!(v))).collect() };
            map.insert("counters".into(), pairs(&k.counters));
            map.insert("cursors".into(), pairs(&contents.cursors));
            map.insert("chunks".into(), contents.chunks.into());
            map.insert("files".into(), pairs(&contents.packs));
            let section = |s: &avouch_connectors::store::SectionReport| json!({ "name": s.name, "items": s.items, "bytes": s.bytes });
            map.insert("sections".into(), contents.sections.iter().map(section).collect());
        }
    }
    out
}

pub(super) fn list_json(lanes: &[LaneState]) -> String {
    let lane = |l: &LaneState| {
        let all: Value = l.checkpoints.iter().map(|c| checkpoint_json(c, false)).collect();
        json!({ "pipeline": l.pipeline, "lane": l.lane, "place": l.place, "checkpoints": all })
    };
    format!("{}\n", json!({ "lanes": lanes.iter().map(lane).collect::<Value>() }))
}

pub(super) fn show_json(lane: &LaneState, c: &CheckpointReport) -> String {
    let mut out = checkpoint_json(c, true);
    if let Some(map) = out.as_object_mut() {
        map.insert("pipeline".into(), lane.pipeline.clone().into());
        map.insert("lane".into(), lane.lane.into());
        map.insert("place".into(), lane.place.clone().into());
    }
    format!("{out}\n")
}

//! Plots as SVG. Their colours are stand-ins: the page's style sheet gives each one its colour by light and by dark.

use std::collections::BTreeMap;
use std::ops::Range;

use avouch_engine::decode::format_timestamp;
use avouch_engine::verdict::Severity;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::BacktestError;
use super::figures::show;
use super::judged::{Judged, Side};
use super::labels::{Known, Labels};

pub(super) const INK: RGBColor = RGBColor(1, 1, 1);
pub(super) const GRID: RGBColor = RGBColor(2, 2, 2);
pub(super) const LINE: RGBColor = RGBColor(3, 3, 3);
pub(super) const WARNING: RGBColor = RGBColor(4, 4, 4);
pub(super) const CRITICAL: RGBColor = RGBColor(5, 5, 5);
pub(super) const LABEL: RGBColor = RGBColor(6, 6, 6);

const WIDTH: u32 = 960;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Distances of ticks, and lengths of bars.
const STEPS: [i64; 19] = [
    1_000,
    5_000,
    15_000,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    28 * DAY,
    91 * DAY,
];

/// The smallest step of which `most` at most fill `span`.
fn step(span: i64, most: i64) -> i64 {
    let last = 365 * DAY;
    STEPS.into_iter().find(|s| span <= s * most).unwrap_or_else(|| last * (span / (last * most) + 1))
}

fn ticks(from: i64, to: i64) -> Vec<i64> {
    let step = step(to - from, 8);
    let first = (from + step - 1).div_euclid(step) * step;
    (0..).map(|i| first + i * step).take_while(|t| *t <= to).collect()
}

/// What a tick says: as much of the time as its neighbours do not share.
fn tick(t: i64, from: i64, to: i64) -> String {
    let text = format_timestamp(t);
    let (day, clock) = (&text[..10], &text[11..16]);
    let step = step(to - from, 8);
    match step {
        _ if step >= DAY => day.to_owned(),
        _ if step < MINUTE => text[11..19].to_owned(),
        _ if to - from > DAY => format!("{} {clock}", &day[5..]),
        _ => clock.to_owned(),
    }
}

/// The length of a bar in words.
pub(super) fn bar_name(ms: i64) -> String {
    match ms {
        DAY => "day".into(),
        HOUR => "hour".into(),
        MINUTE => "minute".into(),
        ms => super::figures::span(ms),
    }
}

/// An axis of numbers with ticks of our own.
struct Heights {
    range: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Ranged for Heights {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.range.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.range()
    }
}

/// About four round numbers, at least so far apart.
fn round_ticks(low: f64, high: f64, least: f64) -> Vec<f64> {
    let wanted = (high - low) / 4.0;
    let power = libm::floor(libm::log10(wanted));
    let unit: f64 = format!("1e{power}").parse().unwrap_or(1.0);
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * unit).find(|s| *s >= wanted).unwrap_or(wanted).max(least);
    let first = (low / step).ceil();
    (0..20).map(|i| (first + f64::from(i)) * step).take_while(|t| *t <= high).collect()
}

fn drawing<F>(what: &str, height: u32, draw: F) -> Result<String, BacktestError>
where
    F: FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), String>,
{
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&area).and_then(|()| area.present().map_err(|e| e.to_string()))
    };
    drawn.map_err(|why| BacktestError::Plot { what: what.to_owned(), why })?;
    Ok(svg)
}

/// Bars over time of how many warnings and critical verdicts, or of which share of all.
struct Bars {
    from: i64,
    to: i64,
    length: i64,
    /// Start of the bar: warnings, critical.
    of: BTreeMap<i64, (f64, f64)>,
}

impl Bars {
    fn draw(&self, what: &str, unit: &str, whole: bool) -> Result<String, BacktestError> {
        let highest = self.of.values().map(|(w, c)| w + c).fold(0.0, f64::max);
        let top = if highest > 0.0 { highest * 1.08 } else { 1.0 };
        let (x, y_ticks) = (ticks(self.from, self.to), round_ticks(0.0, top, if whole { 1.0 } else { 0.0 }));
        drawing(what, 240, |area| {
            let mut chart = ChartBuilder::on(area)
                .margin(6)
                .margin_right(24)
                .x_label_area_size(26)
                .y_label_area_size(64)
                .build_cartesian_2d(
                    (self.from..self.to).with_key_points(x),
                    Heights { range: (0.0..top).into(), ticks: y_ticks },
                )
                .map_err(|e| e.to_string())?;
            let y = |v: &f64| format!("{}{unit}", show(*v));
            chart
                .configure_mesh()
                .disable_x_mesh()
                .bold_line_style(GRID)
                .light_line_style(TRANSPARENT)
                .axis_style(INK)
                .label_style(("sans-serif", 13, &INK))
                .x_label_formatter(&|t| tick(*t, self.from, self.to))
                .y_label_formatter(&y)
                .draw()
                .map_err(|e| e.to_string())?;
            let gap = self.length / 10;
            let bar = |start: i64, low: f64, high: f64, colour: RGBColor| {
                let (left, right) = ((start + gap).max(self.from), (start + self.length - gap).min(self.to));
                Rectangle::new([(left, low), (right, high)], colour.filled())
            };
            let critical = self.of.iter().filter(|(_, n)| n.1 > 0.0).map(|(t, n)| bar(*t, 0.0, n.1, CRITICAL));
            chart.draw_series(critical).map_err(|e| e.to_string())?;
            let warning = self.of.iter().filter(|(_, n)| n.0 > 0.0).map(|(t, n)| bar(*t, n.1, n.0 + n.1, WARNING));
            chart.draw_series(warning).map_err(|e| e.to_string())?;
            Ok(())
        })
    }
}

/// Warnings, critical verdicts and all verdicts by the bar that their window's last instant lies in.
fn counted(side: &Side, length: i64) -> BTreeMap<i64, (u64, u64, u64)> {
    let mut out: BTreeMap<i64, (u64, u64, u64)> = BTreeMap::new();
    for v in &side.verdicts {
        let (warning, critical, all) = out.entry((v.window_end - 1).div_euclid(length) * length).or_default();
        *all += 1;
        *warning += u64::from(v.severity == Severity::Warning);
        *critical += u64::from(v.severity == Severity::Critical);
    }
    out
}

fn from_and_to(counts: &BTreeMap<i64, (u64, u64, u64)>, length: i64) -> Option<(i64, i64)> {
    Some((*counts.keys().next()?, counts.keys().next_back()? + length))
}

/// The share of verdicts that are warnings and critical, over time: the length of a bar, and the plot.
pub(super) fn shares(side: &Side) -> Result<Option<(i64, String)>, BacktestError> {
    let Some((first, last)) = side.span() else { return Ok(None) };
    let length = step(last - first, 120);
    let counts = counted(side, length);
    let Some((from, to)) = from_and_to(&counts, length) else { return Ok(None) };
    let share = |n: u64, all: u64| 100.0 * n as f64 / all as f64;
    let of = counts.into_iter().map(|(t, (w, c, all))| (t, (share(w, all), share(c, all)))).collect();
    let svg = Bars { from, to, length, of }.draw("verdicts by severity", " %", false)?;
    Ok(Some((length, svg)))
}

/// Alarms a day, or where there are less than three days, in a shorter time: the length of a bar, and the plot.
pub(super) fn alarms(side: &Side) -> Result<Option<(i64, String)>, BacktestError> {
    let Some((first, last)) = side.span() else { return Ok(None) };
    let length = match last - first {
        span if span < 3 * HOUR => 5 * MINUTE,
        span if span < 3 * DAY => HOUR,
        span => step(span, 400).max(DAY),
    };
    let counts = counted(side, length);
    let Some((from, to)) = from_and_to(&counts, length) else { return Ok(None) };
    let of = counts.into_iter().map(|(t, (w, c, _))| (t, (w as f64, c as f64))).collect();
    Ok(Some((length, Bars { from, to, length, of }.draw("alarms", "", true)?)))
}

/// So many points of a score are drawn at most: of a longer one, the lowest and the highest of each stretch.
const POINTS: usize = 1_200;

fn thinned<'a>(verdicts: &[&'a Judged]) -> Vec<&'a Judged> {
    if verdicts.len() <= POINTS {
        return verdicts.to_vec();
    }
    let stretch = verdicts.len().div_ceil(POINTS / 2);
    let mut out = Vec::with_capacity(POINTS);
    for some in verdicts.chunks(stretch) {
        let by_score = |a: &&&Judged, b: &&&Judged| a.score.total_cmp(&b.score);
        let (low, high) = (some.iter().min_by(by_score), some.iter().max_by(by_score));
        let mut both: Vec<&Judged> = low.into_iter().chain(high).copied().collect();
        both.sort_by_key(|v| v.window_end);
        both.dedup_by_key(|v| v.window_end);
        out.extend(both);
    }
    out
}

/// The score of one device by one step, with its alarms and what is labelled.
pub(super) fn score(
    side: &Side,
    (device, step): (u32, u16),
    labels: Option<&Labels>,
) -> Result<Option<String>, BacktestError> {
    let Some((from, to)) = side.span() else { return Ok(None) };
    let name = &side.devices[device as usize];
    let marked = stretches(labels, name, &side.steps[step as usize].name);
    // A failure ends the readings, and so stands a little after the last window.
    let soon = to + (to - from) / 20;
    let to = marked.iter().filter(|m| m.0 == m.1 && m.0 <= soon).map(|m| m.0).fold(to, i64::max);
    let all: Vec<&Judged> = side.of(step, device).iter().filter(|v| v.score.is_finite()).collect();
    let Some(lowest) = all.iter().map(|v| v.score).min_by(f64::total_cmp) else { return Ok(None) };
    let highest = all.iter().map(|v| v.score).fold(lowest, f64::max);
    // Faults score far above what is normal: by powers of ten, of which there are two or more, both can be seen.
    let by_tens = lowest > 0.0 && highest / lowest >= 100.0;
    let height = |score: f64| if by_tens { libm::log10(score) } else { score };
    let (low, high) = (height(lowest), height(highest));
    let margin = ((high - low) * 0.06).max(1e-9);
    let (low, high) = (low - margin, high + margin);
    let svg = drawing(&format!("the score of {name}"), 190, |area| {
        let y_ticks: Vec<f64> = match by_tens {
            true => (-320..320).map(f64::from).filter(|t| low <= *t && *t <= high).collect(),
            false => round_ticks(low, high, 0.0),
        };
        let y_text = |v: &f64| match by_tens {
            true => show(format!("1e{v}").parse().unwrap_or(f64::NAN)),
            false => show(*v),
        };
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(24)
            .x_label_area_size(26)
            .y_label_area_size(64)
            .build_cartesian_2d(
                (from..to).with_key_points(ticks(from, to)),
                Heights { range: (low..high).into(), ticks: y_ticks },
            )
            .map_err(|e| e.to_string())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style(("sans-serif", 13, &INK))
            .x_label_formatter(&|t| tick(*t, from, to))
            .y_label_formatter(&y_text)
            .draw()
            .map_err(|e| e.to_string())?;
        for (begin, end) in marked {
            if begin == end && (from..=to).contains(&begin) {
                let line = PathElement::new([(begin, low), (begin, high)], LABEL.stroke_width(2));
                chart.draw_series([line]).map_err(|e| e.to_string())?;
            } else if begin.max(from) < end.min(to) {
                let corners = [(begin.max(from), low), (end.min(to), high)];
                chart.draw_series([Rectangle::new(corners, LABEL.mix(0.25).filled())]).map_err(|e| e.to_string())?;
            }
        }
        let line = thinned(&all).into_iter().map(|v| (v.window_end, height(v.score)));
        chart.draw_series(LineSeries::new(line, LINE.stroke_width(1))).map_err(|e| e.to_string())?;
        let alarms: Vec<&Judged> = all.iter().copied().filter(|v| v.alarm()).collect();
        let dots = thinned(&alarms).into_iter().map(|v| {
            let colour = if v.severity == Severity::Critical { CRITICAL } else { WARNING };
            Circle::new((v.window_end, height(v.score)), 2, colour.filled())
        });
        chart.draw_series(dots).map_err(|e| e.to_string())?;
        Ok(())
    })?;
    Ok(Some(svg))
}

/// What is labelled of a device: windows, and failures as windows without length.
fn stretches(labels: Option<&Labels>, device: &str, step: &str) -> Vec<(i64, i64)> {
    let concerns = |s: &Option<String>| s.as_ref().is_none_or(|s| s == step);
    match labels.map(|l| &l.known) {
        None => Vec::new(),
        Some(Known::Failures(all)) => {
            all.iter().filter(|f| f.device == device && concerns(&f.step)).map(|f| (f.failed_at, f.failed_at)).collect()
        }
        Some(Known::Windows(all)) => {
            all.iter().filter(|w| w.device == device && concerns(&w.step)).map(|w| (w.from, w.to)).collect()
        }
    }
}

//! The table of lanes: its columns, their cells, and how it is sorted.

use super::figures::{LaneFigures, View};
use crate::lang::grouped;

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// The lane's number.
    Lane,
    /// Rows a second.
    Rows,
    /// Records that wait at the source.
    Lag,
    /// How far the watermark is behind the clock.
    Delay,
    /// Late rows.
    Late,
    /// Dead letters.
    Dead,
    /// Normal verdicts.
    Normal,
    /// Warnings.
    Warning,
    /// Critical verdicts.
    Critical,
    /// Verdicts in the log.
    Log,
    /// Verdicts without an anchor.
    Pending,
    /// What the sink furthest behind has to take.
    Sinks,
    /// The age of the last checkpoint.
    Checkpoint,
}

impl Column {
    /// All, from left to right.
    pub const ALL: [Column; 13] = [
        Column::Lane,
        Column::Rows,
        Column::Lag,
        Column::Delay,
        Column::Late,
        Column::Dead,
        Column::Normal,
        Column::Warning,
        Column::Critical,
        Column::Log,
        Column::Pending,
        Column::Sinks,
        Column::Checkpoint,
    ];

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Column::Lane => "LANE",
            Column::Rows => "ROWS/S",
            Column::Lag => "LAG",
            Column::Delay => "DELAY",
            Column::Late => "LATE",
            Column::Dead => "DEAD",
            Column::Normal => "NORMAL",
            Column::Warning => "WARNING",
            Column::Critical => "CRITICAL",
            Column::Log => "LOG",
            Column::Pending => "UNANCHORED",
            Column::Sinks => "TO SINKS",
            Column::Checkpoint => "CHECKPOINT",
        }
    }

    /// A lane's figure in it; `None` where it has none.
    fn figure(self, lane: i32, f: &LaneFigures, view: &View) -> Option<f64> {
        let age = |at: f64| (view.clock - at).max(0.0);
        Some(match self {
            Column::Lane => f64::from(lane),
            Column::Rows => *view.rates.get(&lane)?,
            Column::Lag => f.lag? as f64,
            Column::Delay => age(f.watermark?),
            Column::Late => f.late as f64,
            Column::Dead => f.dead as f64,
            Column::Normal => f.verdicts[0] as f64,
            Column::Warning => f.verdicts[1] as f64,
            Column::Critical => f.verdicts[2] as f64,
            Column::Log => f.log as f64,
            Column::Pending => f.pending? as f64,
            Column::Sinks => f.sink_lag as f64,
            Column::Checkpoint => age(f.checkpoint?),
        })
    }

    fn text(self, figure: Option<f64>) -> String {
        match (self, figure) {
            (_, None) => "-".to_owned(),
            (Column::Delay | Column::Checkpoint, Some(seconds)) => span(seconds),
            (_, Some(figure)) => grouped(figure.round() as u64),
        }
    }
}

/// A span of time, short: `4.2s`, `3m07s`, `5h12m`, `12d03h`.
fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h{:02}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3_600 % 24),
    }
}

/// The cells of all lanes, sorted by a column; lanes without a figure in it come last, whichever way.
pub(super) fn rows(view: &View, by: Column, descending: bool) -> Vec<(i32, Vec<String>)> {
    let mut lanes: Vec<(i32, &LaneFigures)> = view.now.lanes.iter().map(|(lane, f)| (*lane, f)).collect();
    lanes.sort_by(|(a, x), (b, y)| {
        let order = match (by.figure(*a, x, view), by.figure(*b, y, view)) {
            (Some(x), Some(y)) if descending => y.total_cmp(&x),
            (Some(x), Some(y)) => x.total_cmp(&y),
            (x, y) => y.is_some().cmp(&x.is_some()),
        };
        order.then(a.cmp(b))
    });
    let cells =
        |(lane, f): (i32, &LaneFigures)| (lane, Column::ALL.iter().map(|c| c.text(c.figure(lane, f, view))).collect());
    lanes.into_iter().map(cells).collect()
}

/// The cells of all lanes together: sums, of delays and ages the greatest.
pub(super) fn totals(view: &View) -> Vec<String> {
    let of = |c: Column| {
        let figures = view.now.lanes.iter().filter_map(|(lane, f)| c.figure(*lane, f, view));
        match c {
            Column::Lane => None,
            Column::Delay | Column::Checkpoint => figures.reduce(f64::max),
            _ => figures.reduce(|a, b| a + b),
        }
    };
    let text = |c: &Column| if *c == Column::Lane { "all".to_owned() } else { c.text(of(*c)) };
    Column::ALL.iter().map(text).collect()
}

/// The table as lines of text, numbers to the right, the last line for all lanes together.
pub fn plain(view: &View, by: Column, descending: bool) -> String {
    let head: Vec<String> = Column::ALL.iter().map(|c| c.title().to_owned()).collect();
    let lines: Vec<Vec<String>> = [head]
        .into_iter()
        .chain(rows(view, by, descending).into_iter().map(|(_, cells)| cells))
        .chain([totals(view)])
        .collect();
    let widths = widths(&lines);
    let mut out = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, w)| format!("{cell:>w$}")).collect();
        out.push_str(&cells.join("  "));
        out.push('\n');
    }
    out
}

/// The width of each column.
pub(super) fn widths(lines: &[Vec<String>]) -> Vec<usize> {
    (0..Column::ALL.len())
        .map(|i| lines.iter().filter_map(|l| l.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        let spans = [0.04, 59.96, 60.0, 187.9, 18_720.0, 1_047_600.0].map(span);
        assert_eq!(spans, ["0.0s", "60.0s", "1m00s", "3m07s", "5h12m", "12d03h"]);
    }
}

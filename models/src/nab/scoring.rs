//! From scores to the benchmark's points.

/// What alarms and misses are worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// As the benchmark calls it.
    pub name: &'static str,
    /// Of the earliest possible alarm in a window.
    pub true_positive: f64,
    /// Cost of a window without an alarm.
    pub false_negative: f64,
    /// Cost of an alarm far from any window.
    pub false_positive: f64,
}

impl Profile {
    /// The one detectors are ranked by.
    pub const STANDARD: Self = Self { name: "standard", true_positive: 1.0, false_negative: 1.0, false_positive: 0.11 };
    /// False alarms cost twice as much.
    pub const LOW_FP: Self =
        Self { name: "reward low FP", true_positive: 1.0, false_negative: 1.0, false_positive: 0.22 };
    /// Misses cost twice as much.
    pub const LOW_FN: Self =
        Self { name: "reward low FN", true_positive: 1.0, false_negative: 2.0, false_positive: 0.11 };
    /// All three, in the benchmark's order.
    pub const ALL: [Self; 3] = [Self::STANDARD, Self::LOW_FP, Self::LOW_FN];
}

/// A file's scores, one a row in file order, and its windows.
#[derive(Debug, Clone, Copy)]
pub struct Series<'a> {
    /// Higher is stranger. A row whose score is NaN is never an alarm.
    pub scores: &'a [f64],
    /// First and last row of each window, ascending, disjoint.
    pub windows: &'a [(usize, usize)],
}

/// What a set of files comes to at a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Alarms {
    /// Windows with an alarm.
    pub hits: u64,
    /// Windows without.
    pub misses: u64,
    /// Alarms outside windows, rows of probation left out.
    pub false_alarms: u64,
    /// The benchmark's raw score: −`false_negative` for each miss, and so on.
    pub raw: f64,
    /// 100 · (raw − never alarming) / (perfect − never alarming); NaN where there is no window.
    pub points: f64,
}

/// How many rows of a file are not judged.
pub fn probation(rows: usize) -> usize {
    // 15 % exactly, rounded down: whole numbers, since 0.15 is none of the machine's.
    (rows * 15 / 100).min(750)
}

/// The benchmark's sigmoid at a position relative to a window: −1 is its left end, 0 its right end.
fn sigmoid(position: f64) -> f64 {
    if position >= 3.0 { -1.0 } else { 2.0 / (1.0 + libm::exp(5.0 * position)) - 1.0 }
}

/// What an alarm at a row is worth.
#[derive(Debug, Clone, Copy)]
enum Worth {
    /// Inside the window of this number, counted over all files.
    Window(usize, f64),
    /// Outside.
    Outside(f64),
}

/// Visits the judged rows of a file with what an alarm there is worth before weighing. `first` numbers its first window.
fn judge(series: &Series<'_>, first: usize, mut each: impl FnMut(f64, Worth)) {
    let mut next = 0;
    let earliest = sigmoid(-1.0);
    for (i, &score) in series.scores.iter().enumerate() {
        while series.windows.get(next).is_some_and(|w| i > w.1) {
            next += 1;
        }
        if i < probation(series.scores.len()) {
            continue;
        }
        let worth = match series.windows.get(next) {
            Some(&(start, end)) if i >= start => {
                let width = (end - start + 1) as f64;
                Worth::Window(first + next, sigmoid(-((end - i + 1) as f64) / width) / earliest)
            }
            _ => Worth::Outside(match next.checked_sub(1).map(|k| series.windows[k]) {
                None => -1.0,
                // A window of one row has no width to be near to.
                Some((start, end)) if start == end => -1.0,
                Some((start, end)) => sigmoid((i - end) as f64 / (end - start) as f64),
            }),
        };
        each(score, worth);
    }
}

/// The windows of these files that are judged: those that do not end within probation.
fn judged(all: &[Series<'_>]) -> Vec<bool> {
    all.iter().flat_map(|s| s.windows.iter().map(|w| w.1 >= probation(s.scores.len()))).collect()
}

/// The threshold that scores best over all these files: a row is an alarm if its score is at least that. Infinite where
/// never alarming is best.
pub fn best_threshold(all: &[Series<'_>], profile: &Profile) -> f64 {
    let mut rows = Vec::new();
    let mut first = 0;
    for series in all {
        judge(series, first, |score, worth| {
            if !score.is_nan() {
                rows.push((score, worth));
            }
        });
        first += series.windows.len();
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut windows: Vec<f64> = vec![-profile.false_negative; first];
    let (mut now, mut best, mut threshold) = (0.0, 0.0, f64::INFINITY);
    for (i, &(score, worth)) in rows.iter().enumerate() {
        match worth {
            Worth::Outside(w) => now += w * profile.false_positive,
            Worth::Window(k, w) => {
                let w = w * profile.true_positive;
                if w > windows[k] {
                    now += w - windows[k];
                    windows[k] = w;
                }
            }
        }
        if now > best && rows.get(i + 1).is_none_or(|next| next.0 < score) {
            (best, threshold) = (now, score);
        }
    }
    threshold
}

/// What these files come to at a threshold.
pub fn points(all: &[Series<'_>], threshold: f64, profile: &Profile) -> Alarms {
    let mut out = Alarms::default();
    let judged = judged(all);
    let mut windows: Vec<Option<f64>> = vec![None; judged.len()];
    let mut first = 0;
    for series in all {
        judge(series, first, |score, worth| {
            if score >= threshold {
                match worth {
                    Worth::Outside(w) => {
                        out.false_alarms += 1;
                        out.raw += w * profile.false_positive;
                    }
                    Worth::Window(k, w) => {
                        let w = w * profile.true_positive;
                        windows[k] = Some(windows[k].map_or(w, |seen| seen.max(w)));
                    }
                }
            }
        });
        first += series.windows.len();
    }
    for (window, judged) in windows.iter().zip(&judged) {
        match window {
            Some(w) => {
                out.hits += 1;
                out.raw += w;
            }
            None if *judged => {
                out.misses += 1;
                out.raw -= profile.false_negative;
            }
            None => {}
        }
    }
    let n = (out.hits + out.misses) as f64;
    let never = -n * profile.false_negative;
    let perfect = n * profile.true_positive;
    out.points = if n > 0.0 { 100.0 * (out.raw - never) / (perfect - never) } else { f64::NAN };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probation_is_a_seventh_and_no_more_than_750_rows() {
        assert_eq!((probation(100), probation(4032), probation(5000), probation(22_695)), (15, 604, 750, 750));
    }
}

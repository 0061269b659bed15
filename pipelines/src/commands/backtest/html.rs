//! report.html: one file that needs nothing else, readable by light and by dark.

use std::fmt::Write as _;

use crate::markup::escaped as escape;

use super::BacktestError;
use super::alarms::Episode;
use super::differences::{Difference, Opinion, Why};
use super::figures::{count, percent, show, span, time};
use super::judged::Side;
use super::labels::{Known, Labels};
use super::plots;
use super::report::{Against, DEFINITIONS, PipelineFacts, Report, StepVerdicts};
use super::truth::{FailureReport, Truth, WindowReport};

/// So many devices have a plot of their score.
const PLOTS: usize = 6;

const STYLE: &str = include_str!("report.css");

/// A table: its head, of which names that begin with `#` are columns of numbers, and rows of cells that are HTML.
fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let class = |name: &str| if name.starts_with('#') { " class=\"n\"" } else { "" };
    let mut out = String::from("<div class=\"wide\"><table><thead><tr>");
    for name in head {
        let _ = write!(out, "<th{}>{}</th>", class(name), escape(name.trim_start_matches('#')));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (cell, name) in row.iter().zip(head) {
            let _ = write!(out, "<td{}>{cell}</td>", class(name));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    out
}

fn tile(figure: &str, what: &str) -> String {
    format!("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escape(figure), escape(what))
}

/// The page.
pub(super) fn page(
    report: &Report,
    side: &Side,
    episodes: &[Episode],
    labels: Option<&Labels>,
    horizon: i64,
) -> Result<String, BacktestError> {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Backtest of {0}</title>\n<style>\n{STYLE}</style></head><body><main>\n\
         <h1>Backtest of {0}</h1>\n<p>{1}. Data: {2}.</p>\n",
        escape(&report.pipeline.name),
        escape(&report.covers(side)),
        report.data.iter().map(|d| format!("<code>{}</code>", escape(d))).collect::<Vec<_>>().join(", ")
    );
    for warning in &report.warnings {
        let _ = writeln!(out, "<p class=\"warn\"><b>Warning:</b> {}</p>", escape(warning));
    }
    tiles(report, &mut out);
    let legend = "<p class=\"legend\"><i class=\"c\"></i> critical <i class=\"w\"></i> warning</p>";
    if let Some((length, svg)) = plots::shares(side)? {
        let each = plots::bar_name(length);
        let _ = write!(
            out,
            "<h2>Verdicts by severity</h2>\n{legend}<p>Share of the verdicts of each {each} (UTC); the rest is normal.</p>\n{svg}"
        );
    }
    out.push_str(&by_step(&report.verdicts));
    if let Some((length, svg)) = plots::alarms(side)? {
        let _ = write!(out, "<h2>Alarms per {}</h2>\n{legend}{svg}", plots::bar_name(length));
    }
    match &report.truth {
        None => {}
        Some(Truth::Failures(f)) => failures(f, horizon, &mut out),
        Some(Truth::Windows(w)) => windows(w, &mut out),
    }
    devices(report, side, episodes, labels, &mut out)?;
    if let Some(against) = &report.against {
        comparison(report, against, &mut out);
    }
    out.push_str("<h2>Rows</h2>\n");
    let mut rows =
        vec![vec!["in".to_owned(), count(report.rows.r#in)], vec!["used".to_owned(), count(report.rows.used)]];
    rows.extend(report.rows.dead.iter().map(|(reason, n)| vec![format!("dead letter: {}", escape(reason)), count(*n)]));
    out.push_str(&table(&["", "#rows"], rows));
    out.push_str("<h2>What was run</h2>\n");
    out.push_str(&pipeline(&report.pipeline));
    if let Some(against) = &report.against {
        out.push_str("<p>Against:</p>\n");
        out.push_str(&pipeline(&against.pipeline));
    }
    let _ = write!(
        out,
        "<h2>Definitions</h2>\n<p>{}</p>\n<p>Windows still open after the last row gave no verdict, as after a run of the same records. Times are UTC.</p>\n</main></body></html>\n",
        escape(DEFINITIONS)
    );
    Ok(out)
}

fn tiles(report: &Report, out: &mut String) {
    let a = &report.alarms;
    let verdicts: u64 = report.verdicts.iter().map(|v| v.normal + v.warning + v.critical).sum();
    out.push_str("<div class=\"tiles\">\n");
    out.push_str(&tile(&count(report.rows.r#in), "rows in"));
    out.push_str(&tile(&count(report.rows.r#in - report.rows.used), "dead letters"));
    out.push_str(&tile(&count(verdicts), "verdicts"));
    out.push_str(&tile(&count(a.alarms), &format!("alarms, in {} episodes", count(a.episodes))));
    let weeks = show(a.device_weeks);
    out.push_str(&tile(&show(a.alarms_per_device_week), &format!("alarms per device-week ({weeks} device-weeks)")));
    out.push_str(&tile(&show(a.episodes_per_device_week), "episodes per device-week"));
    match &report.truth {
        None => {}
        Some(Truth::Failures(f)) => {
            out.push_str(&tile(&format!("{} of {}", f.warned, f.failures), "failures warned of"));
            out.push_str(&tile(&f.median_lead_ms.map_or("–".into(), span), "median lead time"));
        }
        Some(Truth::Windows(w)) => {
            out.push_str(&tile(&format!("{} of {}", w.found, w.labelled), "labelled windows found"));
            if let [only] = w.steps.as_slice() {
                out.push_str(&tile(&percent(only.f1), "F1, by verdict"));
            }
        }
    }
    if let Some(against) = &report.against {
        let c = &against.comparison;
        out.push_str(&tile(
            &format!("{} of {}", count(c.agreed()), count(c.matched())),
            "windows with the same severity",
        ));
    }
    out.push_str("</div>\n");
}

fn by_step(steps: &[StepVerdicts]) -> String {
    table(
        &["step", "#normal", "#warning", "#critical", "#without a score"],
        steps.iter().map(|s| {
            vec![escape(&s.step), count(s.normal), count(s.warning), count(s.critical), count(s.not_a_number)]
        }),
    )
}

fn pipeline(facts: &PipelineFacts) -> String {
    let mut out =
        format!("<p><b>{}</b>, configHash <code>{}</code></p>\n", escape(&facts.name), escape(&facts.config_hash));
    out.push_str(&table(
        &["step", "#window", "#warning at", "#critical at", "model (SHA-256)"],
        facts.steps.iter().map(|s| {
            let model = format!("<code>{}</code>", escape(&s.model));
            vec![escape(&s.step), span(s.window_ms), threshold(&s.warning), threshold(&s.critical), model]
        }),
    ));
    out
}

fn failures(f: &FailureReport, horizon: i64, out: &mut String) {
    let span_of = |ms: Option<i64>| ms.map_or("–".into(), span);
    let _ = write!(
        out,
        "<h2>Known failures</h2>\n<p>{} of {} were warned of, {} missed, {} not judged (no verdict about the device in the {} before). \
         Lead time: median {}, shortest {}, longest {}. {} episodes have no alarm before a failure.</p>\n\
         <p>A failure is warned of if at least two alarms about its device end in the {} before it: a first one that goes on or recurs. \
         The lead time is from the first of them.</p>\n",
        f.warned,
        f.failures,
        f.missed,
        f.not_judged,
        span(horizon),
        span_of(f.median_lead_ms),
        span_of(f.shortest_lead_ms),
        span_of(f.longest_lead_ms),
        count(f.episodes_elsewhere),
        span(horizon),
    );
    out.push_str(&table(
        &["device", "failed at", "step", "outcome", "#lead time", "#of the last episode", "#alarms", "#episodes"],
        f.each.iter().map(|l| {
            vec![
                escape(&l.device),
                time(l.failed_at),
                l.step.as_deref().map_or("any".into(), escape),
                l.outcome.name().to_owned(),
                span_of(l.lead_ms),
                span_of(l.last_episode_lead_ms),
                count(l.alarms),
                count(l.episodes),
            ]
        }),
    ));
}

fn windows(w: &WindowReport, out: &mut String) {
    let _ = write!(
        out,
        "<h2>Labelled windows</h2>\n<p>{} of {} labelled windows have an alarm in them; of {} there is no verdict.</p>\n\
         <p>By verdict: anomalous is one whose window lies within a labelled one, or around it; normal, one that touches none \
         (also of devices without labels). Those across an edge are left out.</p>\n",
        count(w.found),
        count(w.labelled),
        count(w.not_judged)
    );
    out.push_str(&table(
        &["step", "#precision", "#recall", "#F1", "#false alarms", "#TP", "#FP", "#FN", "#TN", "#left out"],
        w.steps.iter().map(|s| {
            let mut row = vec![escape(&s.step), percent(s.precision), percent(s.recall), percent(s.f1)];
            row.push(percent(s.false_alarm_rate));
            let counts = [s.true_positives, s.false_positives, s.false_negatives, s.true_negatives, s.left_out];
            row.extend(counts.map(count));
            row
        }),
    ));
}

fn devices(
    report: &Report,
    side: &Side,
    episodes: &[Episode],
    labels: Option<&Labels>,
    out: &mut String,
) -> Result<(), BacktestError> {
    out.push_str("<h2>Devices with most alarms</h2>\n");
    if report.devices.is_empty() {
        out.push_str("<p>No device has an alarm.</p>\n");
        return Ok(());
    }
    out.push_str(&table(
        &["device", "#critical", "#warning", "#verdicts", "#episodes", "#longest episode", "first alarm"],
        report.devices.iter().map(|d| {
            vec![
                escape(&d.device),
                count(d.critical),
                count(d.warning),
                count(d.verdicts),
                count(d.episodes),
                d.longest_episode_ms.map_or("–".into(), |ms| if ms == 0 { "one alarm".into() } else { span(ms) }),
                d.first_alarm
                    .as_deref()
                    .map_or("–".into(), |t| escape(t.trim_end_matches(".000Z")).replace('T', " ")),
            ]
        }),
    ));
    let marked = match labels.map(|l| &l.known) {
        None => "",
        Some(Known::Failures(_)) => " <i class=\"l\"></i> known failure",
        Some(Known::Windows(_)) => " <i class=\"l\"></i> labelled window",
    };
    let _ = write!(
        out,
        "<h2>Scores</h2>\n<p class=\"legend\"><i class=\"c\"></i> critical <i class=\"w\"></i> warning{marked}</p>\n\
         <p>Of the devices with most alarms; a score that spans much is drawn by powers of ten.</p>\n"
    );
    for device in report.devices.iter().take(PLOTS) {
        let Some(number) = side.device_number(&device.device) else { continue };
        // The step that raised most alarms about it; of those with as many the first.
        let alarms = |step: u16| -> u64 {
            episodes.iter().filter(|e| e.device == number && e.step == step).map(|e| e.alarms).sum()
        };
        let most = (0..side.steps.len() as u16).rev().max_by_key(|s| alarms(*s));
        let Some(step) = most else { continue };
        if let Some(svg) = plots::score(side, (number, step), labels)? {
            let name = &side.steps[step as usize].name;
            let _ = write!(out, "<h3>{}, {}</h3>\n{svg}", escape(&device.device), escape(name));
        }
    }
    Ok(())
}

fn opinion(o: Option<&Opinion>) -> String {
    match o {
        None => "no verdict".into(),
        Some(o) => format!(
            "<span class=\"{0}\">{0}</span><br><small>score {1}, p {2}</small>",
            o.severity.name(),
            show(o.score),
            show(o.p_value)
        ),
    }
}

fn reason(d: &Difference) -> String {
    let features = || -> String {
        let each = d.features.iter().map(|f| {
            let number = |x: Option<f64>| x.map_or("–".into(), show);
            let values = match f.value_here == f.value_there {
                true => format!("value {}", number(f.value_here)),
                false => format!("value {} ↔ {}", number(f.value_here), number(f.value_there)),
            };
            format!(
                "<code>{}</code> {} ↔ {} ({values})",
                escape(&f.name),
                number(f.contribution_here),
                number(f.contribution_there)
            )
        });
        each.collect::<Vec<_>>().join("<br>")
    };
    let (words, more) = match d.why {
        Why::Threshold => ("the thresholds", !d.features.is_empty()),
        Why::Score => ("the scores", true),
        Why::ScoreAndThreshold => ("scores and thresholds", true),
        Why::OnlyHere => ("only this pipeline has the window", false),
        Why::OnlyThere => ("only the other has the window", false),
    };
    match more && !d.features.is_empty() {
        true => format!("{words}<br><small>contributions: {}</small>", features()),
        false => words.to_owned(),
    }
}

fn comparison(report: &Report, against: &Against, out: &mut String) {
    let c = &against.comparison;
    let name = match against.pipeline.name == report.pipeline.name {
        true => "the other file".to_owned(),
        false => escape(&against.pipeline.name),
    };
    let _ = write!(
        out,
        "<h2>Against {name}</h2>\n<p>Verdicts are matched by step, device and end of window. Of {} windows judged by both, {} have the same severity \
         ({} of these another score or p-value). Only this pipeline judged {} windows, only the other {}.</p>\n",
        count(c.matched()),
        count(c.agreed()),
        count(c.same_severity_other_score),
        count(c.why.only_here),
        count(c.why.only_there)
    );
    let names = ["normal", "warning", "critical"];
    let row = |i: usize| {
        let mut row = vec![format!("this: {}", names[i])];
        row.extend((0..3).map(|j| {
            let n = count(c.table[i][j]);
            if i == j { format!("<b>{n}</b>") } else { n }
        }));
        row.push(count(c.only_here[i]));
        row
    };
    let mut rows: Vec<Vec<String>> = (0..3).map(row).collect();
    let mut last = vec!["this: no verdict".to_owned()];
    last.extend(c.only_there.map(count));
    last.push(String::new());
    rows.push(last);
    out.push_str(&table(&["", "#other: normal", "#other: warning", "#other: critical", "#other: no verdict"], rows));
    out.push_str(&by_step(&against.verdicts));
    let total = c.differences();
    if total == 0 {
        out.push_str("<p>No verdict differs.</p>\n");
        return;
    }
    let _ = write!(
        out,
        "<h3>Verdicts that differ</h3>\n<p>{} in all: by thresholds alone {}, by scores alone {}, by both {}, windows of one only {}. \
         {} are listed; <code>differences.ndjson</code> has all.</p>\n",
        count(total),
        count(c.why.threshold),
        count(c.why.score),
        count(c.why.score_and_threshold),
        count(c.why.only_here + c.why.only_there),
        if c.first.len() as u64 == total { "All".to_owned() } else { format!("The first {}", c.first.len()) },
    );
    out.push_str(&table(
        &["device", "step", "window ends", "this", "other", "why"],
        c.first.iter().map(|d| {
            vec![
                escape(&d.device),
                escape(&d.step),
                time(d.window_end),
                opinion(d.here.as_ref()),
                opinion(d.there.as_ref()),
                reason(d),
            ]
        }),
    ));
}

/// A threshold as a cell.
fn threshold(t: &Option<String>) -> String {
    t.as_deref().map_or("none".to_owned(), escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<b a='1' c=\"2\">&"), "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;");
    }
}

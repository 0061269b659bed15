//! One verdict in words: what was seen, what was expected, and what made the difference.

use std::fmt::Write as _;

use avouch_engine::decode::format_timestamp;
use avouch_engine::identity::KeySet;
use avouch_engine::label::{Label, Opinion};
use avouch_engine::verdict::{Evidence, FeatureEvidence, Severity, Verdict, class};

use crate::lang::hex;

/// Features told of at most; the rest is summed up.
const MOST: usize = 8;

/// The verdict in words. `log` and `index` name it.
pub fn verdict_in_words(log: &str, index: u64, v: &Verdict, e: &Evidence) -> String {
    if let Some(label) = &e.label {
        return label_in_words(log, index, v, label);
    }
    let mut out = String::new();
    // Writing to a String cannot fail, so the results are dropped.
    let _ = writeln!(out, "{}", headline(v, e));
    let _ = writeln!(
        out,
        "Judged by step `{}` on {} from {} to {}: offsets {} to {} of `{}`, partition {}.",
        e.step,
        counted(e.rows, "reading"),
        format_timestamp(v.window_start as i64),
        format_timestamp(v.window_end as i64),
        e.first_offset,
        e.last_offset,
        e.topic,
        e.partition,
    );
    let _ = writeln!(out, "It is verdict {index} of {log}, number {} about this device.\n", v.seq);
    if let Some(first) = e.incident {
        let _ = match first == index {
            true => writeln!(out, "An incident begins with it.\n"),
            false => writeln!(out, "It belongs to the incident that began with verdict {first}.\n"),
        };
    }
    let _ = writeln!(out, "{}", measure(e));
    features(&mut out, e);
    for r in &e.references {
        let hash: String = r.version.iter().take(4).map(|b| format!("{b:02x}")).collect();
        let _ = match KeySet::is_name(&r.name) {
            true => writeln!(out, "The readings were signed, by the keys `{}` in the version {hash}….", r.name),
            false => writeln!(out, "The readings were joined with `{}` in the version {hash}….", r.name),
        };
    }
    out
}

/// What people said of a verdict, in words: the index of each label's record, the label, and its reason if that is still there.
pub fn labels_in_words(labels: &[(u64, &Label, Option<String>)]) -> String {
    let mut out = String::new();
    for (i, (index, l, reason)) in labels.iter().enumerate() {
        let _ = write!(out, "{}Person ", if i == 0 { "\n" } else { "" });
        let by: String = l.by.iter().take(4).map(|b| format!("{b:02x}")).collect();
        let about = if l.verdict.is_some() { "it" } else { "a stretch of time that it touches" };
        let _ = write!(out, "{by}… says of {about}: {} ({}, record {index})", l.opinion.name(), format_timestamp(l.at));
        let _ = match (reason, l.reason) {
            (Some(text), _) => writeln!(out, ": {text}"),
            (None, Some(_)) => writeln!(out, "; the reason that was given is not kept here any more."),
            (None, None) => writeln!(out, "."),
        };
    }
    out
}

/// A label in words.
fn label_in_words(log: &str, index: u64, v: &Verdict, l: &Label) -> String {
    let mut out = String::new();
    let what = match l.opinion {
        Opinion::TrueAlarm => "the alarm was right, and something was wrong",
        Opinion::FalseAlarm => "the alarm was wrong, and nothing was the matter",
        Opinion::Missed => "something was wrong that was not called",
        Opinion::Healthy => "nothing was wrong",
    };
    let _ = writeln!(out, "{}: a person says that {what} ({}).", l.device, l.opinion.name());
    let time = |ms: u64| format_timestamp(ms as i64);
    let _ = match (l.verdict, l.step.is_empty()) {
        (Some(index), _) => writeln!(
            out,
            "It is about verdict {index} by step `{}`, of the window from {} to {}.",
            l.step,
            time(l.from),
            time(l.to)
        ),
        (None, true) => writeln!(out, "It is about the time from {} to {}.", time(l.from), time(l.to)),
        (None, false) => {
            writeln!(out, "It is about step `{}` and the time from {} to {}.", l.step, time(l.from), time(l.to))
        }
    };
    let _ = writeln!(out, "It is record {index} of {log}, number {} about this device.", v.seq);
    let _ = writeln!(out, "Said by person {} at {} by their clock.", hex(&l.by), format_timestamp(l.at));
    out
}

fn headline(v: &Verdict, e: &Evidence) -> String {
    let grave = match Severity::from_code(v.severity) {
        Some(Severity::Critical) => "critical",
        Some(Severity::Warning) => "a warning",
        _ => "normal",
    };
    let what = match v.class {
        class::NORMAL if v.severity == 0 => return format!("{}: nothing to do.", e.device),
        class::NORMAL => "as usual",
        class::ANOMALY => "it does not behave as in the training data",
        class::NOT_A_NUMBER => return format!("{}: not judged, because a feature is missing or not finite.", e.device),
        class::FAILURE_EXPECTED => "a failure is expected",
        class::GAP => "readings are missing",
        class::STUCK => "a sensor repeats one value",
        class::SATURATED => "a sensor is at the end of its range",
        class::IRREGULAR => "readings come at another rhythm than they should",
        class::DRIFT => "the data are not what the model was made for any more",
        _ => "of a class that this program does not know",
    };
    format!("{}: {grave}; {what}.", e.device)
}

fn measure(e: &Evidence) -> String {
    if e.score.is_nan() {
        return "There is no score.".to_owned();
    }
    if e.p_value.is_nan() {
        let within = e
            .interval
            .map_or(String::new(), |i| format!(", with an interval from {} to {}", short(i.lower), short(i.upper)));
        return format!("The model's estimate is {}{within}.", short(e.score));
    }
    format!("Its score is {}. {} (p-value {}).", short(e.score), rarity(e.p_value), short(e.p_value))
}

/// How often a healthy window scores like this. `p_value` is a number.
fn rarity(p_value: f64) -> String {
    match 1.0 / p_value {
        n if n < 1.5 => "Most healthy windows score as high".to_owned(),
        n if n < 1e9 => format!("About one healthy window in {} scores as high or higher", grouped(n.round())),
        _ => "Fewer than one healthy window in a billion scores as high".to_owned(),
    }
}

fn features(out: &mut String, e: &Evidence) {
    let mut sorted: Vec<&FeatureEvidence> = e.features.iter().filter(|f| !f.contribution.is_nan()).collect();
    // Stable: ties stay in the model's order.
    sorted.sort_by(|a, b| b.contribution.abs().total_cmp(&a.contribution.abs()));
    let size: f64 = sorted.iter().map(|f| f.contribution.abs()).sum();
    if size > 0.0 {
        let _ = writeln!(out);
        for f in sorted.iter().take(MOST) {
            let share = 100.0 * f.contribution.abs() / size;
            let direction = match (f.expected.is_nan(), f.value > f.expected) {
                (true, _) => String::new(),
                (_, true) => format!(", above the {} expected", short(f.expected)),
                (_, false) if f.value < f.expected => format!(", below the {} expected", short(f.expected)),
                _ => ", as expected".to_owned(),
            };
            let raises = if f.contribution < 0.0 { "lowers it by" } else { "adds" };
            let part = short(f.contribution.abs());
            let _ = writeln!(out, "  {:<24} {}{direction}; {raises} {part} ({share:.0} %)", f.name, short(f.value));
        }
        if sorted.len() > MOST {
            let rest: f64 = sorted[MOST..].iter().map(|f| f.contribution.abs()).sum();
            let _ = writeln!(out, "  {} more features: {:.0} %", sorted.len() - MOST, 100.0 * rest / size);
        }
    }
    for f in e.features.iter().filter(|f| !f.value.is_finite()) {
        let _ = writeln!(out, "  {:<24} missing or not finite", f.name);
    }
}

fn counted(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{} {what}s", grouped(n as f64)) }
}

/// A whole number with its thousands apart.
fn grouped(n: f64) -> String {
    let digits = format!("{n:.0}");
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Four significant digits.
fn short(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return format!("{v}");
    }
    let size = v.abs();
    if (1e-3..1e6).contains(&size) {
        let whole = libm::floor(libm::log10(size)) as i32;
        format!("{v:.*}", (3 - whole).max(0) as usize)
    } else {
        format!("{v:.3e}")
    }
}

#[cfg(test)]
mod tests {
    use avouch_engine::model::Interval;

    use super::*;

    fn sample(class: u16, severity: Severity) -> (Verdict, Evidence) {
        let verdict = Verdict {
            device_id: [1; 32],
            seq: 41,
            window_start: 1_700_000_000_000,
            window_end: 1_700_000_060_000,
            model_hash: [0; 32],
            config_hash: [0; 32],
            input_digest: [0; 32],
            score_e6: 0,
            severity: severity.code(),
            class,
            evidence_hash: [0; 32],
            salt: [0; 32],
        };
        let feature = |name: &str, value, expected, contribution| FeatureEvidence {
            name: name.into(),
            value,
            expected,
            contribution,
        };
        let evidence = Evidence {
            salt: [0; 32],
            device: "pump-007".into(),
            step: "anomaly".into(),
            topic: "pumps".into(),
            partition: 0,
            first_offset: 100,
            last_offset: 159,
            rows: 60,
            references: Vec::new(),
            score: 31.25,
            p_value: 0.0002,
            interval: None,
            incident: None,
            label: None,
            features: vec![
                feature("temp_mean", 61.0, 60.0, 1.25),
                feature("vib_rms", 4.2, 1.3, 28.0),
                feature("load", 0.8, 0.8, 2.0),
            ],
        };
        (verdict, evidence)
    }

    #[test]
    fn an_anomaly_names_what_made_it() {
        let (v, e) = sample(class::ANOMALY, Severity::Critical);
        insta::assert_snapshot!(verdict_in_words("avouch/pumps/0", 1_234, &v, &e));
    }

    #[test]
    fn rarity_is_said_in_healthy_windows() {
        for (p_value, said) in [
            (1.0, "Most healthy windows score as high"),
            (0.5, "About one healthy window in 2 scores as high or higher"),
            (0.0004, "About one healthy window in 2,500 scores as high or higher"),
            (1e-12, "Fewer than one healthy window in a billion scores as high"),
            (0.0, "Fewer than one healthy window in a billion scores as high"),
        ] {
            assert_eq!(rarity(p_value), said, "{p_value}");
        }
    }

    #[test]
    fn a_prognosis_has_its_interval() {
        let (v, mut e) = sample(class::FAILURE_EXPECTED, Severity::Warning);
        (e.score, e.p_value) = (120.0, f64::NAN);
        e.interval = Some(Interval { lower: 88.5, upper: 161.0 });
        e.features[0].contribution = -12.5;
        e.features[0].expected = f64::NAN;
        insta::assert_snapshot!(verdict_in_words("avouch/pumps/0", 7, &v, &e));
    }

    #[test]
    fn a_label_says_who_says_what_of_which() {
        let (v, mut e) = sample(class::LABEL_FALSE_ALARM, Severity::Normal);
        let label = |verdict: Option<u64>, step: &str| Label {
            device: "pump-007".into(),
            verdict,
            step: step.into(),
            from: v.window_start,
            to: v.window_end,
            opinion: Opinion::FalseAlarm,
            reason: None,
            by: [0xab; 32],
            at: 1_700_000_500_000,
        };
        let said = [label(Some(7), "anomaly"), label(None, "anomaly"), label(None, "")].map(|label| {
            e.label = Some(Box::new(label));
            verdict_in_words("avouch/pumps/0", 12, &v, &e)
        });
        insta::assert_snapshot!(said.join("\n"));

        let label = |verdict, reason| Label { reason, ..label(verdict, "anomaly") };
        let (a, b, c) = (label(Some(7), Some([1; 32])), label(Some(7), Some([2; 32])), label(None, None));
        let labels = [(12, &a, Some("the sensor was being cleaned".to_owned())), (13, &b, None), (15, &c, None)];
        insta::assert_snapshot!(labels_in_words(&labels));
        assert_eq!(labels_in_words(&[]), "");
    }

    #[test]
    fn what_was_not_judged_says_why() {
        let (v, mut e) = sample(class::NOT_A_NUMBER, Severity::Normal);
        (e.score, e.p_value) = (f64::NAN, f64::NAN);
        for f in &mut e.features {
            (f.expected, f.contribution) = (f64::NAN, f64::NAN);
        }
        e.features[1].value = f64::NAN;
        insta::assert_snapshot!(verdict_in_words("avouch/pumps/0", 7, &v, &e));
    }
}

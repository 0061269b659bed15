//! An audit as one page that needs nothing else: no script, no font, no network.

use std::fmt::Write as _;

use avouch_engine::audit::{Check, Grade};
use avouch_engine::bundle::utc;

use super::Audit;
use super::render::{active, verdict_on};
use crate::markup::escaped;
use crate::runtime::hex;

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;color:#1c2430;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}
p.sub{color:#5a6675;margin-top:0}code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.45rem .6rem;border-top:1px solid #dde3ea}
th{color:#5a6675;font-weight:600;font-size:13px}
.grade{display:inline-block;min-width:5.5rem;text-align:center;border-radius:4px;padding:.05rem .5rem;font-size:13px;font-weight:600}
.passed{background:#e2f3e6;color:#14602a}.failed{background:#fde4e1;color:#9b1c10}.attention{background:#fff2d0;color:#7a5200}
.not{background:#e9edf2;color:#4b5663}.small{color:#5a6675;font-size:13px}ul{margin:.3rem 0;padding-left:1.2rem}
.sum{padding:.8rem 1rem;border-radius:6px;margin:1rem 0;font-weight:600}
@media print{body{margin:0}}
";

fn class(grade: Grade) -> &'static str {
    match grade {
        Grade::Passed => "passed",
        Grade::Failed => "failed",
        Grade::Attention => "attention",
        Grade::NotMade => "not",
    }
}

/// The page.
pub(super) fn page(audit: &Audit) -> String {
    let r = &audit.report;
    let log = escaped(r.origin.as_str());
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Audit of {log}</title><style>{STYLE}</style><h1>Audit of {log}</h1>"
    );
    let _ = write!(
        out,
        "<p class=\"sub\">{} records on {} devices: {} normal, {} warning, {} critical. {} of them are anchored. Root <code>0x{}</code></p>",
        r.records,
        r.devices,
        r.severities[0],
        r.severities[1],
        r.severities[2],
        r.anchored.min(r.records),
        hex(&r.root)
    );
    match &audit.chain {
        Some(chain) => drop(write!(out, "<p class=\"sub\">{}</p>", escaped(chain))),
        None => out.push_str("<p class=\"sub\">No chain was asked: nothing here shows when the log was fixed.</p>"),
    }
    let sum = match r.grade() {
        Grade::Failed => "This log must not be relied on.",
        Grade::Attention => "Nothing contradicts the log; something in it wants looking at.",
        Grade::Passed | Grade::NotMade => "Nothing contradicts the log.",
    };
    let _ = write!(out, "<p class=\"sum {}\">{sum}</p>", class(r.grade()));
    out.push_str("<h2>Checks</h2><table><tr><th>Outcome<th>Check<th>What was found");
    r.checks.iter().for_each(|c| check(c, &mut out));
    out.push_str("</table><h2>Models</h2><table><tr><th>Model<th>Step<th>Records<th>Registry");
    for m in &r.models {
        let registry = match active(m) {
            said if said.is_empty() => "not asked".to_owned(),
            said => said.trim_start_matches(", ").to_owned(),
        };
        let _ = write!(
            out,
            "<tr><td><code>{}</code><td>{}<td>{} to {} ({})<td>{}",
            hex(&m.model),
            escaped(&m.step),
            m.first,
            m.last,
            m.records,
            escaped(&registry)
        );
    }
    out.push_str("</table><h2>Configurations</h2><table><tr><th>configHash<th>Records");
    for c in &r.configs {
        let _ = write!(out, "<tr><td><code>{}</code><td>{} to {} ({})", hex(&c.config), c.first, c.last, c.records);
    }
    out.push_str("</table><h2>What people said</h2>");
    if r.labels.is_empty() {
        out.push_str("<p>Nothing.</p>");
    } else {
        out.push_str("<table><tr><th>Record<th>Device<th>Said<th>Of<th>By");
        for l in &r.labels {
            let of = match l.label.verdict {
                Some(i) => format!("record {i}"),
                None => format!("{} to {}", utc(l.label.from), utc(l.label.to)),
            };
            let _ = write!(
                out,
                "<tr><td>{}<td>{}<td>{}<td>{of}<td><code>{}</code>",
                l.index,
                escaped(&l.label.device),
                l.label.opinion.name(),
                hex(&l.label.by[..8])
            );
        }
        out.push_str("</table>");
    }
    out.push_str(
        "<h2>What no audit shows</h2><p>That sensors told the truth; that a model is right; that the operator keeps no second log \
         under another name or account. Whether the models give these verdicts for these readings, <code>avouch replay</code> \
         shows.</p></html>\n",
    );
    out
}

fn check(c: &Check, out: &mut String) {
    let said = if c.grade == Grade::Failed { verdict_on(c) } else { c.said.clone() };
    let _ = write!(
        out,
        "<tr><td><span class=\"grade {}\">{}</span><td>{}<td>{}",
        class(c.grade),
        c.grade.name(),
        c.name,
        escaped(&said)
    );
    if !c.findings.is_empty() {
        out.push_str("<ul>");
        for f in &c.findings {
            let at = f.index.map_or_else(String::new, |i| format!("record {i}: "));
            let _ = write!(out, "<li>{at}{}", escaped(&f.what));
        }
        out.push_str("</ul>");
        if c.found > c.findings.len() as u64 {
            let _ = write!(out, "<p class=\"small\">{} in all</p>", c.found);
        }
    }
    let _ = write!(
        out,
        "<div class=\"small\">Proves that {}. Does not prove {}.</div>",
        escaped(c.proves),
        escaped(c.does_not_prove)
    );
}

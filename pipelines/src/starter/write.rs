//! The files of a first pipeline.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use avouch_engine::dead_letter::DeadReason;
use avouch_engine::spec::FieldType;

use super::StarterError;
use super::guess::{Guess, millis};
use super::sample::Sample;
use crate::lang::{self, Models, Pipeline, format_duration};
use crate::trial::gather;

/// What was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// All files.
    pub files: Vec<PathBuf>,
}

/// Facts that only running the pipeline over its sample tells.
#[derive(Default)]
struct Counted {
    readings: u64,
    features: u64,
    late: u64,
    dead: Vec<(&'static str, u64)>,
}

/// Writes pipeline, fixture, first test and README into a directory, and sees that the pipeline passes `avouch check`.
///
/// # Errors
/// A file that is in the way or cannot be written; a sample of which no window closes.
pub fn files_of(dir: &Path, name: &str, topic: &str, sample: &Sample, guess: &Guess) -> Result<Written, StarterError> {
    let path = dir.join("pipeline.toml");
    if path.exists() {
        let why = format!("{} is there already; choose another directory with --out", path.display());
        return Err(StarterError::Sample(why));
    }
    let mut files = Vec::new();
    let mut write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        let fail = |source| StarterError::Write { path: path.clone(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(fail)?;
        }
        std::fs::write(&path, bytes).map_err(fail)?;
        if !files.contains(&path) {
            files.push(path.clone());
        }
        Ok::<(), StarterError>(())
    };
    write("pipeline.toml", pipeline_text(name, topic, sample, guess, &Counted::default()).as_bytes())?;
    write("fixtures/sample.jsonl", &fixture(sample, guess))?;
    let counted = count(&path)?;
    if counted.features == 0 {
        return Err(StarterError::Own(format!(
            "the sample closes no window of {}; give a longer one, or a shorter --window. What was written is in {}",
            format_duration(guess.window_ms),
            dir.display()
        )));
    }
    write("pipeline.toml", pipeline_text(name, topic, sample, guess, &counted).as_bytes())?;
    write("README.md", readme(name, topic, sample, guess).as_bytes())?;
    let own = |d: lang::Diagnostics| StarterError::Own(d.render_text(false));
    let pipeline = Pipeline::load_offline(&path).map_err(own)?;
    let found = lang::check(&pipeline);
    if found.has_errors() { Err(own(found)) } else { Ok(Written { pipeline: path, files }) }
}

/// Runs what was written over the fixture.
fn count(path: &Path) -> Result<Counted, StarterError> {
    let own = |d: lang::Diagnostics| StarterError::Own(d.render_text(false));
    let pipeline = Pipeline::load_offline(path).map_err(own)?;
    let plan = lang::plan(&pipeline, &Models::new()).map_err(own)?;
    let Some(test) = pipeline.tests.first() else { return Ok(Counted::default()) };
    let gathered = gather(&pipeline, plan, test).map_err(|e| StarterError::Own(e.to_string()))?;
    let rows = |step: &str| -> u64 {
        gathered.rows.iter().filter(|r| &*r.step == step).map(|r| r.batch.num_rows() as u64).sum()
    };
    let dead = |r: DeadReason| gathered.counters.dead[r.index()];
    let others = DeadReason::ALL.into_iter().filter(|r| *r != DeadReason::Late && dead(*r) > 0);
    Ok(Counted {
        readings: rows("readings"),
        features: rows("features"),
        late: dead(DeadReason::Late),
        dead: others.map(|r| (r.name(), dead(r))).collect(),
    })
}

/// The sample as a topic would have it, in the order of time where it stands device by device.
fn fixture(sample: &Sample, guess: &Guess) -> Vec<u8> {
    let mut lines: Vec<(i64, &[u8])> = sample
        .lines
        .iter()
        .map(|line| {
            let row: Option<serde_json::Value> = serde_json::from_slice(line).ok();
            (millis(row.as_ref().and_then(|r| r.get(&guess.time))).unwrap_or(i64::MAX), line.as_slice())
        })
        .collect();
    if guess.by_device {
        lines.sort_by_key(|(time, _)| *time);
    }
    let mut out = Vec::new();
    for (_, line) in lines {
        // A value of a topic may have line feeds in it.
        let kept = line.iter().map(|b| if *b == b'\n' || *b == b'\r' { b' ' } else { *b });
        out.extend(kept);
        out.push(b'\n');
    }
    out
}

fn toml_text(text: &str) -> String {
    // Invariant: a text is always JSON, and JSON's escapes are TOML's.
    serde_json::to_string(text).unwrap_or_default()
}

fn toml_key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { name.to_owned() } else { toml_text(name) }
}

fn sql_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name for a feature: lower-case letters, digits and underscores.
fn plain(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut out: String =
        name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    while out.contains("__") {
        out = out.replace("__", "_");
    }
    let mut out = out.trim_matches('_').to_owned();
    if !out.starts_with(|c: char| c.is_ascii_lowercase()) {
        out.insert_str(0, "x_");
    }
    let base = out.clone();
    let mut n = 1;
    while !taken.insert(out.clone()) {
        n += 1;
        out = format!("{base}_{n}");
    }
    out
}

fn pipeline_text(name: &str, topic: &str, sample: &Sample, guess: &Guess, counted: &Counted) -> String {
    let mut out = String::new();
    let mut taken = BTreeSet::new();
    let numbers: Vec<(String, &String)> = guess.numbers.iter().map(|n| (plain(n, &mut taken), n)).collect();
    let duration = format_duration;
    // Writing into a String cannot fail, so the results are not looked at.
    let _ = write!(
        out,
        "# Written by `avouch new` from {} rows of {}. What is guessed is said; change what is wrong, then run
# `avouch check pipeline.toml` and `avouch test pipeline.toml`.
version = 1

[pipeline]
name        = {}
description = \"\"

# ── where readings come from ────────────────────────────────────────────────
[sources.readings]
kind    = \"kafka\"
brokers = \"${{env:KAFKA_BROKERS:-localhost:9092}}\"
topic   = {}
format  = \"json\"
# Guessed: {} in the sample.
key     = {}
# A device gives a reading every {}; rows of the sample are {}.
# Rows that come later than `max_disorder` after newer ones may be late, and verdicts wait for so long.
time    = {{ column = {}, max_disorder = \"{}\" }}

# With `!` a row without a value dies, as a dead letter. Every row of the sample had one where it stands.
[sources.readings.schema]
",
        sample.lines.len(),
        sample.from.rsplit(['/', '\\']).next().unwrap_or_default(),
        toml_text(name),
        toml_text(topic),
        lang::plural(guess.devices, "device"),
        toml_text(&guess.key),
        duration(guess.cadence_ms),
        match (guess.by_device, guess.disorder_ms) {
            (true, 0) => "written device after device, and in order within each".to_owned(),
            (true, ms) => format!("written device after device, and within each up to {} out of order", duration(ms)),
            (false, 0) => "in order".to_owned(),
            (false, ms) => format!("up to {} out of order", duration(ms)),
        },
        toml_text(&guess.time),
        duration(guess.max_disorder_ms),
    );
    let width = guess.columns.iter().map(|c| toml_key(&c.name).chars().count()).max().unwrap_or(0);
    for column in &guess.columns {
        let ty = format!("{}{}", column.ty.name(), if column.required { "!" } else { "" });
        let note = if column.ty == FieldType::I64 { "    # whole numbers so far; f64 takes others too" } else { "" };
        // What no step reads `check` would warn of; a field with `!` decides which rows die, so it is read.
        let read = column.required
            || column.name == guess.key
            || column.name == guess.time
            || guess.numbers.contains(&column.name);
        if read {
            let _ = writeln!(out, "{:<width$} = \"{ty}\"{note}", toml_key(&column.name));
        } else {
            let _ = writeln!(
                out,
                "# {} = \"{ty}\"    # not in every row, and no step reads it yet",
                toml_key(&column.name)
            );
        }
    }
    if !guess.left_out.is_empty() {
        let names = guess.left_out.join(", ");
        let _ = writeln!(out, "# left out, since they hold objects, arrays or values of several kinds: {names}");
    }
    let quote = if guess.numbers.iter().chain([&guess.key]).any(|n| n.contains('\\')) { "'''" } else { "\"\"\"" };
    let key = sql_name(&guess.key);
    let features: Vec<String> = numbers
        .iter()
        .flat_map(|(alias, column)| {
            let column = sql_name(column);
            [format!("avg({column}) AS {alias}_mean"), format!("stddev({column}) AS {alias}_std")]
        })
        .collect();
    let names: Vec<String> =
        numbers.iter().flat_map(|(alias, _)| [format!("\"{alias}_mean\""), format!("\"{alias}_std\"")]).collect();
    let kind = if guess.every_ms == guess.window_ms {
        format!("kind = \"tumbling\", size = \"{}\"", duration(guess.window_ms))
    } else {
        format!(
            "kind = \"sliding\", size = \"{}\", every = \"{}\"",
            duration(guess.window_ms),
            duration(guess.every_ms)
        )
    };
    let _ = write!(
        out,
        "
# ── what is computed ────────────────────────────────────────────────────────
# Here rows are filtered and columns computed: add a WHERE for values that no sensor can mean.
[steps.clean]
from = \"readings\"
sql  = \"SELECT * FROM readings\"

# One row a device and window. docs/windows.md has the statistics there are: rms, kurtosis, slope and more.
[steps.features]
from   = \"clean\"
window = {{ {kind} }}
sql    = {quote}
SELECT {key},
       {}
FROM clean GROUP BY {key}
{quote}

# Judges each row of features. `avouch train pipeline.toml` makes the model, from readings of healthy devices.
[steps.anomaly]
from     = \"features\"
model    = {{ file = \"models/anomaly.model\" }}
features = [{}]
decide   = {{ severity = {{ warning = 0.01, critical = 0.001 }} }}    # of healthy windows one in a hundred, in a thousand

# ── where verdicts go ───────────────────────────────────────────────────────
[sinks.verdicts]
from  = [\"anomaly\"]
kind  = \"kafka\"
topic = {}

# Rows that cannot be used, each with its reason.
[dead_letter]
kind  = \"kafka\"
topic = {}

# ── how the model is made ───────────────────────────────────────────────────
[train.anomaly]
step      = \"anomaly\"
data      = {}
algorithm = {{ kind = \"t2-q\", seed = 7 }}
split     = {{ by = \"time\", hold_back = 0.2, seed = 7 }}

# ── how it is tested ────────────────────────────────────────────────────────
# What the sample gives now. When there is a model, add `verdicts = \"golden/sample.jsonl\"` to `expect`, and run
# `avouch test --update pipeline.toml`.
[[tests]]
name   = \"the sample gives features\"
input  = \"fixtures/sample.jsonl\"
expect = {{ late = {}, dead_letters = {{{}}} }}
assert = [
    \"SELECT count(*) = {} FROM readings\",
    \"SELECT count(*) = {} FROM features\",
]
",
        features.join(",\n       "),
        names.join(", "),
        toml_text(&format!("{topic}.verdicts")),
        toml_text(&format!("{topic}.dead")),
        training(sample),
        counted.late,
        match counted.dead.iter().map(|(name, n)| format!("{name} = {n}")).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => none,
            some => format!(" {some} "),
        },
        counted.readings,
        counted.features,
    );
    out
}

/// `train.*.data`, for files like the sample.
fn training(sample: &Sample) -> String {
    let ending = Path::new(&sample.from).extension().and_then(|e| e.to_str()).unwrap_or("jsonl");
    let ending = if sample.from.starts_with("topic ") { "jsonl" } else { ending };
    let files = toml_text(&format!("training/*.{ending}"));
    let mut more = String::new();
    if let Some(d) = sample.delimiter.filter(|d| *d != b',') {
        let _ = write!(more, ", delimiter = {}", toml_text(&char::from(d).to_string()));
    }
    if sample.device_of_path {
        more.push_str(", device = \"path\"");
    }
    if more.is_empty() { files } else { format!("{{ files = {files}{more} }}") }
}

fn readme(name: &str, topic: &str, sample: &Sample, guess: &Guess) -> String {
    let mut produce = format!("avouch produce --topic {topic} --create-topic --files SAMPLE --time '{}'", guess.time);
    if let Some(d) = sample.delimiter.filter(|d| *d != b',') {
        let _ = write!(produce, " --delimiter '{}'", if d == b'\t' { "\\t".into() } else { char::from(d).to_string() });
    }
    let device = if sample.device_of_path { "path" } else { &guess.key };
    let _ = write!(produce, " --device '{device}'");
    format!(
        "# {name}

Written by `avouch new`. The pipeline is in `pipeline.toml`, with what was guessed of the sample said beside it.

```sh
avouch check pipeline.toml        # keys, names, SQL; that the model is not there yet is a warning
avouch test pipeline.toml         # the sample, against what it gave when this was written

mkdir -p training                 # put readings of healthy devices there, files like the sample
avouch train pipeline.toml        # makes models/anomaly.model
{produce}
avouch run --create-topics pipeline.toml
```

`KAFKA_BROKERS` says where the brokers are; localhost:9092 if it is not set.
"
    )
}

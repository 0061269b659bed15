//! `avouch label`: what a person says of a verdict, or of a device and a stretch of time, on its way into the log.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use avouch_connectors::store::{LaneReader, StoreError};
use avouch_engine::decode::{format_timestamp, parse_timestamp};
use avouch_engine::label::{Label, Opinion};
use avouch_engine::verdict::{Logged, Severity, VerdictRecord, class};
use clap::Args;
use rand::RngCore as _;
use rand::rngs::OsRng;
use serde_json::json;
use thiserror::Error;

use super::bundle::{Wanted, find};
use super::fail;
use crate::labels::{self, Recorded, Request, RequestError, inbox_dir, keep_reason, reason_of, waiting};
use crate::lang::{Pipeline, format_duration, parse_duration};
use crate::runtime::{RuntimeError, hex, lane_dir, lane_dirs, secret, state_dir};

/// How often the log is looked at while its growth is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Say of a verdict, or of a device and a stretch of time, what it really was
///
/// It becomes a record of the verdict log, for good, and `avouch retrain` goes by it.
///
/// Exit code 0 if it is written (with --wait: if it is in the log), 1 if not, 2 if the command line is wrong.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  avouch label pumps.toml false-alarm --by anna --lane 0 --index 1041 --reason 'sensor was being cleaned'
  avouch label pumps.toml true-alarm --by anna --device pump-7 --window-end 2026-01-07T08:00:00Z
  avouch label pumps.toml missed --by anna --device pump-7 --from 2026-01-07T06:00:00Z --to 2026-01-07T09:30:00Z")]
pub struct LabelArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    /// true-alarm or false-alarm of an alarm; missed (something was wrong that was not called) or healthy of what was normal. Of
    /// a stretch, any of them
    #[arg(value_name = "WHAT", value_parser = opinion)]
    pub says: Opinion,

    /// Who says it. Only a pseudonym goes into the log
    #[arg(long, value_name = "NAME")]
    pub by: String,

    /// The lane of the verdict, which is its source partition
    #[arg(long, value_name = "PARTITION", requires = "index")]
    pub lane: Option<i32>,

    /// Index of the verdict in its log
    #[arg(long, value_name = "N", requires = "lane", conflicts_with_all = ["device", "window_end", "from", "to", "step"])]
    pub index: Option<u64>,

    /// The device, as the readings name it; with --window-end, or with --from and --to
    #[arg(long, value_name = "NAME", required_unless_present = "index")]
    pub device: Option<String>,

    /// The verdict about the window that ends then, RFC 3339
    #[arg(long, value_name = "TIME", requires = "device", conflicts_with_all = ["from", "to"])]
    pub window_end: Option<String>,

    /// A stretch of time, from here
    #[arg(long, value_name = "TIME", requires = "to")]
    pub from: Option<String>,

    /// Until here, which is not in it
    #[arg(long, value_name = "TIME", requires = "from")]
    pub to: Option<String>,

    /// The model step meant, where there are several; without it a stretch is about all of them
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,

    /// Why. The text is kept beside the log and can be deleted; a salted hash of it goes into the log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// When it was said, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,

    /// Wait so long for it to be in the log, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub wait: Option<i64>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn opinion(text: &str) -> Result<Opinion, String> {
    Opinion::named(text).ok_or_else(|| "say true-alarm, false-alarm, missed or healthy".to_owned())
}

fn duration(text: &str) -> Result<i64, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

/// Why nothing was said.
#[derive(Debug, Error)]
pub enum LabelError {
    /// The pipeline file is wrong.
    #[error("{0}")]
    Pipeline(String),
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The secret cannot be read.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The request cannot be written.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A directory cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// It cannot be said so.
    #[error("{0}")]
    Wrong(String),
}

fn wrong<T>(why: impl Into<String>) -> Result<T, LabelError> {
    Err(LabelError::Wrong(why.into()))
}

/// Writes the request, and waits where that is asked for.
pub fn run(args: &LabelArgs) -> ExitCode {
    match label(args) {
        Ok(said) if args.json => println!("{}", said.json()),
        Ok(said) => print!("{}", said.text()),
        Err(LabelError::Pipeline(text)) => {
            eprint!("{text}");
            return ExitCode::FAILURE;
        }
        Err(e) => return fail(args.json, e),
    }
    ExitCode::SUCCESS
}

/// Where a label stands.
#[derive(Debug)]
enum Standing {
    /// In the log, at this index.
    Recorded(u64),
    /// It was there before.
    Before(u64),
    /// In the lane's inbox.
    Waiting(PathBuf),
    /// It was there before.
    WaitingBefore(PathBuf),
}

/// What was said, and what becomes of it.
#[derive(Debug)]
struct Said {
    lane: i32,
    request: Request,
    /// What the verdict it is about was.
    about: String,
    reason: Option<PathBuf>,
    standing: Standing,
    /// How often state becomes durable.
    every_ms: i64,
}

impl Said {
    fn json(&self) -> serde_json::Value {
        let l = &self.request.label;
        let (state, index, file) = match &self.standing {
            Standing::Recorded(index) => ("recorded", Some(*index), None),
            Standing::Before(index) => ("recorded_before", Some(*index), None),
            Standing::Waiting(path) => ("waiting", None, Some(path)),
            Standing::WaitingBefore(path) => ("waiting_before", None, Some(path)),
        };
        json!({
            "id": hex(&l.id()),
            "log": self.request.log,
            "lane": self.lane,
            "says": l.opinion.name(),
            "device": l.device,
            "step": l.step,
            "verdict": l.verdict,
            "from": format_timestamp(l.from as i64),
            "to": format_timestamp(l.to as i64),
            "by": hex(&l.by),
            "at": format_timestamp(l.at),
            "reason_hash": l.reason.as_ref().map(|h| hex(h)),
            "reason_file": self.reason.as_deref().map(shown),
            "state": state,
            "index": index,
            "request": file.map(|f| shown(f)),
        })
    }

    fn text(&self) -> String {
        let (l, lane) = (&self.request.label, self.lane);
        let mut out = String::new();
        // Writing to a String cannot fail, so the results are dropped.
        let _ = writeln!(out, "{}: {}.", self.about, l.opinion.name());
        let _ = match &self.standing {
            Standing::Recorded(index) => {
                writeln!(out, "It is record {index} of {}, for good.", self.request.log)
            }
            Standing::Before(index) => {
                writeln!(
                    out,
                    "The same person has said so before: record {index} of {}. Nothing was added.",
                    self.request.log
                )
            }
            Standing::WaitingBefore(path) => {
                writeln!(out, "The same person has said so before, and it waits in {}. Nothing was added.", shown(path))
            }
            Standing::Waiting(path) => writeln!(
                out,
                "It waits in {}.\nThe process that runs lane {lane} takes it within a second, and it is in the log, for good, with \
                 the checkpoint after that (checkpoint.every is {}); if none runs, the next that does takes it.",
                shown(path),
                format_duration(self.every_ms),
            ),
        };
        if let Some(path) = &self.reason {
            let _ = writeln!(
                out,
                "The reason is kept in {}, and only a salted hash of it goes into the log: delete that file to erase it.",
                shown(path)
            );
        }
        out
    }
}

/// As it would be typed.
fn shown(path: &Path) -> String {
    let path: PathBuf = path.components().filter(|c| *c != Component::CurDir).collect();
    path.display().to_string()
}

/// What a label is about.
struct Target {
    lane: i32,
    reader: LaneReader,
    label: Label,
    about: String,
}

fn label(args: &LabelArgs) -> Result<Said, LabelError> {
    let text = |d: crate::lang::Diagnostics| LabelError::Pipeline(d.render_text(super::check::colour()));
    let pipeline = Pipeline::load(&args.file).map_err(text)?;
    if pipeline.checkpoint.object_store.is_some() {
        return wrong(
            "this pipeline's checkpoints go to a bucket, and labels reach a lane through its directory only, which another \
             machine may have: use checkpoint.store = \"file://…\" where labels are wanted",
        );
    }
    if args.by.trim().is_empty() {
        return wrong("--by is empty; name who says it");
    }
    let at = match &args.at {
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64),
        Some(text) => instant("--at", text)?,
    };
    let state = state_dir(&pipeline);
    if let Some(step) = &args.step
        && pipeline.model_step(step).is_none()
    {
        let have: Vec<&str> = pipeline.model_steps.iter().map(|s| s.name.value.as_str()).collect();
        return wrong(format!("there is no model step `{step}`; there is {}", have.join(", ")));
    }
    let Target { lane, reader, mut label, about } = target(args, &state)?;
    label.by = secret(&pipeline, &state)?.person_id(args.by.trim());
    label.at = at;
    let log = reader.committed().origin.clone();
    let inbox = inbox_dir(&state, lane);
    let every_ms = pipeline.checkpoint.every_ms;
    let mut said =
        Said { lane, request: Request { log, label }, about, reason: None, standing: Standing::Before(0), every_ms };
    if let Some(before) = before(args, &said.request, &reader, &state, &inbox)? {
        said.standing = before;
        return Ok(said);
    }
    if let Some(reason) = &args.reason {
        let mut salt = [0; 16];
        OsRng.fill_bytes(&mut salt);
        // Before anything names it.
        let (hash, path) = keep_reason(&state, salt, reason)?;
        (said.request.label.reason, said.reason) = (Some(hash), Some(path));
    }
    let path = said.request.put(&inbox)?;
    said.standing = match args.wait {
        None => Standing::Waiting(path),
        Some(ms) => Standing::Recorded(wait(&said.request, &reader, &path, Duration::from_millis(ms.unsigned_abs()))?),
    };
    Ok(said)
}

/// Whether the same person has said the same of the same, for the same reason if one is given, and nothing else since.
fn before(
    args: &LabelArgs,
    request: &Request,
    reader: &LaneReader,
    state: &Path,
    inbox: &Path,
) -> Result<Option<Standing>, LabelError> {
    let l = &request.label;
    let target = |o: &Label| {
        (&o.device, o.verdict, &o.step, o.from, o.to, o.by) == (&l.device, l.verdict, &l.step, l.from, l.to, l.by)
    };
    let again = |o: &Label| {
        let given = |reason: &String| o.reason.as_ref().and_then(|h| reason_of(state, h)).as_ref() == Some(reason);
        o.opinion == l.opinion && args.reason.as_ref().is_none_or(given)
    };
    let paths = waiting(inbox).map_err(|source| LabelError::File { path: inbox.to_path_buf(), source })?;
    let mut requests: Vec<(Request, PathBuf)> = Vec::new();
    for path in paths {
        // One that a lane has just taken is gone, and what is no request is the lane's to refuse.
        let read = std::fs::read(&path).ok().and_then(|bytes| Request::from_bytes(&bytes).ok());
        requests.extend(read.filter(|r| target(&r.label)).map(|r| (r, path)));
    }
    requests.sort_by_key(|(r, _)| (r.label.at, r.label.id()));
    if let Some((r, path)) = requests.pop() {
        return Ok(again(&r.label).then_some(Standing::WaitingBefore(path)));
    }
    reader.refresh()?;
    let last = labels::recorded(reader)?.into_iter().rfind(|r| target(&r.label));
    Ok(last.filter(|r| again(&r.label)).map(|r| Standing::Before(r.index)))
}

/// The index in the log, once it is there.
fn wait(request: &Request, reader: &LaneReader, path: &Path, time: Duration) -> Result<u64, LabelError> {
    let (until, id) = (Instant::now() + time, request.label.id());
    let refused = path.parent().map(|dir| dir.join("refused").join(request.name()).with_extension("why"));
    let mut seen = None;
    loop {
        let committed = reader.refresh()?;
        if seen.replace(committed.event_count) != Some(committed.event_count)
            && let Some(Recorded { index, .. }) = labels::recorded(reader)?.into_iter().find(|r| r.label.id() == id)
        {
            return Ok(index);
        }
        if let Some(why) = refused.as_ref().and_then(|p| std::fs::read_to_string(p).ok()) {
            return wrong(format!("the lane has refused it: {why}"));
        }
        if Instant::now() >= until {
            return wrong(format!(
                "it is not in the log yet, and waits in {}: nothing is lost, and the process that runs the lane, or the next \
                 one that does, takes it",
                shown(path)
            ));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn instant(option: &str, text: &str) -> Result<i64, LabelError> {
    let time = parse_timestamp(text.as_bytes());
    time.ok_or_else(|| LabelError::Wrong(format!("{option} `{text}` is not a time such as 2026-01-07T08:00:00Z")))
}

fn at_least_1970(option: &str, text: &str) -> Result<u64, LabelError> {
    let time = u64::try_from(instant(option, text)?);
    time.map_err(|_| LabelError::Wrong(format!("{option} `{text}` is before 1970, where no window is")))
}

fn target(args: &LabelArgs, state: &Path) -> Result<Target, LabelError> {
    let lanes = lane_dirs(state).map_err(|source| LabelError::File { path: state.to_path_buf(), source })?;
    if lanes.is_empty() {
        return wrong(format!(
            "there is no log in {}: nothing has been judged yet, or `avouch run` works in another directory",
            shown(state)
        ));
    }
    if let (Some(lane), Some(index)) = (args.lane, args.index) {
        if !lanes.iter().any(|(n, _)| *n == lane) {
            let there: Vec<String> = lanes.iter().map(|(n, _)| n.to_string()).collect();
            return wrong(format!("there is no lane {lane}; there are {}", there.join(", ")));
        }
        let reader = LaneReader::open_read_only(&lane_dir(state, lane))?;
        let size = reader.committed().log_size;
        if index >= size {
            return wrong(format!("the log of lane {lane} has {size} records, and none with the index {index}"));
        }
        let record = reader.verdict(index)?;
        return of_verdict(args, lane, reader, &record);
    }
    let Some(device) = &args.device else { return wrong("name a verdict (--lane, --index) or a --device") };
    match (&args.window_end, &args.from, &args.to) {
        (Some(end), ..) => of_window(args, &lanes, device, at_least_1970("--window-end", end)?),
        (None, Some(from), Some(to)) => {
            of_stretch(args, &lanes, device, (at_least_1970("--from", from)?, at_least_1970("--to", to)?))
        }
        _ => wrong("say of which time: --window-end of a verdict, or --from and --to"),
    }
}

fn of_verdict(args: &LabelArgs, lane: i32, reader: LaneReader, record: &VerdictRecord) -> Result<Target, LabelError> {
    let (v, e, index) = (&record.verdict, &record.evidence, record.index);
    if class::is_label(v.class) {
        return wrong(format!("record {index} is a label itself; give the index of the verdict it is about"));
    }
    let severity = Severity::from_code(v.severity).unwrap_or(Severity::Critical);
    let of_alarm = matches!(args.says, Opinion::TrueAlarm | Opinion::FalseAlarm);
    match (severity, of_alarm) {
        (Severity::Normal, true) => {
            return wrong(format!("verdict {index} is normal, so there was no alarm: say missed, or healthy"));
        }
        (Severity::Warning | Severity::Critical, false) => {
            return wrong(format!("verdict {index} is an alarm ({}): say true-alarm, or false-alarm", severity.name()));
        }
        _ => {}
    }
    let label = Label {
        device: e.device.clone(),
        verdict: Some(index),
        step: e.step.to_string(),
        from: v.window_start,
        to: v.window_end,
        opinion: args.says,
        reason: None,
        by: [0; 32],
        at: 0,
    };
    let about = format!(
        "Verdict {index} about {} by {} ({}, window until {})",
        e.device,
        e.step,
        severity.name(),
        format_timestamp(v.window_end as i64)
    );
    Ok(Target { lane, reader, label, about })
}

/// The verdict about a device and the window that ends then.
fn of_window(args: &LabelArgs, lanes: &[(i32, PathBuf)], device: &str, end: u64) -> Result<Target, LabelError> {
    const AT_ONCE: usize = 2_000;
    let mut found: Vec<(i32, LaneReader, VerdictRecord)> = Vec::new();
    for (lane, dir) in lanes {
        let reader = LaneReader::open_read_only(dir)?;
        let (mut at, size) = (0, reader.committed().log_size);
        while at < size {
            let records = reader.records(at, AT_ONCE)?;
            if records.is_empty() {
                break;
            }
            at += records.len() as u64;
            let fits = |r: &VerdictRecord| {
                r.evidence.device == device
                    && r.verdict.window_end == end
                    && !class::is_label(r.verdict.class)
                    && args.step.as_deref().is_none_or(|s| *s == *r.evidence.step)
            };
            let records = records.into_iter().filter_map(Logged::into_record);
            found.extend(records.filter(fits).map(|r| (*lane, reader.clone(), r)));
        }
    }
    let end = format_timestamp(end as i64);
    match found.pop() {
        None => wrong(format!(
            "there is no verdict about {device} and a window that ends at {end}; `avouch query` lists those there are, and \
             --from and --to say something of any time"
        )),
        Some((lane, reader, record)) if found.is_empty() => of_verdict(args, lane, reader, &record),
        Some(last) => {
            found.push(last);
            let each = |(lane, _, r): &(i32, LaneReader, VerdictRecord)| {
                format!("--lane {lane} --index {} (by {})", r.index, r.evidence.step)
            };
            let all: Vec<String> = found.iter().map(each).collect();
            wrong(format!(
                "several verdicts are about {device} and a window that ends at {end}: say {}",
                all.join(", or ")
            ))
        }
    }
}

fn of_stretch(
    args: &LabelArgs,
    lanes: &[(i32, PathBuf)],
    device: &str,
    (from, to): (u64, u64),
) -> Result<Target, LabelError> {
    if from >= to {
        return wrong("--to is not after --from");
    }
    let wanted = Wanted { index: None, device: Some(device), severity: None };
    for (lane, dir) in lanes {
        let reader = LaneReader::open_read_only(dir)?;
        if find(&wanted, &reader, reader.committed().log_size)?.is_none() {
            continue;
        }
        let label = Label {
            device: device.to_owned(),
            verdict: None,
            step: args.step.clone().unwrap_or_default(),
            from,
            to,
            opinion: args.says,
            reason: None,
            by: [0; 32],
            at: 0,
        };
        let (from, to) = (format_timestamp(from as i64), format_timestamp(to as i64));
        let about = format!("{device} from {from} to {to}");
        return Ok(Target { lane: *lane, reader, label, about });
    }
    wrong(format!("no verdict is about the device {device}; write it as the readings do"))
}

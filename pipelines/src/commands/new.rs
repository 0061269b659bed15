//! `avouch new`: a first pipeline, with a test, from a sample of readings.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::lang::parse_duration;
use crate::starter::{Answers, Guess, Sample, StarterError, files_of, guess, sample_of_file, sample_of_topic};

/// Write a first pipeline from a sample of readings: guesses fields, time, device and windows, and writes pipeline.toml, a
/// test and a README that pass `avouch check` and `avouch test`.
#[derive(Debug, Clone, Args)]
pub struct NewArgs {
    /// A file of readings: NDJSON, CSV or Parquet by its ending
    #[arg(long, value_name = "FILE", required_unless_present = "from_topic", conflicts_with = "from_topic")]
    pub from_file: Option<PathBuf>,

    /// A topic of JSON readings; its earliest ones are read, and nothing is committed
    #[arg(long, value_name = "TOPIC")]
    pub from_topic: Option<String>,

    /// Brokers of the topic, as host:port separated by commas
    #[arg(long, short, env = "KAFKA_BROKERS", default_value = "localhost:9092")]
    pub brokers: String,

    /// The pipeline's name [default: the file's or the topic's]
    #[arg(long)]
    pub name: Option<String>,

    /// The directory to write into [default: the name]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// The column with the event time
    #[arg(long, value_name = "COLUMN")]
    pub time: Option<String>,

    /// The column that names the device, or `path` where each file is a device
    #[arg(long, value_name = "COLUMN|path")]
    pub key: Option<String>,

    /// Length of windows, such as 1m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub window: Option<i64>,

    /// How often a window begins, such as 10s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub every: Option<i64>,

    /// How far rows may be out of order, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub max_disorder: Option<i64>,

    /// Field delimiter of a CSV file; \t is a tab
    #[arg(long, value_name = "CHAR", value_parser = delimiter)]
    pub delimiter: Option<u8>,

    /// Ask nothing and take the guesses; without a terminal nothing is asked either
    #[arg(long, short)]
    pub yes: bool,
}

fn duration(text: &str) -> Result<i64, String> {
    match parse_duration(text) {
        Ok(ms) if ms > 0 => Ok(ms),
        Ok(_) => Err("it must be longer than nothing".into()),
        Err(e) => Err(e.to_string()),
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [one] if one.is_ascii() => Ok(*one),
        _ => Err("write one ASCII character, or \\t for a tab".into()),
    }
}

/// Writes the pipeline. Exit code 0 if it was written and passes `avouch check`.
pub fn run(args: &NewArgs) -> ExitCode {
    match write(args) {
        Ok(text) => {
            // A closed pipe is the reader's choice, not an error of ours.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(e) => super::fail(false, e),
    }
}

/// Does it, and says what was done.
///
/// # Errors
/// What is missing in the sample, or cannot be read or written.
pub fn write(args: &NewArgs) -> Result<String, StarterError> {
    let mut answers = Answers {
        time: args.time.clone(),
        key: args.key.clone(),
        window_ms: args.window,
        every_ms: args.every,
        max_disorder_ms: args.max_disorder,
    };
    let asks = !args.yes && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let (mut sample, mut found) = take(args, &answers)?;
    if asks {
        println!("{}", found.lines().join("\n"));
        answers.time = Some(ask("Which column is the time", args.time.as_ref(), &found.time));
        let key = if sample.device_of_path { "path" } else { &found.key };
        answers.key = Some(ask("Which column names the device", args.key.as_ref(), key));
        (sample, found) = take(args, &answers)?;
    }
    let topic = match &args.from_topic {
        Some(topic) => topic.clone(),
        None => args
            .from_file
            .as_deref()
            .and_then(Path::file_stem)
            .map_or_else(String::new, |s| allowed(&s.to_string_lossy())),
    };
    let guessed = args.name.clone().unwrap_or_else(|| allowed(&topic));
    let name = if asks { ask("The pipeline's name", args.name.as_ref(), &guessed) } else { guessed };
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(&name));
    let out = match asks {
        true => PathBuf::from(ask("Write into", args.out.as_ref().map(|_| &name), &out.to_string_lossy())),
        false => out,
    };
    let written = files_of(&out, &name, &topic, &sample, &found)?;
    let mut text = format!("{} rows of {}\n", sample.lines.len(), sample.from);
    for line in found.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    for file in &written.files {
        text.push_str(&format!("wrote {}\n", file.display()));
    }
    let pipeline = written.pipeline.display();
    text.push_str(&format!("next: avouch check {pipeline} && avouch test {pipeline}\n"));
    Ok(text)
}

/// Reads the sample and guesses. Where nothing in a file names the device, the file does.
fn take(args: &NewArgs, answers: &Answers) -> Result<(Sample, Guess), StarterError> {
    let Some(file) = &args.from_file else {
        let sample = sample_of_topic(&args.brokers, args.from_topic.as_deref().unwrap_or_default())?;
        let found = guess(&sample, answers)?;
        return Ok((sample, found));
    };
    let read = |key: Option<&str>| sample_of_file(file, args.delimiter, key);
    let sample = read(answers.key.as_deref())?;
    match guess(&sample, answers) {
        Ok(found) if sample.keys_become_text && answers.key.is_none() => {
            // Once more, with numbers in the device's column as the text they become.
            let sample = read(Some(&found.key))?;
            let found = guess(&sample, answers)?;
            Ok((sample, found))
        }
        Ok(found) => Ok((sample, found)),
        Err(StarterError::NoDevice(_)) if answers.key.is_none() => {
            let sample = read(Some("path"))?;
            let found = guess(&sample, answers)?;
            Ok((sample, found))
        }
        Err(e) => Err(e),
    }
}

/// Only what a name or topic may have in it.
fn allowed(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let name: String = name.chars().map(fits).take(50).collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    if name.contains(|c: char| c.is_ascii_alphabetic()) { name } else { "readings".into() }
}

/// Asks on the terminal, unless it was answered by a flag; an empty answer takes the guess.
fn ask(question: &str, answered: Option<&String>, guess: &str) -> String {
    if answered.is_some() {
        return guess.to_owned();
    }
    print!("{question} [{guess}]: ");
    let _ = std::io::stdout().flush();
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(_) if !line.trim().is_empty() => line.trim().to_owned(),
        _ => guess.to_owned(),
    }
}

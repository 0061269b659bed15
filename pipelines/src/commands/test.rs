//! `avouch test`: runs the `[[tests]]` of pipeline files. No network, no keys; the clock only says how long a test took.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use crate::lang::{Pipeline, plural};
use crate::trial::{self, FileOutcome, Tester};

/// Run the tests of pipeline files: recorded readings in, verdicts, features and dead letters held against what is expected.
#[derive(Debug, Clone, Args)]
pub struct TestArgs {
    /// The pipeline files
    #[arg(required = true, value_name = "PIPELINE.toml")]
    pub files: Vec<PathBuf>,

    /// Only tests whose name has this in it; with * and ? the whole name
    #[arg(long, value_name = "PATTERN")]
    pub name: Option<String>,

    /// Write the golden verdicts anew where they differ, and say which
    #[arg(long)]
    pub update: bool,

    /// Also write a JUnit report
    #[arg(long, value_name = "PATH")]
    pub junit: Option<PathBuf>,

    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Runs the tests and prints what became of them. Exit code 0 if all passed, 1 if one failed or could not run, 2 if none
/// was asked for.
pub fn run(args: &TestArgs) -> ExitCode {
    let files = match outcomes(args) {
        Ok(files) => files,
        Err(e) => return super::fail(args.json, e),
    };
    if let Some(pattern) = &args.name
        && files.iter().all(|f| f.tests.is_empty() && f.broken.is_none())
    {
        super::fail(args.json, format!("no test is called like `{pattern}`"));
        return ExitCode::from(2);
    }
    if let Some(path) = &args.junit {
        let written = trial::junit(&files).and_then(|xml| std::fs::write(path, xml).map_err(|e| e.to_string()));
        if let Err(e) = written {
            return super::fail(args.json, format!("{}: {e}", path.display()));
        }
    }
    let out = if args.json { format!("{}\n", trial::json(&files)) } else { trial::render(&files, colour()) };
    // A closed pipe is the reader's choice, not an error of ours.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), out.as_bytes());
    if files.iter().all(FileOutcome::ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the tests of all files, each after the other.
///
/// # Errors
/// When no thread can be had.
pub fn outcomes(args: &TestArgs) -> Result<Vec<FileOutcome>, std::io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(async {
        let mut all = Vec::new();
        for path in &args.files {
            all.push(of_file(path, args).await);
        }
        all
    }))
}

async fn of_file(path: &Path, args: &TestArgs) -> FileOutcome {
    let mut outcome = FileOutcome { file: path.display().to_string(), ..FileOutcome::default() };
    let pipeline = match Pipeline::load_offline(path) {
        Ok(pipeline) => pipeline,
        Err(diags) => {
            outcome.broken = Some(diags.render_text(false));
            return outcome;
        }
    };
    if pipeline.tests.is_empty() {
        outcome.broken =
            Some("the file has no [[tests]]; add one with `name`, `input` and `expect` or `assert`\n".into());
        return outcome;
    }
    let tester = match Tester::new(&pipeline) {
        Ok(tester) => tester,
        Err(diags) => {
            outcome.broken = Some(diags.render_text(false));
            return outcome;
        }
    };
    for test in &pipeline.tests {
        if args.name.as_ref().is_some_and(|pattern| !fits(pattern, &test.name.value)) {
            continue;
        }
        let began = Instant::now();
        let mut of_test = tester.run(test, args.update).await;
        of_test.seconds = Some(began.elapsed().as_secs_f64());
        outcome.tests.push(of_test);
    }
    tracing::debug!(file = %path.display(), "{} run", plural(outcome.tests.len(), "test"));
    outcome
}

fn colour() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdout()) && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Whether a name fits: it has the pattern in it or, where that has wildcards, is all of it.
fn fits(pattern: &str, name: &str) -> bool {
    if !pattern.contains(['*', '?']) {
        return name.contains(pattern);
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Row by row: whether the pattern so far fits the first `i` characters.
    let mut fits: Vec<bool> = (0..=name.len()).map(|i| i == 0).collect();
    for p in pattern {
        let mut next = vec![p == '*' && fits[0]];
        for (i, c) in name.iter().enumerate() {
            next.push(match p {
                '*' => fits[i + 1] || next[i],
                '?' => fits[i],
                p => fits[i] && p == *c,
            });
        }
        fits = next;
    }
    fits.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns() {
        for (pattern, name, yes) in [
            ("quiet", "a quiet week", true),
            ("loud", "a quiet week", false),
            ("quiet*", "a quiet week", false),
            ("*quiet*", "a quiet week", true),
            ("a ????? week", "a quiet week", true),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, name), yes, "{pattern} {name}");
        }
    }
}

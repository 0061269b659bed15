//! Outcomes as people and machines read them.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json as object};

use super::judge::TestOutcome;
use crate::lang::plural;

/// What became of the tests of one file.
#[derive(Debug, Clone, Default)]
pub struct FileOutcome {
    /// The pipeline file.
    pub file: String,
    /// Its tests that were run.
    pub tests: Vec<TestOutcome>,
    /// What is wrong with the file, so that no test could be run.
    pub broken: Option<String>,
}

impl FileOutcome {
    /// How many tests passed, and how many did not.
    pub fn counts(&self) -> (usize, usize) {
        let passed = self.tests.iter().filter(|t| t.failures.is_empty()).count();
        (passed, self.tests.len() - passed)
    }

    /// Whether all is well.
    pub fn ok(&self) -> bool {
        self.broken.is_none() && self.counts().1 == 0
    }
}

/// For a person. Colours only on request.
pub fn render(files: &[FileOutcome], colour: bool) -> String {
    let paint = |code: &str, s: &str| if colour { format!("\x1b[{code}m{s}\x1b[0m") } else { s.to_owned() };
    let mut out = String::new();
    for file in files {
        out.push_str(&format!("{}\n", file.file));
        if let Some(broken) = &file.broken {
            out.push_str(&format!("  {} no test could be run\n\n", paint("1;31", "error")));
            out.push_str(broken);
        }
        for test in &file.tests {
            let word = if test.failures.is_empty() { paint("32", "ok  ") } else { paint("1;31", "FAIL") };
            let mut after = Vec::new();
            if let Some((rows, verdicts)) = test.counts {
                after.push(plural(rows as usize, "row"));
                after.push(plural(verdicts as usize, "verdict"));
            }
            after.extend(test.seconds.map(|s| format!("{s:.2} s")));
            let after = if after.is_empty() { String::new() } else { format!("  ({})", after.join(", ")) };
            out.push_str(&format!("  {word}  {}{after}\n", test.name));
            out.extend(test.updated.iter().map(|u| format!("        updated {u}\n")));
            for failure in &test.failures {
                out.push_str(&format!("        {}\n", failure.message));
                out.extend(failure.detail.iter().map(|line| format!("          {line}").trim_end().to_owned() + "\n"));
            }
            out.extend(test.notes.iter().map(|n| format!("        {} {n}\n", paint("36", "note:"))));
        }
        out.push('\n');
    }
    let passed: usize = files.iter().map(|f| f.counts().0).sum();
    let failed: usize = files.iter().map(|f| f.counts().1).sum();
    let broken = files.iter().filter(|f| f.broken.is_some()).count();
    out.push_str(&format!("{} passed", plural(passed, "test")));
    if failed > 0 {
        out.push_str(&format!(", {failed} failed"));
    }
    if broken > 0 {
        out.push_str(&format!(", {} could not be run", plural(broken, "file")));
    }
    out.push('\n');
    out
}

/// For a machine: one object.
pub fn json(files: &[FileOutcome]) -> Value {
    let test = |t: &TestOutcome| {
        let failures: Vec<Value> =
            t.failures.iter().map(|f| object!({ "kind": f.kind, "message": f.message, "detail": f.detail })).collect();
        object!({
            "name": t.name,
            "ok": t.failures.is_empty(),
            "rows": t.counts.map(|c| c.0),
            "verdicts": t.counts.map(|c| c.1),
            "failures": failures,
            "notes": t.notes,
            "updated": t.updated,
            "seconds": t.seconds,
        })
    };
    let file = |f: &FileOutcome| {
        let (passed, failed) = f.counts();
        let tests: Vec<Value> = f.tests.iter().map(test).collect();
        object!({
            "file": f.file, "ok": f.ok(), "passed": passed, "failed": failed, "error": f.broken, "tests": tests,
        })
    };
    object!({ "ok": files.iter().all(FileOutcome::ok), "files": files.iter().map(file).collect::<Vec<_>>() })
}

/// JUnit XML: a suite for each file, a case for each test.
///
/// # Errors
/// The writer's words.
pub fn junit(files: &[FileOutcome]) -> Result<String, String> {
    let mut report = Report::new("avouch test");
    for file in files {
        let mut suite = TestSuite::new(file.file.as_str());
        if let Some(broken) = &file.broken {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_type("pipeline").set_message("no test could be run").set_description(broken.as_str());
            suite.add_test_case(TestCase::new("the pipeline file", status));
        }
        for test in &file.tests {
            let mut case = TestCase::new(test.name.as_str(), status_of(test));
            case.set_classname(file.file.as_str());
            if let Some(seconds) = test.seconds {
                case.set_time(Duration::from_secs_f64(seconds.max(0.0)));
            }
            suite.add_test_case(case);
        }
        report.add_test_suite(suite);
    }
    report.to_string().map_err(|e| e.to_string())
}

fn status_of(test: &TestOutcome) -> TestCaseStatus {
    let Some(first) = test.failures.first() else { return TestCaseStatus::success() };
    let could_run = !matches!(first.kind, "model" | "input" | "lane");
    let kind = if could_run { NonSuccessKind::Failure } else { NonSuccessKind::Error };
    let mut status = TestCaseStatus::non_success(kind);
    let all: Vec<String> = test
        .failures
        .iter()
        .map(|f| std::iter::once(f.message.clone()).chain(f.detail.iter().cloned()).collect::<Vec<_>>().join("\n"))
        .collect();
    status.set_type(first.kind).set_message(first.message.as_str()).set_description(all.join("\n\n"));
    status
}

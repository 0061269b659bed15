//! `[[tests]]`: what a pipeline gives of recorded readings, as the rest of the program sees it.

use std::path::PathBuf;

use avouch_engine::dead_letter::DeadReason;

use super::pipeline::TrainDevice;
use super::span::{Span, Spanned};

/// One `[[tests]]`.
#[derive(Debug, Clone)]
pub struct PipelineTest {
    /// Its name, unique in the file.
    pub name: Spanned<String>,
    /// The files to run over.
    pub input: Vec<TestInput>,
    /// Field delimiter of CSV files; `,` if not given.
    pub delimiter: u8,
    /// How a row's device is named.
    pub device: TrainDevice,
    /// The column with the time of arrival, which becomes the record's timestamp; the event time if not given.
    pub arrival: Option<Spanned<String>>,
    /// Whether rows are sorted by time first; as they stand if not given.
    pub sorted: bool,
    /// Over how many lanes devices are spread; one if not given.
    pub lanes: i32,
    /// How long no row comes at the end, milliseconds, where the source has an `idle_after`.
    pub silence_ms: Option<Spanned<i64>>,
    /// What is expected.
    pub expect: Expectation,
    /// SQL that must give one row with one true boolean.
    pub assertions: Vec<Spanned<String>>,
}

/// A pattern of input files.
#[derive(Debug, Clone)]
pub struct TestInput {
    /// As it stands in the pipeline file.
    pub text: Spanned<String>,
    /// Resolved against its directory.
    pub pattern: String,
}

/// `expect`.
#[derive(Debug, Clone, Default)]
pub struct Expectation {
    /// The file of the verdicts, one JSON object a line.
    pub verdicts: Option<Golden>,
    /// How many rows are late.
    pub late: Option<Spanned<i64>>,
    /// How many rows die, by class; a class that is not named must have none.
    pub dead_letters: Option<Spanned<DeadCounts>>,
}

/// How many rows die, by class.
pub type DeadCounts = Vec<(DeadClass, Spanned<i64>)>;

/// A file of expected verdicts.
#[derive(Debug, Clone)]
pub struct Golden {
    /// As it stands in the pipeline file.
    pub text: String,
    /// Resolved against its directory.
    pub path: PathBuf,
    /// Its place.
    pub span: Span,
}

/// A name under which dead letters are counted in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadClass {
    /// What is no reading: `undecodable`, `schema`, `no_device` and `too_large` together.
    Bad,
    /// One reason.
    Reason(DeadReason),
}

/// The reasons that `bad` stands for.
const BAD: [DeadReason; 4] = [DeadReason::Undecodable, DeadReason::Schema, DeadReason::NoDevice, DeadReason::TooLarge];

/// Those that a test's rows can die for: rows of files were not kept with their signatures, which are not checked.
fn reasons() -> impl Iterator<Item = DeadReason> {
    DeadReason::ALL.into_iter().filter(|r| !DeadReason::OF_SIGNATURES.contains(r))
}

impl DeadClass {
    /// The class of a name in TOML.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "bad" {
            return Some(Self::Bad);
        }
        reasons().find(|r| r.name() == name).map(Self::Reason)
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        std::iter::once("bad").chain(reasons().map(DeadReason::name))
    }

    /// Its name in TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Reason(r) => r.name(),
        }
    }

    /// Whether it counts letters of this reason.
    pub fn counts(self, reason: DeadReason) -> bool {
        match self {
            Self::Bad => BAD.contains(&reason),
            Self::Reason(r) => r == reason,
        }
    }
}

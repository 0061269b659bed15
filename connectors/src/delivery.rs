//! How a delivery to the outside can fail, whatever the outside is.
//!
//! There are two ways that matter to whoever delivers. A sink that is *down* takes nothing: its cursor is held and the
//! same records are offered again. A sink that *refuses* takes others, but not these records, however often they are
//! offered: they are kept elsewhere and the cursor goes on.

use std::ops::Range;
use std::time::Duration;

use thiserror::Error;

/// Why a sink is down. The names are the `kind` label of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownKind {
    /// Nobody answers at the address.
    Unreachable,
    /// An answer did not come in time.
    Timeout,
    /// It answers that it has no room or time now.
    Busy,
    /// It answers that we may not write there, or that there is nothing at this address.
    Denied,
    /// It answers that it failed.
    Failed,
}

impl DownKind {
    /// Every kind, in a fixed order.
    pub const ALL: [DownKind; 5] =
        [DownKind::Unreachable, DownKind::Timeout, DownKind::Busy, DownKind::Denied, DownKind::Failed];

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            DownKind::Unreachable => "unreachable",
            DownKind::Timeout => "timeout",
            DownKind::Busy => "busy",
            DownKind::Denied => "denied",
            DownKind::Failed => "failed",
        }
    }
}

/// A delivery that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The sink takes nothing now; the same records may pass later.
    #[error("{why}")]
    Down {
        /// Why.
        kind: DownKind,
        /// In words, with what to do.
        why: String,
        /// Not before so long, if it said.
        retry_after: Option<Duration>,
    },
    /// The sink refuses at least one of these records.
    #[error("refused with {status}: {why}")]
    Refused {
        /// Its code: an HTTP status, a Kafka error.
        status: String,
        /// Its words.
        why: String,
        /// Which of the records offered may be the refused ones, counted from 0; `None` where it does not say.
        among: Option<Range<usize>>,
    },
    /// Going on would be wrong.
    #[error("{0}")]
    Fatal(String),
}

impl Failure {
    /// A sink that is down.
    pub fn down(kind: DownKind, why: impl Into<String>) -> Self {
        Failure::Down { kind, why: why.into(), retry_after: None }
    }
}

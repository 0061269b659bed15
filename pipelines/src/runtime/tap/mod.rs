//! Live rows at any step, for whoever looks on at `GET /tap`.
//!
//! ```text
//!   lane ─ LaneTaps ─ try_send ─► a queue a tap, of bounded bytes ─► stream: where, JSON ─► HTTP, as fast as it is read
//!                        └─► (full: dropped, counted, and said in the stream)
//! ```
//!
//! A lane looks at one atomic number between batches; while nobody taps that is all it does. While somebody does, it keeps the
//! rows of the tapped steps ([`Lane::watch`]) and hands them over without waiting. What is shown is what the lane computes
//! at that moment: it is ahead of the next checkpoint, rests on nothing, and changes nothing.
//!
//! A tap belongs to one version of the pipeline: a reload ends it, for the columns of a step may be others then.

mod lane;
mod open;
mod rows;
mod stream;

pub(super) use lane::LaneTaps;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use avouch_engine::lane::StepRows;
use avouch_engine::plan::LanePlan;
use avouch_engine::verdict::{Hash32, VerdictRecord};
use tokio::sync::mpsc;

use crate::lang::Pipeline;

/// How many may look on at once.
const MOST_TAPS: usize = 8;
/// How many bytes wait for a reader, beside the piece that is one batch's and may be larger.
const ROOM: usize = 8 << 20;
/// How many pieces wait for a reader.
const PIECES: usize = 256;

/// What a lane hands over.
#[derive(Debug, Clone)]
enum Piece {
    Rows { lane: i32, rows: Arc<StepRows> },
    Verdicts { log: Arc<str>, records: Arc<Vec<VerdictRecord>> },
}

/// One who looks on.
#[derive(Debug)]
struct Tap {
    id: u64,
    step: String,
    /// Whether the step gives verdicts.
    verdicts: bool,
    /// The version of the pipeline it belongs to.
    config: Hash32,
    queue: mpsc::Sender<(Piece, usize)>,
    /// Bytes in the queue.
    waiting: AtomicUsize,
    /// Rows that came by, and those that found no room.
    seen: AtomicU64,
    dropped: AtomicU64,
}

impl Tap {
    /// Puts a piece of so many rows into the queue, if there is room. Never waits.
    fn offer(&self, piece: Piece, rows: usize, bytes: usize) {
        self.seen.fetch_add(rows as u64, Ordering::Relaxed);
        let waiting = self.waiting.load(Ordering::Relaxed);
        let fits = waiting == 0 || waiting + bytes <= ROOM;
        // Before it can be taken out.
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if !fits || self.queue.try_send((piece, bytes)).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.fetch_add(rows as u64, Ordering::Relaxed);
        }
    }
}

/// The version of the pipeline that runs.
#[derive(Debug)]
struct Running {
    pipeline: Pipeline,
    plan: Arc<LanePlan>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    taps: Vec<Arc<Tap>>,
    opened: u64,
}

#[derive(Debug, Default)]
struct Hub {
    /// Counts every change of the taps.
    version: AtomicU64,
    state: Mutex<State>,
}

/// All who look on at this process. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Taps(Arc<Hub>);

impl Taps {
    /// Says which version of the pipeline runs from now on. Taps of another one end.
    pub fn running(&self, pipeline: &Pipeline, plan: &Arc<LanePlan>) {
        self.change(|state| {
            state.running = Some(Running { pipeline: pipeline.clone(), plan: plan.clone() });
            state.taps.retain(|t| pipeline.http_tap && t.config == plan.config_hash);
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let out = change(&mut state);
        self.0.version.fetch_add(1, Ordering::Release);
        out
    }

    fn remove(&self, id: u64) {
        self.change(|state| state.taps.retain(|t| t.id != id));
    }
}

#[cfg(test)]
mod tests;

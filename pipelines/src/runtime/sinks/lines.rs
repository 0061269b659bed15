//! Standard output: one JSON object a line. Written and flushed before the cursor, a file of the lane, moves: a crash in
//! between prints lines again. A batch is written whole, so that lines of several lanes and sinks do not mix.

use std::io::Write as _;

use avouch_connectors::delivery::{DownKind, Failure};
use avouch_connectors::store::{Cursor, LaneReader};

use super::Target;
use super::writer::{Batch, Halt, Position, blocking};

/// Prints whole lines, and flushes.
pub(super) async fn print(text: String) -> Result<(), Halt> {
    blocking(move || {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|e| Failure::down(DownKind::Failed, format!("standard output takes no more: {e}")).into())
    })
    .await
}

pub(super) struct LineWriter {
    pub(super) cursor: Cursor,
}

impl LineWriter {
    pub fn open(target: &Target, reader: &LaneReader) -> Result<(Self, Position), Halt> {
        let cursor = reader.cursor(&target.name)?;
        let position = Position::of(&cursor);
        Ok((Self { cursor }, position))
    }

    pub async fn deliver(&mut self, target: &Target, batch: Batch<'_>) -> Result<(), Halt> {
        let mut text = String::new();
        for item in batch.items {
            text.push_str(&item.json(batch.log, target).to_string());
            text.push('\n');
        }
        if !text.is_empty() {
            print(text).await?;
        }
        Ok(())
    }
}

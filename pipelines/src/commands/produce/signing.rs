//! Readings that are signed before they are sent.

use std::collections::BTreeMap;
use std::path::Path;

use avouch_connectors::files::Row;

use super::{ProduceArgs, ProduceError, Publisher};
use crate::lang::Pipeline;
use crate::signing::ReadingSigner;

/// Signs and sends.
pub(super) struct Signing {
    pub signer: ReadingSigner,
    batch: usize,
    /// Readings that wait until there are enough of them, by device.
    waiting: BTreeMap<String, Waiting>,
}

#[derive(Default)]
struct Waiting {
    values: Vec<Vec<u8>>,
    timestamps: Vec<Option<i64>>,
}

/// What was asked for; `None` if nothing.
pub(super) fn signing(args: &ProduceArgs) -> Result<Option<Signing>, ProduceError> {
    let (Some(file), Some(dir)) = (&args.sign_for, &args.device_keys) else { return Ok(None) };
    let signer = ReadingSigner::new(&pipeline(file)?, dir)?;
    Ok(Some(Signing { signer, batch: args.sign_batch as usize, waiting: BTreeMap::new() }))
}

fn pipeline(path: &Path) -> Result<Pipeline, ProduceError> {
    Pipeline::load(path).map_err(|d| ProduceError::Pipeline(d.render_text(crate::commands::check::colour())))
}

impl Signing {
    /// Takes a reading, and sends it once as many of its device are there as are signed at once.
    pub fn send(&mut self, row: &Row, timestamp: Option<i64>, publisher: &mut Publisher) -> Result<(), ProduceError> {
        if !self.waiting.contains_key(&row.key) {
            self.waiting.insert(row.key.clone(), Waiting::default());
        }
        let Some(waiting) = self.waiting.get_mut(&row.key) else { return Ok(()) };
        waiting.values.push(row.json.clone());
        waiting.timestamps.push(timestamp);
        if waiting.values.len() < self.batch {
            return Ok(());
        }
        let waiting = std::mem::take(waiting);
        self.give(&row.key, waiting, publisher)
    }

    /// Sends what waits.
    pub fn flush(&mut self, publisher: &mut Publisher) -> Result<(), ProduceError> {
        for (device, waiting) in std::mem::take(&mut self.waiting) {
            if !waiting.values.is_empty() {
                self.give(&device, waiting, publisher)?;
            }
        }
        Ok(())
    }

    fn give(&mut self, device: &str, waiting: Waiting, publisher: &mut Publisher) -> Result<(), ProduceError> {
        let signed = self.signer.sign(device, waiting.values)?;
        let key = (!device.is_empty()).then_some(device.as_bytes());
        for (one, timestamp) in signed.iter().zip(waiting.timestamps) {
            let header = self.signer.header().zip(one.header.as_deref());
            publisher.send_with(key, &one.value, timestamp, header)?;
        }
        Ok(())
    }
}

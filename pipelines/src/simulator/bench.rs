//! The benchmark workload: plain JSON rows of 129 bytes, as many devices as wanted, one row a second each.

use std::io::{self, Write};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `rows` readings of `devices` devices in time order, one a second and device: with 10,000 devices a window of ten
/// seconds holds ten rows of each. A row is
/// `{"device":"pump-00042","ts":…,"temperature":dd.ddd,"vibration":0.ddddd,"pressure":d.dddd,"rpm":dddd.d,"flow":dd.ddd}`,
/// 129 bytes with its line feed (at 100,000 devices or fewer). The same configuration gives the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchWorkload {
    /// How many rows.
    pub rows: u64,
    /// How many devices; at least 1.
    pub devices: u32,
    /// First event time, milliseconds since the epoch.
    pub start_ms: i64,
    /// Decides the values.
    pub seed: u64,
}

impl Default for BenchWorkload {
    /// 2,000,000 rows of 10,000 devices from 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self { rows: 2_000_000, devices: 10_000, start_ms: 1_767_225_600_000, seed: 1 }
    }
}

/// Where the next row of a [`BenchWorkload`] comes from.
pub struct BenchRows {
    workload: BenchWorkload,
    at: u64,
    rng: ChaCha8Rng,
}

impl BenchWorkload {
    /// The rows one by one.
    pub fn rows(&self) -> BenchRows {
        let workload = Self { devices: self.devices.max(1), ..self.clone() };
        BenchRows { rng: ChaCha8Rng::seed_from_u64(workload.seed), workload, at: 0 }
    }

    /// Writes all rows, each with a line feed; returns the number of bytes. Errors are the writer's.
    pub fn write(&self, out: &mut impl Write) -> io::Result<u64> {
        let mut rows = self.rows();
        let mut buffer = Vec::with_capacity(1 << 20);
        let mut bytes = 0;
        loop {
            let more = rows.append(&mut buffer).is_some();
            if more {
                buffer.push(b'\n');
            }
            if !more || buffer.len() > (1 << 20) - 256 {
                out.write_all(&buffer)?;
                bytes += buffer.len() as u64;
                buffer.clear();
            }
            if !more {
                return Ok(bytes);
            }
        }
    }
}

impl BenchRows {
    /// Appends the next row, without a line feed, and returns its device's number and event time; `None` at the end.
    pub fn append(&mut self, out: &mut Vec<u8>) -> Option<(u32, i64)> {
        if self.at == self.workload.rows {
            return None;
        }
        let devices = u64::from(self.workload.devices);
        let (second, device) = (self.at / devices, self.at % devices);
        self.at += 1;
        let ts = self.workload.start_ms + second as i64 * 1000 + (device * 1000 / devices) as i64;
        let (a, b) = (self.rng.next_u64(), self.rng.next_u64());
        // Sixteen random bits a channel around a level of the device's own.
        let level = device.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
        let noise = |bits: u64, span: u64| ((bits & 0xffff) * span) >> 16;
        out.extend_from_slice(b"{\"device\":\"pump-");
        digits(out, device, 5);
        out.extend_from_slice(b"\",\"ts\":");
        digits(out, ts as u64, 13);
        out.extend_from_slice(b",\"temperature\":");
        fixed(out, 40_000 + noise(level, 30_000) + noise(a, 5_000), 2, 3);
        out.extend_from_slice(b",\"vibration\":");
        fixed(out, noise(level, 40_000) + noise(a >> 16, 50_000), 1, 5);
        out.extend_from_slice(b",\"pressure\":");
        fixed(out, 30_000 + noise(level, 25_000) + noise(a >> 32, 4_000), 1, 4);
        out.extend_from_slice(b",\"rpm\":");
        fixed(out, 14_000 + noise(level, 1_000) + noise(a >> 48, 200), 4, 1);
        out.extend_from_slice(b",\"flow\":");
        fixed(out, 20_000 + noise(level, 40_000) + noise(b, 10_000), 2, 3);
        out.push(b'}');
        Some((device as u32, ts))
    }
}

/// `n` in at least `width` digits.
fn digits(out: &mut Vec<u8>, mut n: u64, width: usize) {
    let mut text = [b'0'; 20];
    let mut at = text.len();
    while n > 0 || at > text.len() - width {
        at -= 1;
        text[at] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out.extend_from_slice(&text[at..]);
}

/// `n` / 10^decimals with all its decimals.
fn fixed(out: &mut Vec<u8>, n: u64, whole: usize, decimals: usize) {
    digits(out, n, whole + decimals);
    let point = out.len() - decimals;
    out.insert(point, b'.');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn rows_are_json_of_129_bytes_one_a_second_and_device() {
        let workload = BenchWorkload { rows: 50_000, devices: 1000, ..BenchWorkload::default() };
        let mut file = Vec::new();
        assert_eq!(workload.write(&mut file).unwrap(), 50_000 * 129);
        assert_eq!(file.len(), 50_000 * 129);
        let mut per_window: HashMap<(String, i64), u32> = HashMap::new();
        let mut last = 0;
        for line in file.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let row: serde_json::Value = serde_json::from_slice(line).unwrap();
            let ts = row["ts"].as_i64().unwrap();
            assert!(ts >= last);
            last = ts;
            for channel in ["temperature", "vibration", "pressure", "rpm", "flow"] {
                assert!(row[channel].is_f64(), "{channel}");
            }
            *per_window.entry((row["device"].as_str().unwrap().to_owned(), ts / 10_000)).or_default() += 1;
        }
        assert_eq!(per_window.len(), 1000 * 5);
        assert!(per_window.values().all(|n| *n == 10));
    }
}

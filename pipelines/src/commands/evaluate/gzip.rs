//! Data sets come packed. Unpacking them (RFC 1951 and 1952) is a hundred lines, and no library that we have does it.

use std::path::Path;

use super::EvaluateError;

/// What a file holds, unpacked if its name ends in `.gz`. Without such a file the packed or unpacked one beside it is read.
pub(super) fn read(path: &Path) -> Result<String, EvaluateError> {
    let packed = path.with_extension(match path.extension().and_then(|e| e.to_str()) {
        Some(e) => format!("{e}.gz"),
        None => "gz".to_owned(),
    });
    let (found, is_packed) = if path.exists() { (path.to_path_buf(), false) } else { (packed, true) };
    let failed = |path: &Path, source| EvaluateError::Io { path: path.to_path_buf(), source };
    let bytes = std::fs::read(&found).map_err(|e| failed(path, e))?;
    let wrong = |why: &str| failed(&found, std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_owned()));
    let plain = if is_packed { unpack(&bytes).ok_or_else(|| wrong("is no gzip file, or damaged"))? } else { bytes };
    String::from_utf8(plain).map_err(|_| wrong("is no text"))
}

/// Bits of a stream, lowest first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u32,
    count: u32,
}

impl Bits<'_> {
    fn take(&mut self, n: u32) -> Option<u32> {
        while self.count < n {
            self.held |= u32::from(*self.bytes.get(self.at)?) << self.count;
            self.at += 1;
            self.count += 8;
        }
        let out = self.held & ((1u32 << n) - 1);
        self.held >>= n;
        self.count -= n;
        Some(out)
    }
}

/// A Huffman code: how many symbols of each length, and the symbols in order of their codes.
struct Code {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Code {
    fn of(lengths: &[u8]) -> Self {
        let mut counts = [0; 16];
        for l in lengths {
            counts[usize::from(*l)] += 1;
        }
        counts[0] = 0;
        let mut symbols: Vec<u16> = (0..lengths.len() as u16).filter(|s| lengths[usize::from(*s)] > 0).collect();
        symbols.sort_by_key(|s| (lengths[usize::from(*s)], *s));
        Self { counts, symbols }
    }

    fn next(&self, bits: &mut Bits<'_>) -> Option<u16> {
        let (mut code, mut first, mut index) = (0i32, 0i32, 0i32);
        for count in &self.counts[1..] {
            code |= bits.take(1)? as i32;
            let count = i32::from(*count);
            if code - first < count {
                return self.symbols.get((index + code - first) as usize).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

const LENGTHS: [(u16, u32); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

const DISTANCES: [(u16, u32); 30] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 1),
    (7, 1),
    (9, 2),
    (13, 2),
    (17, 3),
    (25, 3),
    (33, 4),
    (49, 4),
    (65, 5),
    (97, 5),
    (129, 6),
    (193, 6),
    (257, 7),
    (385, 7),
    (513, 8),
    (769, 8),
    (1025, 9),
    (1537, 9),
    (2049, 10),
    (3073, 10),
    (4097, 11),
    (6145, 11),
    (8193, 12),
    (12289, 12),
    (16385, 13),
    (24577, 13),
];

/// In which order the lengths of the code of lengths come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The one member of a gzip file; `None` if it is none, or damaged.
fn unpack(file: &[u8]) -> Option<Vec<u8>> {
    let head = file.get(..10)?;
    if head[..3] != [0x1f, 0x8b, 8] {
        return None;
    }
    let mut at = 10;
    if head[3] & 4 != 0 {
        at += 2 + usize::from(u16::from_le_bytes([*file.get(at)?, *file.get(at + 1)?]));
    }
    for flag in [8, 16] {
        if head[3] & flag != 0 {
            at += file.get(at..)?.iter().position(|b| *b == 0)? + 1;
        }
    }
    at += if head[3] & 2 != 0 { 2 } else { 0 };
    let mut bits = Bits { bytes: file, at, held: 0, count: 0 };
    let mut out = Vec::new();
    loop {
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => {
                (bits.held, bits.count) = (0, 0);
                let head = file.get(bits.at..bits.at + 4)?;
                let n = usize::from(u16::from_le_bytes([head[0], head[1]]));
                out.extend_from_slice(file.get(bits.at + 4..bits.at + 4 + n)?);
                bits.at += 4 + n;
            }
            1 => {
                let mut lengths = [8; 288];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                block(&mut bits, &Code::of(&lengths), &Code::of(&[5; 30]), &mut out)?;
            }
            2 => {
                let (literals, distances) = (bits.take(5)? as usize + 257, bits.take(5)? as usize + 1);
                let given = bits.take(4)? as usize + 4;
                let mut lengths = [0u8; 19];
                for place in &ORDER[..given] {
                    lengths[*place] = bits.take(3)? as u8;
                }
                let code = Code::of(&lengths);
                let mut all = Vec::with_capacity(literals + distances);
                while all.len() < literals + distances {
                    let (length, times) = match code.next(&mut bits)? {
                        16 => (*all.last()?, 3 + bits.take(2)?),
                        17 => (0, 3 + bits.take(3)?),
                        18 => (0, 11 + bits.take(7)?),
                        length => (length as u8, 1),
                    };
                    all.extend(std::iter::repeat_n(length, times as usize));
                }
                let (literal, distance) = (all.get(..literals)?, all.get(literals..literals + distances)?);
                block(&mut bits, &Code::of(literal), &Code::of(distance), &mut out)?;
            }
            _ => return None,
        }
        if last {
            break;
        }
    }
    let tail = file.get(bits.at..bits.at + 8)?;
    let stated = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
    (crc(&out) == stated).then_some(out)
}

fn block(bits: &mut Bits<'_>, literals: &Code, distances: &Code, out: &mut Vec<u8>) -> Option<()> {
    loop {
        let symbol = usize::from(literals.next(bits)?);
        match symbol {
            0..256 => out.push(symbol as u8),
            256 => return Some(()),
            _ => {
                let (length, more) = *LENGTHS.get(symbol - 257)?;
                let length = usize::from(length) + bits.take(more)? as usize;
                let (back, more) = *DISTANCES.get(usize::from(distances.next(bits)?))?;
                let back = usize::from(back) + bits.take(more)? as usize;
                let from = out.len().checked_sub(back)?;
                for i in from..from + length {
                    out.push(out[i]);
                }
            }
        }
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let table: Vec<u32> =
        (0..256u32).map(|n| (0..8).fold(n, |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })).collect();
    !bytes.iter().fold(!0, |c: u32, b| table[((c ^ u32::from(*b)) & 0xff) as usize] ^ (c >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gzip_packed_is_unpacked() {
        // printf 'aaaaaaaaaabbbbbbbbbb\n' | gzip -n
        let packed = [
            0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 0x4c, 0x84, 0x81, 0x24, 0x38, 0xe0, 0x02, 0, 0x1c, 0x30, 0xf8,
            0x40, 0x15, 0, 0, 0,
        ];
        match unpack(&packed) {
            Some(text) => assert_eq!(text, b"aaaaaaaaaabbbbbbbbbb\n"),
            None => panic!("refused"),
        }
        for n in 0..packed.len() - 4 {
            assert!(unpack(&packed[..n]).is_none(), "{n} bytes");
        }
    }
}

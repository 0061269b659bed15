//! The devices a lane knows, numbered in the order of their first admitted row, and forgotten when they are idle for long.
//!
//! # Eviction
//!
//! With a time to live, a device whose last row is older than it is forgotten: its number, its name, and all that row
//! functions keep of it. Age is measured by the watermark, never by the clock, and devices are looked through at
//! the first row (or tick) at which the watermark has passed a multiple of an eighth of the time to live. So which device
//! is evicted, and at which row, is a function of the input alone. A time to live is at least as long as the longest
//! window (planning checks that), so all windows with rows of an evicted device are closed by then.
//!
//! A device that comes back is a new one with a new number, but for one thing: `seq` stays gapless. Of a device that had
//! verdicts, 40 bytes are kept for ever, its pseudonym and the `seq` of its next verdict; `seq` would otherwise begin again
//! at 0, and an auditor could not tell a forgetful lane from an omission. Each eviction is recorded as a
//! [`LaneEvent::Evicted`], which explains why what row functions remembered begins anew there.

use std::collections::HashMap;

use hashbrown::HashTable;

use crate::codec::{CodecError, Reader, Writer};
use crate::event::LaneEvent;
use crate::verdict::{Hash32, Secret};

/// A device's number in its lane: from 0 in the order of first rows, never given twice.
pub type DeviceNumber = u32;

/// How many times in a time to live devices are looked through.
const SWEEPS: i64 = 8;

#[derive(Debug)]
struct Entry {
    number: DeviceNumber,
    name: Box<str>,
    id: Hash32,
    next_seq: u64,
    /// Highest event time of its rows.
    last_time: i64,
    /// While an evicted namesake of this step may still get verdicts: its number. `next_seq` follows on its.
    after: Option<DeviceNumber>,
}

/// A device evicted in this step; its entry stays until the step's verdicts are made.
#[derive(Debug)]
struct Leaving {
    number: DeviceNumber,
    offset: i64,
    watermark: i64,
    /// It came back within the step, so its `seq` goes to its successor.
    came_back: bool,
}

/// What is kept of each device. Numbers depend only on the order of rows, so they are the same after any restart; places
/// are where a device's memory lies in this process, and are given again once they are free.
#[derive(Debug)]
pub struct DeviceTable {
    /// Places, by name.
    index: HashTable<u32>,
    hasher: ahash::RandomState,
    /// By number: place plus one, or 0 once the device is gone.
    places: Vec<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    ttl: Option<i64>,
    /// The watermark at which devices are next looked through.
    next_sweep: i64,
    leaving: Vec<Leaving>,
    /// Indices into `leaving`, by name.
    leaving_index: HashTable<u32>,
    returned: Vec<DeviceNumber>,
    /// The next `seq` of evicted devices, by pseudonym.
    retained: HashMap<Hash32, u64, ahash::RandomState>,
    secret: Secret,
}

fn hasher() -> ahash::RandomState {
    // Fixed keys: only lookups use the hash, but a lane must not depend on randomness at all.
    ahash::RandomState::with_seeds(0x61766f, 0x756368, 0x6c616e, 0x657331)
}

impl DeviceTable {
    /// An empty table; pseudonyms are made under `secret`. Devices idle for longer than `ttl_ms` are evicted.
    pub fn new(secret: Secret, ttl_ms: Option<i64>) -> Self {
        Self {
            index: HashTable::new(),
            hasher: hasher(),
            places: Vec::new(),
            entries: Vec::new(),
            free: Vec::new(),
            ttl: ttl_ms,
            next_sweep: if ttl_ms.is_some() { i64::MIN } else { i64::MAX },
            leaving: Vec::new(),
            leaving_index: HashTable::new(),
            returned: Vec::new(),
            retained: HashMap::with_hasher(hasher()),
            secret,
        }
    }

    /// How many devices there are, without evicted ones.
    pub fn live(&self) -> usize {
        self.index.len()
    }

    /// How many numbers were given: all numbers are below this.
    pub fn numbers(&self) -> usize {
        self.places.len()
    }

    /// How many places there are: all places are below this.
    pub fn places(&self) -> usize {
        self.entries.len()
    }

    /// The number of the device of a row, which gets one if it is new. `name` must be UTF-8 (decoders guarantee it);
    /// `offset`, `time` and `watermark` (after it) are the row's.
    #[inline]
    pub fn number(&mut self, name: &[u8], offset: i64, time: i64, watermark: i64) -> DeviceNumber {
        if watermark >= self.next_sweep {
            self.sweep(offset, watermark);
        }
        let hash = self.hasher.hash_one(name);
        let entries = &self.entries;
        if let Some(&place) = self.index.find(hash, |&p| entries[p as usize].name.as_bytes() == name) {
            let entry = &mut self.entries[place as usize];
            entry.last_time = entry.last_time.max(time);
            return entry.number;
        }
        self.insert(hash, &String::from_utf8_lossy(name), time)
    }

    /// [`DeviceTable::number`] for a row of the device that the row before it was of: `true` if it still has its number.
    #[inline]
    pub fn seen_again(&mut self, n: DeviceNumber, time: i64, watermark: i64) -> bool {
        if watermark >= self.next_sweep {
            return false;
        }
        let place = self.place(n);
        let entry = &mut self.entries[place];
        entry.last_time = entry.last_time.max(time);
        true
    }

    #[cold]
    fn insert(&mut self, hash: u64, name: &str, last_time: i64) -> DeviceNumber {
        let number = self.places.len() as DeviceNumber;
        let (places, entries, leaving) = (&self.places, &self.entries, &mut self.leaving);
        let namesake = self.leaving_index.find(hash, |&l| {
            let place = places[leaving[l as usize].number as usize];
            &*entries[place as usize - 1].name == name
        });
        let after = namesake.map(|&l| {
            leaving[l as usize].came_back = true;
            leaving[l as usize].number
        });
        let id = match after {
            Some(before) => *self.id(before),
            None => self.secret.device_id(name),
        };
        if after.is_some() {
            self.returned.push(number);
        }
        let next_seq = if self.retained.is_empty() { 0 } else { self.retained.remove(&id).unwrap_or(0) };
        self.put(hash, Entry { number, name: name.into(), id, next_seq, last_time, after });
        number
    }

    fn put(&mut self, hash: u64, entry: Entry) {
        let number = entry.number as usize;
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place as usize] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.places.resize(number + 1, 0);
        self.places[number] = place + 1;
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index.insert_unique(hash, place, |&p| hasher.hash_one(entries[p as usize].name.as_bytes()));
    }

    /// Time went on without a row (or with one, which does the same by itself).
    pub fn advance(&mut self, offset: i64, watermark: i64) {
        if watermark >= self.next_sweep {
            self.sweep(offset, watermark);
        }
    }

    #[cold]
    fn sweep(&mut self, offset: i64, watermark: i64) {
        let Some(ttl) = self.ttl else { return };
        let grid = (ttl / SWEEPS).max(1);
        self.next_sweep = (watermark.div_euclid(grid) + 1).saturating_mul(grid);
        let old = |e: &&Entry| e.last_time.saturating_add(ttl) <= watermark && !e.name.is_empty();
        let mut numbers: Vec<DeviceNumber> = self.entries.iter().filter(old).map(|e| e.number).collect();
        numbers.sort_unstable();
        for number in numbers {
            let place = self.place(number);
            let hash = self.hasher.hash_one(self.entries[place].name.as_bytes());
            // Not in the index: it is leaving already, in this same step.
            let Ok(found) = self.index.find_entry(hash, |&p| p as usize == place) else { continue };
            found.remove();
            let at = self.leaving.len() as u32;
            self.leaving.push(Leaving { number, offset, watermark, came_back: false });
            let (places, entries, leaving, hasher) = (&self.places, &self.entries, &self.leaving, &self.hasher);
            let name = |l: u32| &entries[places[leaving[l as usize].number as usize] as usize - 1].name;
            // A namesake that left earlier in this step has this one as successor and is not asked for any more.
            if let Ok(earlier) = self.leaving_index.find_entry(hash, |&l| name(l) == name(at)) {
                earlier.remove();
            }
            self.leaving_index.insert_unique(hash, at, |&l| hasher.hash_one(name(l).as_bytes()));
        }
    }

    /// Ends a step whose verdicts are made: what was evicted in it goes. `freed` gets the places that are free now, and
    /// `events` what is to be recorded.
    pub fn finish_step(&mut self, freed: &mut Vec<usize>, events: &mut Vec<LaneEvent>) {
        for number in std::mem::take(&mut self.returned) {
            self.resolve(number);
        }
        for l in std::mem::take(&mut self.leaving) {
            let place = self.place(l.number);
            let entry = &mut self.entries[place];
            if !l.came_back && entry.next_seq > 0 {
                self.retained.insert(entry.id, entry.next_seq);
            }
            events.push(LaneEvent::Evicted {
                after_offset: l.offset,
                watermark_ms: l.watermark,
                device_id: entry.id,
                next_seq: entry.next_seq,
            });
            entry.name = "".into();
            self.places[l.number as usize] = 0;
            self.free.push(place as u32);
            freed.push(place);
        }
        self.leaving_index.clear();
    }

    /// The device's next `seq`, following on that of an evicted namesake. All verdicts of the namesake come before the
    /// first of its successor, because its windows are closed when it leaves.
    fn resolve(&mut self, n: DeviceNumber) -> u64 {
        // Not by recursion: a device can leave and come back at every row of a batch.
        let mut chain = vec![self.place(n)];
        while let Some(before) = self.entries[chain[chain.len() - 1]].after.take() {
            chain.push(self.place(before));
        }
        for pair in (1..chain.len()).rev() {
            self.entries[chain[pair - 1]].next_seq = self.entries[chain[pair]].next_seq;
        }
        self.entries[chain[0]].next_seq
    }

    /// Where the memory of a device lies, until it is evicted.
    #[inline]
    pub fn place(&self, n: DeviceNumber) -> usize {
        // Invariant: 0 only for devices that are gone, and nothing refers to them any more.
        self.places[n as usize] as usize - 1
    }

    /// The number of the device at a place, `None` where there is none.
    pub fn at_place(&self, place: usize) -> Option<DeviceNumber> {
        self.entries.get(place).filter(|e| !e.name.is_empty()).map(|e| e.number)
    }

    /// Whether a number is of a device that is still there.
    pub fn is_live(&self, n: DeviceNumber) -> bool {
        self.places.get(n as usize).is_some_and(|&p| p > 0)
    }

    /// Its name.
    pub fn name(&self, n: DeviceNumber) -> &str {
        &self.entries[self.place(n)].name
    }

    /// Its pseudonym.
    pub fn id(&self, n: DeviceNumber) -> &Hash32 {
        &self.entries[self.place(n)].id
    }

    /// Takes the device's next sequence number: gapless, from 0.
    pub fn take_seq(&mut self, n: DeviceNumber) -> u64 {
        let place = self.place(n);
        let seq = match self.entries[place].after {
            None => self.entries[place].next_seq,
            Some(_) => self.resolve(n),
        };
        self.entries[place].next_seq += 1;
        seq
    }

    /// The pseudonym of a device, known or not, and its next sequence number, which is taken. Between steps.
    pub fn take_seq_of(&mut self, name: &str) -> (Hash32, u64) {
        let hash = self.hasher.hash_one(name.as_bytes());
        let entries = &self.entries;
        if let Some(&place) = self.index.find(hash, |&p| &*entries[p as usize].name == name) {
            let number = self.entries[place as usize].number;
            return (*self.id(number), self.take_seq(number));
        }
        // One that is not there has its numbers kept, as after an eviction.
        let id = self.secret.device_id(name);
        let next = self.retained.entry(id).or_insert(0);
        *next += 1;
        (id, *next - 1)
    }

    /// Writes the table into a snapshot, which is made between steps. The secret is not part of it.
    pub fn snapshot(&self, w: &mut Writer) {
        // Names only grow in number while sequences change with every window: apart, so that names are stored once.
        w.part("names", self.live());
        // One bit a number ever given, set while its device is there.
        let mut live = vec![0u8; self.places.len().div_ceil(8)];
        for (n, _) in self.places.iter().enumerate().filter(|(_, p)| **p > 0) {
            live[n / 8] |= 1 << (n % 8);
        }
        let there = || self.places.iter().filter(|&&p| p > 0).map(|&p| &self.entries[p as usize - 1]);
        w.u32(self.places.len() as u32);
        w.bytes(&live);
        for e in there() {
            w.str(&e.name);
        }
        w.part("sequences", self.live());
        w.i64(self.next_sweep);
        for e in there() {
            w.u64(e.next_seq);
            w.i64(e.last_time);
        }
        w.part("evicted", self.retained.len());
        let mut retained: Vec<_> = self.retained.iter().collect();
        retained.sort_unstable();
        w.u32(retained.len() as u32);
        for (id, seq) in retained {
            w.raw(id);
            w.u64(*seq);
        }
    }

    /// After [`DeviceTable::restore`] of what was kept under another time to live: devices are looked through at the next row.
    pub fn time_to_live_changed(&mut self) {
        self.next_sweep = if self.ttl.is_some() { i64::MIN } else { i64::MAX };
    }

    /// Reads what [`DeviceTable::snapshot`] wrote, into a table of the same time to live.
    pub fn restore(secret: Secret, ttl_ms: Option<i64>, r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut table = Self::new(secret, ttl_ms);
        let numbers = r.u32()?;
        let live = r.bytes()?;
        if live.len() != (numbers as usize).div_ceil(8) {
            return Err(r.invalid(format!("{} bytes of bits for {numbers} device numbers", live.len())));
        }
        for number in (0..numbers).filter(|n| live[*n as usize / 8] >> (n % 8) & 1 == 1) {
            let name = r.str()?;
            if name.is_empty() {
                return Err(r.invalid("a device without a name"));
            }
            let hash = table.hasher.hash_one(name.as_bytes());
            let entries = &table.entries;
            if table.index.find(hash, |&p| &*entries[p as usize].name == name).is_some() {
                return Err(r.invalid(format!("device \"{name}\" stands twice")));
            }
            let id = table.secret.device_id(name);
            table.put(hash, Entry { number, name: name.into(), id, next_seq: 0, last_time: 0, after: None });
        }
        table.places.resize(numbers as usize, 0);
        table.next_sweep = r.i64()?;
        for place in table.places.iter().filter(|&&p| p > 0) {
            let e = &mut table.entries[*place as usize - 1];
            (e.next_seq, e.last_time) = (r.counted()?, r.milliseconds()?);
        }
        for _ in 0..r.count(40)? {
            let id = r.array()?;
            let seq = r.counted()?;
            if table.retained.insert(id, seq).is_some() {
                return Err(r.invalid("an evicted device stands twice"));
            }
        }
        Ok(table)
    }
}

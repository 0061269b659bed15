//! The devices a lane has seen, numbered in the order of their first admitted row.

use hashbrown::HashTable;

use crate::codec::{CodecError, Reader, Writer};
use crate::verdict::{Hash32, Secret};

/// A device's number in its lane: dense, from 0, stable for the life of the lane's state.
pub type DeviceNumber = u32;

/// What is kept of each device. The numbers depend only on row order, so they are the same after any restart.
#[derive(Debug)]
pub struct DeviceTable {
    index: HashTable<DeviceNumber>,
    hasher: ahash::RandomState,
    names: Vec<Box<str>>,
    ids: Vec<Hash32>,
    next_seq: Vec<u64>,
    secret: Secret,
}

impl DeviceTable {
    /// An empty table; pseudonyms are made under `secret`.
    pub fn new(secret: Secret) -> Self {
        Self {
            index: HashTable::new(),
            // Fixed keys: only lookups use the hash, but a lane must not depend on randomness at all.
            hasher: ahash::RandomState::with_seeds(0x61766f, 0x756368, 0x6c616e, 0x657331),
            names: Vec::new(),
            ids: Vec::new(),
            next_seq: Vec::new(),
            secret,
        }
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no device was seen yet.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The number of a device, which gets one if it is new. `name` must be UTF-8 (decoders guarantee it).
    #[inline]
    pub fn number(&mut self, name: &[u8]) -> DeviceNumber {
        let hash = self.hasher.hash_one(name);
        let names = &self.names;
        if let Some(n) = self.index.find(hash, |&n| names[n as usize].as_bytes() == name) {
            return *n;
        }
        self.insert(hash, &String::from_utf8_lossy(name))
    }

    #[cold]
    fn insert(&mut self, hash: u64, name: &str) -> DeviceNumber {
        let n = self.names.len() as DeviceNumber;
        self.names.push(name.into());
        self.ids.push(self.secret.device_id(name));
        self.next_seq.push(0);
        let (names, hasher) = (&self.names, &self.hasher);
        self.index.insert_unique(hash, n, |&m| hasher.hash_one(names[m as usize].as_bytes()));
        n
    }

    /// Its name.
    pub fn name(&self, n: DeviceNumber) -> &str {
        &self.names[n as usize]
    }

    /// Its pseudonym.
    pub fn id(&self, n: DeviceNumber) -> &Hash32 {
        &self.ids[n as usize]
    }

    /// Takes the device's next sequence number: gapless, from 0.
    pub fn take_seq(&mut self, n: DeviceNumber) -> u64 {
        let seq = self.next_seq[n as usize];
        self.next_seq[n as usize] += 1;
        seq
    }

    /// Writes the table into a snapshot. The secret is not part of it.
    pub fn snapshot(&self, w: &mut Writer) {
        // Names only grow in number while sequences change with every window: apart, so that names are stored once.
        w.part("names", self.names.len());
        w.u32(self.names.len() as u32);
        for name in &self.names {
            w.str(name);
        }
        w.part("sequences", self.names.len());
        for seq in &self.next_seq {
            w.u64(*seq);
        }
    }

    /// Reads what [`DeviceTable::snapshot`] wrote.
    pub fn restore(secret: Secret, r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut table = Self::new(secret);
        for _ in 0..r.count(12)? {
            let name = r.str()?;
            let before = table.len();
            let n = table.number(name.as_bytes());
            if n as usize != before {
                return Err(r.invalid(format!("device \"{name}\" stands twice")));
            }
        }
        for seq in &mut table.next_seq {
            *seq = r.u64()?;
        }
        Ok(table)
    }
}

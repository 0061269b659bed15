//! The keys of records, in a tree from which single ones can be taken for good.
//!
//! A tree of Goldreich, Goldwasser and Micali (1986): from a node's seed follow the seeds of its two children, by
//! `SHA-256("avouch/tree/1\0" ‖ seed ‖ bit)`, and nothing leads back up. A record's key is the leaf at the end of a path of
//! 192 bits: the first 128 of the log's id, then the 64 of the record's index. (Two logs meet only where someone has looked for
//! two names whose SHA-256 agree in 128 bits, which takes 2^64 of them, and gains him salts that his two logs share.)
//!
//! To take a leaf away ("puncturing", Boneh and Waters 2013; Kiayias and others 2013; Boyle, Goldwasser and Ivan 2014), the seeds
//! above it are given up, and the seeds beside its path kept in their place: all other leaves still follow, that one does not.
//! The seeds kept are those of the largest subtrees in which nothing was taken, so they depend on what was taken and not on the order.
//!
//! What that costs: 128 seeds of 32 bytes for the first record of a log (its siblings for the logs to come), up to 64 for each end of
//! a run of records, and for records strewn evenly, one in `n`, some log2(n) seeds each.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Hash32;
use crate::sha256::Messages;

const CHILD: &[u8] = b"avouch/tree/1\0";
const SALT: &[u8] = b"avouch/salt/2\0";
const EVIDENCE: &[u8] = b"avouch/evidence/1\0";

/// Levels above a log's own tree, and in all.
const LOG_LEVELS: u32 = 128;
const LEVELS: u32 = LOG_LEVELS + 64;
/// The leaves below a node of the last ten levels are made together.
const BLOCK_LEVELS: u32 = 10;
/// Where less than half as many records are asked for, so many are made and kept: side by side they cost little more than one.
const FEW: u64 = 32;

/// What blinds a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSalts {
    /// [`super::Verdict::salt`].
    pub salt: Hash32,
    /// What the salts of the parts of its evidence are made from.
    pub evidence: Hash32,
}

impl RecordSalts {
    /// What stands in the place of salts that are gone.
    pub const GONE: Self = Self { salt: [0; 32], evidence: [0; 32] };
}

/// A place in the tree: of a leaf, or of the first leaf below a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The first 128 bits of the log's id.
    pub log: u128,
    /// The record's index.
    pub index: u64,
}

impl Place {
    pub fn new(log_id: &Hash32, index: u64) -> Self {
        let mut log = [0; 16];
        log.copy_from_slice(&log_id[..16]);
        Self { log: u128::from_be_bytes(log), index }
    }

    /// The bit that the path takes at this depth.
    fn bit(self, depth: u32) -> u8 {
        let bit = match depth.checked_sub(LOG_LEVELS) {
            None => (self.log >> (LOG_LEVELS - 1 - depth)) as u8,
            Some(below) => (self.index >> (63 - below)) as u8,
        };
        bit & 1
    }

    /// This place with the bit at this depth set.
    fn with_bit(self, depth: u32) -> Self {
        match depth.checked_sub(LOG_LEVELS) {
            None => Self { log: self.log | (1 << (LOG_LEVELS - 1 - depth)), ..self },
            Some(below) => Self { index: self.index | (1 << (63 - below)), ..self },
        }
    }

    /// The last leaf below a node at this depth that begins here.
    fn last_below(self, depth: u32) -> Self {
        let low = |bits: u32, width: u32| if bits == 0 { 0 } else { u128::MAX >> (128 - bits.min(width)) };
        let index = self.index | low(LEVELS - depth, 64) as u64;
        let log = self.log | low(LOG_LEVELS.saturating_sub(depth), 128);
        Self { log, index }
    }
}

/// A subtree that is still whole.
#[derive(Clone, PartialEq, Eq)]
struct Node {
    start: Place,
    depth: u32,
    seed: Hash32,
}

impl Node {
    fn last(&self) -> Place {
        self.start.last_below(self.depth)
    }

    fn covers(&self, place: Place) -> bool {
        (self.start..=self.last()).contains(&place)
    }

    /// The node below it on the way to a place.
    fn towards(&self, place: Place) -> Self {
        let bit = place.bit(self.depth);
        let start = if bit == 1 { self.start.with_bit(self.depth) } else { self.start };
        let mut one = Messages::default();
        child(&self.seed, bit, &mut one);
        let seed = one.digests().first().copied().unwrap_or_default();
        Self { start, depth: self.depth + 1, seed }
    }

    /// The node at a depth on the way to a place, which is this one if it is as deep.
    fn down_to(&self, place: Place, depth: u32) -> Self {
        let mut node = self.clone();
        while node.depth < depth {
            node = node.towards(place);
        }
        node
    }
}

fn child(seed: &Hash32, bit: u8, out: &mut Messages) {
    out.bytes.extend_from_slice(CHILD);
    out.bytes.extend_from_slice(seed);
    out.bytes.push(bit);
    out.end();
}

/// Records of one log that were taken: from `first` to `last`, both among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hole {
    pub log: u128,
    pub first: u64,
    pub last: u64,
}

impl Hole {
    fn begins(&self) -> Place {
        Place { log: self.log, index: self.first }
    }
    fn ends(&self) -> Place {
        Place { log: self.log, index: self.last }
    }
    /// Whether the two are one, together.
    pub fn meets(&self, next: &Hole) -> bool {
        self.log == next.log && next.first <= self.last.saturating_add(1)
    }
}

/// Holes in order, none meeting the next.
pub(super) fn merged(mut holes: Vec<Hole>) -> Vec<Hole> {
    holes.sort_unstable();
    let mut out: Vec<Hole> = Vec::with_capacity(holes.len());
    for hole in holes {
        match out.last_mut() {
            Some(before) if before.meets(&hole) => before.last = before.last.max(hole.last),
            _ => out.push(hole),
        }
    }
    out
}

/// What a node becomes where these holes, all of them within it, are taken from it: calls `keep` for each subtree that stays.
fn carve(node: &Node, holes: &[Hole], keep: &mut impl FnMut(Node)) {
    let (Some(first), last) = (holes.first(), node.last()) else {
        keep(node.clone());
        return;
    };
    if first.begins() <= node.start && last <= first.ends() {
        return;
    }
    for bit in [0, 1] {
        let way = if bit == 0 { node.start } else { node.start.with_bit(node.depth) };
        let end = way.last_below(node.depth + 1);
        let begin = holes.partition_point(|h| h.ends() < way);
        let behind = holes.partition_point(|h| h.begins() <= end);
        carve(&node.towards(way), &holes[begin..behind.max(begin)], keep);
    }
}

/// Where the subtrees stand that are left by these holes: depth and first leaf of each, in order.
fn left_by(holes: &[Hole], start: Place, depth: u32, out: &mut Vec<(Place, u32)>) {
    let Some(first) = holes.first() else {
        out.push((start, depth));
        return;
    };
    if first.begins() <= start && start.last_below(depth) <= first.ends() {
        return;
    }
    for way in [start, start.with_bit(depth)] {
        let end = way.last_below(depth + 1);
        let begin = holes.partition_point(|h| h.ends() < way);
        let behind = holes.partition_point(|h| h.begins() <= end);
        left_by(&holes[begin..behind.max(begin)], way, depth + 1, out);
    }
}

const TOP: Place = Place { log: 0, index: 0 };

/// The tree, or what is left of it.
#[derive(Clone)]
pub(super) struct SaltTree {
    holes: Vec<Hole>,
    /// In the order of their places; none overlaps another.
    nodes: Vec<Node>,
}

impl SaltTree {
    pub fn whole(seed: Hash32) -> Self {
        Self { holes: Vec::new(), nodes: vec![Node { start: TOP, depth: 0, seed }] }
    }

    /// From what [`SaltTree::holes`] and [`SaltTree::seeds`] gave; `None` if there is another number of seeds.
    pub fn from_parts(holes: Vec<Hole>, seeds: &[Hash32]) -> Option<Self> {
        let mut places = Vec::new();
        left_by(&holes, TOP, 0, &mut places);
        let nodes = places.iter().zip(seeds).map(|(&(start, depth), &seed)| Node { start, depth, seed });
        (places.len() == seeds.len()).then(|| Self { nodes: nodes.collect(), holes })
    }

    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    pub fn seeds(&self) -> impl ExactSizeIterator<Item = &Hash32> {
        self.nodes.iter().map(|n| &n.seed)
    }

    /// The whole subtree that a leaf is in.
    fn node_of(&self, place: Place) -> Option<&Node> {
        let before = self.nodes.partition_point(|n| n.start <= place);
        self.nodes[..before].last().filter(|n| n.covers(place))
    }

    pub fn has(&self, place: Place) -> bool {
        self.node_of(place).is_some()
    }

    /// The last hole's last index of a log, if it has a hole at all.
    pub fn last_gone(&self, log: u128) -> Option<u64> {
        let behind = self.holes.partition_point(|h| h.log <= log);
        self.holes[..behind].last().filter(|h| h.log == log).map(|h| h.last)
    }

    /// Takes leaves away.
    pub fn puncture(&mut self, more: Vec<Hole>) {
        let holes = merged(self.holes.iter().copied().chain(more).collect());
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for node in &mut self.nodes {
            let (start, last) = (node.start, node.last());
            let begin = holes.partition_point(|h| h.ends() < start);
            let behind = holes.partition_point(|h| h.begins() <= last);
            carve(node, &holes[begin..behind.max(begin)], &mut |n| nodes.push(n));
            // As far as that goes: the compiler and the allocator may have copies.
            node.seed = [0; 32];
        }
        *self = Self { holes, nodes };
    }

    /// The salts of the records `[first, first + count)` of a log; [`RecordSalts::GONE`] for those that were taken.
    pub fn salts(&self, log: u128, first: u64, count: usize, recent: &Recent) -> Vec<RecordSalts> {
        let mut out = vec![RecordSalts::GONE; count];
        let mut done = 0;
        while done < count {
            let from = Place { log, index: first + done as u64 };
            // A block at a time, so that a large count needs no room of its own.
            let block = from.last_below(LEVELS - BLOCK_LEVELS).index - from.index + 1;
            let n = usize::try_from(block).unwrap_or(usize::MAX).min(count - done);
            self.block(from, n, recent, &mut out[done..done + n]);
            done += n;
        }
        out
    }

    /// Of records that are within one block.
    fn block(&self, from: Place, n: usize, recent: &Recent, out: &mut [RecordSalts]) {
        let last = Place { index: from.index + (n as u64 - 1), ..from };
        if let Some(block) = self.whole_block(from, recent) {
            let first = from.index - from.index % FEW;
            if 2 * n as u64 <= FEW && last.index - first < FEW {
                out.copy_from_slice(&recent.few(&block, first)[(from.index - first) as usize..][..n]);
            } else {
                fill(&block, from.index, last.index, out);
            }
            return;
        }
        // Something of the block was taken.
        let begin = self.nodes.partition_point(|n| n.last() < from);
        for node in self.nodes[begin..].iter().take_while(|n| n.start <= last) {
            let (a, b) = (node.start.index.max(from.index), node.last().index.min(last.index));
            let at = (a - from.index) as usize;
            fill(node, a, b, &mut out[at..=at + (b - a) as usize]);
        }
    }

    /// The node of the block that a place is in, if nothing of it was taken.
    fn whole_block(&self, place: Place, recent: &Recent) -> Option<Node> {
        let top = LEVELS - BLOCK_LEVELS;
        if let Some(block) = recent.block(place) {
            return Some(block);
        }
        let node = self.node_of(place).filter(|n| n.depth <= top)?;
        let above = recent.log(place).unwrap_or_else(|| node.down_to(place, node.depth.max(LOG_LEVELS)));
        let block = above.down_to(place, top);
        recent.keep(above, block.clone());
        Some(block)
    }
}

/// The salts of the leaves from index `a` to index `b` of a node within a block, level by level, many hashes side by side.
fn fill(node: &Node, a: u64, b: u64, out: &mut [RecordSalts]) {
    let mut seeds = vec![node.seed];
    let mut messages = Messages::default();
    // Of the nodes of a level, those above `a` and `b` and all between.
    let above = |index: u64, depth: u32| index >> (LEVELS - depth);
    let mut before = above(a, node.depth);
    for depth in node.depth + 1..=LEVELS {
        messages.clear();
        let (from, to) = (above(a, depth), above(b, depth));
        for at in from..=to {
            child(&seeds[((at >> 1) - before) as usize], (at & 1) as u8, &mut messages);
        }
        seeds = messages.digests();
        before = from;
    }
    for (tag, is_salt) in [(SALT, true), (EVIDENCE, false)] {
        messages.clear();
        for key in &seeds {
            messages.bytes.extend_from_slice(tag);
            messages.bytes.extend_from_slice(key);
            messages.end();
        }
        for (salts, hash) in out.iter_mut().zip(messages.digests()) {
            *(if is_salt { &mut salts.salt } else { &mut salts.evidence }) = hash;
        }
    }
}

/// What was used last, so that a lane that goes on from index to index need not come from the top each time. What comes out is
/// the same without it.
#[derive(Default)]
pub(super) struct Recent(Mutex<Option<Used>>);

struct Used {
    /// Within one log.
    above: Node,
    block: Node,
    /// The salts of so many records from an index of the block on.
    few: Option<(u64, Vec<RecordSalts>)>,
}

impl Recent {
    fn used(&self) -> MutexGuard<'_, Option<Used>> {
        // A panic of another user leaves the value whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn block(&self, place: Place) -> Option<Node> {
        self.used().as_ref().map(|u| &u.block).filter(|n| n.covers(place)).cloned()
    }
    fn log(&self, place: Place) -> Option<Node> {
        self.used().as_ref().map(|u| &u.above).filter(|n| n.covers(place)).cloned()
    }
    fn keep(&self, above: Node, block: Node) {
        *self.used() = Some(Used { above, block, few: None });
    }

    /// The salts of [`FEW`] records from `first` on, of a block that was just used.
    fn few(&self, block: &Node, first: u64) -> Vec<RecordSalts> {
        let mut used = self.used();
        let held = used.as_ref().filter(|u| u.block.start == block.start).and_then(|u| u.few.as_ref());
        if let Some((_, few)) = held.filter(|(from, _)| *from == first) {
            return few.clone();
        }
        let mut few = vec![RecordSalts::GONE; FEW as usize];
        fill(block, first, first + (FEW - 1), &mut few);
        if let Some(used) = used.as_mut().filter(|u| u.block.start == block.start) {
            used.few = Some((first, few.clone()));
        }
        few
    }
}

//! A chain with one contract: a head a lane, blocks that come, and blocks that a reorganisation takes away again.

use std::collections::BTreeMap;

use avouch_engine::control::Head;
use avouch_engine::control::invariants;

use super::lanes::Truth;
use super::random::Random;

/// Blocks below the newest that no reorganisation reaches.
const FINAL_AFTER: usize = 4;

/// A signed checkpoint in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// The same when it is sent again.
    pub id: u64,
    pub lane: usize,
    pub old: Head,
    pub new: Head,
}

#[derive(Clone, Default)]
struct Block {
    heads: Vec<Head>,
    included: Vec<Transaction>,
}

/// The chain and its pool of transactions.
pub struct Chain {
    blocks: Vec<Block>,
    pool: BTreeMap<u64, Transaction>,
}

impl Chain {
    pub fn new(lanes: usize) -> Self {
        Self {
            blocks: vec![Block { heads: vec![Head::default(); lanes], included: Vec::new() }],
            pool: BTreeMap::new(),
        }
    }

    pub fn send(&mut self, transaction: Transaction) {
        let there = |b: &Block| b.included.iter().any(|t| t.id == transaction.id);
        if !self.blocks.iter().any(there) {
            self.pool.insert(transaction.id, transaction);
        }
    }

    pub fn head(&self, lane: usize) -> Head {
        self.blocks.last().map_or_else(Head::default, |b| b.heads[lane])
    }

    /// The size that no reorganisation takes back.
    pub fn final_size(&self, lane: usize) -> u64 {
        self.blocks[self.blocks.len().saturating_sub(FINAL_AFTER + 1)].heads[lane].size
    }

    /// The root the contract remembers for a size.
    pub fn root_at(&self, lane: usize, size: u64) -> Option<[u8; 32]> {
        self.blocks.iter().rev().map(|b| b.heads[lane]).find(|h| h.size == size && size > 0).map(|h| h.root)
    }

    /// A block with some of the pool, in any order. The contract takes what begins at its head.
    pub fn mine(&mut self, random: &mut Random, truth: &[Truth]) -> Result<(), String> {
        let mut block = Block { heads: self.blocks[self.blocks.len() - 1].heads.clone(), included: Vec::new() };
        let mut waiting: Vec<Transaction> = self.pool.values().copied().collect();
        while !waiting.is_empty() {
            let t = waiting.swap_remove(random.below(waiting.len()));
            if random.one_in(4) {
                continue;
            }
            self.pool.remove(&t.id);
            let head = &mut block.heads[t.lane];
            // Else it reverts: the chain is elsewhere. The same bytes can be sent again.
            if *head == t.old {
                invariants::same_root(t.new.size, &truth[t.lane].head(t.new.size as usize).root, &t.new.root)
                    .map_err(|v| format!("anchored: {v}"))?;
                *head = t.new;
                block.included.push(t);
            }
        }
        self.blocks.push(block);
        Ok(())
    }

    /// Another branch wins: some blocks that are not final go, and what was in them may be lost or waits again.
    pub fn reorganise(&mut self, random: &mut Random) {
        let loose = FINAL_AFTER.min(self.blocks.len() - 1);
        if loose == 0 {
            return;
        }
        for _ in 0..1 + random.below(loose) {
            for t in self.blocks.pop().map(|b| b.included).unwrap_or_default() {
                if random.one_in(2) {
                    self.pool.insert(t.id, t);
                }
            }
        }
    }

    /// A node forgets a transaction.
    pub fn lose_one(&mut self, random: &mut Random) {
        if !self.pool.is_empty() {
            let n = random.below(self.pool.len());
            let id = self.pool.keys().nth(n).copied();
            id.and_then(|id| self.pool.remove(&id));
        }
    }
}

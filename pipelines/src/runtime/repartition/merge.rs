//! Which partition's record comes next: the one with the smallest timestamp of those that are at hand.
//!
//! What is read of several partitions at once would otherwise run ahead in one of them, by as much as fits into a fetch,
//! and the watermark of a lane with it: everything of the others would be late.

use std::collections::{BTreeMap, BTreeSet};

/// The first record at hand of each partition, by timestamp. Order within a partition is whatever it is: only first
/// records are compared.
#[derive(Debug, Default)]
pub struct Merge {
    heads: BTreeMap<i32, i64>,
    order: BTreeSet<(i64, i32)>,
}

impl Merge {
    /// Says what the first record of a partition is now: its timestamp, or that there is none.
    pub fn set(&mut self, partition: i32, timestamp: Option<i64>) {
        let before = match timestamp {
            Some(t) => self.heads.insert(partition, t),
            None => self.heads.remove(&partition),
        };
        if before != timestamp {
            if let Some(t) = before {
                self.order.remove(&(t, partition));
            }
            if let Some(t) = timestamp {
                self.order.insert((t, partition));
            }
        }
    }

    /// The partition whose record comes next; of equals the one with the lowest number.
    pub fn next(&self) -> Option<i32> {
        self.order.first().map(|&(_, partition)| partition)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn merged(mut partitions: Vec<VecDeque<i64>>) -> Vec<(usize, i64)> {
        let mut merge = Merge::default();
        for (p, records) in partitions.iter().enumerate() {
            merge.set(p as i32, records.front().copied());
        }
        let mut out = Vec::new();
        while let Some(p) = merge.next() {
            let records = &mut partitions[p as usize];
            out.extend(records.pop_front().map(|t| (p as usize, t)));
            merge.set(p, records.front().copied());
        }
        out
    }

    #[test]
    fn a_partition_that_is_far_ahead_waits_for_the_others() {
        let out = merged(vec![[10, 20, 30].into(), [100, 110].into(), [5, 25, 105].into()]);
        assert_eq!(out, [(2, 5), (0, 10), (0, 20), (2, 25), (0, 30), (1, 100), (2, 105), (1, 110)]);
    }

    #[test]
    fn a_partition_may_leave() {
        let mut merge = Merge::default();
        merge.set(1, Some(5));
        merge.set(2, Some(6));
        merge.set(1, None);
        merge.set(1, None);
        assert_eq!(merge.next(), Some(2));
        merge.set(2, None);
        assert_eq!(merge.next(), None);
    }

    proptest! {
        #[test]
        fn each_partition_keeps_its_order_and_nothing_is_lost(
            partitions in proptest::collection::vec(proptest::collection::vec(0i64..50, 0..40), 0..6),
        ) {
            let out = merged(partitions.iter().map(|p| p.iter().copied().collect()).collect());
            for (p, records) in partitions.iter().enumerate() {
                let of: Vec<i64> = out.iter().filter(|(q, _)| *q == p).map(|(_, t)| *t).collect();
                prop_assert_eq!(&of, records);
            }
            // Where every partition is in order, so is the whole.
            if partitions.iter().all(|p| p.is_sorted()) {
                prop_assert!(out.is_sorted_by_key(|(_, t)| *t));
            }
        }
    }
}

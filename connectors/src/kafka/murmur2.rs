//! The partition of a key as Java's default partitioner chooses it, which librdkafka calls `murmur2_random`.

/// Which of `partitions` a key belongs to; 0 where there are none.
pub fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    // Java takes the sign away, not the absolute value.
    ((murmur2(key) & 0x7fff_ffff) as i32).checked_rem(partitions).unwrap_or(0)
}

/// MurmurHash2 (Austin Appleby) with Kafka's seed, the same on every machine.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ key.len() as u32;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_java_hashes() {
        // What org.apache.kafka.common.utils.Utils.murmur2 gives; librdkafka tests itself against the same.
        for (key, hash) in [
            ("kafka", 0xd067_cf64),
            ("giberish123456789", 0x8f55_2b0c),
            ("1234", 0x9fc9_7b14),
            ("234", 0xe7c0_09ca),
            ("34", 0x8739_30da),
            ("4", 0x5a4b_5ca1),
            ("PreAmbleWillBeRemoved,ThePrePartThatIs", 0x7842_4f1c),
            ("reAmbleWillBeRemoved,ThePrePartThatIs", 0x4a62_b377),
            ("eAmbleWillBeRemoved,ThePrePartThatIs", 0xe0e4_e09e),
            ("AmbleWillBeRemoved,ThePrePartThatIs", 0x62b8_b43f),
            ("", 0x106e_08d9),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
        assert_eq!(partition_of_key(b"kafka", 7), 0x5067_cf64 % 7);
        assert_eq!(partition_of_key(b"kafka", 0), 0);
    }
}

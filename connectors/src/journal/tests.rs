#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use super::*;

fn options() -> JournalOptions {
    JournalOptions { segment_bytes: 300, max_bytes: 1 << 20, keep_ms: 0 }
}

fn write(writer: &mut JournalWriter, groups: std::ops::Range<u64>) {
    for g in groups {
        for i in 0..=(g % 3) {
            let value = format!("{{\"group\":{g},\"i\":{i}}}");
            let message =
                Message { arrived_ms: 1_000 + g as i64, packet: 7, topic: b"plant/a", value: value.as_bytes() };
            writer.append(message);
        }
        writer.commit().unwrap();
    }
}

fn read(reader: &mut JournalReader, most: usize) -> Vec<(i64, i64, String)> {
    let mut out = Vec::new();
    loop {
        let batch = reader.poll(Duration::ZERO, most).unwrap();
        let mut records = Vec::new();
        batch.records(&mut records);
        for r in records {
            assert_eq!(r.key, Some(&b"plant/a"[..]));
            out.push((r.offset, r.timestamp, String::from_utf8(r.value.unwrap().to_vec()).unwrap()));
        }
        if let Some(end) = batch.end() {
            assert_eq!(end, reader.position());
            return out;
        }
    }
}

fn last_segment(dir: &Path) -> std::path::PathBuf {
    segment::path(dir, *segment::list(dir).unwrap().last().unwrap())
}

#[test]
fn one_process_has_it_for_as_long_as_anything_of_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let options = options();
    let writer = JournalWriter::open(dir.path(), options.clone()).unwrap();
    let reader = writer.reader(None).unwrap();
    let refused = || JournalWriter::open(dir.path(), options.clone()).err().unwrap().to_string();
    assert!(refused().contains(&format!("in use by another process (process {})", std::process::id())));
    drop(writer);
    refused();
    drop(reader);
    JournalWriter::open(dir.path(), options.clone()).unwrap();
}

#[test]
fn what_was_committed_is_read_from_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = JournalWriter::open(dir.path(), options()).unwrap();
    let mut early = writer.reader(None).unwrap();
    assert!(early.poll(Duration::ZERO, 9).unwrap().is_empty());
    write(&mut writer, 0..12);
    // Appended but not committed: invisible, and gone after a crash.
    writer.append(Message { arrived_ms: 0, packet: 1, topic: b"plant/a", value: b"never" });
    let all = read(&mut early, 100);
    assert_eq!(all.len(), 24);
    assert_eq!(all[3], (3, 1_002, "{\"group\":2,\"i\":0}".to_owned()));
    drop((writer, early));
    let mut writer = JournalWriter::open(dir.path(), options()).unwrap();
    assert!(segment::list(dir.path()).unwrap().len() > 2, "there must be segments to go over");
    for start in 0..=all.len() {
        for most in [1, 2, 100] {
            assert_eq!(read(&mut writer.reader(Some(start as i64)).unwrap(), most), all[start..]);
        }
    }
    let mut late = writer.reader(Some(24)).unwrap();
    write(&mut writer, 12..13);
    assert_eq!(read(&mut late, 3), [(24, 1_012, "{\"group\":12,\"i\":0}".to_owned())]);
    assert!(matches!(writer.reader(Some(26)), Err(JournalError::Gone { .. })));
}

#[test]
fn a_torn_group_is_cut_off_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = JournalWriter::open(dir.path(), options()).unwrap();
    write(&mut writer, 0..4);
    let kept = writer.handle().end();
    let path = last_segment(dir.path());
    let before = std::fs::metadata(&path).unwrap().len();
    write(&mut writer, 5..6);
    drop(writer);
    assert_eq!(last_segment(dir.path()), path);
    let whole = std::fs::read(&path).unwrap();
    for cut in before as usize..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let writer = JournalWriter::open(dir.path(), options()).unwrap();
        assert_eq!(writer.handle().end(), kept, "{cut} of {} bytes", whole.len());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), before);
    }
    // Pages that never reached the disk read as zeros.
    let mut zeros = whole[..before as usize].to_vec();
    zeros.resize(whole.len(), 0);
    std::fs::write(&path, &zeros).unwrap();
    assert_eq!(JournalWriter::open(dir.path(), options()).unwrap().handle().end(), kept);
}

#[test]
fn a_flipped_bit_is_damage_or_a_torn_end_but_never_another_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = JournalWriter::open(dir.path(), JournalOptions { segment_bytes: 1 << 20, ..options() }).unwrap();
    write(&mut writer, 0..4);
    let all = read(&mut writer.reader(None).unwrap(), 9);
    drop(writer);
    let path = last_segment(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let (mut refused, mut torn) = (0, 0);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        match JournalWriter::open(dir.path(), options()) {
            Err(JournalError::Damaged { .. }) => refused += 1,
            Err(e) => panic!("{e}"),
            Ok(writer) => {
                torn += 1;
                let left = read(&mut writer.reader(None).unwrap(), 9);
                assert!(left.len() < all.len() && left == all[..left.len()], "byte {at}");
            }
        }
    }
    // Only the payload of the last group can be taken for torn.
    assert!(refused > torn && torn > 0, "{refused} refused, {torn} torn");
    assert_eq!(torn, 16 + 7 + "{\"group\":3,\"i\":0}".len());
}

#[test]
fn segments_go_when_nobody_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = JournalWriter::open(dir.path(), JournalOptions { keep_ms: 5, ..options() }).unwrap();
    write(&mut writer, 0..20);
    let handle = writer.handle();
    let firsts = segment::list(dir.path()).unwrap();
    handle.release(firsts[3], 1_000).unwrap();
    assert_eq!(segment::list(dir.path()).unwrap(), firsts, "too young");
    handle.release(firsts[3] - 1, i64::MAX).unwrap();
    assert_eq!(segment::list(dir.path()).unwrap(), firsts[2..], "the third is still needed");
    assert!(matches!(writer.reader(Some(0)), Err(JournalError::Gone { .. })));
    drop((writer, handle));
    let writer = JournalWriter::open(dir.path(), options()).unwrap();
    let mut reader = writer.reader(None).unwrap();
    assert_eq!(reader.position(), firsts[2]);
    assert_eq!(read(&mut reader, 7).first().unwrap().0, firsts[2]);
}

#[test]
fn redeliveries_are_recognised_long_after_their_segments_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = JournalWriter::open(dir.path(), options()).unwrap();
    writer.new_session();
    for round in 0..2 {
        for packet in 1..=100 {
            let value = value_of(packet, round);
            writer.append(Message { arrived_ms: 1, packet, topic: b"t", value: value.as_bytes() });
            writer.commit().unwrap();
            // Whenever it is opened again, it knows the last message under each identifier.
            if packet % 7 == 0 {
                writer.handle().release(i64::MAX, i64::MAX).unwrap();
                drop(writer);
                writer = JournalWriter::open(dir.path(), options()).unwrap();
                for p in 1..=100 {
                    let last = if p <= packet { Some(round) } else { round.checked_sub(1) };
                    let held = |r: u16| writer.holds(p, b"t", value_of(p, r).as_bytes());
                    assert_eq!((0..2).find(|r| held(*r)), last, "{packet} {p}");
                }
            }
        }
    }
    assert!(segment::list(dir.path()).unwrap().len() < 3);
}

fn value_of(packet: u16, round: u16) -> String {
    format!("{round} {packet:050}")
}

#[test]
fn a_full_journal_waits_and_drops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = JournalWriter::open(dir.path(), JournalOptions { max_bytes: 900, ..options() }).unwrap();
    let handle = writer.handle();
    let mut reader = writer.reader(None).unwrap();
    let writing = std::thread::spawn(move || write(&mut writer, 0..30));
    while !handle.is_full() {
        std::thread::yield_now();
    }
    let mut got = Vec::new();
    let mut most = 0;
    while got.len() < 60 {
        let batch = reader.poll(Duration::from_millis(50), 5).unwrap();
        let mut records = Vec::new();
        batch.records(&mut records);
        got.extend(records.iter().map(|r| r.offset));
        most = most.max(handle.bytes());
        handle.release(reader.position(), i64::MAX).unwrap();
    }
    writing.join().unwrap();
    assert_eq!(got, (0..60).collect::<Vec<i64>>());
    assert!(most < 900 + 300, "{most} bytes");
    drop((handle, reader));
    // A writer that waits is let go when the journal closes.
    let mut writer = JournalWriter::open(dir.path(), JournalOptions { max_bytes: 1, ..options() }).unwrap();
    writer.append(Message { arrived_ms: 0, packet: 1, topic: b"t", value: b"v" });
    writer.handle().close();
    assert!(matches!(writer.commit(), Err(JournalError::Failed { .. })));
}

#[test]
fn a_redelivery_is_known_across_a_restart_and_not_across_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = JournalWriter::open(dir.path(), options()).unwrap();
    writer.new_session();
    writer.append(Message { arrived_ms: 1, packet: 3, topic: b"t", value: b"a" });
    writer.append(Message { arrived_ms: 1, packet: 4, topic: b"t", value: b"b" });
    writer.append(Message { arrived_ms: 1, packet: 3, topic: b"t", value: b"c" });
    writer.commit().unwrap();
    drop(writer);
    let mut writer = JournalWriter::open(dir.path(), options()).unwrap();
    assert!(writer.holds(3, b"t", b"c") && writer.holds(4, b"t", b"b"));
    assert!(!writer.holds(3, b"t", b"a") && !writer.holds(4, b"t", b"c") && !writer.holds(5, b"t", b"c"));
    assert!(!writer.holds(3, b"tc", b""));
    writer.new_session();
    assert!(!writer.holds(3, b"t", b"c"));
}

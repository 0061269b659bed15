//! What a sliding window costs does not depend on how many panes it has.

use avouch_engine::lane::Lane;
use avouch_engine::spec::WindowSpec;
use avouch_engine::verdict::Secret;

use crate::reading::Reading;
use crate::streamed::{Query, plan};

/// Merges and fired windows of one device that reports every second for four hours.
fn cost(size_ms: i64, every_ms: i64) -> (u64, u64) {
    let sql = "SELECT device, avg(x) AS m, stddev(x) AS s, slope(x, ts) AS d FROM readings GROUP BY device".to_owned();
    let query = Query { window: WindowSpec::Sliding { size_ms, every_ms }, disorder_ms: 2_000, clean: None, sql };
    let mut lane = Lane::new(plan(&query), 0, Secret::new(b"cost"));
    let mut windows = 0;
    let none = Reading { device: "d".into(), ts: 0, x: None, y: None, n: None, s: None, b: None };
    for second in 0..4 * 3_600i64 {
        let text = Reading { ts: second * 1_000, x: Some(second as f64), ..none.clone() }.json();
        let record = avouch_engine::decode::RawRecord {
            offset: second,
            timestamp: i64::MAX / 2,
            key: None,
            value: Some(text.as_bytes()),
            origin: None,
            signature: None,
        };
        let fired = lane.step_features(&[record], 0, &mut Vec::new()).unwrap();
        windows += fired.iter().map(|f| f.devices.len() as u64).sum::<u64>();
    }
    (lane.window_merges(), windows)
}

#[test]
fn merges_a_window_do_not_depend_on_its_length() {
    for (size, every) in
        [(60_000, 10_000), (600_000, 10_000), (3_600_000, 10_000), (3_595_000, 10_000), (3_600_000, 7_000)]
    {
        let (merges, windows) = cost(size, every);
        let each = merges as f64 / windows as f64;
        println!("{size} ms every {every} ms: {windows} windows, {merges} merges, {each:.3} a window");
        // A suffix, a prefix and their join; twice the first two where there are two panes an `every`.
        let bound = if size % every == 0 { 3.0 } else { 5.0 };
        assert!(each <= bound, "{each} merges a window of {size} ms every {every} ms");
        assert!(windows > (4 * 3_600_000 - size) as u64 / every as u64 - 2);
    }
}

//! Random rows through random windows, also with rows behind the watermark, which count in the windows still open.

use avouch_engine::spec::WindowSpec;
use proptest::prelude::*;

use crate::answer::compare;
use crate::batch::{self, with_windows};
use crate::reading::{self, Reading};
use crate::streamed::{self, Query};

/// Every aggregate that does not depend on the order of rows as batch SQL, and its counterpart in batch.
const AGGREGATES: &[(&str, &str)] = &[
    ("count(*)", "count(*)"),
    ("count(x)", "count(x)"),
    ("count(s)", "count(s)"),
    ("sum(x)", "sum(x)"),
    ("avg(x)", "avg(x)"),
    ("min(x)", "min(x)"),
    ("max(x)", "max(x)"),
    ("min(n)", "min(n)"),
    ("max(n)", "max(n)"),
    ("min(s)", "min(s)"),
    ("max(s)", "max(s)"),
    ("min(ts)", "min(ts)"),
    ("max(b)", "max(b)"),
    ("sum(n)", "sum(n)"),
    ("var(x)", "var(x)"),
    ("var_pop(x)", "var_pop(x)"),
    ("stddev(x)", "stddev(x)"),
    ("stddev_pop(x)", "stddev_pop(x)"),
    ("rms(x)", "sqrt(avg(x * x))"),
    ("p2p(x)", "max(x) - min(x)"),
    ("crest_factor(x)", "max(abs(x)) / nullif(sqrt(avg(x * x)), 0)"),
    ("kurtosis(x)", "CASE WHEN var_pop(x) > 0 THEN avg(power(x - m, 4)) / power(avg(power(x - m, 2)), 2) END"),
    ("skewness(x)", "CASE WHEN var_pop(x) > 0 THEN avg(power(x - m, 3)) / power(avg(power(x - m, 2)), 1.5) END"),
    ("slope(x, ts)", "regr_slope(x, (CAST(ts AS BIGINT) - win_start) / 1000.0)"),
    ("corr(x, y)", "corr(x, y)"),
    ("covar_pop(x, y)", "covar_pop(x, y)"),
    ("covar_samp(x, y)", "covar_samp(x, y)"),
    ("regr_slope(y, x)", "regr_slope(y, x)"),
    ("regr_intercept(y, x)", "regr_intercept(y, x)"),
    ("regr_r2(y, x)", "regr_r2(y, x)"),
    ("regr_count(y, x)", "regr_count(y, x)"),
    ("regr_avgx(y, x)", "regr_avgx(y, x)"),
    ("regr_avgy(y, x)", "regr_avgy(y, x)"),
    ("regr_sxx(y, x)", "regr_sxx(y, x)"),
    ("regr_syy(y, x)", "regr_syy(y, x)"),
    ("regr_sxy(y, x)", "regr_sxy(y, x)"),
    ("bool_and(b)", "bool_and(b)"),
    ("bool_or(b)", "bool_or(b)"),
    ("median(x)", "median(x)"),
    ("approx_median(x)", "approx_median(x)"),
    ("approx_distinct(n)", "approx_distinct(n)"),
    ("approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY x)", "approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY x)"),
    ("percentile_cont(0.25) WITHIN GROUP (ORDER BY x)", "percentile_cont(0.25) WITHIN GROUP (ORDER BY x)"),
    ("count(DISTINCT n)", "count(DISTINCT n)"),
    ("count(DISTINCT s)", "count(DISTINCT s)"),
    ("bit_and(n)", "bit_and(n)"),
    ("bit_or(n)", "bit_or(n)"),
    ("bit_xor(n)", "bit_xor(n)"),
    ("first_value(x)", "first_value(x ORDER BY ts, off)"),
    ("last_value(s)", "last_value(s ORDER BY ts, off)"),
    ("first_value(n) IGNORE NULLS", "first_value(n ORDER BY ts, off) IGNORE NULLS"),
    ("last_value(b) IGNORE NULLS", "last_value(b ORDER BY ts, off) IGNORE NULLS"),
    ("nth_value(x, 2)", "nth_value(x, 2 ORDER BY ts, off)"),
    ("string_agg(s, ',')", "string_agg(s, ',' ORDER BY ts, off)"),
    ("avg(x) FILTER (WHERE n > 2)", "avg(x) FILTER (WHERE n > 2)"),
    ("count(*) FILTER (WHERE b)", "count(*) FILTER (WHERE b)"),
    ("median(x) FILTER (WHERE b)", "median(x) FILTER (WHERE b)"),
    ("corr(x, y) FILTER (WHERE n > 0)", "corr(x, y) FILTER (WHERE n > 0)"),
    ("zero_crossings(x)", "zero_crossings(x)"),
    ("ewma(x, 0.25)", "ewma(x, 0.25)"),
    ("band_energy(x, ts, 0.1, 1.0)", "band_energy(x, ts, 0.1, 1.0)"),
];

fn select(pick: impl Fn(&(&'static str, &'static str)) -> &'static str, from: &str) -> String {
    let columns: Vec<String> = AGGREGATES.iter().enumerate().map(|(i, a)| format!("{} AS c{i}", pick(a))).collect();
    format!("SELECT device, {} FROM {from} GROUP BY device", columns.join(", "))
}

fn windows() -> impl Strategy<Value = WindowSpec> {
    prop_oneof![
        (1_000i64..20_000).prop_map(|size_ms| WindowSpec::Tumbling { size_ms }),
        (500i64..5_000, 0i64..30_000)
            .prop_map(|(every_ms, more)| WindowSpec::Sliding { size_ms: every_ms + more, every_ms }),
        (1i64..8, 1i64..6)
            .prop_map(|(k, every)| WindowSpec::Sliding { size_ms: k * every * 500, every_ms: every * 500 }),
        (300i64..4_000, 1i64..8_000).prop_map(|(gap_ms, more)| WindowSpec::Session { gap_ms, max_ms: gap_ms + more }),
    ]
}

fn readings() -> impl Strategy<Value = Vec<Reading>> {
    let value = || prop_oneof![1 => Just(None), 6 => (-400i64..400).prop_map(|v| Some(v as f64 / 8.0))];
    let row = (
        (0u8..3, -3_000i64..3_000, prop_oneof![9 => 0i64..900, 1 => 3_000i64..40_000]),
        (value(), value(), proptest::option::of(-3i64..6)),
        (
            proptest::option::of(prop_oneof![Just("a"), Just("bc"), Just("ä"), Just("")]),
            proptest::option::of(any::<bool>()),
        ),
    );
    proptest::collection::vec(row, 1..80).prop_map(|rows| {
        let mut now = 1_700_000_003_210i64;
        rows.into_iter()
            .map(|((device, jitter, step), (x, y, n), (s, b))| {
                now += step;
                let device = format!("d{device}");
                Reading { device, ts: now + jitter, x, y, n, s: s.map(str::to_owned), b }
            })
            .collect()
    })
}

/// The windows of the rows that count, row by row as they come: a row counts in the windows that contain it and end above
/// the watermark before it. Also how many rows count in none.
fn members(window: WindowSpec, disorder: i64, readings: &[Reading]) -> (Vec<(usize, i64, i64)>, usize) {
    let (mut members, mut late, mut highest) = (Vec::new(), 0, i64::MIN);
    for (i, r) in readings.iter().enumerate() {
        let watermark = if highest == i64::MIN { i64::MIN } else { highest - disorder };
        let (size, every) = (window.size_ms(), window.every_ms());
        let first = (r.ts - size).div_euclid(every) + 1;
        let open = (first..=r.ts.div_euclid(every)).map(|n| (n * every, n * every + size)).filter(|w| w.1 > watermark);
        let before = members.len();
        members.extend(open.map(|(start, end)| (i, start, end)));
        if members.len() == before {
            late += 1;
        } else {
            highest = highest.max(r.ts);
        }
    }
    members.sort_by_key(|m| (m.1, readings[m.0].ts, m.0));
    (members, late)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn every_window_and_aggregate(window in windows(), disorder in 0i64..7_000, cut in 1usize..30, readings in readings()) {
        let query = Query { window, disorder_ms: disorder, clean: None, sql: select(|a| a.0, "readings") };
        // Moments about the mean of the window; rows keep their order, by window, time and offset.
        let with_mean = "(SELECT *, avg(x) OVER (PARTITION BY device, win_start, win_end) AS m FROM readings)";
        let moments = |sql: &str| sql.contains("x - m");
        let plain: Vec<_> = AGGREGATES.iter().map(|a| if moments(a.1) { "NULL" } else { a.1 }).collect();
        let columns = |list: Vec<&str>| list.iter().enumerate().map(|(i, a)| format!("{a} AS c{i}")).collect::<Vec<_>>().join(", ");
        let batch_sql = format!("SELECT device, {} FROM readings GROUP BY device", columns(plain));
        let moment_sql = format!(
            "SELECT device, {} FROM {with_mean} GROUP BY device",
            columns(AGGREGATES.iter().map(|a| if moments(a.1) { a.1 } else { "NULL" }).collect())
        );
        let (readings, windowed) = match window {
            WindowSpec::Session { .. } => {
                // Late rows are left out of the input: what they would belong to is decided by the others.
                let (mut kept, mut highest): (Vec<Reading>, i64) = (Vec::new(), i64::MIN);
                for r in readings {
                    if highest == i64::MIN || r.ts >= highest - disorder {
                        highest = highest.max(r.ts);
                        kept.push(r);
                    }
                }
                let windowed = batch::windowed(&query, &reading::batch(&kept), &kept);
                (kept, windowed)
            }
            _ => {
                let (members, late) = members(window, disorder, &readings);
                let (_, dead) = streamed::answer(&query, &readings, cut);
                prop_assert_eq!(dead, late);
                let windowed = with_windows(&reading::batch(&readings), &members);
                (readings, windowed)
            }
        };
        let (streamed, _) = streamed::answer(&query, &readings, cut);
        let mut batch = batch::over(&query, windowed.clone(), Some(&batch_sql));
        let moments_of = batch::over(&query, windowed, Some(&moment_sql));
        for (key, values) in &mut batch.rows {
            for (i, a) in AGGREGATES.iter().enumerate().filter(|(_, a)| moments(a.1)) {
                let _ = a;
                values[i + 1] = moments_of.rows[key][i + 1].clone();
            }
        }
        // Values are up to 50, their squares to 2,500: what rounding leaves of differences of such sums.
        if let Err(why) = compare(&streamed, &batch, 2_500.0) {
            return Err(TestCaseError::fail(why));
        }
    }
}

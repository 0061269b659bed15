//! A plant's 52 variables, in the layout of the Tennessee Eastman process.
//!
//! There is no chemistry in it. Eight sources of variation come and go over some rows; each variable has a level and a
//! spread (about those of the process's run without a fault), of which the sources make most and its own noise the rest. All
//! plants of a seed have the same loadings, as all runs of one plant do.

use avouch_engine::decode::format_timestamp;

use super::random::Noise;
use super::row::Row;
use super::scenario::Device;

const SOURCES: usize = 8;
/// Share of a variable's variance that the sources make.
const SHARED: f64 = 0.75;
/// How much of a source is still there in the next row.
const KEEPS: f64 = 0.7;
/// How far a fault moves a source, in its own standard deviations.
const STEP: f64 = 6.0;
/// How far the analyser of variable 30 is off at the end of a fault, in spreads.
const DRIFT: f64 = 12.0;
const ANALYSER: usize = 29;

/// Level and spread of XMEAS 1 to 41 and XMV 1 to 11.
const VARIABLES: [(f64, f64); 52] = [
    (0.2511, 0.0285),
    (3664.0, 32.0),
    (4512.0, 31.7),
    (9.344, 0.0764),
    (26.91, 0.208),
    (42.34, 0.221),
    (2705.0, 5.26),
    (74.98, 0.528),
    (120.4, 0.0186),
    (0.3376, 0.0117),
    (80.09, 0.194),
    (50.06, 1.03),
    (2634.0, 5.53),
    (25.12, 1.06),
    (49.99, 1.02),
    (3103.0, 4.59),
    (22.91, 0.626),
    (65.72, 0.342),
    (230.3, 8.14),
    (341.5, 1.22),
    (94.6, 0.119),
    (77.29, 0.248),
    (32.18, 0.281),
    (8.892, 0.0989),
    (26.38, 0.272),
    (6.883, 0.102),
    (18.78, 0.242),
    (1.654, 0.0252),
    (33.0, 0.314),
    (13.82, 0.102),
    (24.02, 0.314),
    (1.252, 0.104),
    (18.57, 0.303),
    (2.259, 0.0262),
    (4.841, 0.0578),
    (2.296, 0.0524),
    (0.01716, 0.00902),
    (0.8363, 0.0144),
    (0.09928, 0.00954),
    (53.65, 0.535),
    (43.89, 0.489),
    (63.03, 0.558),
    (54.01, 0.427),
    (24.72, 2.82),
    (61.32, 1.18),
    (22.25, 0.413),
    (40.08, 1.44),
    (38.29, 3.04),
    (46.51, 2.35),
    (47.46, 2.12),
    (41.09, 0.525),
    (18.22, 1.49),
];

pub(super) struct Plant {
    /// For each variable how much of each source is in it; the squares of a row add up to one.
    loadings: Vec<[f64; SOURCES]>,
    sources: [f64; SOURCES],
    noise: Noise,
}

impl Plant {
    pub(super) fn new(seed: u64, mut noise: Noise) -> Self {
        let mut design = Noise::new(seed, 23, 0);
        let loadings = VARIABLES
            .iter()
            .map(|_| {
                let drawn: [f64; SOURCES] = std::array::from_fn(|_| design.normal());
                let size = drawn.iter().map(|v| v * v).sum::<f64>().sqrt();
                drawn.map(|v| v / size)
            })
            .collect();
        let sources = std::array::from_fn(|_| noise.normal());
        Self { loadings, sources, noise }
    }
}

impl Device for Plant {
    fn fields(&mut self, t_ms: i64, _: f64, fault: Option<(usize, f64)>, row: &mut Row) {
        let fresh = (1.0 - KEEPS * KEEPS).sqrt();
        for source in &mut self.sources {
            *source = KEEPS * *source + fresh * self.noise.normal();
        }
        let mut now = self.sources;
        if let Some((0, _)) = fault {
            now[0] += STEP;
        }
        row.text("time", &format_timestamp(t_ms));
        for (i, ((level, spread), loadings)) in VARIABLES.iter().zip(&self.loadings).enumerate() {
            let shared: f64 = loadings.iter().zip(&now).map(|(a, b)| a * b).sum();
            let mut off = SHARED.sqrt() * shared + (1.0 - SHARED).sqrt() * self.noise.normal();
            if let (ANALYSER, Some((1, gone))) = (i, fault) {
                off += DRIFT * gone;
            }
            let name = if i < 41 { format!("xmeas_{:02}", i + 1) } else { format!("xmv_{:02}", i - 40) };
            // Three digits of the spread.
            let decimals = (2.0 - libm::floor(libm::log10(*spread))).max(0.0) as usize;
            row.number(&name, level + spread * off, decimals);
        }
    }
}

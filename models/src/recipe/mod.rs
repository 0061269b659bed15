//! From what a window says to what a prognosis needs: features of a device's recent past, made the same way in training
//! and in serving.
//!
//! ```text
//!     on        ─► nearest of the operating conditions ─┐
//!     sensors   ─► (x − mean) / deviation, of that condition ─► z ─► means over the last k vectors
//!                                                                ├─► slope over the last s
//!                                                                └─► middle mean − mean of the device's own first b
//!     as_is     ─► unchanged: a counter of cycles or running hours, say
//! ```
//!
//! A sensor is a feature that is neither in `on` nor in `as_is`. A mean over k is over what there is until k vectors were
//! seen. The age of a device is not counted here but taken from a counter of the machine (`as_is`): a device that came to
//! this lane yesterday is not new, and what a counter adds to an estimate has a feature to be attributed to.
//!
//! **Operating conditions** are found by k-means (Lloyd 1982) from k-means++ starts (Arthur and Vassilvitskii 2007) on
//! the standardised features of `on`, written here because it must give the same bits on every machine: linfa's multiplies
//! through kernels that depend on the CPU.
//!
//! **State.** A device's memory is the last `max(means, slope)` standardised vectors and the sum of its first `baseline`:
//! bounded, and a function of its vectors alone. Means are summed anew each time in the order of time, so there is no sum
//! that drifts.

mod conditions;
mod memory;

use avouch_engine::codec::{CodecError, Reader, Writer};
use serde::{Deserialize, Serialize};

use crate::ModelError;
pub(crate) use conditions::Conditions;
pub use memory::Past;

/// Vectors that are remembered at most.
const MAX_PAST: usize = 4096;

/// `recipe = { conditions = 6, on = ["setting_1"], means = [5, 15, 30], slope = 30, baseline = 20, as_is = ["cycle"] }`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeConfig {
    /// How many operating conditions there are; 0 and 1 both mean that there is one.
    #[serde(default)]
    pub conditions: usize,
    /// The features that tell the conditions apart. They serve for nothing else.
    #[serde(default)]
    pub on: Vec<String>,
    /// Features taken unchanged.
    #[serde(default)]
    pub as_is: Vec<String>,
    /// Lengths of rolling means, in vectors, ascending. None: the standardised value itself.
    pub means: Vec<usize>,
    /// Length of the least-squares slope, in vectors, at least 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<usize>,
    /// How many of a device's first vectors make its own baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<usize>,
}

impl RecipeConfig {
    fn check(&self, features: &[String]) -> Result<(), ModelError> {
        for name in self.on.iter().chain(&self.as_is) {
            if !features.contains(name) {
                let why = format!("`{name}` is not among the step's features: {}", features.join(", "));
                return Err(ModelError::config("algorithm.recipe", why));
            }
        }
        if let Some(both) = self.on.iter().find(|f| self.as_is.contains(f)) {
            let why = format!("`{both}` is both in `on` and in `as_is`; leave it in one of them");
            return Err(ModelError::config("algorithm.recipe", why));
        }
        if self.conditions > 64 {
            return Err(ModelError::config("algorithm.recipe.conditions", "more than 64 conditions are not supported"));
        }
        if self.conditions > 1 && self.on.is_empty() {
            let why = "name the features that tell the conditions apart: `on = [\"setting_1\"]`";
            return Err(ModelError::config("algorithm.recipe.on", why));
        }
        let ascending = self.means.windows(2).all(|w| w[0] < w[1]);
        if !ascending || self.means.iter().any(|k| *k == 0 || *k > MAX_PAST) {
            let why = format!("lengths of means are ascending, from 1 to {MAX_PAST}, such as [5, 15, 30]");
            return Err(ModelError::config("algorithm.recipe.means", why));
        }
        if self.slope.is_some_and(|s| !(3..=MAX_PAST).contains(&s)) {
            return Err(ModelError::config(
                "algorithm.recipe.slope",
                format!("a slope is over 3 to {MAX_PAST} vectors"),
            ));
        }
        if self.baseline.is_some_and(|b| b == 0 || b > 1_000_000) {
            return Err(ModelError::config("algorithm.recipe.baseline", "a baseline is of 1 to 1000000 vectors"));
        }
        Ok(())
    }
}

/// A fitted recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Places of the features in the vector, each kind ascending.
    on: Vec<usize>,
    sensors: Vec<usize>,
    as_is: Vec<usize>,
    means: Vec<usize>,
    slope: Option<usize>,
    baseline: Option<usize>,
    conditions: Conditions,
}

impl Recipe {
    /// Fits conditions and their scales to `rows`, each of as many values as there are features, row after row.
    pub fn fit(config: &RecipeConfig, features: &[String], rows: &[f64], seed: u64) -> Result<Self, ModelError> {
        config.check(features)?;
        let places = |names: &[String]| -> Vec<usize> {
            (0..features.len()).filter(|&i| names.contains(&features[i])).collect()
        };
        let (on, as_is) = (places(&config.on), places(&config.as_is));
        let sensors: Vec<usize> = (0..features.len()).filter(|i| !on.contains(i) && !as_is.contains(i)).collect();
        if sensors.is_empty() && as_is.is_empty() {
            let why = "no feature is left to judge by: all are in `on`";
            return Err(ModelError::config("algorithm.recipe.on", why));
        }
        let conditions = Conditions::fit(rows, features.len(), &on, &sensors, config.conditions.max(1), seed);
        let means = if config.means.is_empty() { vec![1] } else { config.means.clone() };
        Ok(Self { on, sensors, as_is, means, slope: config.slope, baseline: config.baseline, conditions })
    }

    /// How many values a vector of features becomes.
    pub fn width(&self) -> usize {
        self.sensors.len() * self.per_sensor() + self.as_is.len()
    }

    fn per_sensor(&self) -> usize {
        self.means.len() + usize::from(self.slope.is_some()) + usize::from(self.baseline.is_some())
    }

    /// The feature that each value was made of.
    pub fn sources(&self) -> Vec<usize> {
        let per = self.per_sensor();
        self.sensors.iter().flat_map(|s| std::iter::repeat_n(*s, per)).chain(self.as_is.iter().copied()).collect()
    }

    /// How many vectors are remembered.
    fn past(&self) -> usize {
        self.means.iter().copied().chain(self.slope).max().unwrap_or(1)
    }

    /// How many conditions were found.
    pub fn conditions(&self) -> usize {
        self.conditions.len()
    }

    /// Writes to `expected` the mean of each sensor in the operating condition that the vector is in; NaN for features
    /// that are no sensors.
    pub fn expected(&self, x: &[f64], expected: &mut [f64]) {
        expected.fill(f64::NAN);
        let mean = self.conditions.mean(self.conditions.nearest(x, &self.on));
        for (place, m) in self.sensors.iter().zip(mean) {
            expected[*place] = *m;
        }
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        for places in [&self.on, &self.sensors, &self.as_is, &self.means] {
            w.u32(places.len() as u32);
            for p in places {
                w.u32(*p as u32);
            }
        }
        // 0 stands for none; neither is ever 0.
        w.u32(self.slope.unwrap_or(0) as u32);
        w.u32(self.baseline.unwrap_or(0) as u32);
        self.conditions.write(w);
    }

    pub(crate) fn read(r: &mut Reader<'_>, features: usize) -> Result<Self, CodecError> {
        let mut lists = [const { Vec::new() }; 4];
        for list in &mut lists {
            for _ in 0..r.count(4)? {
                list.push(r.u32()? as usize);
            }
            if list.windows(2).any(|w| w[0] >= w[1]) {
                return Err(r.invalid("a recipe's list is not ascending"));
            }
        }
        let [on, sensors, as_is, means] = lists;
        let mut all: Vec<usize> = on.iter().chain(&sensors).chain(&as_is).copied().collect();
        all.sort_unstable();
        if !all.iter().copied().eq(0..features) || (sensors.is_empty() && as_is.is_empty()) {
            return Err(r.invalid("a recipe must use every feature once"));
        }
        let (slope, baseline) = (r.u32()? as usize, r.u32()? as usize);
        let lengths = !means.is_empty() && means.iter().all(|k| (1..=MAX_PAST).contains(k));
        if !lengths || (slope != 0 && !(3..=MAX_PAST).contains(&slope)) || baseline > 1_000_000 {
            return Err(r.invalid("a recipe's length is out of range"));
        }
        let conditions = Conditions::read(r, on.len(), sensors.len())?;
        let some = |n: usize| (n > 0).then_some(n);
        Ok(Self { on, sensors, as_is, means, slope: some(slope), baseline: some(baseline), conditions })
    }
}

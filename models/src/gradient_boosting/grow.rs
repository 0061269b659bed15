//! From rows to trees, by `forust-ml`.

use forust_ml::Matrix;
use forust_ml::gradientbooster::{GradientBooster, GrowPolicy};
use forust_ml::objective::ObjectiveType;
use forust_ml::sampler::SampleMethod;
use forust_ml::tree::Tree;

use super::GradientBoostingConfig;
use super::trees::{Grown, Trees};
use crate::ModelError;
use crate::prognosis::Table;

impl Trees {
    pub fn fit(config: &GradientBoostingConfig, x: &Table, y: &[f64]) -> Result<Self, ModelError> {
        config.check()?;
        // It takes columns one after another.
        let columns: Vec<f64> = (0..x.width).flat_map(|j| x.column(j)).collect();
        let mut booster = GradientBooster::default()
            .set_objective_type(ObjectiveType::SquaredLoss)
            .set_iterations(config.trees)
            .set_learning_rate(config.learning_rate as f32)
            .set_max_depth(config.depth)
            .set_max_leaves(if config.leaves == 0 { 1 << config.depth } else { config.leaves })
            .set_nbins(config.bins)
            .set_l1(0.0)
            .set_l2(config.l2 as f32)
            .set_gamma(0.0)
            .set_min_leaf_weight(config.min_rows as f32)
            .set_initialize_base_score(true)
            .set_parallel(false)
            .set_allow_missing_splits(false)
            .set_create_missing_branch(false)
            .set_missing(f64::NAN)
            .set_subsample(config.rows as f32)
            .set_colsample_bytree(config.columns)
            .set_sample_method(if config.rows < 1.0 { SampleMethod::Random } else { SampleMethod::None })
            .set_seed(config.seed);
        // Best split first, so that a bound on leaves keeps those that matter.
        booster.grow_policy = GrowPolicy::LossGuide;
        let weights = vec![1.0; y.len()];
        booster
            .fit(&Matrix::new(&columns, x.rows, x.width), y, &weights, None)
            .map_err(|e| ModelError::Rows(format!("growing trees: {e}")))?;
        let grown: Vec<Vec<Grown>> = booster.trees.iter().map(nodes).collect();
        Ok(Self::of(booster.base_score, &grown))
    }
}

fn nodes(tree: &Tree) -> Vec<Grown> {
    tree.nodes
        .iter()
        .map(|n| Grown {
            split: (!n.is_leaf).then_some((n.split_feature, n.split_value, n.left_child, n.right_child)),
            value: f64::from(n.weight_value),
            rows: f64::from(n.hessian_sum),
        })
        .collect()
}

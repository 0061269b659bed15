//! The options of the kinds that predict a label: what the models crate reads ([`avouch_models::AlgorithmConfig`]); a test
//! holds the two together.

use super::super::fields::{Key, Keys, Kind};

const ANY: Kind = Kind::Number(f64::MIN, f64::MAX, true);
const COUNT: Kind = Kind::Int(0, i64::MAX);
const REFIT: Key =
    Key::may("refit", Kind::Bool, "Fit once more on all rows after calibrating on those held back.").or("false");
const WITH_RECIPE: Key =
    Key::may("recipe", Kind::Table(&RECIPE), "Features of the device's past; the model remembers it.");
const SEED: Key = Key::may("seed", COUNT, "Seeds what is drawn at random.").or("0");

pub(super) const GRADIENT_BOOSTING: Keys = Keys::new(
    "gradient_boosting",
    "Gradient-boosted trees on squared error.",
    &[
        Key::must("kind", Kind::Is("gradient-boosting"), "Which algorithm."),
        Key::may("trees", COUNT, "How many trees.").or("300"),
        Key::may("depth", COUNT, "Splits from root to leaf, at most.").or("5"),
        Key::may("leaves", COUNT, "Leaves of a tree, at most; 0: as many as the depth allows.").or("0"),
        Key::may("learning_rate", ANY, "Share of each tree that is added.").or("0.05"),
        Key::may("l2", ANY, "Penalty on leaf values, in rows.").or("1.0"),
        Key::may("min_rows", ANY, "Rows in a leaf, at least.").or("20.0"),
        Key::may("rows", ANY, "Share of rows each tree is grown on.").or("1.0"),
        Key::may("columns", ANY, "Share of inputs each tree may split by.").or("1.0"),
        Key::may("bins", Kind::Int(0, 65_535), "Bins of an input.").or("255"),
        WITH_RECIPE,
        REFIT,
        SEED,
    ],
);
pub(super) const KERNEL_RIDGE: Keys = Keys::new(
    "kernel_ridge",
    "Kernel ridge regression on landmarks.",
    &[
        Key::must("kind", Kind::Is("kernel-ridge"), "Which algorithm."),
        Key::may("landmarks", COUNT, "Training rows that are compared with.").or("400"),
        Key::may("width", ANY, "How quickly likeness fades with distance.").or("1.0"),
        Key::may("l2", ANY, "Penalty; larger is smoother.").or("1.0"),
        Key::may("relevance", Kind::Bool, "Count inputs in the distance by their correlation with the label.")
            .or("false"),
        WITH_RECIPE,
        REFIT,
        SEED,
    ],
);
pub(super) const LINEAR: Keys = Keys::new(
    "linear",
    "Ridge regression.",
    &[
        Key::must("kind", Kind::Is("linear"), "Which algorithm."),
        Key::may("l2", ANY, "Penalty on the squared weights, relative to the number of rows.").or("0.0001"),
        WITH_RECIPE,
        REFIT,
        SEED,
    ],
);
pub(super) const BLEND: Keys = Keys::new(
    "blend",
    "The mean of several models.",
    &[
        Key::must("kind", Kind::Is("blend"), "Which algorithm."),
        Key::must("of", Kind::TablesOf(&[&GRADIENT_BOOSTING, &KERNEL_RIDGE, &LINEAR]), "The models."),
        WITH_RECIPE,
        REFIT,
        SEED,
    ],
);
const RECIPE: Keys = Keys::new(
    "recipe",
    "Features of a device's past, made the same way in training and in serving.",
    &[
        Key::may("conditions", COUNT, "How many operating conditions there are.").or("1"),
        Key::may("on", Kind::Texts, "The features that tell them apart."),
        Key::may("as_is", Kind::Texts, "Features taken unchanged: a counter of running hours."),
        Key::must("means", Kind::Ints, "Lengths of rolling means, in windows, ascending; 1 is the value itself."),
        Key::may("slope", COUNT, "Length of the slope, in windows."),
        Key::may("baseline", COUNT, "How many of a device's first windows make its own baseline."),
    ],
);

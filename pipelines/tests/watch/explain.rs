//! `avouch explain`.

use avouch::explain::{Explanation, text};
use avouch::lang::{Models, Pipeline, plan, with_early};

use super::{everything, ready};

fn of(pipeline: &Pipeline) -> Explanation {
    let plan = plan(pipeline, &Models::new()).unwrap_or_else(|d| panic!("{d}"));
    Explanation::of(pipeline, &with_early(pipeline, plan).unwrap())
}

#[test]
fn the_pipelines_we_ship_explained() {
    for (name, pipeline) in ready() {
        // A model that was trained in this working copy would show.
        let mut explained = of(&pipeline);
        explained.steps.retain(|s| s.kind != "model");
        insta::assert_snapshot!(name, text(&explained));
    }
}

#[test]
fn a_pipeline_with_everything_explained() {
    let explained = of(&everything());
    insta::assert_snapshot!("everything", text(&explained));
    insta::assert_snapshot!("everything_json", serde_json::to_string_pretty(&explained).unwrap());
}

#[test]
fn one_step_alone_and_a_misspelt_one() {
    let explained = of(&everything());
    let one = explained.clone().only("minutes").unwrap();
    assert_eq!(one.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["minutes"]);
    insta::assert_snapshot!(explained.clone().only("minuts").unwrap_err(), @"there is no step `minuts`; did you mean `minutes`?");
    insta::assert_snapshot!(
        explained.only("xyz").unwrap_err(),
        @"there is no step `xyz`; there are `readings`, `named`, `spells`, `minutes`, `anomaly` and `long`"
    );
}

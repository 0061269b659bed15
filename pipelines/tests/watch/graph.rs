//! `avouch graph`.

use avouch::graph::{Graph, Kind, dot, mermaid, svg};
use avouch::lang::{Models, Pipeline, plan};

use super::{everything, ready};

fn of(pipeline: &Pipeline) -> Graph {
    let plan = plan(pipeline, &Models::new()).unwrap_or_else(|d| panic!("{d}"));
    Graph::of(pipeline, &plan)
}

#[test]
fn the_pipelines_we_ship_as_they_are_drawn() {
    for (name, pipeline) in ready() {
        insta::assert_snapshot!(format!("{name}_mermaid"), mermaid(&of(&pipeline)));
        insta::assert_snapshot!(format!("{name}_dot"), dot(&of(&pipeline)));
        insta::assert_snapshot!(format!("{name}_svg"), svg(&of(&pipeline)));
    }
}

#[test]
fn a_pipeline_with_everything_as_it_is_drawn() {
    let graph = of(&everything());
    for kind in Kind::ALL {
        assert!(graph.nodes.iter().any(|n| n.kind == kind), "{kind:?} is not in it");
    }
    insta::assert_snapshot!("everything_mermaid", mermaid(&graph));
    insta::assert_snapshot!("everything_dot", dot(&graph));
    insta::assert_snapshot!("everything_svg", svg(&graph));
}

#[test]
fn nothing_secret_is_drawn() {
    let graph = of(&everything());
    for text in [mermaid(&graph), dot(&graph), svg(&graph)] {
        assert!(text.contains("hooks.example.org"), "the place itself is shown");
        for secret in ["hunter2", "abababab"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn every_word_of_a_node_is_in_the_picture_and_within_its_box() {
    for pipeline in ready().into_iter().map(|(_, p)| p).chain([everything()]) {
        let graph = of(&pipeline);
        let picture = svg(&graph);
        assert_eq!(picture, svg(&graph), "the same graph, the same picture");
        assert_eq!(picture.matches("rx=\"8\"").count(), graph.nodes.len(), "a box a node");
        assert_eq!(picture.matches("marker-end").count(), graph.edges.len(), "an arrow an edge");
        let number = |line: &str, name: &str| -> f64 {
            let rest = line.split_once(&format!(" {name}=\"")).unwrap().1;
            rest[..rest.find('"').unwrap()].parse().unwrap()
        };
        let mut boxes = 0;
        let (mut right, mut bottom) = (0.0, 0.0);
        for line in picture.lines() {
            if line.contains("rx=\"8\"") {
                boxes += 1;
                right = number(line, "x") + number(line, "width");
                bottom = number(line, "y") + number(line, "height");
            } else if line.starts_with("<text") && boxes > 0 {
                let text = line.split_once('>').unwrap().1.trim_end_matches("</text>");
                let shown = text
                    .replace("&lt;", "<")
                    .replace("&gt;", ">")
                    .replace("&quot;", "\"")
                    .replace("&#39;", "'")
                    .replace("&amp;", "&");
                // DejaVu Sans Mono at 12 pixels: 7.22 a character; names are a size larger.
                let wide = if line.contains("name") { 7.9 } else { 7.3 };
                assert!(number(line, "x") + shown.chars().count() as f64 * wide <= right, "{line} ends at {right}");
                assert!(number(line, "y") <= bottom, "{line} stands below {bottom}");
            }
        }
    }
}

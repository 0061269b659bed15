//! The graph for [Mermaid](https://mermaid.js.org), which GitHub and many wikis draw.

use std::fmt::Write as _;

use super::{Graph, Kind};

/// A Mermaid flowchart.
pub fn mermaid(graph: &Graph) -> String {
    let mut out = String::from("flowchart LR\n");
    for (i, node) in graph.nodes.iter().enumerate() {
        let mut label = format!("<b>{}</b><br/><i>{}</i>", escaped(&node.name), node.kind.name());
        for line in &node.lines {
            label.push_str("<br/>");
            label.push_str(&escaped(line));
        }
        let (open, close) = match node.kind {
            Kind::Source | Kind::Reference => ("[(", ")]"),
            Kind::Model => ("([", "])"),
            _ => ("[", "]"),
        };
        let _ = writeln!(out, "    n{i}{open}\"{label}\"{close}:::{}", node.kind.class());
    }
    for edge in &graph.edges {
        let arrow = if edge.dead { "-.->" } else { "-->" };
        let _ = writeln!(out, "    n{} {arrow} n{}", edge.from, edge.to);
    }
    for kind in Kind::ALL {
        if graph.nodes.iter().any(|n| n.kind == kind) {
            let (inside, border) = kind.colours();
            let _ = writeln!(out, "    classDef {} fill:{inside},stroke:{border},color:#0f172a", kind.class());
        }
    }
    out
}

/// What is not a letter, a digit or plain punctuation, as Mermaid writes characters in a text.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '#' | '&' | '<' | '>' | '`' | '\\' | ';' => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

//! The graph in the DOT language, for Graphviz.

use std::fmt::Write as _;

use super::Graph;

/// A digraph.
pub fn dot(graph: &Graph) -> String {
    let mut out = format!("digraph {} {{\n", quoted(&graph.name));
    out.push_str("    rankdir=LR;\n    node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"];\n");
    for (i, node) in graph.nodes.iter().enumerate() {
        let (inside, border) = node.kind.colours();
        let mut label = vec![node.name.clone(), format!("({})", node.kind.name())];
        label.extend(node.lines.iter().cloned());
        let label = label.iter().map(|l| escaped(l)).collect::<Vec<_>>().join("\\n");
        let _ = writeln!(out, "    n{i} [label=\"{label}\", fillcolor=\"{inside}\", color=\"{border}\"];");
    }
    for edge in &graph.edges {
        let style = if edge.dead { " [style=dashed, color=\"#dc2626\"]" } else { "" };
        let _ = writeln!(out, "    n{} -> n{}{style};", edge.from, edge.to);
    }
    out.push_str("}\n");
    out
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// Within double quotes; a backslash would begin one of DOT's own escapes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

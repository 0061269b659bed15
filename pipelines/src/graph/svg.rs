//! The graph as a picture. layout-rs says where boxes and arrows are; how they look is drawn here, because boxes must be as
//! wide as their text in the font it is drawn in.

use crate::markup::escaped;
use std::fmt::Write as _;

use layout::core::base::Orientation;
use layout::core::format::{ClipHandle, RenderBackend};
use layout::core::geometry::Point;
use layout::core::style::{LineStyleKind, StyleAttr};
use layout::std_shapes::shapes::{Arrow, Element, LineEndKind, ShapeKind};
use layout::topo::layout::VisualGraph;

use super::{Graph, Node};

/// All text is of a fixed width, so that a box can be made as wide as its text on every machine.
const FONT: &str = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";
/// Pixels of a character's width and of a line's height, at 12 pixels a letter, with room for wider fonts.
const CHARACTER: f64 = 7.4;
const LINE: f64 = 16.0;
const PADDING: f64 = 12.0;
const TITLE: f64 = 34.0;

/// An SVG document.
pub fn svg(graph: &Graph) -> String {
    let mut placed = VisualGraph::new(Orientation::LeftToRight);
    let handles: Vec<_> = graph
        .nodes
        .iter()
        .enumerate()
        .map(|(i, node)| {
            // The number says which node a box is when it is drawn.
            let shape = ShapeKind::new_box("");
            let (look, size) = (StyleAttr::simple(), size(node));
            placed.add_node(Element::create_with_properties(shape, look, Orientation::LeftToRight, size, i.to_string()))
        })
        .collect();
    for (i, edge) in graph.edges.iter().enumerate() {
        let (none, arrow) = (LineEndKind::None, LineEndKind::Arrow);
        let look = StyleAttr::simple();
        let properties = i.to_string();
        let drawn = Arrow::with_properties(none, arrow, LineStyleKind::Normal, "", &look, properties, &None, &None);
        placed.add_edge(drawn, handles[edge.from], handles[edge.to]);
    }
    let mut picture = Picture { graph, arrows: String::new(), boxes: String::new(), least: None, most: (0.0, 0.0) };
    placed.do_it(false, false, false, &mut picture);
    picture.finish()
}

fn columns(text: &str) -> f64 {
    // Wide characters take two places.
    text.chars().map(|c| if (c as u32) < 0x1100 { 1.0 } else { 2.0 }).sum()
}

fn size(node: &Node) -> Point {
    let heads = [columns(&node.name) * 1.1, columns(node.kind.name())];
    let widest = node.lines.iter().map(|l| columns(l)).chain(heads).fold(0.0, f64::max);
    Point::new(widest * CHARACTER + 2.0 * PADDING, (node.lines.len() + 2) as f64 * LINE + 2.0 * PADDING)
}

struct Picture<'a> {
    graph: &'a Graph,
    arrows: String,
    boxes: String,
    least: Option<(f64, f64)>,
    most: (f64, f64),
}

impl Picture<'_> {
    fn holds(&mut self, x: f64, y: f64) {
        let (left, top) = self.least.unwrap_or((x, y));
        self.least = Some((left.min(x), top.min(y)));
        self.most = (self.most.0.max(x), self.most.1.max(y));
    }

    fn finish(self) -> String {
        let margin = 20.0;
        let (left, top) = self.least.unwrap_or((0.0, 0.0));
        let (left, top) = (left - margin, top - margin - TITLE);
        let title = escaped(&self.graph.name);
        let width = (self.most.0 + margin - left).max(columns(&self.graph.name) * 10.0 + 2.0 * margin);
        let height = self.most.1 + margin - top;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"{left:.1} {top:.1} {width:.1} {height:.1}\">\n<title>Pipeline {title}</title>\n"
        );
        let _ = writeln!(
            out,
            "<style>text {{ font: 12px {FONT}; fill: #0f172a }} .name {{ font-weight: bold; font-size: 13px }} \
             .kind {{ fill: #475569; font-style: italic }} .title {{ font-weight: bold; font-size: 16px }}</style>"
        );
        for (id, colour) in [("flow", "#475569"), ("dead", "#dc2626")] {
            let _ = writeln!(
                out,
                "<marker id=\"{id}\" viewBox=\"0 0 10 8\" refX=\"10\" refY=\"4\" markerWidth=\"9\" markerHeight=\"7\" \
                 orient=\"auto\"><path d=\"M 0 0 L 10 4 L 0 8 z\" fill=\"{colour}\"/></marker>"
            );
        }
        let _ = writeln!(
            out,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"#ffffff\"/>"
        );
        let (x, y) = (left + margin, top + margin + 10.0);
        let _ = writeln!(out, "<text class=\"title\" x=\"{x:.1}\" y=\"{y:.1}\">{title}</text>");
        out.push_str(&self.arrows);
        out.push_str(&self.boxes);
        out.push_str("</svg>\n");
        out
    }
}

impl RenderBackend for Picture<'_> {
    fn draw_rect(&mut self, at: Point, size: Point, _: &StyleAttr, which: Option<String>, _: Option<ClipHandle>) {
        let graph = self.graph;
        let Some(node) = which.and_then(|w| w.parse::<usize>().ok()).and_then(|i| graph.nodes.get(i)) else { return };
        self.holds(at.x, at.y);
        self.holds(at.x + size.x, at.y + size.y);
        let (inside, border) = node.kind.colours();
        let _ = writeln!(
            self.boxes,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"8\" fill=\"{inside}\" \
             stroke=\"{border}\" stroke-width=\"1.5\"/>",
            at.x, at.y, size.x, size.y
        );
        let x = at.x + PADDING;
        let mut y = at.y + PADDING + 12.0;
        let mut line = |class: &str, text: &str| {
            let _ = writeln!(self.boxes, "<text{class} x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(text));
            y += LINE;
        };
        line(" class=\"name\"", &node.name);
        line(" class=\"kind\"", node.kind.name());
        for text in &node.lines {
            line("", text);
        }
    }

    fn draw_line(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn draw_circle(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn draw_text(&mut self, _: Point, _: &str, _: &StyleAttr) {}

    fn draw_arrow(
        &mut self,
        path: &[(Point, Point)],
        _: bool,
        _: (bool, bool),
        _: &StyleAttr,
        which: Option<String>,
        _: &str,
    ) {
        let [first, second, rest @ ..] = path else { return };
        let dead = which.and_then(|w| w.parse::<usize>().ok()).is_some_and(|i| self.graph.edges[i].dead);
        let point = |p: Point| format!("{:.1} {:.1}", p.x, p.y);
        // The first control point leaves the first place; of the others each comes before its place.
        let mut d = format!("M {} C {}, {}, {}", point(first.0), point(first.1), point(second.0), point(second.1));
        for (control, to) in rest {
            let _ = write!(d, " S {}, {}", point(*control), point(*to));
        }
        for (a, b) in path {
            self.holds(a.x, a.y);
            self.holds(b.x, b.y);
        }
        let (colour, marker, dash) = match dead {
            true => ("#dc2626", "dead", " stroke-dasharray=\"5 4\""),
            false => ("#475569", "flow", ""),
        };
        let _ = writeln!(
            self.arrows,
            "<path d=\"{d}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" marker-end=\"url(#{marker})\"{dash}/>"
        );
    }

    fn create_clip(&mut self, _: Point, _: Point, _: usize) -> ClipHandle {
        0
    }
}

//! Plots of estimates and probabilities, as SVG.

use avouch_engine::model::Interval;
use plotters::prelude::*;

use super::EvaluateError;

/// One estimate.
pub(super) struct Point {
    pub x: f64,
    pub value: f64,
    pub interval: Option<Interval>,
    pub truth: f64,
}

const BAND: RGBColor = RGBColor(198, 219, 239);
const SAID: RGBColor = RGBColor(33, 113, 181);
const TRUTH: RGBColor = RGBColor(64, 64, 64);

/// Estimates with their intervals, and the truth.
pub(super) fn estimates(title: &str, x: &str, points: &[Point]) -> Result<String, EvaluateError> {
    let band: Vec<(f64, f64)> = points
        .iter()
        .filter_map(|p| p.interval.map(|i| (p.x, i.upper)))
        .chain(points.iter().rev().filter_map(|p| p.interval.map(|i| (p.x, i.lower))))
        .collect();
    let said = points.iter().map(|p| (p.x, p.value)).collect();
    let truth = points.iter().map(|p| (p.x, p.truth)).collect();
    draw(title, x, &band, said, truth)
}

/// Lines over a band. The SVG depends on the points alone.
pub(super) fn draw(
    title: &str,
    x: &str,
    band: &[(f64, f64)],
    said: Vec<(f64, f64)>,
    truth: Vec<(f64, f64)>,
) -> Result<String, EvaluateError> {
    let mut svg = String::new();
    let all = || band.iter().chain(&said).chain(&truth);
    let (from, to) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |l, p| (l.0.min(p.0), l.1.max(p.0)));
    let top = all().fold(0.0f64, |a, p| a.max(p.1)) * 1.05;
    let failed = |e: &dyn std::fmt::Display| EvaluateError::Step(format!("{title}: cannot be drawn: {e}"));
    {
        let area = SVGBackend::with_string(&mut svg, (800, 360)).into_drawing_area();
        area.fill(&WHITE).map_err(|e| failed(&e))?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(40)
            .build_cartesian_2d(from..to, 0.0..top.max(1e-9))
            .map_err(|e| failed(&e))?;
        chart.configure_mesh().x_desc(x).draw().map_err(|e| failed(&e))?;
        if !band.is_empty() {
            chart.draw_series([Polygon::new(band.to_vec(), BAND.filled())]).map_err(|e| failed(&e))?;
        }
        chart.draw_series(LineSeries::new(truth, TRUTH.stroke_width(1))).map_err(|e| failed(&e))?;
        chart.draw_series(LineSeries::new(said, SAID.stroke_width(2))).map_err(|e| failed(&e))?;
        area.present().map_err(|e| failed(&e))?;
    }
    Ok(svg)
}

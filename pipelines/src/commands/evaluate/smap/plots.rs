//! A channel as SVG: its values above, the score below, labels behind both, alarms as dots.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::SmapError;
use super::channels::Channel;
use crate::commands::evaluate::EvaluateError;
use crate::commands::evaluate::verdicts::Judged;

const SIZE: (u32, u32) = (960, 420);
const INK: RGBColor = RGBColor(60, 60, 60);
const VALUE: RGBColor = RGBColor(31, 87, 146);
const SCORE: RGBColor = RGBColor(110, 60, 130);
const ALARM: RGBColor = RGBColor(200, 40, 40);
const LABEL: RGBColor = RGBColor(235, 170, 60);

/// Writes `<dir>/SMAP-A-1.svg`.
pub(super) fn write(dir: &Path, channel: &Channel, said: &[Option<Judged>]) -> Result<(), EvaluateError> {
    let wrong = |why: String| EvaluateError::from(SmapError::Plot { channel: channel.name.clone(), why });
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let (above, below) = area.split_vertically(SIZE.1 / 2);
        let values: Vec<(usize, f64)> = channel.test.iter().copied().enumerate().collect();
        draw(&above, &format!("{}: value; shaded: labelled", channel.name), channel, &values, VALUE, &[])
            .map_err(wrong)?;
        let scores: Vec<(usize, f64)> =
            said.iter().enumerate().filter_map(|(i, s)| Some((i, s.as_ref()?.score))).collect();
        let alarms: Vec<(usize, f64)> =
            said.iter().enumerate().filter_map(|(i, s)| s.as_ref().filter(|s| s.alarm).map(|s| (i, s.score))).collect();
        draw(&below, "score; dots: alarms", channel, &scores, SCORE, &alarms).map_err(wrong)?;
        area.present().map_err(|e| wrong(e.to_string()))?;
    }
    let path = dir.join(format!("{}.svg", channel.name.replace('/', "-")));
    let io = |source| EvaluateError::Io { path: path.clone(), source };
    std::fs::create_dir_all(dir).map_err(io)?;
    std::fs::write(&path, svg).map_err(io)
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    channel: &Channel,
    points: &[(usize, f64)],
    colour: RGBColor,
    dots: &[(usize, f64)],
) -> Result<(), String> {
    let (low, high) = points.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), (_, v)| (l.min(*v), h.max(*v)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let margin = ((high - low) * 0.06).max(1e-9);
    let (low, high) = (low - margin, high + margin);
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .caption(title, ("sans-serif", 14, &INK))
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(0..channel.test.len(), low..high)
        .map_err(|e| e.to_string())?;
    chart
        .configure_mesh()
        .disable_mesh()
        .axis_style(INK)
        .label_style(("sans-serif", 12, &INK))
        .draw()
        .map_err(|e| e.to_string())?;
    let shades = stretches(&channel.anomaly)
        .into_iter()
        .map(|(from, to)| Rectangle::new([(from, low), (to, high)], LABEL.mix(0.35).filled()));
    chart.draw_series(shades).map_err(|e| e.to_string())?;
    chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(1))).map_err(|e| e.to_string())?;
    let dots = dots.iter().map(|at| Circle::new(*at, 2, ALARM.filled()));
    chart.draw_series(dots).map_err(|e| e.to_string())?;
    Ok(())
}

/// First row of each labelled stretch, and the one after its last.
fn stretches(anomaly: &[bool]) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for (i, _) in anomaly.iter().enumerate().filter(|(_, a)| **a) {
        match out.last_mut() {
            Some((_, end)) if *end == i => *end = i + 1,
            _ => out.push((i, i + 1)),
        }
    }
    out
}

//! A few series drawn: values, labelled windows, alarms.

use std::path::Path;

use plotters::prelude::*;

use super::super::EvaluateError;
use super::Scored;

const SIZE: (u32, u32) = (1200, 360);

/// Columns of pixels that values are drawn in: of more rows than that, the extremes of each column are.
const COLUMNS: usize = 1000;

const LINE: RGBColor = RGBColor(70, 90, 120);
const WINDOW: RGBColor = RGBColor(240, 190, 80);
const ALARM: RGBColor = RGBColor(200, 30, 40);

/// Draws the first series of each folder that has a window, as `<dir>/<folder>-<series>.svg`. An alarm is a row whose score
/// is at least `threshold`.
pub(super) fn write(dir: &Path, scored: &[Scored], threshold: f64) -> Result<(), EvaluateError> {
    std::fs::create_dir_all(dir).map_err(|source| EvaluateError::Io { path: dir.to_path_buf(), source })?;
    let mut last = "";
    for s in scored {
        let (folder, series) = s.file.name.split_once('/').unwrap_or(("", &s.file.name));
        if folder == last || s.file.windows.is_empty() {
            continue;
        }
        last = folder;
        let path = dir.join(format!("{folder}-{series}.svg"));
        let svg = draw(s, threshold).map_err(|why| EvaluateError::Drawing { path: path.clone(), why })?;
        std::fs::write(&path, svg).map_err(|source| EvaluateError::Io { path, source })?;
    }
    Ok(())
}

fn draw(s: &Scored, threshold: f64) -> Result<String, String> {
    let values = &s.file.values;
    let finite = values.iter().filter(|v| v.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    if low > high {
        return Err("the series has no number".to_owned());
    }
    let margin = if high > low { (high - low) * 0.05 } else { 1.0 };
    let (low, high) = (low - margin, high + margin);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|e| e.to_string())?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&s.file.name, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(72)
            .build_cartesian_2d(0..values.len(), low..high)
            .map_err(|e| e.to_string())?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_labels(8)
            .x_label_formatter(&|i| s.file.timestamps.get(*i).map_or(String::new(), |t| t.chars().take(10).collect()))
            .draw()
            .map_err(|e| e.to_string())?;
        let windows = s.file.windows.iter();
        chart
            .draw_series(windows.map(|w| Rectangle::new([(w.0, low), (w.1 + 1, high)], WINDOW.mix(0.5).filled())))
            .map_err(|e| e.to_string())?;
        chart.draw_series(LineSeries::new(outline(values), &LINE)).map_err(|e| e.to_string())?;
        let alarms = (0..values.len()).filter(|i| s.scores[*i] >= threshold && values[*i].is_finite());
        chart.draw_series(alarms.map(|i| Circle::new((i, values[i]), 4, ALARM.filled()))).map_err(|e| e.to_string())?;
        area.present().map_err(|e| e.to_string())?;
    }
    Ok(svg)
}

/// The values; of long series the least and the greatest of each column, in their order.
fn outline(values: &[f64]) -> Vec<(usize, f64)> {
    let wide = values.len().div_ceil(COLUMNS).max(1);
    let mut out = Vec::new();
    for (k, column) in values.chunks(wide).enumerate() {
        let finite = || column.iter().enumerate().filter(|(_, v)| v.is_finite());
        let least = finite().min_by(|a, b| a.1.total_cmp(b.1));
        let greatest = finite().max_by(|a, b| a.1.total_cmp(b.1));
        let mut ends: Vec<usize> = least.into_iter().chain(greatest).map(|(i, _)| i).collect();
        ends.sort_unstable();
        ends.dedup();
        out.extend(ends.into_iter().map(|i| (k * wide + i, column[i])));
    }
    out
}

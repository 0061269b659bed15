//! A judged series as SVG: how improbable each row was, which rows were alarms, and which were labelled.

use std::path::Path;

use plotters::prelude::*;

use super::EvaluateError;

/// Rows of one device or run, in order.
#[derive(Debug)]
pub(super) struct Series {
    /// Its name; the file's is made of it.
    pub name: String,
    /// What the rows are, under the axis.
    pub unit: String,
    pub points: Vec<Point>,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// NaN where there is no verdict.
    pub p_value: f64,
    pub alarm: bool,
    pub labelled: bool,
}

const SIZE: (u32, u32) = (960, 280);
const SCORE: RGBColor = RGBColor(70, 90, 120);
const ALARM: RGBColor = RGBColor(200, 60, 40);
const LABELLED: RGBColor = RGBColor(250, 225, 190);

/// Writes `<dir>/<name>.svg`, `/` in the name becoming `-`.
pub(super) fn write(dir: &Path, series: &Series) -> Result<(), EvaluateError> {
    let path = dir.join(format!("{}.svg", series.name.replace('/', "-")));
    let svg = draw(series).map_err(|why| EvaluateError::Drawing { path: path.clone(), why })?;
    let io = |source| EvaluateError::Io { path: path.clone(), source };
    std::fs::create_dir_all(dir).map_err(io)?;
    std::fs::write(&path, svg).map_err(io)
}

fn draw(series: &Series) -> Result<String, String> {
    let height = |p: f64| -libm::log10(p);
    let points: Vec<(f64, f64, bool)> = (1u32..)
        .zip(&series.points)
        .filter(|(_, p)| p.p_value > 0.0)
        .map(|(i, p)| (f64::from(i), height(p.p_value), p.alarm))
        .collect();
    let top = points.iter().map(|p| p.1).fold(2.5, f64::max) * 1.05;
    let right = series.points.len() as f64;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|e| e.to_string())?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&series.name, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..right + 1.0, 0.0..top)
            .map_err(|e| e.to_string())?;
        for (from, to) in stretches(&series.points) {
            let (from, to) = (from as f64 + 0.5, to as f64 + 0.5);
            let shade = Rectangle::new([(from, 0.0), (to, top)], LABELLED.filled());
            chart.draw_series([shade]).map_err(|e| e.to_string())?;
        }
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(series.unit.clone())
            .y_desc("−log10 p")
            .draw()
            .map_err(|e| e.to_string())?;
        let line = points.iter().map(|p| (p.0, p.1));
        chart.draw_series(LineSeries::new(line, &SCORE)).map_err(|e| e.to_string())?;
        let alarms = points.iter().filter(|p| p.2).map(|p| Circle::new((p.0, p.1), 2, ALARM.filled()));
        chart.draw_series(alarms).map_err(|e| e.to_string())?;
        area.present().map_err(|e| e.to_string())?;
    }
    Ok(svg)
}

/// From and to which row, counted from 0 and without the end, rows are labelled.
fn stretches(points: &[Point]) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for (i, _) in points.iter().enumerate().filter(|(_, p)| p.labelled) {
        match out.last_mut() {
            Some((_, to)) if *to == i => *to = i + 1,
            _ => out.push((i, i + 1)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_labelled_is_shaded_and_alarms_are_dots() {
        let point = |p_value, alarm, labelled| Point { p_value, alarm, labelled };
        let points = vec![
            point(0.5, false, false),
            point(0.001, true, true),
            point(f64::NAN, false, true),
            point(0.002, true, false),
            point(0.9, false, true),
        ];
        assert_eq!(stretches(&points), [(1, 3), (4, 5)]);
        let series = Series { name: "valve1/0".into(), unit: "row".into(), points };
        let svg = draw(&series).unwrap_or_default();
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("valve1/0") && svg.contains("−log10 p"));
    }
}

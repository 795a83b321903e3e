//! A chart of speedups over M, with the limit on them, as an SVG.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use plotters::prelude::*;

use crate::cli::bench::record::Record;

const WIDTH: u32 = 900;
/// The height of one operation's panel.
const HEIGHT: u32 = 420;
const FONT: &str = "sans-serif";

/// One line: what is shown of one (N, K), by M.
#[derive(Debug, Default)]
struct Line {
    speedup: Vec<(f64, f64)>,
    most: Vec<(f64, f64)>,
}

/// One operation's lines.
#[derive(Debug)]
struct Panel {
    title: String,
    lines: BTreeMap<String, Line>,
}

impl Panel {
    /// The panels of all rows, in their order.
    fn all(rows: &[Record]) -> Vec<Self> {
        let mut panels: Vec<Self> = Vec::new();
        for row in rows {
            let (against, machine) = match &row.gpu {
                Some(gpu) => (
                    "cuBLASLt and NCCL, NVLink multicast off",
                    format!("{} x {}", row.ranks, gpu.device),
                ),
                None => (
                    "the same unfused",
                    format!("{} ranks on the host", row.ranks),
                ),
            };
            let title = format!(
                "{}, {}: speedup over {against}; {machine}",
                row.op, row.dtype
            );
            let [m, n, k] = row.product_size();
            let variant = match row.variant.as_str() {
                "vendor" => String::new(),
                variant => format!(", {variant}"),
            };
            let name = format!("N {n}, K {k}{variant}");
            let at = match panels.iter().position(|panel| panel.title == title) {
                Some(at) => at,
                None => {
                    panels.push(Self {
                        title,
                        lines: BTreeMap::new(),
                    });
                    panels.len() - 1
                }
            };
            let line = panels[at].lines.entry(name).or_default();
            let x = (m as f64).log2();
            line.most.push((x, row.most_speedup()));
            line.speedup.extend(row.speedup.map(|speedup| (x, speedup)));
        }
        for line in panels.iter_mut().flat_map(|panel| panel.lines.values_mut()) {
            line.most.sort_by(|a, b| a.0.total_cmp(&b.0));
            line.speedup.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        panels
    }

    /// The least and the largest of both coordinates, with some room, and 1 among the speedups.
    fn range(&self) -> [std::ops::Range<f64>; 2] {
        let points = || {
            let lines = self.lines.values();
            lines.flat_map(|line| line.most.iter().chain(&line.speedup))
        };
        let (mut x, mut y) = (f64::INFINITY..f64::NEG_INFINITY, 1.0..1.0f64);
        for (at, value) in points().filter(|(at, value)| at.is_finite() && value.is_finite()) {
            x = x.start.min(*at)..x.end.max(*at);
            y = y.start.min(*value)..y.end.max(*value);
        }
        if x.start > x.end {
            x = 0.0..1.0;
        }
        let room = 0.1 * (y.end - y.start).max(0.2);
        [
            x.start - 0.25..x.end + 0.25,
            (y.start - room).max(0.0)..y.end + room,
        ]
    }
}

/// Draws the chart into a file.
pub(crate) fn draw(file: &Path, rows: &[Record]) -> anyhow::Result<()> {
    fs::write(file, svg(rows)?).with_context(|| format!("--chart {}", file.display()))
}

/// The chart.
fn svg(rows: &[Record]) -> anyhow::Result<String> {
    let panels = Panel::all(rows);
    anyhow::ensure!(!panels.is_empty(), "there is nothing to draw");
    let mut text = String::new();
    let height = HEIGHT * panels.len() as u32;
    let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    for (panel, area) in panels.iter().zip(area.split_evenly((panels.len(), 1))) {
        draw_panel(panel, &area)?;
    }
    area.present()?;
    drop(area);
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_panel(panel: &Panel, area: &Area<'_>) -> anyhow::Result<()> {
    let [x, y] = panel.range();
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, (FONT, 15))
        .margin(12)
        .x_label_area_size(38)
        .y_label_area_size(48)
        .build_cartesian_2d(x.clone(), y)?;
    chart
        .configure_mesh()
        .x_desc("M (rows)")
        .y_desc("speedup")
        .x_labels((x.end - x.start).ceil() as usize + 1)
        // Grid lines fall on whole powers of two, as far as the library finds them round enough.
        .x_label_formatter(&|x| format!("{}", x.exp2().round()))
        .y_label_formatter(&|y| format!("{y:.1}"))
        .light_line_style(WHITE)
        .draw()?;
    chart.draw_series(LineSeries::new([(x.start, 1.0), (x.end, 1.0)], BLACK))?;
    for (number, (name, line)) in panel.lines.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        chart
            .draw_series(DashedLineSeries::new(
                line.most.iter().copied(),
                6,
                4,
                color.stroke_width(1),
            ))?
            .label(format!("{name}: the limit"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 8, y)], color));
        if line.speedup.is_empty() {
            continue;
        }
        chart
            .draw_series(LineSeries::new(
                line.speedup.iter().copied(),
                color.stroke_width(2),
            ))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
        let points = line.speedup.iter();
        chart.draw_series(points.map(|&point| Circle::new(point, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 12))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::record::tests::{gpu, host};

    fn rows() -> Vec<Record> {
        let sizes = [16, 1, 2048, 128, 8192];
        let mut rows: Vec<_> = sizes
            .map(|m| gpu("matmul_all_reduce", m, Some(9.0 + m as f64 / 4096.0)))
            .into();
        rows.extend(sizes.map(|m| gpu("all_gather_matmul", m, None)));
        rows
    }

    #[test]
    fn a_chart_is_well_formed_and_shows_every_point() {
        let svg = svg(&rows()).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        assert_eq!(document.root_element().tag_name().name(), "svg");
        let circles = document
            .descendants()
            .filter(|node| node.has_tag_name("circle"));
        assert_eq!(circles.count(), 5, "one for each speedup");
        let words: String = document
            .descendants()
            .filter_map(|node| node.text())
            .collect();
        for word in [
            "matmul_all_reduce",
            "all_gather_matmul",
            "NVLink multicast off",
            "the limit",
            "4 x NVIDIA H100",
            "M (rows)",
        ] {
            assert!(words.contains(word), "{word}: {words}");
        }
    }

    #[test]
    fn a_line_goes_by_rows() {
        let panels = Panel::all(&rows());
        assert_eq!(panels.len(), 2);
        for panel in &panels {
            for line in panel.lines.values() {
                assert!(line.most.is_sorted_by(|a, b| a.0 < b.0));
                assert_eq!(line.most.len(), 5);
            }
        }
        let [x, y] = panels[0].range();
        assert!(x.contains(&0.0) && x.contains(&13.0) && y.contains(&1.0));
    }

    #[test]
    fn one_point_is_enough_and_none_is_not() {
        assert!(svg(&[host()]).unwrap().contains("ranks on the host"));
        assert!(svg(&[]).is_err());
    }
}

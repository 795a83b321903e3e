//! What was found, as people read it.

use comfy_table::{CellAlignment, Table};

use crate::cli::tune::Found;

/// A table of all points.
pub(super) fn text(found: &[Found], how: &str) -> String {
    let first = &found[0].row;
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_FULL_CONDENSED);
    table.set_header([
        "operation",
        "m",
        "n",
        "k",
        "best",
        "us",
        "next best",
        "us",
        "ways",
    ]);
    let time = |us: f64| format!("{us:.1}");
    for Found {
        row,
        way,
        next,
        measured,
    } in found
    {
        table.add_row([
            row.op.to_owned(),
            row.m.to_string(),
            row.n.to_string(),
            row.k.to_string(),
            way.to_string(),
            time(row.us),
            next.map_or("-".to_owned(), |(way, _)| way.to_string()),
            next.map_or("-".to_owned(), |(_, us)| time(us)),
            measured.to_string(),
        ]);
    }
    for column in [1, 2, 3, 5, 7, 8] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let compiler = match first.compiler.as_str() {
        "" => String::new(),
        compiler => format!(", {compiler}"),
    };
    format!(
        "on {} x {} ({how}{compiler}), {}; m, n, k: the whole problem; medians of the slowest rank's\n{table}",
        first.ranks, first.device, first.dtype
    )
}

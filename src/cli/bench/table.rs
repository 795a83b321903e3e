//! Results as people read them.

use comfy_table::{CellAlignment, Table};

use crate::cli::bench::record::Record;

/// A table for each operation on each kind of machine, in the order of the rows.
pub(crate) fn text(rows: &[Record], how: &str) -> String {
    let alike = |a: &Record, b: &Record| {
        let of = |row: &Record| {
            let key = row.key();
            (
                key.op,
                key.backend,
                key.ranks,
                key.dtype,
                key.device,
                key.settings,
            )
        };
        of(a) == of(b)
    };
    let tables: Vec<_> = rows
        .chunk_by(alike)
        .map(|rows| match &rows[0].gpu {
            Some(_) => on_gpus(rows, how),
            None => on_host(rows, how),
        })
        .collect();
    tables.join("\n\n")
}

fn time(us: f64) -> String {
    format!("{us:.1}")
}

fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

fn or_dash(value: Option<f64>, format: fn(f64) -> String) -> String {
    value.map_or("-".to_owned(), format)
}

/// The table with all columns from `first` on aligned as numbers are.
fn aligned(mut table: Table, first: usize) -> Table {
    for column in first.. {
        match table.column_mut(column) {
            Some(column) => column.set_cell_alignment(CellAlignment::Right),
            None => break,
        };
    }
    table
}

fn on_host(rows: &[Record], how: &str) -> String {
    let first = &rows[0];
    let size = |row: &Record| (row.m, row.n, row.k);
    let one = rows.iter().all(|row| size(row) == size(first));
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_FULL_CONDENSED);
    let sizes: &[&str] = if one { &[] } else { &["m", "n", "k"] };
    let titles = ["variant"].iter().chain(sizes).chain(&[
        "fused us",
        "product us",
        "collective us",
        "unfused us",
        "speedup",
        "over limit",
    ]);
    table.set_header(titles.copied());
    for row in rows {
        let mut cells = vec![row.variant.clone()];
        if !one {
            cells.extend([row.m, row.n, row.k].map(|size| size.to_string()));
        }
        cells.extend([
            or_dash(row.us, time),
            time(row.us_product),
            time(row.us_collective),
            time(row.us_unfused),
            or_dash(row.speedup, ratio),
            or_dash(row.over_limit, ratio),
        ]);
        table.add_row(cells);
    }
    let table = aligned(table, 1);
    let sizes = if one {
        format!(
            "m {}, n {}, k {} ({} a rank), ",
            first.m, first.n, first.k, first.k_per_rank
        )
    } else {
        String::new()
    };
    format!(
        "{} on {} ranks ({how}, {} backend)\n\
         {sizes}{}; medians\n{table}\n\
         speedup: unfused / fused; over limit: fused / max(product, collective)",
        first.op, first.ranks, first.backend, first.dtype,
    )
}

fn on_gpus(rows: &[Record], how: &str) -> String {
    let first = &rows[0];
    let mut table = Table::new();
    // Without lines between rows: a sweep has many.
    table.load_style(comfy_table::presets::ASCII_FULL_CONDENSED);
    table.set_header([
        "m",
        "n",
        "k",
        "variant",
        "cuBLASLt",
        "TFLOP/s",
        "ours",
        "NCCL",
        "windows",
        "ours",
        "sequence",
        "fused",
        "speedup",
        "most",
        "over limit",
        "weights",
    ]);
    for row in rows {
        let Some(gpu) = &row.gpu else { continue };
        let [m, n, k] = row.product_size().map(|size| size.to_string());
        table.add_row([
            m,
            n,
            k,
            row.variant.clone(),
            time(row.us_product),
            format!("{:.0}", row.product_flop() / row.us_product * 1e-6),
            or_dash(gpu.us_product_ours, time),
            time(gpu.us_nccl),
            or_dash(gpu.us_nccl_window, time),
            or_dash(gpu.us_collective_ours, time),
            time(gpu.us_sequence),
            or_dash(row.us, time),
            or_dash(row.speedup, ratio),
            ratio(row.most_speedup()),
            or_dash(row.over_limit, ratio),
            time(gpu.us_bandwidth_bound),
        ]);
    }
    let table = aligned(table, 4);
    let gather = first.settings.gather.as_ref();
    let gather = gather.map_or(String::new(), |gather| format!(" by {gather}"));
    let (device, versions) = match &first.gpu {
        Some(gpu) => (
            gpu.device.as_str(),
            format!(
                "cuBLASLt {}, NCCL {}; memory is read at {:.0} GB/s; NVLink multicast {} for all",
                gpu.cublaslt, gpu.nccl, gpu.read_gbps, gpu.multicast
            ),
        ),
        None => ("", String::new()),
    };
    format!(
        "{}{gather} on {} x {device} ({how}), {}\n{versions}\n{table}\n\
         m, n, k: one rank's product; times in us, medians of the slowest rank's\n\
         products alone: cuBLASLt, ours; collectives alone: NCCL, NCCL on registered windows, ours; sequence: cuBLASLt with the \
         better NCCL\n\
         speedup: sequence / fused; most: sequence / max(cuBLASLt, fastest collective); over limit: fused / that max;\n\
         weights: the time to read them",
        first.op, first.ranks, first.dtype,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::record::tests::{gpu, host};

    #[test]
    fn a_single_point_stands_above_its_table_and_several_in_it() {
        let one = text(&[host()], "threads");
        assert!(one.contains("m 16, n 32, k 64 (32 a rank), f32"), "{one}");
        assert!(
            one.contains("| variant  |") && !one.contains("| m "),
            "{one}"
        );
        let other = Record { m: 99, ..host() };
        let two = text(&[host(), other], "threads");
        assert!(two.contains("|  m |") && two.contains("| 99 |"), "{two}");
    }

    #[test]
    fn the_table_of_gpus_says_what_was_measured_and_that_multicast_was_off() {
        let rows = [
            gpu("matmul_all_reduce", 16, None),
            gpu("matmul_all_reduce", 128, Some(10.0)),
            gpu("all_gather_matmul", 16, None),
        ];
        let text = text(&rows, "threads");
        assert_eq!(text.matches("NVLink multicast off for all").count(), 2);
        assert!(text.contains("matmul_all_reduce on 4 x NVIDIA H100 80GB HBM3 (threads), bf16"));
        // Sequence 13, limit 8; fused 10.
        assert!(text.contains("1.62 |"), "{text}");
        assert!(text.contains("1.30 |") && text.contains("1.25 |"), "{text}");
    }
}

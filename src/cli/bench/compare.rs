//! Baselines: the ratios of an earlier bench on the same kind of machine, and what has moved since.
//!
//! Times differ from one sitting to the next, with clocks, temperatures and neighbours; ratios of times of one sitting hardly do.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::cli::bench::record::{Key, Record};

/// A ratio that changes by less than this has not moved.
const STILL: f64 = 0.05;

/// A row of a baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratios {
    #[serde(flatten)]
    pub(crate) key: Key,
    /// The sequence over the fused operation.
    pub(crate) speedup: Option<f64>,
    /// The fused operation over the larger of product and collective.
    pub(crate) over_limit: Option<f64>,
    /// The vendor's product over ours.
    pub(crate) product: Option<f64>,
    /// The vendor's better collective over ours.
    pub(crate) collective: Option<f64>,
    /// The sequence over the larger of product and collective: what of the machine and the vendor's libraries the others rest on.
    pub(crate) most_speedup: f64,
}

impl Ratios {
    pub(crate) fn of(record: &Record) -> Self {
        let gpu = record.gpu.as_ref();
        let vendors = gpu.map(|gpu| {
            gpu.us_nccl_window
                .map_or(gpu.us_nccl, |window| window.min(gpu.us_nccl))
        });
        Self {
            key: record.key(),
            speedup: record.speedup,
            over_limit: record.over_limit,
            product: gpu
                .and_then(|gpu| gpu.us_product_ours)
                .map(|ours| record.us_product / ours),
            collective: gpu
                .and_then(|gpu| gpu.us_collective_ours)
                .zip(vendors)
                .map(|(ours, vendors)| vendors / ours),
            most_speedup: record.most_speedup(),
        }
    }

    /// Each ratio that is there, its name, and whether more of it is better; of the last that cannot be said.
    fn named(&self) -> [(&'static str, Option<f64>, Option<bool>); 5] {
        [
            ("speedup", self.speedup, Some(true)),
            ("over limit", self.over_limit, Some(false)),
            ("product", self.product, Some(true)),
            ("collective", self.collective, Some(true)),
            ("most speedup", Some(self.most_speedup), None),
        ]
    }
}

/// A ratio that has moved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Moved {
    #[serde(flatten)]
    pub(crate) key: Key,
    pub(crate) ratio: &'static str,
    pub(crate) before: f64,
    pub(crate) now: f64,
    /// Whether it got worse; nothing where it can be neither.
    pub(crate) worse: Option<bool>,
}

/// Whether a ratio has moved. One that is no number has.
fn has_moved(before: f64, now: f64) -> bool {
    let change = (now / before - 1.0).abs();
    change.is_nan() || change > STILL
}

/// A bench held against a baseline.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Comparison {
    pub(crate) moved: Vec<Moved>,
    /// Rows that both have.
    pub(crate) common: usize,
    /// Rows that only one has.
    pub(crate) only_before: usize,
    pub(crate) only_now: usize,
}

impl Comparison {
    pub(crate) fn new(before: &[Ratios], now: &[Ratios]) -> Self {
        // Of several rows of one point, the last counts: it was measured last.
        let known: HashMap<_, _> = before.iter().map(|row| (&row.key, row)).collect();
        let current: HashMap<_, _> = now.iter().map(|row| (&row.key, row)).collect();
        let mut comparison = Self {
            only_before: known
                .keys()
                .filter(|key| !current.contains_key(*key))
                .count(),
            ..Self::default()
        };
        for row in now {
            if !std::ptr::eq(current[&row.key], row) {
                continue;
            }
            let Some(before) = known.get(&row.key) else {
                comparison.only_now += 1;
                continue;
            };
            comparison.common += 1;
            for ((ratio, before, better), (_, now, _)) in
                before.named().into_iter().zip(row.named())
            {
                if let (Some(before), Some(now)) = (before, now)
                    && has_moved(before, now)
                {
                    comparison.moved.push(Moved {
                        key: row.key.clone(),
                        ratio,
                        before,
                        now,
                        worse: better.map(|more| (now > before) != more),
                    });
                }
            }
        }
        comparison
    }

    /// Whether anything got worse.
    pub(crate) fn is_worse(&self) -> bool {
        self.moved.iter().any(|moved| moved.worse == Some(true))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for moved in &self.moved {
            let Key {
                op,
                variant,
                ranks,
                m,
                n,
                k,
                dtype,
                ..
            } = &moved.key;
            writeln!(
                f,
                "{}: {op} {variant} {m} x {n} x {k} {dtype} on {ranks} ranks: {} {:.3} -> {:.3} ({:+.1} %)",
                match moved.worse {
                    Some(true) => "worse",
                    Some(false) => "better",
                    None => "moved",
                },
                moved.ratio,
                moved.before,
                moved.now,
                (moved.now / moved.before - 1.0) * 100.0
            )?;
        }
        write!(
            f,
            "{} ratios of {} rows moved by more than {} %",
            self.moved.len(),
            self.common,
            STILL * 100.0
        )?;
        if self.only_before > 0 || self.only_now > 0 {
            write!(
                f,
                "; {} rows are in the baseline alone, {} in these results alone",
                self.only_before, self.only_now
            )?;
        }
        Ok(())
    }
}

/// Writes a baseline, one row a line, in an order that does not depend on the bench's.
pub(crate) fn write(file: &Path, rows: &[Ratios]) -> anyhow::Result<()> {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    let mut text = String::new();
    for row in rows {
        let mut row = row.clone();
        // More digits are noise, and would make every new baseline differ in every line.
        let round = |ratio: f64| (ratio * 1000.0).round() / 1000.0;
        for ratio in [
            &mut row.speedup,
            &mut row.over_limit,
            &mut row.product,
            &mut row.collective,
        ] {
            *ratio = ratio.map(round);
        }
        row.most_speedup = round(row.most_speedup);
        text += &serde_json::to_string(&row)?;
        text.push('\n');
    }
    fs::write(file, text).with_context(|| format!("writing the baseline {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::record::tests::{gpu, host};
    use crate::cli::bench::results;

    #[test]
    fn what_moved_by_more_than_five_percent_is_told_and_nothing_else() {
        let before = [
            Ratios::of(&host()),
            Ratios::of(&gpu("matmul_all_reduce", 16, Some(10.0))),
        ];
        assert!(Comparison::new(&before, &before).moved.is_empty());
        let mut now = before.to_vec();
        now[0].speedup = now[0].speedup.map(|it| it * 1.049);
        now[1].speedup = now[1].speedup.map(|it| it * 0.949);
        now[1].over_limit = now[1].over_limit.map(|it| it * 0.9);
        now[1].most_speedup *= 1.2;
        let comparison = Comparison::new(&before, &now);
        let moved: Vec<_> = comparison
            .moved
            .iter()
            .map(|moved| (moved.ratio, moved.worse))
            .collect();
        assert_eq!(
            moved,
            [
                ("speedup", Some(true)),
                ("over limit", Some(false)),
                ("most speedup", None)
            ]
        );
        assert!(comparison.is_worse());
        assert_eq!(comparison.common, 2);
        let text = comparison.to_string();
        assert!(
            text.starts_with("worse: matmul_all_reduce auto 16 x 8192 x 14336 bf16 on 4 ranks: speedup 1.300 -> 1.234 (-5.1 %)\n"),
            "{text}"
        );
    }

    #[test]
    fn a_ratio_that_is_no_number_has_moved() {
        let before = [Ratios::of(&host())];
        let mut now = before.to_vec();
        now[0].speedup = Some(f64::NAN);
        assert_eq!(Comparison::new(&before, &now).moved.len(), 1);
    }

    #[test]
    fn rows_of_other_machines_and_points_are_not_compared() {
        let before = [Ratios::of(&gpu("matmul_all_reduce", 16, Some(10.0)))];
        let mut other = gpu("matmul_all_reduce", 16, Some(20.0));
        if let Some(gpu) = &mut other.gpu {
            gpu.device = "another".into();
        }
        let now = [
            Ratios::of(&other),
            Ratios::of(&gpu("matmul_all_reduce", 32, Some(20.0))),
        ];
        let comparison = Comparison::new(&before, &now);
        assert!(comparison.moved.is_empty());
        assert_eq!(
            (
                comparison.common,
                comparison.only_before,
                comparison.only_now
            ),
            (0, 1, 2)
        );
    }

    #[test]
    fn a_baseline_has_ratios_alone_and_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("base.jsonl");
        let rows = [
            Ratios::of(&gpu("matmul_all_reduce", 16, Some(10.0))),
            Ratios::of(&gpu("matmul_all_reduce", 1, Some(10.0))),
        ];
        write(&file, &rows).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("us"), "no times: {text}");
        let back: Vec<Ratios> = results::read(&file).unwrap();
        assert_eq!(back[0].key.m, 1);
        assert!(Comparison::new(&back, &rows).moved.is_empty());
        assert_eq!(Comparison::new(&back, &rows).common, 2);
    }
}

//! `iris bench`: a fused call against the same work unfused, measured in turn.
//!
//! Each pair measures four things one after the other: the fused call, the product alone with all ranks multiplying at once, the
//! collective alone, and both in sequence. A measurement begins at a barrier and ends when the slowest rank is done; what
//! takes little time is repeated back to back within it. Reported are medians over the pairs.

use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table};
use iris::heap::{Stream, World, WorldConfig};
use iris::ops::{Bound, DType, Element, FusedConfig, OpError, Variant};
use iris_testkit::{AnyOperation, Number};
use serde::Serialize;

use crate::cli::args::{self, Backend};
use crate::cli::derive::{Derivation, Matrices};
use crate::cli::error::Unusable;
use crate::cli::footprint::Footprint;
use crate::cli::launch::{self, Place};
use crate::cli::measure::{BoundUnfused, Unfused};
use crate::cli::operands::Operands;
use crate::cli::operation::Operation;
use crate::cli::options::{self, Options};
use crate::cli::output;
use crate::cli::problem::{Problem, check_memory};
use crate::cli::progress::Progress;
use crate::cli::split::{Size, Split};

/// A measurement repeats what takes less than this until it takes this long.
const LONG_ENOUGH: Duration = Duration::from_millis(5);
/// But no more often than this.
const MOST_REPEATS: u32 = 200;
/// Calls of each before anything is counted.
const WARM_UP: u32 = 2;

/// One variant's medians, in the order of its JSON.
#[derive(Debug, Clone, Serialize)]
struct Row {
    op: &'static str,
    backend: &'static str,
    variant: String,
    ranks: usize,
    m: usize,
    n: usize,
    k: usize,
    k_per_rank: usize,
    dtype: String,
    us: f64,
    us_product: f64,
    us_collective: f64,
    us_unfused: f64,
    speedup: f64,
    over_limit: f64,
}

/// Measures and prints.
pub(crate) fn bench(arguments: &args::Bench) -> anyhow::Result<u8> {
    let place = Place::find(&arguments.world)?;
    let not_yet = |backend| Err(Unusable::Backend { backend }.into());
    match arguments.world.backend {
        Backend::Auto | Backend::Host => {}
        Backend::Cuda => return not_yet("cuda"),
        Backend::Hip => return not_yet("hip"),
    }
    let options = options::check(
        arguments.operation,
        &arguments.world,
        &arguments.how,
        arguments.variant,
    )?;
    let size = Size {
        m: arguments.m.get(),
        n: arguments.n.get(),
        k: arguments.k.get(),
    };
    let problem = Problem::random(size, arguments.how.dtype.unwrap_or(DType::F32));
    let split = Split {
        operation: arguments.operation,
        gather: options.gather,
        size,
        world: place.ranks(),
    };
    let footprint = Footprint {
        split,
        dtype: problem.dtype,
        tile: arguments.how.tile,
        slots: 2,
        workspaces: 2,
    };
    check_memory("a bench", size, footprint.machine(place.processes()))?;
    let heap = options::heap(&arguments.world, size, footprint.heap())?;
    if let Place::Parent { ranks } = place {
        return launch::processes(ranks);
    }
    let job = Job {
        arguments,
        options,
        split,
    };
    let config = WorldConfig {
        heap_bytes: heap,
        ..WorldConfig::default()
    };
    let rows = match problem.dtype {
        DType::F32 => job.start::<f32>(&place, &config, &problem),
        DType::F16 => job.start::<half::f16>(&place, &config, &problem),
        DType::BF16 => job.start::<half::bf16>(&place, &config, &problem),
    };
    if let Some(rows) = rows.map_err(|error| options::blame_heap(error, &arguments.world))? {
        if arguments.json {
            rows.iter().try_for_each(output::json)?;
        } else {
            output::text(&describe(&place, arguments, &rows))?;
        }
    }
    Ok(0)
}

/// A bench that was found possible.
struct Job<'a> {
    arguments: &'a args::Bench,
    options: Options,
    split: Split,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Step {
    Fused,
    Product,
    Collective,
    Both,
}

impl Job<'_> {
    fn start<T: Element + Number>(
        &self,
        place: &Place,
        config: &WorldConfig,
        problem: &Problem,
    ) -> anyhow::Result<Option<Vec<Row>>> {
        let matrices = problem.matrices::<T>(self.arguments.seed);
        place.run(config, |world| self.on_rank(world, &matrices))
    }

    /// The variants to be measured.
    fn variants(&self) -> Vec<Variant> {
        match (self.options.variant, self.split.operation) {
            (Some(variant), _) => vec![variant],
            (None, Operation::MatmulAllReduce) => Variant::ALL
                .into_iter()
                .filter(|variant| *variant != Variant::Auto)
                .collect(),
            (None, _) => vec![Variant::Auto],
        }
    }

    /// One rank's side; rank 0 has the rows.
    fn on_rank<T: Element + Number>(
        &self,
        world: &World,
        matrices: &Matrices<T>,
    ) -> anyhow::Result<Option<Vec<Row>>> {
        let Size { m, n, k } = self.split.size;
        let operands = Operands::new(world, self.split, false, false)?;
        operands.fill(matrices, Derivation::Given)?;
        let stream = Stream::new(world)?;
        let variants = self.variants();
        let pairs = self.arguments.pairs.get();
        let mut progress = Progress::new(world, "pairs", (pairs * variants.len()) as u64);
        let mut rows = Vec::new();
        for variant in variants {
            let config = FusedConfig {
                tile: self.arguments.how.tile,
                budget: self.arguments.how.budget,
                ..FusedConfig::new(m, n, k)
            };
            let op = self.split.operation.with(variant, self.split.gather);
            let config = op.configure(config);
            let mut fused = AnyOperation::<T>::new(op, world, config.clone())?;
            let mut unfused = Unfused::<T>::new(world, self.split, &config)?;
            let carried_out = fused.plan(m).map_or(variant, |plan| plan.variant);
            let mut bench = Measured {
                world,
                stream: &stream,
                operands: &operands,
                fused: fused.bind(&stream)?,
                unfused: unfused.bind(&stream, &operands)?,
            };
            let medians = bench.medians(pairs, &mut progress)?;
            drop(bench);
            fused.free()?;
            unfused.free(world)?;
            rows.push(self.row::<T>(carried_out, medians));
        }
        Ok((world.rank() == 0).then_some(rows))
    }

    fn row<T: Element>(&self, variant: Variant, [us, product, collective, both]: [f64; 4]) -> Row {
        let Size { m, n, k } = self.split.size;
        Row {
            op: self.split.operation.name(),
            backend: "host",
            variant: variant.to_string(),
            ranks: self.split.world,
            m,
            n,
            k,
            k_per_rank: self.split.k_per_rank(),
            dtype: T::DTYPE.to_string(),
            us,
            us_product: product,
            us_collective: collective,
            us_unfused: both,
            speedup: both / us,
            over_limit: us / product.max(collective),
        }
    }
}

/// One rank's side of the measurements of a variant.
struct Measured<'a, T: Element> {
    world: &'a World,
    stream: &'a Stream,
    operands: &'a Operands<T>,
    fused: Bound<'a, T>,
    unfused: BoundUnfused<'a, T>,
}

impl<T: Element> Measured<'_, T> {
    /// Median microseconds of a fused call, the product, the collective, and both.
    fn medians(&mut self, pairs: usize, progress: &mut Progress) -> anyhow::Result<[f64; 4]> {
        const STEPS: [Step; 4] = [Step::Fused, Step::Product, Step::Collective, Step::Both];
        let mut repeats = [1; 4];
        for (step, repeats) in STEPS.into_iter().zip(&mut repeats) {
            self.measure(step, WARM_UP)?;
            // The same on all ranks, because the time is.
            let once = self.measure(step, 1)?.max(1e-3);
            let enough = (LONG_ENOUGH.as_secs_f64() * 1e6 / once).ceil();
            *repeats = enough.clamp(1.0, f64::from(MOST_REPEATS)) as u32;
        }
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..pairs {
            for ((step, repeats), times) in STEPS.into_iter().zip(repeats).zip(&mut times) {
                times.push(self.measure(step, repeats)?);
            }
            progress.step();
        }
        Ok(times.map(median))
    }

    /// Microseconds of one call out of `repeats`, on the slowest rank. Collective.
    fn measure(&mut self, step: Step, repeats: u32) -> anyhow::Result<f64> {
        self.world.barrier()?;
        let start = Instant::now();
        for _ in 0..repeats {
            self.enqueue(step)?;
        }
        self.stream.synchronize()?;
        let seconds = start.elapsed().as_secs_f64();
        let slowest = self
            .world
            .all_gather(seconds)?
            .into_iter()
            .fold(0.0, f64::max);
        Ok(slowest * 1e6 / f64::from(repeats))
    }

    fn enqueue(&mut self, step: Step) -> Result<(), OpError> {
        match step {
            Step::Fused => self.operands.call(&mut self.fused),
            Step::Product => self.unfused.product(),
            Step::Collective => self.unfused.collective(),
            Step::Both => self.unfused.both(),
        }
    }
}

/// The middle one, or the mean of the two middle ones.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

fn describe(place: &Place, arguments: &args::Bench, rows: &[Row]) -> String {
    let mut table = Table::new();
    table.set_header([
        "variant",
        "fused us",
        "product us",
        "collective us",
        "unfused us",
        "speedup",
        "over limit",
    ]);
    for row in rows {
        let time = |us: f64| format!("{us:.1}");
        table.add_row([
            row.variant.clone(),
            time(row.us),
            time(row.us_product),
            time(row.us_collective),
            time(row.us_unfused),
            format!("{:.2}", row.speedup),
            format!("{:.2}", row.over_limit),
        ]);
    }
    for column in 1..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let Some(first) = rows.first() else {
        return table.to_string();
    };
    format!(
        "{} on {} ranks ({}, {} backend)\n\
         m {}, n {}, k {} ({} a rank), {}; medians of {} pairs\n{table}\n\
         speedup: unfused / fused; over limit: fused / max(product, collective)",
        first.op,
        first.ranks,
        place.how(),
        first.backend,
        first.m,
        first.n,
        first.k,
        first.k_per_rank,
        first.dtype,
        arguments.pairs,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}

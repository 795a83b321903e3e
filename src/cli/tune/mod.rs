//! `iris tune`: which way each operation is best carried out, kept in a table.
//!
//! At each point every way that makes sense is measured through the door by which it is chosen later: an operation is created with a
//! table of one row, which says to go that way. The fastest is appended to the table as soon as it is known, so that tuning that
//! outlasts its time goes on where it was.

mod gpu;
mod host;
mod table;
mod ways;

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use iris::heap::World;
use iris::ops::tuning::{Machine, Tuning, TuningRow};
use iris::ops::{FusedConfig, Plan, Variant};

use crate::cli::args::{self, Backend, Gather};
use crate::cli::bench::points::{self, Point};
use crate::cli::bench::{self, refuse, results};
use crate::cli::error::{self, Unusable};
use crate::cli::launch::{self, Place};
use crate::cli::operation::Operation;
use crate::cli::output::{self, Out};
use crate::cli::progress::Progress;
use crate::cli::tables::Origin;
use ways::Way;

/// Measures, keeps and prints.
pub(crate) fn tune(arguments: &args::Tune) -> anyhow::Result<u8> {
    match arguments.world.backend {
        Backend::Cuda => on_gpus(arguments),
        Backend::Hip => Err(Unusable::Backend {
            command: "tune",
            backend: "hip",
        }
        .into()),
        Backend::Auto => {
            let place = Place::find(&arguments.world)?;
            match bench::gpu::are_enough(&place, &arguments.world) {
                true => on_gpus(arguments),
                false => on_host(arguments),
            }
        }
        Backend::Host => on_host(arguments),
    }
}

fn on_host(arguments: &args::Tune) -> anyhow::Result<u8> {
    let place = Place::find(&arguments.world)?;
    let tuner = Tuner::new(arguments, &place)?;
    let job = host::Job::check(&tuner)?;
    if let Place::Parent { ranks } = place {
        return launch::processes(ranks, false);
    }
    tuner.report(job.run()?)
}

fn on_gpus(arguments: &args::Tune) -> anyhow::Result<u8> {
    refuse(
        &[(arguments.world.heap.is_some(), "--heap")],
        "--backend host",
    )?;
    let place = bench::gpu::place(&arguments.world)?;
    bench::gpu::check(&place)?;
    let tuner = Tuner::new(arguments, &place)?;
    if let Place::Parent { ranks } = place {
        return launch::processes(ranks, true);
    }
    tuner.report(gpu::run(&tuner)?)
}

/// What is tuned, where, and what is known already.
struct Tuner<'a> {
    arguments: &'a args::Tune,
    place: &'a Place,
    gather: Gather,
    points: Vec<Point>,
    file: PathBuf,
    known: Vec<TuningRow>,
}

/// What was found at a point.
struct Found {
    row: TuningRow,
    way: Way,
    /// The next best way, and its time in microseconds.
    next: Option<(Way, f64)>,
    /// How many ways were measured.
    measured: usize,
}

/// What measures ways on a backend: one rank's side.
trait Bench {
    /// What rows are of.
    fn machine(&self) -> &Machine;

    /// What there is to choose from.
    fn backend(&self) -> ways::Backend;

    /// Microseconds of a call at a point on each of the ways, of the slowest rank; nothing of one that there is no memory for.
    /// `rows` say how to go them. Collective.
    fn measure(&mut self, point: &Point, rows: &[TuningRow]) -> anyhow::Result<Vec<Option<f64>>>;
}

impl<'a> Tuner<'a> {
    fn new(arguments: &'a args::Tune, place: &'a Place) -> anyhow::Result<Self> {
        refuse(
            &[(arguments.world.share_devices, "--share-devices")],
            "`iris run`",
        )?;
        for operation in &arguments.operations {
            if arguments.gather.is_some() && *operation != Operation::AllGatherMatmul {
                return Err(Unusable::NotForOperation {
                    argument: "--gather".to_owned(),
                    operation: operation.name(),
                }
                .into());
            }
        }
        let points = points::points(&arguments.operations, &arguments.sizes, place.ranks())?;
        let (origin, file) = match &arguments.out {
            Some(file) => (Origin::Out, file.clone()),
            None => default_file()?,
        };
        Out::check(origin, &file)?;
        let known = match file.metadata() {
            Ok(_) => Tuning::read(&file).map_err(|error| Unusable::Table { origin, error })?,
            Err(error) if error.kind() == ErrorKind::NotFound => Tuning::default(),
            Err(source) => return Err(Unusable::Unreadable { file, source }.into()),
        };
        Ok(Self {
            arguments,
            place,
            gather: arguments.gather.unwrap_or(Gather::Rows),
            points,
            file,
            known: known.rows().cloned().collect(),
        })
    }

    /// One rank's side of all points that are left: rank 0 has what was found.
    fn on_rank(&self, world: &World, bench: &mut impl Bench) -> anyhow::Result<Option<Vec<Found>>> {
        let (ranks, dtype) = (world.size(), self.arguments.dtype);
        let machine = bench.machine().clone();
        let row = |way, point: &Point| ways::row(way, point, self.gather, ranks, dtype, &machine);
        // Rank 0's file counts.
        let own: Vec<u8> = self
            .points
            .iter()
            .map(|point| {
                let any = Way {
                    variant: Variant::Auto,
                    packets: false,
                    tile: None,
                    fused: true,
                    streamed: false,
                };
                let wanted = row(any, point);
                let is_there = self.known.iter().any(|row| is_of_same_point(row, &wanted));
                u8::from(self.arguments.again || !is_there)
            })
            .collect();
        let left = world.all_gather_bytes(&own)?.swap_remove(0);
        let points: Vec<_> = self.points.iter().zip(left).collect();
        let points: Vec<_> = points.iter().filter(|(_, left)| *left == 1).collect();
        let mut progress = Progress::new(world, "points", points.len() as u64);
        let mut all = Vec::new();
        for (point, _) in points {
            let ways = bench.backend().ways(point, self.gather, ranks, dtype);
            let rows: Vec<_> = ways.iter().map(|&way| row(way, point)).collect();
            let times = bench.measure(point, &rows)?;
            if world.rank() == 0 {
                let found = found(point, &ways, rows, &times)?;
                results::append(&self.file, std::slice::from_ref(&found.row))?;
                all.push(found);
            }
            progress.step();
        }
        Ok((world.rank() == 0).then_some(all))
    }

    /// The configuration of an operation that goes the way a row says.
    fn config(&self, row: &TuningRow) -> FusedConfig {
        FusedConfig {
            budget: self.arguments.budget,
            ..FusedConfig::new(row.m, row.n, row.k)
        }
        .tuning(Arc::new(Tuning::new([row.clone()])))
    }

    /// Prints what was found, which only rank 0's process has.
    fn report(&self, found: Option<Vec<Found>>) -> anyhow::Result<u8> {
        let Some(found) = found else {
            return Ok(0);
        };
        if self.arguments.json {
            found
                .iter()
                .try_for_each(|found| output::json(&found.row))?;
            return Ok(0);
        }
        let there = self.points.len() - found.len();
        let mut text = String::new();
        if !found.is_empty() {
            text = table::text(&found, self.place.how()) + "\n";
        }
        text += &format!(
            "{} points measured, {there} were there; {}",
            found.len(),
            self.file.display()
        );
        output::text(&text)?;
        Ok(0)
    }
}

/// Whether an operation goes the way that a row says: what is measured is what is kept.
fn goes(plan: Option<Plan>, row: &TuningRow) -> anyhow::Result<()> {
    let right = plan.is_some_and(|plan| {
        (plan.variant, plan.fused) == (row.variant, row.fused)
            && row.tile.is_none_or(|tile| tile == plan.tile)
    });
    if right {
        return Ok(());
    }
    anyhow::bail!("an operation created to go by {row} goes by {plan:?}")
}

/// What one rank came to at a way, settled with the others': nothing where some had no memory for it and no rank failed otherwise.
/// Collective.
fn settle<R>(world: &World, way: &TuningRow, own: anyhow::Result<R>) -> anyhow::Result<Option<R>> {
    const DONE: u8 = 0;
    const NO_MEMORY: u8 = 1;
    const BY_ANOTHER: u8 = 2;
    const FAILED: u8 = 3;
    let state = match &own {
        Ok(_) => DONE,
        Err(error) if crate::cli::options::is_want_of_memory(error) => NO_MEMORY,
        Err(error) if crate::cli::options::is_of_another_rank(error) => BY_ANOTHER,
        Err(_) => FAILED,
    };
    let states = world.all_gather(state)?;
    let is = |state| states.contains(&state);
    match own {
        Ok(value) if states.iter().all(|state| *state == DONE) => Ok(Some(value)),
        _ if is(NO_MEMORY) && !is(FAILED) => {
            if world.rank() == 0 {
                error::say(&format!("left out for want of memory: {way}"));
            }
            Ok(None)
        }
        Err(error) => Err(error),
        Ok(_) => anyhow::bail!("another rank failed"),
    }
}

/// Whether two rows are of the same point on the same machine.
fn is_of_same_point(a: &TuningRow, b: &TuningRow) -> bool {
    let of = |row: &TuningRow| {
        let sizes = [row.ranks, row.m, row.n, row.k];
        (row.op, row.gather, row.dtype, sizes)
    };
    of(a) == of(b) && (&a.device, &a.compiler) == (&b.device, &b.compiler)
}

/// The fastest of the ways at a point.
fn found(
    point: &Point,
    ways: &[Way],
    rows: Vec<TuningRow>,
    times: &[Option<f64>],
) -> anyhow::Result<Found> {
    let timed = ways.iter().zip(rows).zip(times);
    let mut timed: Vec<_> = timed
        .filter_map(|((way, row), us)| Some((*way, row, (*us)?)))
        .collect();
    timed.sort_by(|(.., a), (.., b)| a.total_cmp(b));
    let next = timed.get(1).map(|(way, _, us)| (*way, *us));
    let measured = timed.len();
    let best = timed.into_iter().next();
    let (way, row, us) = best.with_context(|| {
        let size = point.size;
        format!(
            "{} at {} x {} x {}: there is no memory for any way",
            point.operation, size.m, size.n, size.k
        )
    })?;
    Ok(Found {
        row: TuningRow { us, ..row },
        way,
        next,
        measured,
    })
}

/// The user's table, and what names it. The cache's directory is made where it is missing; one that somebody names must be there.
fn default_file() -> Result<(Origin, PathBuf), Unusable> {
    let file = Tuning::file().ok_or(Unusable::NoTable)?;
    let origin = Origin::of_environment();
    if let (Origin::Cache, Some(directory)) = (origin, file.parent()) {
        DirBuilder::new()
            .recursive(true)
            // As the cache has it.
            .mode(0o700)
            .create(directory)
            .map_err(|error| Unusable::Out {
                origin,
                file: file.clone(),
                detail: format!("making its directory: {error}"),
            })?;
    }
    Ok((origin, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::split::Size;
    use iris::ops::DType;

    const POINT: Point = Point {
        operation: Operation::MatmulAllReduce,
        size: Size { m: 4, n: 8, k: 16 },
    };

    fn rows() -> (Vec<Way>, Vec<TuningRow>) {
        let machine = Machine {
            device: "host".into(),
            compiler: "some".into(),
        };
        let ways = [Variant::OneShot, Variant::TwoShot].map(|variant| Way {
            variant,
            packets: false,
            tile: None,
            fused: true,
            streamed: false,
        });
        let row = |way| ways::row(way, &POINT, Gather::Rows, 2, DType::F32, &machine);
        (ways.to_vec(), ways.map(row).to_vec())
    }

    #[test]
    fn the_fastest_of_what_there_was_memory_for_is_kept() {
        let (ways, rows) = rows();
        let best = |times: [Option<f64>; 2]| found(&POINT, &ways, rows.clone(), &times);
        let both = best([Some(3.0), Some(2.0)]).unwrap();
        assert_eq!((both.row.variant, both.row.us), (Variant::TwoShot, 2.0));
        assert_eq!((both.next, both.measured), (Some((ways[0], 3.0)), 2));
        let one = best([Some(3.0), None]).unwrap();
        assert_eq!((one.row.variant, one.row.us), (Variant::OneShot, 3.0));
        assert_eq!((one.next, one.measured), (None, 1));
        assert!(best([None, None]).is_err());
    }

    #[test]
    fn a_row_of_another_compiler_is_no_reason_to_leave_a_point_out() {
        let (_, rows) = rows();
        let changed = |change: &dyn Fn(&mut TuningRow)| {
            let mut other = rows[1].clone();
            change(&mut other);
            is_of_same_point(&rows[0], &other)
        };
        assert!(changed(&|row| row.us = 3.0));
        assert!(!changed(&|row| row.compiler = "another".into()));
        assert!(!changed(&|row| row.m = 5));
        assert!(!changed(&|row| row.ranks = 3));
        assert!(!changed(&|row| row.dtype = DType::F16));
    }
}

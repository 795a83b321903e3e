//! `iris bench`: a fused call against the same work unfused.
//!
//! Points are measured one after the other, on the host or on GPUs; each gives one row or several, which is kept in a file as soon
//! as it is there, so that a bench that outlasts its time goes on where it was. What was measured is then shown, drawn, and held
//! against a baseline.

mod chart;
pub(in crate::cli) mod clock;
mod compare;
pub(in crate::cli) mod gpu;
pub(in crate::cli) mod heap;
mod host;
mod llama;
pub(in crate::cli) mod points;
mod record;
pub(in crate::cli) mod results;
mod table;

use iris::ops::{DType, Variant};

use crate::cli::args::{self, Backend};
use crate::cli::bench::compare::{Comparison, Ratios};
use crate::cli::bench::points::Point;
use crate::cli::bench::record::{Key, Record, Settings};
use crate::cli::error::Unusable;
use crate::cli::launch::{self, Place};
use crate::cli::operation::Operation;
use crate::cli::output;

/// Measures and prints.
pub(crate) fn bench(arguments: &args::Bench) -> anyhow::Result<u8> {
    // Before anything is measured that would then be lost.
    let baseline = arguments.compare.as_deref().map(results::read);
    let baseline = baseline.transpose()?;
    for (argument, file) in [
        ("--chart", &arguments.chart),
        ("--write-baseline", &arguments.write_baseline),
        ("--resume", &arguments.resume),
    ] {
        let file = file.as_deref();
        file.map_or(Ok(()), |file| results::is_writable(argument, file))?;
    }
    let baseline = baseline.as_deref();
    if let Some(file) = &arguments.results {
        let rows: Vec<Record> = results::read(file)?;
        if rows.is_empty() {
            return Err(Unusable::NoRows { file: file.clone() }.into());
        }
        return report(arguments, "as measured", &rows, baseline);
    }
    match arguments.world.backend {
        Backend::Cuda => on_gpus(arguments, baseline),
        Backend::Hip => Err(Unusable::Backend {
            command: "bench",
            backend: "hip",
        }
        .into()),
        Backend::Auto if gpu::are_enough(&Place::find(&arguments.world)?, &arguments.world) => {
            on_gpus(arguments, baseline)
        }
        Backend::Auto | Backend::Host => on_host(arguments, baseline),
    }
}

/// Refuses arguments that were given and have no effect.
pub(in crate::cli) fn refuse(
    given: &[(bool, &'static str)],
    only_for: &'static str,
) -> Result<(), Unusable> {
    match given.iter().find(|(given, _)| *given) {
        Some(&(_, argument)) => Err(Unusable::NotForBackend {
            argument,
            backend: only_for,
        }),
        None => Ok(()),
    }
}

fn on_host(arguments: &args::Bench, baseline: Option<&[Ratios]>) -> anyhow::Result<u8> {
    let gpu_only = [
        (arguments.vendor_only, "--vendor-only"),
        (arguments.tf32, "--tf32"),
    ];
    refuse(&gpu_only, "--backend cuda")?;
    refuse(
        &[(arguments.world.share_devices, "--share-devices")],
        "`iris run`",
    )?;
    let place = Place::find(&arguments.world)?;
    let points = points::points(&arguments.operations, &arguments.sizes, place.ranks())?;
    let wanted = Wanted {
        backend: "host",
        ranks: place.ranks(),
        dtype: arguments.how.dtype.unwrap_or(DType::F32),
        device: None,
        variants: &|operation| {
            let variants = host::variants(operation, arguments.variant);
            variants.iter().map(Variant::to_string).collect()
        },
    };
    let (done, left) = wanted.sort(arguments, &points)?;
    let job = host::Job::check(arguments, &place, &left)?;
    if let Place::Parent { ranks } = place {
        return launch::processes(ranks, false);
    }
    finish(arguments, &place, &points, done, job.run()?, baseline)
}

fn on_gpus(arguments: &args::Bench, baseline: Option<&[Ratios]>) -> anyhow::Result<u8> {
    refuse(
        &[(arguments.world.share_devices, "--share-devices")],
        "`iris run`",
    )?;
    refuse(
        &[(arguments.world.heap.is_some(), "--heap")],
        "--backend host",
    )?;
    // SAFETY: no thread has been started yet.
    unsafe { iris_measure::nccl::turn_multicast_off() };
    let asked = if arguments.vendor_only {
        gpu::VENDOR.to_owned()
    } else {
        arguments.variant.unwrap_or_default().to_string()
    };
    let place = gpu::place(&arguments.world)?;
    let points = points::points(&arguments.operations, &arguments.sizes, place.ranks())?;
    gpu::check(&place)?;
    let wanted = Wanted {
        backend: "cuda",
        ranks: place.ranks(),
        dtype: arguments.how.dtype.unwrap_or(DType::F32),
        device: Some(gpu::device_name()?),
        variants: &|_| vec![asked.clone()],
    };
    let (done, left) = wanted.sort(arguments, &points)?;
    let job = gpu::Job::new(arguments, &place, left);
    if let Place::Parent { ranks } = place {
        return launch::processes(ranks, true);
    }
    finish(arguments, &place, &points, done, job.run()?, baseline)
}

/// What rows there are to be of each point.
struct Wanted<'a> {
    backend: &'static str,
    ranks: usize,
    dtype: DType,
    device: Option<String>,
    variants: &'a dyn Fn(Operation) -> Vec<String>,
}

impl Wanted<'_> {
    fn keys(&self, arguments: &args::Bench, point: &Point) -> Vec<Key> {
        let key = |variant| Key {
            op: point.operation.name().to_owned(),
            backend: self.backend.to_owned(),
            variant,
            ranks: self.ranks,
            m: point.size.m,
            n: point.size.n,
            k: point.size.k,
            dtype: self.dtype.to_string(),
            device: self.device.clone(),
            settings: Settings::of(arguments, point.operation),
        };
        let variants = (self.variants)(point.operation);
        variants.into_iter().map(key).collect()
    }

    /// The rows that there are already, and the points that are still to be measured: those without all of their rows.
    fn sort(
        &self,
        arguments: &args::Bench,
        points: &[Point],
    ) -> Result<(Vec<Record>, Vec<Point>), Unusable> {
        let there: Vec<Record> = match &arguments.resume {
            Some(file) => results::read_if_there(file)?,
            None => Vec::new(),
        };
        let (mut done, mut left) = (Vec::new(), Vec::new());
        for point in points {
            let rows: Option<Vec<_>> = self
                .keys(arguments, point)
                .iter()
                .map(|key| there.iter().rev().find(|row| row.key() == *key))
                .collect();
            match rows {
                Some(rows) => done.extend(rows.into_iter().cloned()),
                None => left.push(*point),
            }
        }
        Ok((done, left))
    }
}

/// Reports, in the order of the points, what was there and what was measured. Only rank 0's process has the latter.
fn finish(
    arguments: &args::Bench,
    place: &Place,
    points: &[Point],
    mut rows: Vec<Record>,
    measured: Option<Vec<Record>>,
    baseline: Option<&[Ratios]>,
) -> anyhow::Result<u8> {
    let Some(measured) = measured else {
        return Ok(0);
    };
    rows.extend(measured);
    let place_of = |row: &Record| points.iter().position(|point| row.key().is_of(point));
    rows.sort_by_key(place_of);
    report(arguments, place.how(), &rows, baseline)
}

/// Draws and prints the rows, and holds them against a baseline. Returns the exit status.
fn report(
    arguments: &args::Bench,
    how: &str,
    rows: &[Record],
    baseline: Option<&[Ratios]>,
) -> anyhow::Result<u8> {
    let ratios: Vec<_> = rows.iter().map(Ratios::of).collect();
    let comparison = baseline.map(|before| Comparison::new(before, &ratios));
    // Files first: whoever reads what is printed may have left.
    if let Some(file) = &arguments.chart {
        chart::draw(file, rows)?;
    }
    if let Some(file) = &arguments.write_baseline {
        compare::write(file, &ratios)?;
    }
    if comparison.is_none() || arguments.results.is_none() {
        if arguments.json {
            rows.iter().try_for_each(output::json)?;
        } else {
            output::text(&table::text(rows, how))?;
        }
    }
    let Some(comparison) = comparison else {
        return Ok(0);
    };
    if arguments.json {
        comparison.moved.iter().try_for_each(output::json)?;
    } else {
        output::text(&comparison.to_string())?;
    }
    anyhow::ensure!(
        comparison.common > 0,
        "the baseline has no row of what was measured: nothing was compared"
    );
    Ok(u8::from(comparison.is_worse()))
}

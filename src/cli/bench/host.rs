//! Measuring on the host: a fused call against the same work unfused, in turn.
//!
//! Each pair measures four things one after the other: the fused call, the product alone with all ranks multiplying at once, the
//! collective alone, and both in sequence. A measurement begins at a barrier and ends when the slowest rank is done; what
//! takes little time is repeated back to back within it. Reported are medians over the pairs.

use iris::heap::{Stream, World, WorldConfig};
use iris::ops::{Bound, DType, Element, FusedConfig, OpError, Variant};
use iris_measure::timing::median;
use iris_testkit::{AnyOperation, Number};

use crate::cli::args;
use crate::cli::bench::clock;
use crate::cli::bench::points::Point;
use crate::cli::bench::record::{Record, Settings};
use crate::cli::bench::results;
use crate::cli::derive::Derivation;
use crate::cli::footprint::Footprint;
use crate::cli::launch::Place;
use crate::cli::measure::{BoundUnfused, Unfused};
use crate::cli::operands::Operands;
use crate::cli::operation::Operation;
use crate::cli::options::{self, Options};
use crate::cli::problem::check_memory;
use crate::cli::progress::Progress;
use crate::cli::shared::Shared;
use crate::cli::split::{Size, Split};

/// A bench on the host that was found possible.
pub(crate) struct Job<'a> {
    arguments: &'a args::Bench,
    place: &'a Place,
    dtype: DType,
    /// What each point needs.
    points: Vec<(Point, Options)>,
    heap: usize,
}

/// The variants of an operation that are measured.
pub(crate) fn variants(operation: Operation, asked: Option<Variant>) -> Vec<Variant> {
    match (asked, operation) {
        (Some(variant), _) => vec![variant],
        (None, Operation::MatmulAllReduce) => Variant::ALL
            .into_iter()
            .filter(|variant| *variant != Variant::Auto)
            .collect(),
        (None, _) => vec![Variant::Auto],
    }
}

impl<'a> Job<'a> {
    /// Looks whether all points are possible.
    pub(crate) fn check(
        arguments: &'a args::Bench,
        place: &'a Place,
        points: &[Point],
    ) -> anyhow::Result<Self> {
        let mut job = Self {
            arguments,
            place,
            dtype: arguments.how.dtype.unwrap_or(DType::F32),
            points: Vec::new(),
            heap: 0,
        };
        for &point in points {
            let options = options::check(
                point.operation,
                &arguments.world,
                arguments.how.gather,
                arguments.variant,
            )?;
            let footprint = Footprint {
                split: job.split(point, options),
                dtype: job.dtype,
                tile: arguments.how.tile,
                slots: 2,
                workspaces: 2,
            };
            check_memory("a bench", point.size, footprint.machine(place.processes()))?;
            let heap = options::heap(&arguments.world, point.size, footprint.heap())?;
            job.heap = job.heap.max(heap);
            job.points.push((point, options));
        }
        Ok(job)
    }

    /// Measures all points, and returns their rows in rank 0's process. Each point's are kept as soon as it is measured.
    pub(crate) fn run(&self) -> anyhow::Result<Option<Vec<Record>>> {
        let config = WorldConfig {
            heap_bytes: self.heap,
            ..WorldConfig::default()
        };
        let rows = match self.dtype {
            DType::F32 => self.start::<f32>(&config),
            DType::F16 => self.start::<half::f16>(&config),
            DType::BF16 => self.start::<half::bf16>(&config),
        };
        rows.map_err(|error| options::blame_heap(error, &self.arguments.world))
    }

    fn split(&self, point: Point, options: Options) -> Split {
        Split {
            operation: point.operation,
            gather: options.gather,
            size: point.size,
            world: self.place.ranks(),
        }
    }

    fn start<T: Element + Number>(
        &self,
        config: &WorldConfig,
    ) -> anyhow::Result<Option<Vec<Record>>> {
        // Ranks of one process draw a point's matrices once, and give them up once all have taken their parts.
        let matrices: Vec<_> = self.points.iter().map(|_| Shared::<T>::new()).collect();
        self.place.run(config, |world| {
            let mut rows = Vec::new();
            for ((point, options), matrices) in self.points.iter().zip(&matrices) {
                let split = self.split(*point, *options);
                let operands = Operands::new(world, split, false, false)?;
                let matrices = matrices.draw(point.size, self.arguments.seed);
                operands.fill(&matrices, Derivation::Given)?;
                drop(matrices);
                let measured = self.on_rank(world, split, *options, &operands)?;
                operands.free(world)?;
                if let (Some(file), 0) = (&self.arguments.resume, world.rank()) {
                    results::append(file, &measured)?;
                }
                rows.extend(measured);
            }
            Ok((world.rank() == 0).then_some(rows))
        })
    }

    /// One rank's side of a point: a row for each variant.
    fn on_rank<T: Element + Number>(
        &self,
        world: &World,
        split: Split,
        options: Options,
        operands: &Operands<T>,
    ) -> anyhow::Result<Vec<Record>> {
        let Size { m, n, k } = split.size;
        let stream = Stream::new(world)?;
        let variants = variants(split.operation, options.variant);
        let pairs = self.arguments.pairs.get();
        let mut progress = Progress::new(world, "pairs", (pairs * variants.len()) as u64);
        let mut rows = Vec::new();
        for variant in variants {
            let config = FusedConfig {
                tile: self.arguments.how.tile,
                tuned: !self.arguments.how.no_tuning,
                budget: self.arguments.how.budget,
                ..FusedConfig::new(m, n, k)
            };
            let op = split.operation.with(variant, options.gather);
            let config = op.configure(config);
            let mut fused = AnyOperation::<T>::new(op, world, config.clone())?;
            let mut unfused = Unfused::<T>::new(world, split, &config)?;
            let carried_out = fused.plan(m).map_or(variant, |plan| plan.variant);
            let mut bench = Measured {
                world,
                stream: &stream,
                operands,
                fused: fused.bind(&stream)?,
                unfused: unfused.bind(&stream, operands)?,
            };
            let [us, product, collective, both] = bench.medians(pairs, &mut progress)?;
            drop(bench);
            fused.free()?;
            unfused.free(world)?;
            rows.push(Record {
                op: split.operation.name().to_owned(),
                backend: "host".to_owned(),
                variant: carried_out.to_string(),
                ranks: split.world,
                m,
                n,
                k,
                k_per_rank: split.k_per_rank(),
                dtype: T::DTYPE.to_string(),
                us: Some(us),
                us_product: product,
                us_collective: collective,
                us_unfused: both,
                speedup: Some(both / us),
                over_limit: Some(us / product.max(collective)),
                asked: (carried_out != variant).then(|| variant.to_string()),
                settings: Settings::of(self.arguments, split.operation),
                gpu: None,
            });
        }
        Ok(rows)
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Step {
    Fused,
    Product,
    Collective,
    Both,
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
        let (world, stream) = (self.world, self.stream);
        let mut repeats = [1; 4];
        for (step, repeats) in STEPS.into_iter().zip(&mut repeats) {
            *repeats = clock::repeats(world, stream, &mut || self.enqueue(step))?;
        }
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..pairs {
            for ((step, repeats), times) in STEPS.into_iter().zip(repeats).zip(&mut times) {
                let us = clock::measure(world, stream, repeats, &mut || self.enqueue(step))?;
                times.push(us);
            }
            progress.step();
        }
        Ok(times.map(|times| median(&times)))
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

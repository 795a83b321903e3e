//! Ways measured on the host, by the clock.

use iris::heap::{Stream, World, WorldConfig};
use iris::ops::tuning::{Machine, TuningRow};
use iris::ops::{DType, Element, Variant};
use iris_measure::timing::median;
use iris_testkit::{AnyOperation, Number};

use crate::cli::bench::clock;
use crate::cli::bench::points::Point;
use crate::cli::derive::Derivation;
use crate::cli::footprint::Footprint;
use crate::cli::operands::Operands;
use crate::cli::options;
use crate::cli::problem::check_memory;
use crate::cli::shared::Shared;
use crate::cli::split::Split;
use crate::cli::tune::{Bench, Found, Tuner, goes, settle, ways};

/// Tuning on the host that was found possible.
pub(super) struct Job<'a> {
    tuner: &'a Tuner<'a>,
    heap: usize,
}

impl<'a> Job<'a> {
    /// Looks whether all points are possible.
    pub(super) fn check(tuner: &'a Tuner<'a>) -> anyhow::Result<Self> {
        let mut most = 0;
        for point in &tuner.points {
            let footprint = Footprint {
                split: split(tuner, point),
                dtype: tuner.arguments.dtype,
                tile: None,
                slots: 1,
                workspaces: 1,
            };
            let machine = footprint.machine(tuner.place.processes());
            check_memory("tuning", point.size, machine)?;
            let heap = options::heap(&tuner.arguments.world, point.size, footprint.heap())?;
            most = most.max(heap);
        }
        Ok(Self { tuner, heap: most })
    }

    /// Measures what is left, and returns it in rank 0's process.
    pub(super) fn run(&self) -> anyhow::Result<Option<Vec<Found>>> {
        let config = WorldConfig {
            heap_bytes: self.heap,
            ..WorldConfig::default()
        };
        let found = match self.tuner.arguments.dtype {
            DType::F32 => self.start::<f32>(&config),
            DType::F16 => self.start::<half::f16>(&config),
            DType::BF16 => self.start::<half::bf16>(&config),
        };
        found.map_err(|error| options::blame_heap(error, &self.tuner.arguments.world))
    }

    fn start<T: Element + Number>(
        &self,
        config: &WorldConfig,
    ) -> anyhow::Result<Option<Vec<Found>>> {
        let shared: Vec<_> = self.tuner.points.iter().map(|_| Shared::new()).collect();
        self.tuner.place.run(config, |world| {
            let mut bench = OnHost::<T> {
                tuner: self.tuner,
                world,
                machine: Machine::of::<T, i32, _>(world),
                shared: &shared,
            };
            self.tuner.on_rank(world, &mut bench)
        })
    }
}

fn split(tuner: &Tuner<'_>, point: &Point) -> Split {
    Split {
        operation: point.operation,
        gather: tuner.gather,
        size: point.size,
        world: tuner.place.ranks(),
    }
}

/// One rank's side.
struct OnHost<'a, T> {
    tuner: &'a Tuner<'a>,
    world: &'a World,
    machine: Machine,
    /// Of each point, its matrices.
    shared: &'a [Shared<T>],
}

impl<T: Element + Number> OnHost<'_, T> {
    /// Microseconds of a call that goes the way of a row.
    fn time(&self, split: Split, operands: &Operands<T>, row: &TuningRow) -> anyhow::Result<f64> {
        let world = self.world;
        let op = split.operation.with(Variant::Auto, split.gather);
        let mut fused = AnyOperation::<T>::new(op, world, self.tuner.config(row))?;
        goes(fused.plan(row.m), row)?;
        let stream = Stream::new(world)?;
        let mut bound = fused.bind(&stream)?;
        let mut call = || operands.call(&mut bound);
        let repeats = clock::repeats(world, &stream, &mut call)?;
        let times = (0..self.tuner.arguments.pairs.get())
            .map(|_| clock::measure(world, &stream, repeats, &mut call))
            .collect::<anyhow::Result<Vec<_>>>()?;
        drop(bound);
        fused.free()?;
        Ok(median(&times))
    }
}

impl<T: Element + Number> Bench for OnHost<'_, T> {
    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn backend(&self) -> ways::Backend {
        ways::Backend {
            packets: false,
            multiprocessors: None,
        }
    }

    fn measure(&mut self, point: &Point, rows: &[TuningRow]) -> anyhow::Result<Vec<Option<f64>>> {
        let split = split(self.tuner, point);
        let operands = Operands::new(self.world, split, false, false)?;
        let place = self.tuner.points.iter().position(|known| known == point);
        let drawn = place.map(|at| self.shared[at].draw(point.size, self.tuner.arguments.seed));
        if let Some(matrices) = drawn {
            operands.fill(&matrices, Derivation::Given)?;
        }
        let times = rows
            .iter()
            .map(|row| settle(self.world, row, self.time(split, &operands, row)))
            .collect::<anyhow::Result<_>>()?;
        operands.free(self.world)?;
        Ok(times)
    }
}

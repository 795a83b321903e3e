//! Ways measured on GPUs, one rank each, by device time.

use std::cell::RefCell;

use iris::heap::cuda::Cuda;
use iris::heap::device::{DeviceConfig, RankStream, Stream};
use iris::heap::{World, WorldConfig};
use iris::ops::tuning::{Machine, TuningRow};
use iris::ops::{DType, Element, Variant};
use iris_measure::ours::{self, Fused};
use iris_measure::{Alone, Case, Effort, Plan, Samples, Storage, Trial};

use crate::cli::bench::gpu::{HEAP_BYTES, PATIENCE, measured};
use crate::cli::bench::heap;
use crate::cli::bench::points::Point;
use crate::cli::error;
use crate::cli::tune::{Bench, Found, Tuner, goes, settle, ways};

/// Measures what is left, and returns it in rank 0's process.
pub(super) fn run(tuner: &Tuner<'_>) -> anyhow::Result<Option<Vec<Found>>> {
    let config = WorldConfig {
        heap_bytes: HEAP_BYTES,
        timeout: PATIENCE.max(tuner.arguments.budget),
    };
    tuner
        .place
        .run(&config, |world| match tuner.arguments.dtype {
            DType::F32 => on_rank::<f32>(tuner, world),
            DType::F16 => on_rank::<half::f16>(tuner, world),
            DType::BF16 => on_rank::<half::bf16>(tuner, world),
        })
}

fn on_rank<T: Element>(tuner: &Tuner<'_>, world: &World) -> anyhow::Result<Option<Vec<Found>>> {
    // Says of each rank which device it has, and that no other has it.
    let config = DeviceConfig {
        heap_bytes: HEAP_BYTES,
        ..DeviceConfig::default()
    };
    let on_devices = world.on::<Cuda>(&config)?;
    let stream = Stream::new(on_devices.device())?;
    let device = on_devices.device();
    // The tiles of the fast kernels, where there are any: see `iris_kernels::device::fast`.
    let fast = device.info().architecture.starts_with("sm_90")
        && device.has_tensor_maps()
        && T::DTYPE != DType::F32;
    let mut bench = OnGpu::<T> {
        tuner,
        world,
        stream: &stream,
        machine: Machine::of::<T, i32, _>(&on_devices),
        backend: ways::Backend {
            packets: true,
            multiprocessors: fast.then_some(device.info().multiprocessors as usize),
        },
        alone: &Alone::new(world, &stream, T::DTYPE)?,
        element: std::marker::PhantomData,
    };
    error::at_once(tuner.on_rank(world, &mut bench))
}

/// One rank's side.
struct OnGpu<'a, T> {
    tuner: &'a Tuner<'a>,
    world: &'a World,
    stream: &'a Stream<Cuda>,
    machine: Machine,
    backend: ways::Backend,
    alone: &'a Alone<'a>,
    element: std::marker::PhantomData<fn() -> T>,
}

impl<T: Element> OnGpu<'_, T> {
    /// Microseconds of a call that goes the way of a row.
    fn time(
        &self,
        world: &World<Cuda>,
        trial: &Trial<'_>,
        samples: &[Samples],
        point: &Point,
        row: &TuningRow,
    ) -> anyhow::Result<f64> {
        let op = point.operation.with(Variant::Auto, self.tuner.gather);
        let (plan, operands) = (trial.plan(), trial.operands());
        let config = self.tuner.config(row);
        let samples = samples.to_vec();
        // SAFETY: the trial's operands, of its plan, which outlives this; its stream is the only one.
        let mut fused = unsafe { Fused::<T>::new(world, plan, operands, samples, op, config) }?;
        goes(fused.how(), row)?;
        // SAFETY: the stream outlives this.
        let on_stream = unsafe { RankStream::foreign(world, self.stream.raw()) }?;
        let effort = Effort {
            repeats: self.tuner.arguments.pairs.get(),
            ..Effort::default()
        };
        let us = trial.run(&mut fused.on(&on_stream), effort)?;
        drop(on_stream);
        fused.free()?;
        Ok(us)
    }
}

impl<T: Element> Bench for OnGpu<'_, T> {
    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn backend(&self) -> ways::Backend {
        self.backend
    }

    fn measure(&mut self, point: &Point, rows: &[TuningRow]) -> anyhow::Result<Vec<Option<f64>>> {
        let case = Case {
            operation: measured(point.operation, self.tuner.gather),
            m: point.size.m,
            n: point.size.n,
            k: point.size.k,
            dtype: T::DTYPE,
            b: Storage::Rows,
            tf32: false,
        };
        let trial = Trial::new(self.alone, case, self.tuner.arguments.seed)?;
        let largest = Plan::new(case, self.world.size(), 0)?;
        let sets = trial.operands().sets();
        let samples = [0, sets - 1].map(|set| trial.samples(set, ours::SAMPLES));
        let least = heap::results_bytes(&largest, sets);
        let mut times = Vec::new();
        // One heap for all ways; where it turns out too small, what was measured stays measured. A way whose heap no device has room for
        // is left out, and those after it are tried.
        while times.len() < rows.len() {
            let done = RefCell::new(&mut times);
            let measured = heap::with_heap(self.world, least, |world| {
                let mut done = done.borrow_mut();
                while let Some(row) = rows.get(done.len()) {
                    let timed = self.time(world, &trial, &samples, point, row);
                    // The same on all ranks, since all allocate the same.
                    if timed.as_ref().err().and_then(heap::lacking).is_some() {
                        return timed.map(drop);
                    }
                    done.push(settle(self.world, row, timed)?);
                }
                Ok(())
            });
            if let Some(row) = rows.get(times.len()) {
                settle(self.world, row, measured)?;
                times.push(None);
            }
        }
        Ok(times)
    }
}

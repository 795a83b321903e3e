//! Measuring on GPUs, one rank each: the vendor's product and collectives, alone and in sequence, and ours.

use std::time::Duration;

use iris::heap::cuda::Cuda;
use iris::heap::device::{Device, DeviceConfig, RankStream, Stream};
use iris::heap::{World, WorldConfig};
use iris::ops::{DType, Element, FusedConfig, Variant};
use iris_measure::ours::{self, Exchange, Fused, Multiplication};
use iris_measure::{
    Case, Comparison, Effort, Enqueue, Item, Operation as Measured, Ours as Given, Plan, Rank,
    Storage, Times,
};

use crate::cli::args::{self, Gather, WorldArguments};
use crate::cli::backend;
use crate::cli::bench::heap;
use crate::cli::bench::points::Point;
use crate::cli::bench::record::{Gpu, Record, Settings};
use crate::cli::bench::results;
use crate::cli::error::{self, Unusable};
use crate::cli::launch::Place;
use crate::cli::operation::Operation;
use crate::cli::progress::Progress;
use crate::cli::split::Split;

/// What the ranks' handles on each other need of a heap.
pub(crate) const HEAP_BYTES: usize = 1 << 20;
/// How long ranks wait for each other: some may have kernels to compile, or algorithms to try.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A bench on GPUs that was found possible.
pub(crate) struct Job<'a> {
    arguments: &'a args::Bench,
    place: &'a Place,
    dtype: DType,
    gather: Gather,
    points: Vec<Point>,
}

/// How many devices there are.
pub(crate) fn devices(ranks: usize) -> Result<usize, Unusable> {
    match Device::<Cuda>::count() {
        Ok(0) => Err(Unusable::Devices {
            ranks,
            detail: "none is visible".to_owned(),
        }),
        Ok(count) => Ok(count),
        Err(error) => Err(Unusable::Devices {
            ranks,
            detail: error.to_string(),
        }),
    }
}

/// Whether each rank has a GPU of its own.
pub(crate) fn are_enough(place: &Place, world: &WorldArguments) -> bool {
    backend::are_measured(place, world)
}

/// Where the ranks are: as many as there are GPUs, unless somebody says otherwise.
pub(crate) fn place(world: &WorldArguments) -> Result<Place, Unusable> {
    match Place::find(world)? {
        place @ Place::Rank(_) => Ok(place),
        place if world.ranks.is_some() => Ok(place),
        place => Place::find(&WorldArguments {
            ranks: Some(devices(place.ranks())?),
            ..world.clone()
        }),
    }
}

/// Looks whether there are GPUs for all ranks.
pub(crate) fn check(place: &Place) -> Result<(), Unusable> {
    let ranks = place.ranks();
    let devices = devices(ranks)?;
    // A launcher may have given each of its processes a device of its own.
    let own = matches!(place, Place::Rank(_)) && devices == 1;
    if devices < ranks && !own {
        return Err(Unusable::Devices {
            ranks,
            detail: format!("{devices} are visible"),
        });
    }
    Ok(())
}

/// The name of the devices.
pub(crate) fn device_name() -> anyhow::Result<String> {
    Ok(Device::<Cuda>::open(0)?.info().name.clone())
}

impl<'a> Job<'a> {
    pub(crate) fn new(arguments: &'a args::Bench, place: &'a Place, points: Vec<Point>) -> Self {
        Self {
            arguments,
            place,
            dtype: arguments.how.dtype.unwrap_or(DType::F32),
            gather: arguments.how.gather.unwrap_or(Gather::Rows),
            points,
        }
    }

    /// Measures all points, and returns their rows in rank 0's process. Each point's are kept as soon as it is measured.
    pub(crate) fn run(&self) -> anyhow::Result<Option<Vec<Record>>> {
        let config = WorldConfig {
            heap_bytes: HEAP_BYTES,
            timeout: PATIENCE.max(self.arguments.how.budget),
        };
        self.place.run(&config, |world| match self.dtype {
            DType::F32 => self.on_rank::<f32>(world),
            DType::F16 => self.on_rank::<half::f16>(world),
            DType::BF16 => self.on_rank::<half::bf16>(world),
        })
    }

    fn on_rank<T: Element>(&self, world: &World) -> anyhow::Result<Option<Vec<Record>>> {
        // Says of each rank which device it has, and that no other has it.
        let config = DeviceConfig {
            heap_bytes: HEAP_BYTES,
            ..DeviceConfig::default()
        };
        let on_devices = world.on::<Cuda>(&config)?;
        let stream = Stream::new(on_devices.device())?;
        let rank = Rank::new(world, &stream, self.dtype)?;
        let mut progress = Progress::new(world, "points", self.points.len() as u64);
        let mut rows = Vec::new();
        for point in &self.points {
            let row = error::at_once(self.on_point::<T>(world, &rank, &stream, point))?;
            if world.rank() == 0 {
                if let Some(file) = &self.arguments.resume {
                    results::append(file, std::slice::from_ref(&row))?;
                }
                rows.push(row);
            }
            progress.step();
        }
        rank.finish()?;
        Ok((world.rank() == 0).then_some(rows))
    }

    /// One rank's side of one point.
    fn on_point<T: Element>(
        &self,
        world: &World,
        rank: &Rank<'_>,
        stream: &Stream<Cuda>,
        point: &Point,
    ) -> anyhow::Result<Record> {
        let effort = Effort {
            repeats: self.arguments.pairs.get(),
            ..Effort::default()
        };
        let mut comparison = Comparison::new(rank, self.case(point), self.arguments.seed)?;
        if self.arguments.vendor_only {
            let times = comparison.run(Given::default(), effort)?;
            return self.row(point, VENDOR, stream.device(), rank, &comparison, &times);
        }
        let op = point
            .operation
            .with(self.arguments.variant.unwrap_or_default(), self.gather);
        let config = FusedConfig {
            tile: self.arguments.how.tile,
            tuned: !self.arguments.how.no_tuning,
            budget: self.arguments.how.budget,
            ..FusedConfig::new(point.size.m, point.size.n, point.size.k)
        };
        let largest = Plan::new(self.case(point), world.size(), 0)?;
        let least = heap::results_bytes(&largest, comparison.operands().sets());
        // The comparison outlives all that is made on its operands: it is borrowed from outside.
        let cell = std::cell::RefCell::new(&mut comparison);
        let (variant, times) = heap::with_heap(world, least, |world| {
            let mut comparison = cell.borrow_mut();
            let samples = [0, comparison.operands().sets() - 1]
                .map(|set| comparison.samples(set, ours::SAMPLES));
            let (plan, operands) = (comparison.plan(), comparison.operands());
            let (samples, of_fused) = (samples.into(), config.clone());
            // SAFETY: the comparison outlives what is made in here, and its stream is the only one.
            let mut fused =
                unsafe { Fused::<T>::new(world, plan, operands, samples, op, of_fused) }?;
            // SAFETY: as above.
            let mut product = unsafe { Multiplication::<T>::new(world, &comparison) }?;
            let of_exchange = op.configure(config.clone());
            // SAFETY: as above.
            let mut exchange =
                unsafe { Exchange::<T>::new(world, &comparison, stream, of_exchange) }?;
            let variant = fused.how().map_or(Variant::Auto, |plan| plan.variant);
            // SAFETY: the stream outlives this.
            let on_stream = unsafe { RankStream::foreign(world, stream.raw()) }?;
            let times = {
                let (mut fused, mut exchange) = (fused.on(&on_stream), exchange.on(&on_stream));
                let mut product = product.as_mut().map(|product| product.on(&on_stream));
                let given = Given {
                    fused: Some(&mut fused),
                    product: product
                        .as_mut()
                        .map(|product| product as &mut dyn Enqueue<Cuda>),
                    collective: Some(&mut exchange),
                };
                comparison.run(given, effort)?
            };
            drop(on_stream);
            drop(product);
            fused.free()?;
            exchange.free()?;
            Ok((variant, times))
        })?;
        let variant = variant.to_string();
        self.row(point, &variant, stream.device(), rank, &comparison, &times)
    }

    fn case(&self, point: &Point) -> Case {
        Case {
            operation: measured(point.operation, self.gather),
            m: point.size.m,
            n: point.size.n,
            k: point.size.k,
            dtype: self.dtype,
            b: Storage::Rows,
            tf32: self.arguments.tf32,
        }
    }

    fn row(
        &self,
        point: &Point,
        variant: &str,
        device: &Device<Cuda>,
        rank: &Rank<'_>,
        comparison: &Comparison<'_, '_>,
        times: &Times,
    ) -> anyhow::Result<Record> {
        let measured = |item: Item| {
            times
                .us(item)
                .ok_or_else(|| anyhow::anyhow!("{} was not measured", item.name()))
        };
        let (product, nccl) = (measured(Item::Product)?, measured(Item::Collective)?);
        let sequence = times.sequence().unwrap_or(f64::NAN);
        let collective = times.collective().unwrap_or(f64::NAN);
        let us = times.us(Item::Fused);
        let split = Split {
            operation: point.operation,
            gather: self.gather,
            size: point.size,
            world: self.place.ranks(),
        };
        let [cublaslt, nccl_version] = rank.versions()?;
        Ok(Record {
            op: point.operation.name().to_owned(),
            backend: "cuda".to_owned(),
            variant: variant.to_owned(),
            ranks: self.place.ranks(),
            m: point.size.m,
            n: point.size.n,
            k: point.size.k,
            k_per_rank: split.k_per_rank(),
            dtype: self.dtype.to_string(),
            us,
            us_product: product,
            us_collective: collective,
            us_unfused: sequence,
            speedup: us.map(|us| sequence / us),
            over_limit: us.map(|us| us / product.max(collective)),
            asked: (variant == VENDOR)
                .then_some(VENDOR.to_owned())
                .or_else(|| Some(self.arguments.variant.unwrap_or_default().to_string()))
                .filter(|asked| asked != variant),
            settings: Settings::of(self.arguments, point.operation),
            gpu: Some(Gpu {
                device: device.info().name.clone(),
                multicast: "off".to_owned(),
                us_product_ours: times.us(Item::OurProduct),
                us_nccl: nccl,
                us_nccl_window: times.us(Item::CollectiveWindow),
                us_collective_ours: times.us(Item::OurCollective),
                us_sequence: sequence,
                us_bandwidth_bound: comparison.plan().weight_bytes() as f64 / rank.read_bandwidth()
                    * 1e6,
                read_gbps: rank.read_bandwidth() * 1e-9,
                spread: [Item::Fused, Item::Sequence]
                    .into_iter()
                    .find_map(|item| times.spread(item))
                    .unwrap_or(f64::NAN),
                cublaslt,
                nccl: nccl_version,
            }),
        })
    }
}

/// An operation as what is measured.
pub(crate) fn measured(operation: Operation, gather: Gather) -> Measured {
    match (operation, gather) {
        (Operation::MatmulAllReduce, _) => Measured::MatmulAllReduce,
        (Operation::MatmulReduceScatter, _) => Measured::MatmulReduceScatter,
        (Operation::AllGatherMatmul, Gather::Rows) => Measured::AllGatherMatmulRows,
        (Operation::AllGatherMatmul, Gather::Columns) => Measured::AllGatherMatmulColumns,
        (Operation::MatmulAllGather, _) => Measured::MatmulAllGather,
    }
}

/// What stands for a variant where nothing of ours is measured.
pub(crate) const VENDOR: &str = "vendor";

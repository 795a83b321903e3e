//! Measuring on GPUs, one rank each: the vendor's product and collectives, alone and in sequence.

use iris::heap::cuda::Cuda;
use iris::heap::device::{Device, Stream};
use iris::heap::{World, WorldConfig};
use iris::ops::DType;
use iris_measure::{
    Case, Comparison, Effort, Item, Operation as Measured, Ours, Rank, Storage, Times,
};

use crate::cli::args::{self, Gather};
use crate::cli::bench::points::Point;
use crate::cli::bench::record::{Gpu, Record};
use crate::cli::bench::results;
use crate::cli::error::Unusable;
use crate::cli::launch::Place;
use crate::cli::operation::Operation;
use crate::cli::progress::Progress;
use crate::cli::split::Split;

/// What the ranks' handles on each other need of a heap.
const HEAP_BYTES: usize = 1 << 16;

/// A bench on GPUs that was found possible.
pub(crate) struct Job<'a> {
    arguments: &'a args::Bench,
    place: &'a Place,
    dtype: DType,
    gather: Gather,
    points: Vec<Point>,
    devices: usize,
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

/// The name of the devices.
pub(crate) fn device_name() -> anyhow::Result<String> {
    Ok(Device::<Cuda>::open(0)?.info().name.clone())
}

impl<'a> Job<'a> {
    /// Looks whether there are GPUs for all ranks.
    pub(crate) fn check(
        arguments: &'a args::Bench,
        place: &'a Place,
        points: Vec<Point>,
    ) -> Result<Self, Unusable> {
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
        Ok(Self {
            arguments,
            place,
            dtype: arguments.how.dtype.unwrap_or(DType::F32),
            gather: arguments.how.gather.unwrap_or(Gather::Rows),
            points,
            devices,
        })
    }

    /// Measures all points, and returns their rows in rank 0's process. Each point's are kept as soon as it is measured.
    pub(crate) fn run(&self) -> anyhow::Result<Option<Vec<Record>>> {
        let config = WorldConfig {
            heap_bytes: HEAP_BYTES,
            ..WorldConfig::default()
        };
        self.place.run(&config, |world| self.on_rank(world))
    }

    fn on_rank(&self, world: &World) -> anyhow::Result<Option<Vec<Record>>> {
        let device = self.device(world)?;
        let stream = Stream::new(&device)?;
        let rank = Rank::new(world, &stream, self.dtype)?;
        let mut progress = Progress::new(world, "points", self.points.len() as u64);
        let mut rows = Vec::new();
        for point in &self.points {
            let mut comparison = Comparison::new(&rank, self.case(point), self.arguments.seed)?;
            let effort = Effort {
                repeats: self.arguments.pairs.get(),
                ..Effort::default()
            };
            let times = comparison.run(Ours::default(), effort)?;
            let row = self.row(point, &device, &rank, &comparison, &times)?;
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

    /// This rank's device, which no other rank has.
    fn device(&self, world: &World) -> anyhow::Result<Device<Cuda>> {
        let ordinal = if world.rank() < self.devices {
            world.rank()
        } else {
            0
        };
        let device = Device::<Cuda>::open(ordinal)?;
        let all = world.all_gather(device.info().uuid.0)?;
        for (rank, uuid) in all.iter().enumerate() {
            if rank != world.rank() && *uuid == device.info().uuid.0 {
                return Err(Unusable::Devices {
                    ranks: world.size(),
                    detail: format!(
                        "ranks {} and {rank} see the same one, {}",
                        world.rank(),
                        device.info().pci_bus_id
                    ),
                }
                .into());
            }
        }
        Ok(device)
    }

    fn case(&self, point: &Point) -> Case {
        Case {
            operation: match (point.operation, self.gather) {
                (Operation::MatmulAllReduce, _) => Measured::MatmulAllReduce,
                (Operation::MatmulReduceScatter, _) => Measured::MatmulReduceScatter,
                (Operation::AllGatherMatmul, Gather::Rows) => Measured::AllGatherMatmulRows,
                (Operation::AllGatherMatmul, Gather::Columns) => Measured::AllGatherMatmulColumns,
                (Operation::MatmulAllGather, _) => Measured::MatmulAllGather,
            },
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
            variant: VENDOR.to_owned(),
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
            asked: None,
            gpu: Some(Gpu {
                device: device.info().name.clone(),
                multicast: "off".to_owned(),
                gather: self.gather_of(point),
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

    /// How A is split, where that can be chosen.
    fn gather_of(&self, point: &Point) -> Option<String> {
        gather(point.operation, self.gather)
    }
}

/// What stands for a variant where nothing of ours is measured.
pub(crate) const VENDOR: &str = "vendor";

/// How A is split, where that can be chosen.
pub(crate) fn gather(operation: Operation, gather: Gather) -> Option<String> {
    (operation == Operation::AllGatherMatmul).then(|| {
        match gather {
            Gather::Rows => "rows",
            Gather::Columns => "columns",
        }
        .to_owned()
    })
}

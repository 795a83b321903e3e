//! Worlds on the GPUs there are.

use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, DeviceConfig};
use iris_heap::{World, WorldConfig};
use iris_kernels::device::compile::{self, Architecture, Request};
use iris_kernels::host::Program;
use iris_kernels::{DType, Tile};
use iris_testkit::device::{Gpus, wanted};
use iris_testkit::worlds::{self, Ended};
use iris_testkit::{Failure, device};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) type GpuWorld = World<Cuda>;

/// Each rank's heap.
pub(crate) const HEAP: usize = 64 << 20;

/// How long a wait of a call may last where nothing is to fail: short, so that a deadlock costs seconds.
pub(crate) fn budget() -> Duration {
    device::budget_or(Duration::from_secs(5))
}

pub(crate) fn config() -> WorldConfig {
    WorldConfig {
        heap_bytes: 1 << 20,
        // Kernels are compiled between two collectives.
        timeout: budget().max(Duration::from_secs(60)),
    }
}

/// A GPU for each rank where there are enough, else a part of one.
pub(crate) fn devices(ranks: usize, gpus: usize) -> DeviceConfig {
    DeviceConfig {
        heap_bytes: HEAP,
        device: None,
        share_devices: ranks > gpus,
    }
}

/// Runs `body` on `ranks` threads, each with a GPU or a part of one.
///
/// # Panics
/// Where one fails.
pub(crate) fn threads<R: Send>(
    ranks: usize,
    gpus: &Gpus,
    body: impl Fn(&GpuWorld) -> Result<R, Failure> + Sync,
) -> Vec<R> {
    let devices = devices(ranks, gpus.devices().len());
    let results = World::threads(ranks, &config(), |world| body(&world.on::<Cuda>(&devices)?));
    let results = results.unwrap().into_iter().enumerate();
    results
        .map(|(rank, result)| {
            result.unwrap_or_else(|error| panic!("{ranks} ranks, rank {rank}: {error}"))
        })
        .collect()
}

/// Runs `body` on processes, as many as `ranks` makes of the number of GPUs; how each ended, or nothing where there is no GPU.
/// `prepare` may change a rank's command. In the processes themselves this does not return.
pub(crate) fn processes(
    test: &'static str,
    ranks: impl FnOnce(usize) -> usize,
    prepare: impl FnMut(usize, &mut Command),
    body: impl FnOnce(&World) -> Result<String, Failure>,
) -> Option<Vec<Ended>> {
    let (ranks, _gpus) = if worlds::is_rank(test) {
        (0, None)
    } else {
        let gpus = Gpus::take(test, 1)?;
        (ranks(gpus.devices().len()), Some(gpus))
    };
    Some(worlds::processes_with(test, ranks, &config(), prepare, body).unwrap())
}

/// The same, where all are to end well.
pub(crate) fn processes_all(
    test: &'static str,
    ranks: impl FnOnce(usize) -> usize,
    body: impl FnOnce(&World) -> Result<String, Failure>,
) {
    let ended = processes(test, ranks, |_, _| (), body).unwrap_or_default();
    for (rank, ended) in ended.into_iter().enumerate() {
        let said = ended
            .said
            .unwrap_or_else(|error| panic!("rank {rank}: {error}"));
        assert!(
            ended.status.success(),
            "rank {rank}: {said}: {}",
            ended.status
        );
    }
}

/// A process's world on the GPUs that it sees.
pub(crate) fn on_gpus(world: &World) -> Result<GpuWorld, Failure> {
    let gpus = Device::<Cuda>::count()?;
    Ok(world.on::<Cuda>(&devices(world.size(), gpus))?)
}

/// The worlds that are worth testing: those of ranks with GPUs of their own, then some that share them.
pub(crate) fn worlds(gpus: &Gpus) -> Vec<usize> {
    let count = gpus.devices().len();
    let own = [1, 2, 4, 8].into_iter().filter(|&ranks| ranks <= count);
    let shared = [3, 4, 8].into_iter().filter(|&ranks| ranks > count);
    own.chain(shared).filter(|&ranks| wanted(ranks)).collect()
}

/// Compiles all programs for all dtypes and these tiles, on all cores, into the cache: ranks compile one after the other.
pub(crate) fn compile_ahead(gpus: &Gpus, tiles: &[Tile]) {
    let device: Architecture = gpus.architecture().parse().unwrap();
    let target = compile::target(&device).unwrap();
    let mut requests = Vec::new();
    for program in Program::ALL {
        for dtype in DType::ALL {
            for &tile in tiles {
                requests.push(Request::program(program, dtype, tile, target.clone()));
            }
        }
    }
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let image = compile::compile(request).unwrap();
                    if let Some(notice) = image.notice() {
                        println!("{notice}");
                    }
                }
            });
        }
    });
}

//! Worlds on the GPUs there are.

use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, DeviceConfig};
use iris_heap::{World, WorldConfig};
use iris_kernels::device::nvrtc::Nvrtc;
use iris_testkit::Failure;
use std::time::Duration;

pub(crate) type GpuWorld = World<Cuda>;

/// How many GPUs there are; says that `test` is skipped where there is none, or no compiler.
pub(crate) fn gpus(test: &str) -> usize {
    match (Device::<Cuda>::count(), Nvrtc::load()) {
        (Ok(count @ 1..), Ok(_)) => count,
        (count, compiler) => {
            eprintln!("{test} SKIPPED: devices {count:?}, compiler {compiler:?}");
            0
        }
    }
}

pub(crate) fn config() -> WorldConfig {
    WorldConfig {
        heap_bytes: 1 << 20,
        // Kernels are compiled between two collectives.
        timeout: Duration::from_secs(120),
    }
}

pub(crate) fn devices(heap_bytes: usize, ranks: usize, gpus: usize) -> DeviceConfig {
    DeviceConfig {
        heap_bytes,
        device: None,
        share_devices: ranks > gpus,
    }
}

/// Runs `body` on `ranks` threads, each with a GPU or a part of one.
pub(crate) fn threads<R: Send>(
    ranks: usize,
    gpus: usize,
    heap_bytes: usize,
    body: impl Fn(&GpuWorld) -> Result<R, Failure> + Sync,
) -> Vec<Result<R, Failure>> {
    let devices = devices(heap_bytes, ranks, gpus);
    World::threads(ranks, &config(), |world| body(&world.on::<Cuda>(&devices)?)).unwrap()
}

/// The worlds that are worth testing with so many GPUs.
pub(crate) fn worlds(gpus: usize) -> impl Iterator<Item = usize> {
    [1, 2, 3, 4, 5, 8].into_iter().filter(move |_| gpus > 0)
}

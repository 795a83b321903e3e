//! Which backend ranks compute on, and the world there.

use iris::heap::World;
use iris::heap::cuda::Cuda;
use iris::heap::device::{Device, DeviceConfig, Driver};
use iris::heap::hip::Hip;
use iris::kernels::device::compile::{self, UnknownArchitecture};
use iris::ops::{Element, Runs};

use crate::cli::args::{Backend, WorldArguments};
use crate::cli::error::{self, Unusable};

/// What a rank does, whatever it computes on.
pub(crate) trait Job<T: Element> {
    type Output;

    /// One rank's side. `host` is the same world with its heap on the host.
    fn run<B: Runs<T, i32>>(&self, host: &World, world: &World<B>) -> anyhow::Result<Self::Output>;
}

/// Whether what is asked for is there at all: found before any rank is started.
pub(crate) fn check(arguments: &WorldArguments) -> Result<(), Unusable> {
    match arguments.backend {
        Backend::Auto | Backend::Host => Ok(()),
        Backend::Cuda => devices::<Cuda>()
            .map(drop)
            .map_err(|detail| Unusable::NoBackend {
                backend: "cuda",
                detail,
            }),
        Backend::Hip => devices::<Hip>()
            .map(drop)
            .map_err(|detail| Unusable::NoBackend {
                backend: "hip",
                detail,
            }),
    }
}

/// Whether ranks may have GPUs, whose kernels they may have to compile.
pub(crate) fn may_be_on_gpus(arguments: &WorldArguments) -> bool {
    match arguments.backend {
        Backend::Host => false,
        Backend::Cuda | Backend::Hip => true,
        Backend::Auto => devices::<Cuda>().is_ok() || devices::<Hip>().is_ok(),
    }
}

/// How many devices there are, where there are any and kernels can be compiled for the first; else what is missing.
fn devices<D: Driver>() -> Result<usize, String> {
    let count = Device::<D>::count().map_err(|error| error.to_string())?;
    if count == 0 {
        return Err(format!("the {} finds no device", D::NAME));
    }
    let first = Device::<D>::open(0).map_err(|error| error.to_string())?;
    let architecture = first.info().architecture.parse();
    let architecture = architecture.map_err(|error: UnknownArchitecture| error.to_string())?;
    compile::target(&architecture).map_err(|error| error.to_string())?;
    Ok(count)
}

/// Runs a rank's job where the arguments say. `auto` takes GPUs where each rank has one of its own, and the host elsewhere; all
/// ranks take the same.
pub(crate) fn run<T: Element, J: Job<T>>(
    job: &J,
    world: &World,
    arguments: &WorldArguments,
    heap_bytes: usize,
) -> anyhow::Result<J::Output> {
    let all_have = |mine: bool| -> anyhow::Result<bool> {
        Ok(world
            .all_gather(u8::from(mine))?
            .iter()
            .all(|&its| its == 1))
    };
    // All ranks are on one host. One that sees fewer devices than there are ranks may have been given one of its own by a launcher, or
    // may share it: with --backend it is found out.
    let enough = |count: Result<usize, String>| count.is_ok_and(|count| count >= world.size());
    let backend = match arguments.backend {
        Backend::Auto if all_have(enough(devices::<Cuda>()))? => Backend::Cuda,
        Backend::Auto if all_have(enough(devices::<Hip>()))? => Backend::Hip,
        Backend::Auto => Backend::Host,
        named => named,
    };
    let config = DeviceConfig {
        heap_bytes,
        device: None,
        share_devices: arguments.share_devices,
    };
    match backend {
        Backend::Cuda => error::at_once(job.run(world, &world.on::<Cuda>(&config)?)),
        Backend::Hip => error::at_once(job.run(world, &world.on::<Hip>(&config)?)),
        Backend::Host | Backend::Auto => error::at_once(job.run(world, world)),
    }
}

//! Which backend ranks compute on, and the world there.

use iris::heap::cuda::Cuda;
use iris::heap::device::{Device, DeviceConfig};
use iris::heap::{Host, World};
use iris::kernels::device::nvrtc::Nvrtc;
use iris::ops::{Element, Runs};

use crate::cli::args::{Backend, WorldArguments};
use crate::cli::error::Unusable;

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
        Backend::Cuda => cuda().map(drop).map_err(|detail| Unusable::NoBackend {
            backend: "cuda",
            detail,
        }),
        Backend::Hip => Err(Unusable::Backend { backend: "hip" }),
    }
}

/// How many devices there are, where there are any and kernels can be compiled; else what is missing.
fn cuda() -> Result<usize, String> {
    let count = Device::<Cuda>::count().map_err(|error| error.to_string())?;
    if count == 0 {
        return Err("the driver finds no device".into());
    }
    Nvrtc::load().map_err(|error| error.to_string())?;
    Ok(count)
}

/// Runs a rank's job where the arguments say. `auto` takes GPUs where each rank has one of its own, and the host elsewhere; all
/// ranks take the same.
pub(crate) fn run<T: Element, J: Job<T>>(
    job: &J,
    world: &World,
    arguments: &WorldArguments,
    heap_bytes: usize,
) -> anyhow::Result<J::Output>
where
    Host: Runs<T, i32>,
    Cuda: Runs<T, i32>,
{
    let cuda = match arguments.backend {
        Backend::Host | Backend::Hip => false,
        Backend::Cuda => true,
        Backend::Auto => {
            let local = world.size(); // all ranks are on one host
            let mine = cuda().is_ok_and(|count| count >= local || count == 1 && local == 1);
            world
                .all_gather(u8::from(mine))?
                .iter()
                .all(|&its| its == 1)
        }
    };
    if !cuda {
        return job.run::<Host>(world, world);
    }
    let config = DeviceConfig {
        heap_bytes,
        device: None,
        share_devices: arguments.share_devices,
    };
    let device = world.on::<Cuda>(&config)?;
    job.run::<Cuda>(world, &device)
}

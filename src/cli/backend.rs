//! Which backend ranks compute on, and the world there.

use iris::heap::World;
use iris::heap::cuda::Cuda;
use iris::heap::device::{Device, DeviceConfig, Driver};
use iris::heap::hip::Hip;
use iris::heap::launch::Launcher;
use iris::kernels::device::compile::{self, UnknownArchitecture};
use iris::ops::{Element, Runs};

use crate::cli::args::{Backend, WorldArguments};
use crate::cli::error::{self, Unusable};
use crate::cli::launch::Place;

/// A vendor's runtime, and the variable that names its library.
trait Vendor: Driver {
    const VARIABLE: &'static str;
}

impl Vendor for Cuda {
    const VARIABLE: &'static str = "IRIS_CUDA_LIBRARY";
}

impl Vendor for Hip {
    const VARIABLE: &'static str = "IRIS_HIP_LIBRARY";
}

/// What a rank does, whatever it computes on.
pub(crate) trait Job<T: Element> {
    type Output;

    /// One rank's side. `host` is the same world with its heap on the host.
    fn run<B: Runs<T, i32>>(&self, host: &World, world: &World<B>) -> anyhow::Result<Self::Output>;
}

/// Whether what is asked for is there at all: found before any rank is started.
pub(crate) fn check(arguments: &WorldArguments) -> Result<(), Unusable> {
    match arguments.backend {
        Backend::Host if arguments.share_devices => Err(Unusable::NotForBackend {
            argument: "--share-devices",
            backend: "--backend auto, cuda and hip, not host",
        }),
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
    let count = count::<D>()?;
    let first = Device::<D>::open(0).map_err(|error| error.to_string())?;
    let architecture = first.info().architecture.parse();
    let architecture = architecture.map_err(|error: UnknownArchitecture| error.to_string())?;
    compile::target(&architecture).map_err(|error| error.to_string())?;
    Ok(count)
}

/// How many devices there are, where there are any.
fn count<D: Driver>() -> Result<usize, String> {
    match Device::<D>::count() {
        Ok(0) => Err(format!("the {} finds no device", D::NAME)),
        count => count.map_err(|error| error.to_string()),
    }
}

/// Why ranks have no GPUs of a vendor.
struct Lack {
    why: String,
    /// Whether somebody may wonder: there are some, or the environment names their library.
    wanted: bool,
}

/// What keeps so many ranks from a vendor's GPUs, of which there are as many as `found` says; nothing where each has one, or they share what
/// there is.
fn lack<D: Vendor>(found: Result<usize, String>, ranks: usize, share: Share) -> Option<Lack> {
    let why = match found {
        Ok(count) if count >= ranks || share == Share::Asked => return None,
        Ok(count) => {
            let (gpus, it) = if count == 1 {
                ("GPU", "it")
            } else {
                ("GPUs", "them")
            };
            let hint = match share {
                Share::Possible => format!(" (--share-devices lets them share {it})"),
                Share::Asked | Share::Impossible => String::new(),
            };
            return Some(Lack {
                why: format!("{count} {gpus} for {ranks} ranks{hint}"),
                wanted: true,
            });
        }
        Err(why) => why.lines().collect::<Vec<_>>().join("; "),
    };
    let there = count::<D>().is_ok();
    let named = std::env::var_os(D::VARIABLE).is_some_and(|named| !named.is_empty());
    Some(Lack {
        why: match named && !there && !why.contains(D::VARIABLE) {
            true => format!("{} is set, and {why}", D::VARIABLE),
            false => why,
        },
        wanted: there || named,
    })
}

/// Whether ranks share GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Asked,
    Possible,
    Impossible,
}

fn say_host(why: &[String]) {
    if !why.is_empty() {
        error::say(&format!("computing on the host: {}", why.join("; ")));
    }
}

/// Whether `auto` has each rank measure on an NVIDIA GPU of its own. Else rank 0 says why not, where somebody may wonder: no others are
/// measured, and none are shared.
pub(crate) fn are_measured(place: &Place, arguments: &WorldArguments) -> bool {
    let found = count::<Cuda>();
    let ranks = match place {
        // A launcher may have given each of its processes a device of its own; this command gives them none.
        Place::Rank(launch) if found == Ok(1) && launch.launcher() != Launcher::Iris => 1,
        Place::Rank(launch) => launch.size(),
        // Without a number, as many ranks as there are GPUs.
        _ => arguments.ranks.unwrap_or(1),
    };
    let Some(of_cuda) = lack::<Cuda>(found, ranks, Share::Impossible) else {
        return true;
    };
    let speaks = match place {
        Place::Threads { .. } => true,
        // The processes that it starts find the same.
        Place::Parent { .. } => false,
        Place::Rank(launch) => launch.rank() == 0,
    };
    if speaks {
        let unmeasured = |count| {
            Err(format!(
                "GPUs of AMD, of which there are {count}, are not measured"
            ))
        };
        let of_hip = lack::<Hip>(
            count::<Hip>().and_then(unmeasured),
            ranks,
            Share::Impossible,
        );
        let lacks = [Some(of_cuda), of_hip].into_iter().flatten();
        let wanted = lacks.filter(|lack| lack.wanted).map(|lack| lack.why);
        say_host(&wanted.collect::<Vec<_>>());
    }
    false
}

/// The backend for `auto`: GPUs where each rank has one of its own or may share one, and the host elsewhere. The same on all ranks, of which
/// rank 0 says why it is the host where somebody may wonder. Collective.
fn choose(world: &World, arguments: &WorldArguments) -> anyhow::Result<Backend> {
    let share = match arguments.share_devices {
        true => Share::Asked,
        false => Share::Possible,
    };
    let mut why = Vec::new();
    // All ranks are on one host. One that sees fewer devices than there are ranks may have been given one of its own by a launcher, or
    // may share it: with --backend it is found out.
    let of_cuda = lack::<Cuda>(devices::<Cuda>(), world.size(), share);
    if all_have(world, of_cuda, &mut why)? {
        return Ok(Backend::Cuda);
    }
    let of_hip = lack::<Hip>(devices::<Hip>(), world.size(), share);
    if all_have(world, of_hip, &mut why)? {
        return Ok(Backend::Hip);
    }
    if world.rank() == 0 {
        say_host(&why);
    }
    Ok(Backend::Host)
}

/// Whether no rank lacks a vendor's GPUs. If some do, and somebody may wonder, `why` gets what the first says of it. Collective.
fn all_have(world: &World, own: Option<Lack>, why: &mut Vec<String>) -> anyhow::Result<bool> {
    const HAS: u8 = 0;
    const LACKS: u8 = 1;
    const LACKS_WANTED: u8 = 2;
    let own = match own {
        None => vec![HAS],
        Some(Lack { why, wanted }) => {
            let state = if wanted { LACKS_WANTED } else { LACKS };
            [&[state], why.as_bytes()].concat()
        }
    };
    let all = world.all_gather_bytes(&own)?;
    let states = || all.iter().filter_map(|its| its.split_first()).enumerate();
    if states().all(|(_, (state, _))| *state == HAS) {
        return Ok(true);
    }
    let some_have = states().any(|(_, (state, _))| *state == HAS);
    let told =
        states().find(|(_, (state, _))| **state == LACKS_WANTED || (some_have && **state == LACKS));
    if let Some((rank, (_, words))) = told {
        let words = String::from_utf8_lossy(words);
        why.push(match rank {
            0 => words.into_owned(),
            rank => format!("rank {rank}: {words}"),
        });
    }
    Ok(false)
}

/// Runs a rank's job where the arguments say. `auto` takes GPUs where each rank has one of its own, or may share one, and the host
/// elsewhere; all ranks take the same.
pub(crate) fn run<T: Element, J: Job<T>>(
    job: &J,
    world: &World,
    arguments: &WorldArguments,
    heap_bytes: usize,
) -> anyhow::Result<J::Output> {
    let backend = match arguments.backend {
        Backend::Auto => choose(world, arguments)?,
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

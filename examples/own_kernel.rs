//! A kernel of one's own on GPUs: numbers go around a ring of ranks, by signals over the symmetric heap, and are checked.
//!
//! The kernel is `own_kernel.hip`, which includes iris' headers. It is compiled here, for the GPU that is there, and launched many
//! times back to back; each launch makes several rounds. Where there is no GPU the program says so, and that is all it does.
//!
//! ```text
//! cargo run --example own_kernel                            a rank on each GPU, threads of this process
//! CUDA_DEVICE_MAX_CONNECTIONS=32 cargo run --example own_kernel 8
//!                                                           8 ranks, which share GPUs where there are fewer
//! mpirun -n 2 target/debug/examples/own_kernel              2 ranks, processes of mpirun (or torchrun, or srun)
//! ```

use iris::heap::cuda::Cuda;
use iris::heap::device::{Device, DeviceConfig, Driver, Module, RankStream};
use iris::heap::hip::Hip;
use iris::heap::{Launch, World, WorldConfig};
use iris::kernels::device::Ranks;
use iris::kernels::device::compile::{Request, Source, compile, target};
use std::error::Error;
use std::time::Duration;

type Failure = Box<dyn Error + Send + Sync>;

/// Threads of a block.
const THREADS: u32 = 256;
/// The most blocks of a rank.
const BLOCKS: u32 = 16;
/// The numbers that a rank holds. Nothing has to be divisible by anything.
const COUNT: usize = 10_007;
/// Launches, and the rounds of each.
const LAUNCHES: u64 = 100;
const ROUNDS: u64 = 10;
/// The value of the first round, which is signalled by 32-bit words: soon after it the counter wraps.
const FIRST: u64 = i32::MAX as u64 - 100;
/// How long a kernel waits for another rank before it gives up.
const BUDGET: Duration = Duration::from_secs(20);

/// The kernel's argument: the same fields, in the same order, as in `own_kernel.hip`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ring {
    ranks: Ranks,
    held: u64,
    progress: u64,
    inbox: u64,
    words: u64,
    count: u64,
    blocks: u64,
    rounds: u64,
    first: u64,
    budget_ns: u64,
}

/// What a rank holds at first: numbers that differ by rank and place.
fn initial(rank: usize) -> Vec<u32> {
    let mut state = rank as u32 + 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state ^ state >> 15
    };
    (0..COUNT).map(next).collect()
}

/// What it holds in the end: each rank that the numbers came to has changed them.
fn expected(rank: usize, size: usize) -> Vec<u32> {
    let rounds = (LAUNCHES * ROUNDS) as usize;
    let origin = (rank + size - rounds % size) % size;
    let mut numbers = initial(origin);
    for number in &mut numbers {
        *number = (1..=rounds).fold(*number, |number, step| {
            let at = (origin + step) % size;
            number.wrapping_mul(3).wrapping_add(at as u32 + 1)
        });
    }
    numbers
}

/// What every rank does. It returns what it has to say.
fn rank<D: Driver>(host: &World, shared: bool) -> Result<String, Failure> {
    let world = host.on::<D>(&DeviceConfig {
        heap_bytes: 1 << 20,
        share_devices: shared,
        ..DeviceConfig::default()
    })?;
    let (rank, size) = (world.rank(), world.size());

    // Compiled for this rank's GPU, by whatever compiler there is, unless it was before.
    let info = world.device().info();
    let source = Source::user("own_kernel.hip", include_str!("own_kernel.hip"));
    let request = Request::new(source, target(&info.architecture.parse()?)?);
    let image = compile(&request.define("RING_THREADS", THREADS))?;
    let module = Module::load(world.device(), image.bytes())?;
    let kernel = module.function("ring_exchange", THREADS, 0)?;

    // Blocks exchange with the same block of other ranks: all ranks launch as many as the one that has least room.
    let most = world.all_gather(u64::from(world.most_blocks(&kernel).min(BLOCKS)))?;
    let blocks = most.into_iter().min().unwrap_or(0) as u32;
    if blocks == 0 {
        return Err("no block of every rank fits its device at once".into());
    }

    // What neighbours write lies in the symmetric heap, at the same offset on all ranks; the rest is this rank's own.
    let inbox = world.symmetric_buffer::<u32>(2 * COUNT)?;
    let words = world.symmetric_buffer::<i32>(4 * blocks as usize)?;
    let held = world.plain_buffer::<u32>(COUNT)?;
    let progress = world.plain_buffer::<u64>(2 * blocks as usize)?;
    held.upload(0, &initial(rank))?;

    let stream = RankStream::new(&world)?;
    let ring = Ring {
        ranks: Ranks::new(rank, world.bases())?,
        held: held.address(),
        progress: progress.address(),
        inbox: inbox.offset().ok_or("not symmetric")? as u64,
        words: words.offset().ok_or("not symmetric")? as u64,
        count: COUNT as u64,
        blocks: u64::from(blocks),
        rounds: ROUNDS,
        first: FIRST,
        budget_ns: BUDGET.as_nanos() as u64,
    };
    // Each rank launches for itself, as fast as it likes. Nothing is zeroed in between, and nobody meets.
    for _ in 0..LAUNCHES {
        // SAFETY: the kernel takes a `Ring`, and accesses what that names within its bounds: `held` of COUNT numbers, `progress` of two
        // for each block, and on all ranks the two banks of `inbox` and four `words` for each block. All of it is there until the
        // stream has been synchronised, and that of peers until all ranks come to free it.
        unsafe { stream.launch(&kernel, blocks, &ring) }?;
    }
    stream.synchronize()?;

    for (block, progress) in progress.download()?.chunks_exact(2).enumerate() {
        let (what, of) = match progress[1] {
            0 => continue,
            1 => ("taken", (rank + 1) % size),
            _ => ("ready", (rank + size - 1) % size),
        };
        let round = progress[0];
        return Err(format!(
            "rank {rank} waited {BUDGET:?} for `{what}` of rank {of} in round {round}, block {block}"
        )
        .into());
    }
    let (found, right) = (held.download()?, expected(rank, size));
    if let Some(at) = (0..COUNT).find(|&at| found[at] != right[at]) {
        let (found, right) = (found[at], right[at]);
        return Err(format!("rank {rank}: number {at} is {found}, not {right}").into());
    }
    // Freed by all ranks together: a peer's kernel may still be writing here while ours have ended.
    world.free_buffer(inbox)?;
    world.free_buffer(words)?;
    Ok(format!(
        "rank {rank} of {size}, on {} ({}, {} blocks): {COUNT} numbers right after {LAUNCHES} launches of {ROUNDS} rounds",
        info.name,
        image.provenance().architecture,
        blocks,
    ))
}

/// All ranks, of which there are `count` unless told: `count` GPUs are visible.
fn run<D: Driver>(count: usize) -> Result<(), Failure> {
    let config = WorldConfig {
        // The heap is on the GPUs; kernels are compiled between two collectives.
        heap_bytes: 1 << 16,
        timeout: Duration::from_secs(120),
    };
    if let Some(launch) = Launch::from_env()? {
        let shared = launch.size() > count;
        println!("{}", rank::<D>(&World::join(&launch, &config)?, shared)?);
        return Ok(());
    }
    let ranks = std::env::args().nth(1).map_or(Ok(count), |it| it.parse())?;
    for said in World::threads(ranks, &config, |world| rank::<D>(&world, ranks > count))? {
        println!("{}", said?);
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    match (Device::<Cuda>::count(), Device::<Hip>::count()) {
        (Ok(count @ 1..), _) => run::<Cuda>(count),
        (_, Ok(count @ 1..)) => run::<Hip>(count),
        (cuda, hip) => {
            println!("no GPU here, and this example runs on GPUs alone");
            for error in [cuda.err(), hip.err()].into_iter().flatten() {
                println!("  {error}");
            }
            Ok(())
        }
    }
}

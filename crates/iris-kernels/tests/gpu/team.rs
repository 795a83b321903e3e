//! Kernels of a user's own with the device library's barrier, in worlds on GPUs.

use iris_heap::device::{DeviceConfig, Module, RankStream};
use iris_heap::{World, WorldConfig};
use iris_kernels::device::Ranks;
use iris_kernels::device::compile::{Request, Source, compile, target};
use iris_testkit::Failure;
use iris_testkit::device::{Gpu, Gpus, budget};
use std::time::Duration;

const THREADS: u32 = 64;
const LAUNCHES: u64 = 20;
const ROUNDS: u64 = 50;
/// The most blocks of a rank.
const BLOCKS: u32 = 40;

/// The kernel's argument.
#[repr(C)]
#[derive(Clone, Copy)]
struct Meetings {
    ranks: Ranks,
    cells: u64,
    words: u64,
    counts: u64,
    found: u64,
    blocks: u64,
    rounds: u64,
    budget_ns: u64,
}

/// What the ranks of a world saw: counts that were wrong, and barriers that were not passed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    wrong: u64,
    missed: u64,
}

fn meet(world: &World<Gpu>, without: bool) -> Result<Found, Failure> {
    let size = world.size();
    let source = Source::user("team.hip", include_str!("team.hip"));
    let architecture = world.device().info().architecture.parse()?;
    let mut request = Request::new(source, target(&architecture)?);
    if without {
        request = request.define("WITHOUT_BARRIER", 1);
    }
    let kernel = Module::load(world.device(), compile(&request)?.bytes())?;
    let kernel = kernel.function("meetings", THREADS, 0)?;
    // The same number of blocks everywhere, as they look at each other's counts.
    let most = world.all_gather(u64::from(world.most_blocks(&kernel).min(BLOCKS)))?;
    let blocks = most.into_iter().min().unwrap_or(0);
    let cells = world.symmetric_buffer::<u64>(3 + 14 * size)?;
    let words = world.symmetric_buffer::<i32>(7 * size)?;
    let counts = world.symmetric_buffer::<u64>(blocks as usize)?;
    let found = world.plain_buffer::<u64>(2)?;
    let offset = |offset: Option<usize>| offset.ok_or("not symmetric").map(|it| it as u64);
    let arguments = Meetings {
        ranks: Ranks::new(world.rank(), world.bases())?,
        cells: offset(cells.offset())?,
        words: offset(words.offset())?,
        counts: offset(counts.offset())?,
        found: found.address(),
        blocks,
        rounds: ROUNDS,
        budget_ns: budget().as_nanos() as u64,
    };
    let stream = RankStream::new(world)?;
    for _ in 0..LAUNCHES {
        // SAFETY: the kernel takes such a block, and accesses what it names: as many cells and words as the barrier needs, and a count
        // for each block, at all ranks, until the stream is empty here and all ranks free them together.
        unsafe { stream.launch(&kernel, blocks as u32, &arguments) }?;
    }
    stream.synchronize()?;
    let all = counts.download()?;
    let found = found.download()?;
    world.free_buffer(cells)?;
    world.free_buffer(words)?;
    world.free_buffer(counts)?;
    if all.iter().any(|&count| count != LAUNCHES * ROUNDS) && found[1] == 0 {
        return Err(format!("counts {all:?} after {LAUNCHES} launches of {ROUNDS} rounds").into());
    }
    Ok(Found {
        wrong: found[0],
        missed: found[1],
    })
}

/// What all ranks of a world found together.
fn meetings(gpus: &Gpus, ranks: usize, without: bool) -> Found {
    let config = WorldConfig {
        heap_bytes: 1 << 16,
        timeout: Duration::from_secs(120), // kernels are compiled between two collectives
    };
    let devices = DeviceConfig {
        heap_bytes: 1 << 20,
        device: None,
        share_devices: ranks > gpus.devices().len(),
    };
    let found = World::threads(ranks, &config, |world| {
        meet(&world.on::<Gpu>(&devices)?, without)
    });
    let found = found.unwrap().into_iter().map(Result::unwrap);
    found.fold(Found::default(), |sum, one| Found {
        wrong: sum.wrong + one.wrong,
        missed: sum.missed + one.missed,
    })
}

#[test]
fn nobody_leaves_a_barrier_before_all_have_come() {
    let Some(gpus) = Gpus::take("team", 1) else {
        return;
    };
    let count = gpus.devices().len();
    for ranks in [1, count, 4.max(count)] {
        assert_eq!(
            meetings(&gpus, ranks, false),
            Found::default(),
            "{ranks} ranks"
        );
    }
    // The counts do differ where nobody waits.
    let without = meetings(&gpus, count, true);
    println!("  without the barrier: {} counts differ", without.wrong);
    assert!(without.wrong > 0);
}

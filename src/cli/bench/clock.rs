//! The time of calls on the host, by the clock.

use std::time::{Duration, Instant};

use iris::heap::{Stream, World};
use iris::ops::OpError;

/// A measurement repeats what takes less than this until it takes this long.
const LONG_ENOUGH: Duration = Duration::from_millis(5);
/// But no more often than this.
const MOST_REPEATS: u32 = 200;
/// Calls before anything is counted.
const WARM_UP: u32 = 2;

/// Microseconds of one call out of `repeats`, on the slowest rank: from a barrier to when it is done. Collective.
pub(in crate::cli) fn measure(
    world: &World,
    stream: &Stream,
    repeats: u32,
    enqueue: &mut dyn FnMut() -> Result<(), OpError>,
) -> anyhow::Result<f64> {
    world.barrier()?;
    let start = Instant::now();
    for _ in 0..repeats {
        enqueue()?;
    }
    stream.synchronize()?;
    let seconds = start.elapsed().as_secs_f64();
    let slowest = world.all_gather(seconds)?.into_iter().fold(0.0, f64::max);
    Ok(slowest * 1e6 / f64::from(repeats))
}

/// How many calls make a measurement long enough, after some that do not count. The same on all ranks, because the time is.
/// Collective.
pub(in crate::cli) fn repeats(
    world: &World,
    stream: &Stream,
    enqueue: &mut dyn FnMut() -> Result<(), OpError>,
) -> anyhow::Result<u32> {
    measure(world, stream, WARM_UP, enqueue)?;
    let once = measure(world, stream, 1, enqueue)?.max(1e-3);
    let enough = (LONG_ENOUGH.as_secs_f64() * 1e6 / once).ceil();
    Ok(enough.clamp(1.0, f64::from(MOST_REPEATS)) as u32)
}

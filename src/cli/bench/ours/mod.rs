//! What of ours is measured on GPUs: the fused operation, and beside the vendor's libraries our product and our collective alone, on
//! the same operands.

mod calls;
mod exchange;
mod fused;
mod product;

use iris::heap::cuda::Cuda;
use iris::heap::device::DeviceConfig;
use iris::heap::{World, WorldError};
use iris::ops::OpError;
use iris_measure::Plan;

pub(crate) use exchange::Exchange;
pub(crate) use fused::Fused;
pub(crate) use product::Multiplication;

/// Elements of each result that are checked, on each of the sets that are.
pub(crate) const SAMPLES: usize = 24;
/// Room in the heap for what is not known beforehand, to begin with.
const SLACK: usize = 64 << 20;

/// Gives `body` a world on devices whose heap is large enough: one that turns out too small is made anew with what it lacked.
/// Collective.
pub(crate) fn with_heap<R>(
    host: &World,
    least: usize,
    body: impl Fn(&World<Cuda>) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    let mut heap_bytes = least + SLACK;
    loop {
        let config = DeviceConfig {
            heap_bytes,
            ..DeviceConfig::default()
        };
        // Dropped before the next is made.
        let outcome = host.on::<Cuda>(&config).map_err(Into::into);
        let outcome = outcome.and_then(|world| body(&world));
        match outcome.as_ref().err().and_then(lacking) {
            // The same on all ranks, since all allocate the same.
            Some(lacking) => heap_bytes += lacking + SLACK,
            None => return outcome,
        }
    }
}

/// What a heap that is full would have needed besides.
pub(crate) fn lacking(error: &anyhow::Error) -> Option<usize> {
    error.chain().find_map(|cause| {
        let world = match cause.downcast_ref::<OpError>() {
            Some(OpError::World(world)) => Some(world),
            _ => cause.downcast_ref::<WorldError>(),
        };
        match world {
            Some(WorldError::HeapFull { needed, .. }) => Some(*needed),
            _ => None,
        }
    })
}

/// The bytes of symmetric memory that the results of a plan take.
pub(crate) fn results_bytes(plan: &Plan, sets: usize) -> usize {
    let elements = plan.case.m * plan.case.n + gathered_len(plan).max(plan.case.m * plan.case.n);
    sets * (elements * plan.case.dtype.bytes() + 8192)
}

/// The elements of the whole A, where that is gathered.
fn gathered_len(plan: &Plan) -> usize {
    if plan.case.operation.gathers_first() {
        plan.case.m * plan.case.k
    } else {
        0
    }
}

//! A heap on GPUs that is large enough for what is measured.

use iris::heap::cuda::Cuda;
use iris::heap::device::DeviceConfig;
use iris::heap::{World, WorldError};
use iris::ops::OpError;
use iris_measure::{MeasureError, Plan};

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
    fn of_operation(error: &OpError) -> Option<&WorldError> {
        match error {
            OpError::World(world) => Some(world),
            _ => None,
        }
    }
    fn of_measuring(error: &MeasureError) -> Option<&WorldError> {
        match error {
            MeasureError::World(world) => Some(world),
            MeasureError::Operation(error) => of_operation(error),
            _ => None,
        }
    }
    error.chain().find_map(|cause| {
        let world = cause
            .downcast_ref()
            .or_else(|| cause.downcast_ref().and_then(of_operation))
            .or_else(|| cause.downcast_ref().and_then(of_measuring));
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

#[cfg(test)]
mod tests {
    use super::*;
    use iris::heap::device::DeviceError;

    /// Whoever says it, and however it is handed on.
    #[test]
    fn a_full_heap_says_what_it_lacked() {
        let full = || WorldError::HeapFull {
            needed: 640,
            free: 64,
            largest: 64,
            heap: 4096,
        };
        let all: [anyhow::Error; 4] = [
            full().into(),
            OpError::World(full()).into(),
            MeasureError::World(full()).into(),
            MeasureError::Operation(OpError::World(full())).into(),
        ];
        for error in all {
            assert_eq!(lacking(&error), Some(640), "{error:?}");
            assert_eq!(lacking(&error.context("a point")), Some(640));
        }
        let other = DeviceError::OutOfMemory {
            device: 0,
            bytes: 640,
        };
        assert_eq!(lacking(&MeasureError::Device(other).into()), None);
    }
}

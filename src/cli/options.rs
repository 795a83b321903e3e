//! What of the arguments is looked at before anything is run.

use std::io::ErrorKind;

use iris::heap::device::DeviceError;
use iris::heap::{StreamError, WorldError};
use iris::ops::{GatherDim, OpError, Variant};

use crate::cli::args::{Gather, WorldArguments};
use crate::cli::backend;
use crate::cli::error::{Unusable, whole};
use crate::cli::operation::Operation;
use crate::cli::split::Size;

/// Arguments that some operations have and others do not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// The variant asked for.
    pub(crate) variant: Option<Variant>,
    /// How A is split, for `all_gather_matmul`.
    pub(crate) gather: Gather,
}

/// Whether this build and the operation have what is asked for.
pub(crate) fn check(
    operation: Operation,
    world: &WorldArguments,
    gather: Option<Gather>,
    variant: Option<Variant>,
) -> Result<Options, Unusable> {
    backend::check(world)?;
    let not_for = |argument: String| Unusable::NotForOperation {
        argument,
        operation: operation.name(),
    };
    match variant {
        Some(variant) if variant != Variant::Auto && operation != Operation::MatmulAllReduce => {
            return Err(not_for(format!("--variant {variant}")));
        }
        _ => {}
    }
    if gather.is_some() && operation != Operation::AllGatherMatmul {
        return Err(not_for("--gather".to_owned()));
    }
    Ok(Options {
        variant,
        gather: gather.unwrap_or(Gather::Rows),
    })
}

impl From<Gather> for GatherDim {
    fn from(gather: Gather) -> Self {
        match gather {
            Gather::Rows => Self::Rows,
            Gather::Columns => Self::Columns,
        }
    }
}

/// The bytes of each rank's heap: those asked for, or those needed.
pub(crate) fn heap(
    world: &WorldArguments,
    size: Size,
    needed: Option<usize>,
) -> Result<usize, Unusable> {
    let Size { m, n, k } = size;
    match world.heap {
        Some(heap) => Ok(heap.0),
        None => needed.ok_or(Unusable::TooLarge { m, n, k }),
    }
}

/// Whether something failed for want of memory: of the heap, of a device, or of the host.
pub(crate) fn is_want_of_memory(error: &anyhow::Error) -> bool {
    let of_device = |error: &DeviceError| matches!(error, DeviceError::OutOfMemory { .. });
    let of_world = |error: &WorldError| match error {
        WorldError::HeapFull { .. }
        | WorldError::HeapTooLarge { .. }
        | WorldError::OutOfMemory { .. } => true,
        WorldError::Device(device) => of_device(device),
        _ => false,
    };
    let of_operation = |error: &OpError| match error {
        OpError::World(world) => of_world(world),
        OpError::Stream(StreamError::Device(device)) => of_device(device),
        _ => false,
    };
    error.chain().any(|cause| {
        cause.downcast_ref().is_some_and(of_device)
            || cause.downcast_ref().is_some_and(of_world)
            || cause.downcast_ref().is_some_and(of_operation)
    })
}

/// Whether something failed only because another rank did.
pub(crate) fn is_of_another_rank(error: &anyhow::Error) -> bool {
    let of_world = |error: &WorldError| matches!(error, WorldError::RankFailed { .. });
    error.chain().any(|cause| {
        cause.downcast_ref().is_some_and(of_world)
            || matches!(cause.downcast_ref(), Some(OpError::World(world)) if of_world(world))
    })
}

/// Has `--heap` take the blame where it was given and the heap does not do.
pub(crate) fn blame_heap(error: anyhow::Error, world: &WorldArguments) -> anyhow::Error {
    let about_heap = |error: &WorldError| match error {
        WorldError::HeapFull { .. } | WorldError::HeapTooLarge { .. } => true,
        // No address space, or no memory, is left for it.
        WorldError::Os { source, .. } => source.kind() == ErrorKind::OutOfMemory,
        _ => false,
    };
    let to_blame = error.chain().any(|cause| {
        cause.downcast_ref::<WorldError>().is_some_and(about_heap)
            || matches!(cause.downcast_ref::<OpError>(), Some(OpError::World(error)) if about_heap(error))
    });
    match world.heap {
        Some(heap) if to_blame => Unusable::Heap {
            heap,
            detail: whole(&error),
        }
        .into(),
        _ => error,
    }
}

//! How fast a device reads its memory: what bounds a product of few rows, which reads each weight once.

use iris_heap::cuda::Cuda;
use iris_heap::device::{Memory, Stream};

use crate::error::MeasureError;
use crate::kernels::Kernels;
use crate::timing::{Call, Clock, Effort, median};

/// The memory that is read: far more than any cache holds, and enough for the device to be busy for a while.
const BYTES: usize = 1 << 30;

/// The arguments of `iris_read`: the twin of `Read` in hip/measure.hip.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Read {
    from: u64,
    chunks: u64,
    sink: u64,
    blocks: u64,
}

/// Bytes a second that the slowest rank's device reads, all reading at once. Collective.
pub(crate) fn read_bandwidth(
    kernels: &Kernels,
    clock: &Clock<'_, Cuda>,
) -> Result<f64, MeasureError> {
    let memory = Memory::new(clock.device, BYTES)?;
    clock.stream.fill(&memory, 0, BYTES, 0)?;
    let sink = Memory::new(clock.device, 16)?;
    let blocks = kernels.read.shape().most_blocks;
    let arguments = Read {
        from: memory.address(),
        chunks: (BYTES / 16) as u64,
        sink: sink.address(),
        blocks: u64::from(blocks),
    };
    let enqueue = |_: usize, stream: &Stream<Cuda>| {
        // SAFETY: the kernel takes such a block, and both memories outlive the measurements below.
        Ok(unsafe { kernels.read.launch(stream, blocks, &arguments) }?)
    };
    // SAFETY: kernel and memories live until the end of this function.
    let mut read = unsafe { Call::new(enqueue) };
    let clock = Clock {
        sets: 1,
        effort: Effort {
            repeats: 10,
            ..clock.effort
        },
        ..*clock
    };
    let captured = clock.capture("reading memory", &mut read)?;
    let times = clock.rounds(&mut [captured])?;
    Ok(BYTES as f64 / (median(&times[0]) * 1e-6))
}

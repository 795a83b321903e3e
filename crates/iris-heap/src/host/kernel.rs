//! What streams run, and with which memory.

use super::buffer::Access;
use super::stream::StreamError;
use crate::backend::AnyBuffer;
use std::sync::Arc;

/// The most integers a kernel can be given.
pub const MAX_SCALARS: usize = 24;
/// The most buffers a kernel can be given.
pub const MAX_BUFFERS: usize = 6;

/// A kernel's arguments. They have a place of fixed size in the stream's queue, so that a launch allocates nothing.
#[derive(Debug, Clone, Default)]
pub struct KernelArgs {
    /// Integers; their meaning is the kernel's affair.
    pub scalars: [i64; MAX_SCALARS],
    /// Buffers, and what the kernel does with each.
    pub buffers: [Option<(AnyBuffer, Access)>; MAX_BUFFERS],
}

/// Something that a stream's worker runs.
pub trait Kernel: Send + Sync {
    /// Runs it. While it runs, the buffers of `args` are locked for what `args` says is done with them.
    ///
    /// # Errors
    /// Whatever went wrong; the stream keeps its first error until it is synchronised.
    fn run(&self, args: &KernelArgs) -> Result<(), StreamError>;

    /// Its name, for messages.
    fn name(&self) -> &str;
}

/// One launch of a kernel.
#[derive(Clone)]
pub struct KernelLaunch {
    /// The kernel.
    pub kernel: Arc<dyn Kernel>,
    /// Its arguments.
    pub args: KernelArgs,
}

impl std::fmt::Debug for KernelLaunch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelLaunch")
            .field("kernel", &self.kernel.name())
            .field("args", &self.args)
            .finish()
    }
}

/// The locks of a kernel's buffers, held until this is dropped.
///
/// They are taken in the order of their addresses, each memory once and for the stronger use, so that two kernels with
/// buffers in common never wait for each other in a circle.
pub(super) struct Locked<'a> {
    held: [Option<(&'a AnyBuffer, Access)>; MAX_BUFFERS],
}

impl<'a> Locked<'a> {
    pub(super) fn new(args: &'a KernelArgs) -> Self {
        let mut held: [Option<(&AnyBuffer, Access)>; MAX_BUFFERS] = [None; MAX_BUFFERS];
        for (buffer, access) in args.buffers.iter().flatten() {
            for slot in &mut held {
                match slot {
                    Some((known, strongest)) if known.key() == buffer.key() => {
                        *strongest = (*strongest).max(*access);
                        break;
                    }
                    Some(_) => {}
                    None => {
                        *slot = Some((buffer, *access));
                        break;
                    }
                }
            }
        }
        held.sort_unstable_by_key(|slot| slot.map_or(usize::MAX, |(buffer, _)| buffer.key()));
        for (buffer, access) in held.iter().flatten() {
            buffer.lock().acquire(*access);
        }
        Self { held }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        for (buffer, access) in self.held.iter().flatten() {
            buffer.lock().release(*access);
        }
    }
}

//! `matmul_all_reduce` by adding: every rank adds its partial sums to f32 accumulators at every rank.
//!
//! The order in which ranks add is that of their arrival, so results differ in their last bits from rank to rank and from run
//! to run.

use super::gemm::Source;
use super::{Operands, Outcome, Rank, Scratch};
use crate::element::Element;
use crate::geometry::Grid;
use core::sync::atomic::{AtomicU32, Ordering};
use iris_sync::{Waiting, Word};

/// How additions of different ranks to one element are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adding {
    /// Each element is added to atomically.
    Atomic,
    /// Each tile is added to under a spin lock.
    Spinlock,
}

/// Runs one call.
///
/// # Safety
/// `operands` are as [`Operands`] says: A `(m, k_r)`, B `(k_r, n)`, C `(m, n)`. All ranks run the same calls in the same order.
/// The accumulators have room for the largest `m` by n and were zero before the first call; the workspace has a lock for each
/// tile if they are wanted.
///
/// # Errors
/// The fault that the call left with.
pub unsafe fn run<T: Element, W: Word, P: Waiting>(
    rank: &Rank<'_, W, P>,
    operands: &Operands<T>,
    adding: Adding,
    scratch: &mut Scratch,
) -> Outcome {
    let (me, shape) = (rank.rank(), rank.shape);
    let grid = Grid::new(operands.m, shape.n, shape.tile);
    let has_depth = !rank.depth(me).is_empty();

    let call = rank.port.begin(operands.announcement())?;
    call.gate(has_depth, |_| 0)?;
    let bank = |target: usize| rank.accumulators.bank(rank.heap[target], call.bank());

    if has_depth {
        // SAFETY: the operands are valid by the caller's promise.
        let source = unsafe { Source::new(operands, scratch) };
        for tile in (0..grid.len()).map(|step| (step + me) % grid.len()) {
            let block = grid.block(tile);
            let len = block.rows.len() * block.cols.len();
            // SAFETY: the tile lies inside both operands.
            unsafe {
                source.tile(&block.rows, &block.cols, &mut scratch.tile);
            }
            let tile_values = &scratch.tile[..len];
            for target in call.peers().chain(core::iter::once(me)) {
                let add = match adding {
                    Adding::Atomic => add_atomically,
                    Adding::Spinlock => add_alone,
                };
                let _held = match adding {
                    Adding::Atomic => None,
                    Adding::Spinlock => Some(call.lock(target, tile)?),
                };
                for (row, values) in block
                    .rows
                    .clone()
                    .zip(tile_values.chunks_exact(block.cols.len()))
                {
                    for (col, &value) in block.cols.clone().zip(values) {
                        // SAFETY: the gate is passed, so the target has cleared this bank, and reads it only after this rank's `added`; others that
                        // add to it meanwhile do so in the same way, atomically or under the lock held here.
                        unsafe { add(bank(target).add(row * shape.n + col), value) };
                    }
                }
            }
        }
    }
    call.push_added();

    call.meet()?;
    call.await_added()?;
    for row in 0..operands.m {
        // SAFETY: all have added, and nobody adds again before this rank has left the call; the output is this rank's alone.
        unsafe {
            let sum = core::slice::from_raw_parts_mut(bank(me).add(row * shape.n), shape.n);
            super::reduce::add_bias(sum, shape.n, operands.bias_of(&(0..shape.n)));
            T::narrow(sum, operands.c.row(row, 0, shape.n));
            sum.fill(0.0);
        }
    }
    call.finish()
}

/// Adds `value` to the f32 at `sum`.
///
/// # Safety
/// The element is valid, and nobody else accesses it meanwhile.
unsafe fn add_alone(sum: *mut f32, value: f32) {
    // SAFETY: promised by the caller.
    unsafe { *sum += value };
}

/// Adds `value` to the f32 at `sum`, which others may add to at the same time in the same way.
///
/// # Safety
/// The element is valid and aligned, and nobody accesses it meanwhile but atomically.
unsafe fn add_atomically(sum: *mut f32, value: f32) {
    // SAFETY: promised by the caller.
    let sum = unsafe { AtomicU32::from_ptr(sum.cast()) };
    let mut seen = sum.load(Ordering::Relaxed);
    while let Err(now) = sum.compare_exchange_weak(
        seen,
        (f32::from_bits(seen) + value).to_bits(),
        // Relaxed: `added` releases all additions, and whoever reads the sums acquires it.
        Ordering::Relaxed,
        Ordering::Relaxed,
    ) {
        seen = now;
    }
}

//! `matmul_reduce_scatter`: each rank reduces, and keeps, its rows of the sum.

use super::gemm::{Multiplied, Source, group_size};
use super::reduce::sum_partials;
use super::{Operands, Outcome, Rank, Scratch, store};
use crate::element::Element;
use crate::geometry::{Grid, shard};
use iris_sync::{Waiting, Word};

/// Runs one call. The tile grid restarts at each owner's first row, so that no tile has two owners.
///
/// # Safety
/// `operands` are as [`Operands`] says: A `(m, k_r)`, B `(k_r, n)`, C the rank's rows by n. All ranks run the same calls in the
/// same order. The staging has a slot for every tile of a rank's rows at the largest `m`.
///
/// # Errors
/// The fault that the call left with.
pub unsafe fn run<T: Element, W: Word, P: Waiting>(
    rank: &Rank<'_, W, P>,
    operands: &Operands<T>,
    scratch: &mut Scratch,
) -> Outcome {
    let (me, world, shape) = (rank.rank(), rank.world(), rank.shape);
    let rows = |owner| shard(operands.m, world, owner);
    let grid = |owner| Grid::new(rows(owner).len(), shape.n, shape.tile);
    let has_depth = !rank.depth(me).is_empty();

    let call = rank.port.begin(operands.announcement())?;
    call.gate(
        has_depth,
        |owner| {
            if has_depth { grid(owner).len() } else { 0 }
        },
    )?;

    if has_depth {
        // SAFETY: the operands are valid by the caller's promise.
        let source = unsafe { Source::new(operands, scratch) };
        for owner in call.peers().chain(core::iter::once(me)) {
            let (grid, first_row) = (grid(owner), rows(owner).start);
            let groups = grid.groups(group_size(shape.tile));
            for tiles in (0..groups.len()).map(|group| groups.tiles(group)) {
                // SAFETY: the tiles lie inside both operands.
                let product = unsafe {
                    Multiplied::new(&source, &grid, &tiles, first_row, &mut scratch.tile)
                };
                for slot in tiles {
                    let staged = rank
                        .staging
                        .slot(rank.heap[owner], world, call.bank(), me, slot);
                    // SAFETY: the gate is passed, so the slot is this rank's until its `ready`.
                    unsafe { product.put(&grid.block(slot), staged.cast::<T>()) };
                    call.push_ready(owner, slot);
                }
            }
        }
    }

    if !rows(me).is_empty() {
        call.meet()?;
    }
    for slot in 0..grid(me).len() {
        let block = grid(me).block(slot);
        // SAFETY: the tile is this rank's, and staged in the slot of its number; the output is this rank's alone.
        unsafe {
            let sum: &[T] = sum_partials(rank, &call, operands, &block, slot, scratch)?;
            store(operands.c, &block, sum);
        }
    }
    call.finish()
}

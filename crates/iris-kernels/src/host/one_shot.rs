//! `matmul_all_reduce`, one-shot: every rank hands every tile to every rank, and reduces all of them itself.

use super::gemm::{Multiplied, Source, group_size};
use super::reduce::sum_partials;
use super::{Operands, Outcome, Rank, Scratch, store};
use crate::element::Element;
use crate::geometry::Grid;
use iris_sync::{Waiting, Word};

/// Runs one call.
///
/// # Safety
/// `operands` are as [`Operands`] says: A `(m, k_r)`, B `(k_r, n)`, C `(m, n)`. All ranks run the same calls in the same order.
/// The staging has a slot for every tile of the largest `m`.
///
/// # Errors
/// The fault that the call left with.
pub unsafe fn run<T: Element, W: Word, P: Waiting>(
    rank: &Rank<'_, W, P>,
    operands: &Operands<T>,
    scratch: &mut Scratch,
) -> Outcome {
    let (me, world, shape) = (rank.rank(), rank.world(), rank.shape);
    let grid = Grid::new(operands.m, shape.n, shape.tile);
    let has_depth = !rank.depth(me).is_empty();

    let call = rank.port.begin(operands.announcement())?;
    call.gate(has_depth, |_| if has_depth { grid.len() } else { 0 })?;

    if has_depth {
        // SAFETY: the operands are valid by the caller's promise.
        let source = unsafe { Source::new(operands, scratch) };
        let groups = grid.groups(group_size(shape.tile));
        for tiles in (0..groups.len()).map(|group| groups.tiles(group)) {
            // SAFETY: the tiles lie inside both operands.
            let product = unsafe { Multiplied::new(&source, &grid, &tiles, 0, &mut scratch.tile) };
            for tile in tiles {
                for target in call.peers().chain(core::iter::once(me)) {
                    let staged = rank
                        .staging
                        .slot(rank.heap[target], world, call.bank(), me, tile);
                    // SAFETY: the gate is passed, so the slot is this rank's until its `ready`.
                    unsafe { product.put(&grid.block(tile), staged.cast::<T>()) };
                    call.push_ready(target, tile);
                }
            }
        }
    }

    call.meet()?;
    for tile in 0..grid.len() {
        let block = grid.block(tile);
        // SAFETY: the tile is staged in the slot of its number; the output is this rank's alone.
        unsafe {
            let sum: &[T] = sum_partials(rank, &call, operands, &block, tile, scratch)?;
            store(operands.c, &block, sum);
        }
    }
    // Nobody stores into a peer's output here; but `auto` mixes these calls with those of `two_shot`, whose `gathered` must not
    // become a lap old.
    call.finish_unowned()
}

//! `matmul_all_reduce`, two-shot: each tile is reduced by its owner, who stores the sum into everybody's output.

use super::gemm::{Multiplied, Source, group_size};
use super::reduce::sum_partials;
use super::{Operands, Outcome, Rank, Scratch, store_to_all, take_bounced};
use crate::element::Element;
use crate::geometry::{Deal, Grid};
use iris_sync::{Waiting, Word};

/// Runs one call.
///
/// # Safety
/// `operands` are as [`Operands`] says: A `(m, k_r)`, B `(k_r, n)`, C `(m, n)`; the output is symmetric. All ranks run the same
/// calls in the same order. The staging has a slot for every tile that a rank owns at the largest `m`.
///
/// # Errors
/// The fault that the call left with.
pub unsafe fn run<T: Element, W: Word, P: Waiting>(
    rank: &Rank<'_, W, P>,
    operands: &Operands<T>,
    scratch: &mut Scratch,
) -> Outcome {
    let (me, world, shape) = (rank.rank(), rank.world(), rank.shape);
    let deal = Deal { world };
    let grid = Grid::new(operands.m, shape.n, shape.tile);
    let has_depth = !rank.depth(me).is_empty();

    let call = rank.port.begin(operands.announcement())?;
    call.gate(has_depth, |owner| {
        if has_depth {
            deal.count(grid.len(), owner)
        } else {
            0
        }
    })?;

    if has_depth {
        // SAFETY: the operands are valid by the caller's promise.
        let source = unsafe { Source::new(operands, scratch) };
        // Each rank begins elsewhere, so that not all hand their first tile to the same owner.
        let groups = grid.groups(group_size(shape.tile));
        for group in (0..groups.len()).map(|step| (step + me) % groups.len()) {
            let tiles = groups.tiles(group);
            // SAFETY: the tiles lie inside both operands.
            let product = unsafe { Multiplied::new(&source, &grid, &tiles, 0, &mut scratch.tile) };
            for tile in tiles {
                let (owner, slot) = (deal.owner(tile), deal.slot(tile));
                let staged = rank
                    .staging
                    .slot(rank.heap[owner], world, call.bank(), me, slot);
                // SAFETY: the gate is passed, so the slot is this rank's until its `ready`.
                unsafe { product.put(&grid.block(tile), staged.cast::<T>()) };
                call.push_ready(owner, slot);
            }
        }
    }

    call.meet()?;
    for tile in (me..grid.len()).step_by(world) {
        let block = grid.block(tile);
        // SAFETY: the tile is this rank's, and staged in the slot it was dealt.
        unsafe {
            let sum = sum_partials(rank, &call, operands, &block, deal.slot(tile), scratch)?;
            store_to_all::<T, W, P>(rank, &call, tile, &block, sum)?;
        }
    }
    call.finish_gathered(|owner| deal.count(grid.len(), owner) > 0)?;
    // SAFETY: the call has ended.
    unsafe { take_bounced(rank, operands) };
    Ok(())
}

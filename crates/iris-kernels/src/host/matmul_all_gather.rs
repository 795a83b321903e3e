//! `matmul_all_gather`: each rank multiplies its rows, and stores them into everybody's output.

use super::gemm::Source;
use super::reduce::{add_bias, rounded};
use super::{Operands, Outcome, Rank, Scratch, store_to_all, take_bounced};
use crate::element::Element;
use crate::geometry::{Block, Grid, shard};
use iris_sync::{Waiting, Word};

/// Runs one call.
///
/// # Safety
/// `operands` are as [`Operands`] says: A the rank's rows by k, B `(k, n)`, C `(m, n)`; the output is symmetric. All ranks run
/// the same calls in the same order.
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
    let first = rows(me).start;
    let grid = Grid::new(rows(me).len(), shape.n, shape.tile);

    let call = rank.port.begin(operands.announcement())?;
    call.gate(!grid.is_empty(), |_| 0)?;

    // SAFETY: the operands are valid by the caller's promise.
    let source = unsafe { Source::new(operands, scratch) };
    for tile in 0..grid.len() {
        let block = grid.block(tile);
        let len = block.rows.len() * block.cols.len();
        // SAFETY: the tile lies inside both operands.
        unsafe {
            source.tile(&block.rows, &block.cols, &mut scratch.tile);
            add_bias(
                &mut scratch.tile[..len],
                block.cols.len(),
                operands.bias_of(&block.cols),
            );
        }
        let values: &[T] = rounded(&scratch.tile[..len], &mut scratch.narrow);
        // The first tile is multiplied before waiting for anybody.
        call.meet()?;
        let block = Block {
            rows: first + block.rows.start..first + block.rows.end,
            cols: block.cols,
        };
        // SAFETY: all peers are met, and the rows are this rank's.
        unsafe { store_to_all::<T, W, P>(rank, &call, tile, &block, values) }?;
    }
    call.finish_gathered(|owner| !rows(owner).is_empty())?;
    // SAFETY: the call has ended.
    unsafe { take_bounced(rank, operands) };
    Ok(())
}

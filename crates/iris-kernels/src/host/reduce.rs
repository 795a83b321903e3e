//! Summing partial tiles in rank order.

use super::{Operands, Rank, Scratch};
use crate::element::{DType, Element};
use crate::geometry::Block;
use iris_sync::{Call, Fault, Mapped, Waiting, Word};

/// Adds `bias` to each row of `tile`, whose rows are `cols` long.
pub(crate) fn add_bias<T: Element>(tile: &mut [f32], cols: usize, bias: Option<&[T]>) {
    if let Some(bias) = bias {
        for row in tile.chunks_exact_mut(cols) {
            for (value, bias) in row.iter_mut().zip(bias) {
                *value += bias.to_f32();
            }
        }
    }
}

/// Waits for the partial tiles of all ranks that have depth, and sums them in f32 in rank order, then adds the bias once. The
/// order is the same at every rank, so whoever reduces a tile gets the same bits.
///
/// The sum, rounded to the dtype, is in the returned slice.
///
/// # Safety
/// The operands are valid; `slot` is where the tile of `block` is staged at this rank.
///
/// # Errors
/// See [`Call::await_ready`].
pub(crate) unsafe fn sum_partials<'s, T: Element, W: Word, P: Waiting>(
    rank: &Rank<'_, W, P>,
    call: &Call<'_, W, Mapped<'_, W>, P>,
    operands: &Operands<T>,
    block: &Block,
    slot: usize,
    scratch: &'s mut Scratch,
) -> Result<&'s [T], Fault> {
    let len = block.rows.len() * block.cols.len();
    let sum = &mut scratch.tile[..len];
    let mut first = true;
    for source in (0..rank.world()).filter(|&source| !rank.depth(source).is_empty()) {
        call.await_ready(source, slot)?;
        let staged = rank.staging.slot(
            rank.heap[rank.rank()],
            rank.world(),
            call.bank(),
            source,
            slot,
        );
        // SAFETY: `ready` was seen, so the source has written the slot and leaves it alone until this rank has left the call.
        let staged = unsafe { core::slice::from_raw_parts(staged.cast::<T>(), len) };
        if first {
            T::widen(staged, sum);
            first = false;
        } else {
            T::add(staged, sum);
        }
    }
    // SAFETY: promised by the caller.
    add_bias(sum, block.cols.len(), unsafe {
        operands.bias_of(&block.cols)
    });
    Ok(rounded(sum, &mut scratch.narrow))
}

/// `values` in the dtype: themselves if that is f32, else rounded, at the beginning of `room`.
pub(crate) fn rounded<'s, T: Element>(values: &'s [f32], room: &'s mut [f32]) -> &'s [T] {
    if T::DTYPE == DType::F32 {
        return bytemuck::cast_slice(values);
    }
    let rounded = &mut bytemuck::cast_slice_mut::<f32, T>(room)[..values.len()];
    T::narrow(values, rounded);
    rounded
}

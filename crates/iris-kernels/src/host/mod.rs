//! The operations as programs for a CPU: one thread a rank walks through its tiles.
//!
//! Each file has one operation, and each operation the same skeleton: begin, gate, produce all tiles, meet, reduce, finish.
//! When to signal and what to wait for is [`iris_sync::Call`]'s; what is here is which tiles there are, where their data
//! lies, and the arithmetic.
//!
//! # Why the memory accesses are sound
//!
//! All functions here that touch a matrix or staging are `unsafe`, and rely on one argument, made here once:
//!
//! * *Operands* are promised by the caller ([`Operands`]).
//! * *Staging*: a slot of a bank at rank `q` is written by one source, between its gate and its `ready`; and read by `q`, between
//!   seeing that `ready` and the end of the call. The writer's gate of call `i` is `q`'s `entered` of call `i - 1`, which `q` tells
//!   when it has left call `i - 2`: calls of a workspace run one after the other. So writing and reading of a slot never overlap,
//!   and each sees the other's effects: signals release and acquire.
//! * *Outputs*: a peer stores into this rank's output between having seen `entered` of this call and pushing `gathered`; tiles of
//!   different owners do not overlap. This rank itself touches the output only in its own tiles until it has seen `gathered` of
//!   all owners. A call that faults ends this for its own output: the rank leaves, while a peer that has not noticed stores the tile that it is at, and
//!   no more, since it looks before each. So what a rank does with that output before it has reset the operation races with this store, which `reset`
//!   says where a user reads it; a reset ends when all ranks have left.
//! * *Accumulators* are touched by atomics, or under the tile's lock, between the gate and `added`; and by their own rank alone
//!   from having seen all `added` until it leaves the call, having cleared them.
//!
//! `iris_sync`'s models check exactly these statements. They need all rules kept: [`iris_sync::Rules::without`] is unsafe for
//! this reason.

pub mod accumulate;
pub mod all_gather_matmul;
mod gemm;
pub mod matmul_all_gather;
pub mod matmul_reduce_scatter;
pub mod one_shot;
pub mod program;
mod reduce;
pub mod staging;
pub mod two_shot;
mod widen;

pub use all_gather_matmul::GatherDim;
pub use gemm::product;
pub use program::{MOST_UNPACKED, Needs, Parts, Program};
pub use staging::{Accumulators, Staging};
pub use widen::Scratch;

use crate::element::Element;
use crate::geometry::{Block, Tile, shard};
use crate::view::{View, ViewMut};
use core::ops::Range;
use iris_sync::{Announcement, Call, Fault, Mapped, Port, Waiting, Word};

/// The size of a problem: that of all ranks together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Columns of the result.
    pub n: usize,
    /// Depth.
    pub k: usize,
    /// The tile signals speak of.
    pub tile: Tile,
}

/// One rank's side of an operation: all that stays the same from call to call.
pub struct Rank<'a, W: Word, P> {
    /// Its end of the workspace's words.
    pub port: Port<'a, W, Mapped<'a, W>, P>,
    /// Where this process sees each rank's symmetric heap.
    pub heap: &'a [*mut u8],
    /// The problem.
    pub shape: Shape,
    /// Where partial tiles, or pieces of A, are staged.
    pub staging: Staging,
    /// Where `atomic` and `spinlock` add.
    pub accumulators: Accumulators,
}

impl<W: Word, P: Waiting> Rank<'_, W, P> {
    fn rank(&self) -> usize {
        iris_sync::Memory::<W>::rank(&self.port.memory)
    }

    fn world(&self) -> usize {
        self.heap.len()
    }

    /// The depth that falls to `rank`.
    fn depth(&self, rank: usize) -> Range<usize> {
        shard(self.shape.k, self.world(), rank)
    }
}

/// One rank's operands of one call.
///
/// Sizes are the operation's for this rank and `m`. For the duration of the call `input` and `bias` are valid and not written
/// by anyone; `c`, and the memory at `output`, are valid and touched by nobody but the ranks of this operation; none of
/// them overlaps another or the workspace.
#[derive(Debug, Clone, Copy)]
pub struct Operands<T> {
    /// Rows of this call, of the whole problem.
    pub m: usize,
    /// What this rank brings.
    pub input: Input<T>,
    /// What is added to each row of the result, as long as `c` is wide.
    pub bias: Option<*const T>,
    /// The result.
    pub c: ViewMut<T>,
    /// Where peers store into this rank's result, for operations in which they do.
    pub output: Output,
}

/// What a rank brings to a call.
#[derive(Debug, Clone, Copy)]
pub enum Input<T> {
    /// Two matrices, to be multiplied.
    Product {
        /// The left one.
        a: View<T>,
        /// The right one.
        b: View<T>,
    },
    /// A matrix in place of the product: the operation is then the collective alone. Not for `all_gather_matmul`.
    Given(View<T>),
}

/// Where peers store what they own of a rank's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// Bytes from the start of the rank's symmetric heap.
    pub offset: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Whether this is memory of the workspace, to be copied to `c` at the end, since `c` itself is not symmetric.
    pub bounced: bool,
}

impl<T> Operands<T> {
    fn announcement(&self) -> Announcement {
        Announcement {
            m: self.m as u64,
            output: self.output.offset as u64,
            stride: self.output.row_stride as u64,
        }
    }

    /// The bias of columns `cols`.
    ///
    /// # Safety
    /// The operands are valid, and `cols` lie inside.
    unsafe fn bias_of(&self, cols: &Range<usize>) -> Option<&[T]> {
        // SAFETY: promised by the caller.
        self.bias
            .map(|bias| unsafe { core::slice::from_raw_parts(bias.add(cols.start), cols.len()) })
    }
}

/// Stores a tile, row by row, where it belongs.
///
/// # Safety
/// `block` lies inside `c`, which is valid, and nobody else touches that part of it meanwhile.
unsafe fn store<T: Element>(c: ViewMut<T>, block: &Block, tile: &[T]) {
    for (row, values) in block.rows.clone().zip(tile.chunks_exact(block.cols.len())) {
        // SAFETY: promised by the caller.
        unsafe { c.row(row, block.cols.start, block.cols.len()) }.copy_from_slice(values);
    }
}

/// Stores a reduced tile into the outputs of all ranks.
///
/// # Safety
/// `block` lies inside the result, the caller owns it, and has met all peers in this call.
unsafe fn store_to_all<T: Element, W: Word, P: Waiting>(
    rank: &Rank<'_, W, P>,
    call: &Call<'_, W, Mapped<'_, W>, P>,
    tile_index: usize,
    block: &Block,
    tile: &[T],
) -> Result<(), Fault> {
    call.before_store(tile_index)?;
    for target in core::iter::once(rank.rank()).chain(call.peers()) {
        let Announcement { m, output, stride } = call.announcement(target);
        let c = ViewMut {
            data: rank.heap[target].wrapping_add(output as usize).cast::<T>(),
            rows: m as usize,
            cols: rank.shape.n,
            row_stride: stride as usize,
        };
        // SAFETY: `target` announced a valid output of this call's rows; the block is the caller's alone (module docs).
        unsafe { store(c, block, tile) };
    }
    Ok(())
}

/// Copies a bounced result to where the user wants it.
///
/// # Safety
/// The call has ended: the memory at `output` is whole, and belongs to this rank until it enters the next call.
unsafe fn take_bounced<T: Element, W: Word, P>(rank: &Rank<'_, W, P>, operands: &Operands<T>) {
    if !operands.output.bounced {
        return;
    }
    let me = iris_sync::Memory::<W>::rank(&rank.port.memory);
    let from = ViewMut {
        data: rank.heap[me]
            .wrapping_add(operands.output.offset)
            .cast::<T>(),
        row_stride: operands.output.row_stride,
        ..operands.c
    };
    for row in 0..operands.c.rows {
        // SAFETY: both are valid, this rank's alone, and do not overlap.
        let (from, to) = unsafe {
            (
                from.row(row, 0, operands.c.cols),
                operands.c.row(row, 0, operands.c.cols),
            )
        };
        to.copy_from_slice(from);
    }
}

/// What every operation's kernel is: a call that runs to its end or leaves with a fault.
pub type Outcome = Result<(), Fault>;

//! `all_gather_matmul`: each rank hands its part of A to every rank, which multiplies the whole A by its own columns of B.

use super::gemm::multiply;
use super::widen::widen;
use super::{Input, Operands, Outcome, Rank, Scratch};
use crate::element::Element;
use crate::geometry::shard;
use crate::view::View;
use core::ops::Range;
use iris_sync::{Waiting, Word};

/// How A is split among the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GatherDim {
    /// Each rank has some rows, of the whole depth.
    Rows,
    /// Each rank has some of the depth, of all rows.
    Columns,
}

impl GatherDim {
    /// The rows and the depth that `rank` has of A.
    pub fn part(
        self,
        m: usize,
        k: usize,
        world: usize,
        rank: usize,
    ) -> (Range<usize>, Range<usize>) {
        match self {
            Self::Rows => (shard(m, world, rank), 0..k),
            Self::Columns => (0..m, shard(k, world, rank)),
        }
    }
}

/// Runs one call. A piece is as many rows of A as a tile has.
///
/// # Panics
/// If it is not given a product.
///
/// # Safety
/// `operands` are as [`Operands`] says: A the rank's part, B `(k, n_r)`, C `(m, n_r)`. All ranks run the same calls in the same
/// order. The staging has a slot for every piece of a rank's part at the largest `m`.
///
/// # Errors
/// The fault that the call left with.
pub unsafe fn run<T: Element, W: Word, P: Waiting>(
    rank: &Rank<'_, W, P>,
    operands: &Operands<T>,
    gather: GatherDim,
    scratch: &mut Scratch,
) -> Outcome {
    let (me, world, shape) = (rank.rank(), rank.world(), rank.shape);
    let height = shape.tile.m;
    let part = |source| gather.part(operands.m, shape.k, world, source);
    let pieces = |source| {
        let (rows, depth) = part(source);
        if depth.is_empty() {
            0
        } else {
            rows.len().div_ceil(height)
        }
    };
    // A rank without columns of B reads nothing, and is sent nothing.
    let reads = |target| !shard(shape.n, world, target).is_empty();

    let Input::Product { a, b } = operands.input else {
        unreachable!("an all-gather before a product has a product");
    };

    let call = rank.port.begin(operands.announcement())?;
    call.gate(
        pieces(me) > 0,
        |target| {
            if reads(target) { pieces(me) } else { 0 }
        },
    )?;

    for piece in 0..pieces(me) {
        let (rows, depth) = part(me);
        let first = piece * height;
        let from = a.part(first, 0, height.min(rows.len() - first), depth.len());
        for target in call
            .peers()
            .chain(core::iter::once(me))
            .filter(|&target| reads(target))
        {
            let staged = rank
                .staging
                .slot(rank.heap[target], world, call.bank(), me, piece);
            // SAFETY: the piece lies inside A; the gate is passed, so the slot is this rank's until its `ready`.
            unsafe { copy_dense(from, staged.cast::<T>()) };
            call.push_ready(target, piece);
        }
    }

    if !reads(me) {
        return call.finish();
    }
    call.meet()?;
    let cols = operands.c.cols;
    let Scratch {
        a: wide_a,
        b: wide_b,
        tile: sum,
        ..
    } = scratch;
    // SAFETY: the operands are valid by the caller's promise.
    let b = unsafe { widen(b, wide_b) };
    // SAFETY: the piece has been awaited, so its source leaves it alone until this rank has left the call.
    let mut add = |source,
                   piece,
                   row_count,
                   depth: &Range<usize>,
                   cols: &Range<usize>,
                   beta,
                   sum: &mut [f32]| unsafe {
        let data = rank
            .staging
            .slot(rank.heap[me], world, call.bank(), source, piece);
        let staged = View {
            data: data.cast::<T>().cast_const(),
            rows: row_count,
            cols: depth.len(),
            row_stride: depth.len(),
            col_stride: 1,
        };
        let a = widen(staged, wide_a);
        multiply(
            a,
            b.part(depth.start, cols.start, depth.len(), cols.len()),
            beta,
            sum,
        );
    };
    // SAFETY: the rows are this rank's alone.
    let store = |rows: Range<usize>, cols: &Range<usize>, sum: &mut [f32]| unsafe {
        let sum = &mut sum[..rows.len() * cols.len()];
        super::reduce::add_bias(sum, cols.len(), operands.bias_of(cols));
        for (row, values) in rows.zip(sum.chunks_exact(cols.len())) {
            T::narrow(values, operands.c.row(row, cols.start, cols.len()));
        }
    };
    let strips = |cols: usize| {
        (0..cols)
            .step_by(shape.tile.n)
            .map(move |first| first..cols.min(first + shape.tile.n))
    };
    match gather {
        // Each piece is whole in depth. This rank's own come first: the others' are on their way meanwhile.
        GatherDim::Rows => {
            for source in core::iter::once(me).chain(call.peers()) {
                let (rows, depth) = part(source);
                for piece in 0..pieces(source) {
                    call.await_ready(source, piece)?;
                    let first = rows.start + piece * height;
                    let rows = first..rows.end.min(first + height);
                    for cols in strips(cols) {
                        add(source, piece, rows.len(), &depth, &cols, 0.0, sum);
                        store(rows.clone(), &cols, sum);
                    }
                }
            }
        }
        // The pieces of all ranks make up the depth; their products are summed in rank order.
        GatherDim::Columns => {
            for piece in 0..operands.m.div_ceil(height) {
                let first = piece * height;
                let rows = first..operands.m.min(first + height);
                for source in (0..world).filter(|&source| pieces(source) > 0) {
                    call.await_ready(source, piece)?;
                }
                for cols in strips(cols) {
                    let mut beta = 0.0;
                    for source in (0..world).filter(|&source| pieces(source) > 0) {
                        let depth = part(source).1;
                        add(source, piece, rows.len(), &depth, &cols, beta, sum);
                        beta = 1.0;
                    }
                    store(rows.clone(), &cols, sum);
                }
            }
        }
    }
    call.finish()
}

/// Copies a matrix to `to`, row by row without gaps.
///
/// # Safety
/// `from` is valid and not written meanwhile; `to` is valid for as many elements, and nobody else's.
unsafe fn copy_dense<T: Element>(from: View<T>, to: *mut T) {
    for row in 0..from.rows {
        // SAFETY: promised by the caller.
        unsafe {
            let source = from.data.add(row * from.row_stride);
            let target = to.add(row * from.cols);
            if from.col_stride == 1 {
                core::ptr::copy_nonoverlapping(source, target, from.cols);
            } else {
                for col in 0..from.cols {
                    *target.add(col) = *source.add(col * from.col_stride);
                }
            }
        }
    }
}

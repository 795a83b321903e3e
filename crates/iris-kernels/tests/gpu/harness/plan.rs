//! Where everything lies: in a rank's symmetric heap, and in its own memory.

use super::case::Case;
use iris_kernels::Tile;
use iris_kernels::device;
use iris_kernels::host::{Parts, Program, Shape};
use iris_sync::Layout;
use std::ops::Range;

/// The kernels' tile.
pub(crate) const TILE: Tile = Tile { m: 128, n: 128 };

/// Offsets in each rank's symmetric heap.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    pub(crate) words: usize,
    pub(crate) staging: usize,
    pub(crate) staging_bytes: usize,
    pub(crate) slots: usize,
    pub(crate) slot_bytes: usize,
    pub(crate) packets: usize,
    pub(crate) packet_slots: usize,
    pub(crate) packet_bytes: usize,
    pub(crate) accumulators: usize,
    pub(crate) accumulator_elements: usize,
    /// Two of them, used in turn where the form is ragged.
    pub(crate) outputs: [usize; 2],
    pub(crate) bytes: usize,
    /// The bytes of the operands, in a rank's own memory.
    pub(crate) arena: usize,
}

pub(crate) fn shape(case: &Case) -> Shape {
    Shape {
        n: case.n,
        k: case.k,
        tile: TILE,
    }
}

/// What lies beside the whole of a part: a ragged form begins somewhere and has gaps.
const GAP: usize = 3;

impl Plan {
    pub(crate) fn new(case: &Case, world: usize) -> Self {
        let element = case.dtype.bytes();
        let m = case.most_rows();
        let needs = device::needs(case.program, m, shape(case), world);
        let layout = Layout::new(world, needs.words, needs.locks);
        let mut end = 0usize;
        let mut take = |bytes: usize| {
            let start = end.next_multiple_of(256);
            end = start + bytes;
            start
        };
        // One cell more than on the host: the blocks' arrivals.
        take(8 * (layout.cells() + 1));
        let words = take(4 * layout.words());
        let slot_bytes = device::slot_bytes(case.program, needs, element).expect("a slot's bytes");
        let staging_bytes = 2 * world * needs.slots * slot_bytes;
        let staging = take(staging_bytes);
        let packet_bytes = 2 * needs.packet_elements * element;
        let packets = take(2 * world * needs.packet_slots * packet_bytes);
        let accumulators = take(8 * needs.accumulators);
        let output = match case.program.stores_to_peers() {
            true => (m * (case.n + GAP) + 16 * GAP) * element,
            false => 0,
        };
        let outputs = [take(output), take(output)];
        Self {
            layout,
            words,
            staging,
            staging_bytes,
            slots: needs.slots,
            slot_bytes,
            packets,
            packet_slots: needs.packet_slots,
            packet_bytes,
            accumulators,
            accumulator_elements: needs.accumulators,
            outputs,
            bytes: end.next_multiple_of(256),
            arena: (0..world)
                .map(|rank| Operands::new(case, world, rank).bytes)
                .max()
                .unwrap_or(0),
        }
    }

    /// Where a rank's output of a call lies, and the elements from one row of it to the next: ranks need not agree.
    pub(crate) fn output(&self, case: &Case, rank: usize, call: u64) -> (usize, usize) {
        if case.form.ragged {
            let at = self.outputs[(call % 2) as usize];
            let shift = (rank + call as usize) % GAP;
            (at + shift * case.dtype.bytes(), case.n + shift)
        } else {
            (self.outputs[0], case.n)
        }
    }
}

/// A matrix in a rank's own memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines {
    pub(crate) at: usize,
    pub(crate) row: usize,
    pub(crate) col: usize,
}

/// A rank's operands in its own memory, with room for those of every call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operands {
    pub(crate) a: Lines,
    pub(crate) b: Lines,
    pub(crate) bias: usize,
    pub(crate) c: Lines,
    pub(crate) bytes: usize,
}

impl Operands {
    pub(crate) fn new(case: &Case, world: usize, rank: usize) -> Self {
        let element = case.dtype.bytes();
        let gap = if case.form.ragged { GAP } else { 0 };
        let mut end = 0usize;
        let mut take = |of: fn(&Parts) -> &(Range<usize>, Range<usize>), transposed: bool| {
            // Fewer rows may fall to this rank at the largest m than at a smaller one.
            let (mut rows, mut cols) = (0, 0);
            for &m in &case.rows {
                let parts = parts(case, world, rank, m);
                let part = of(&parts);
                rows = rows.max(part.0.len());
                cols = cols.max(part.1.len());
            }
            let at = end.next_multiple_of(256) + gap * element;
            let (inner, outer) = if transposed {
                (rows, cols)
            } else {
                (cols, rows)
            };
            let stride = inner + gap;
            end = at + outer * stride * element;
            let (row, col) = if transposed { (1, stride) } else { (stride, 1) };
            Lines { at, row, col }
        };
        let transposed = case.form.transposed;
        let a = take(|parts| &parts.a, transposed);
        let b = take(|parts| &parts.b, transposed);
        let c = take(|parts| &parts.c, false);
        let bias = end.next_multiple_of(256) + gap * element;
        Self {
            a,
            b,
            bias,
            c,
            bytes: bias + case.n * element,
        }
    }
}

/// What a rank has of the whole matrices in a call. Where a matrix is given, it is A.
pub(crate) fn parts(case: &Case, world: usize, rank: usize, m: usize) -> Parts {
    let mut parts = case.program.parts(m, shape(case), world, rank);
    if case.form.given {
        parts.a = match case.program {
            Program::MatmulAllGather => (parts.a.0, 0..case.n),
            _ => (0..m, 0..case.n),
        };
        parts.b = (0..0, 0..0);
    }
    parts
}

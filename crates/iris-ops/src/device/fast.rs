//! What a call is launched with on Hopper: tensor maps of its operands, where they can be mapped.

use super::kernel::Places;
use crate::plan::Step;
use iris_heap::device::{Boxes, Device, Driver};
use iris_kernels::device::fast::{FastArgs, SLAB_K, TensorMap};
use iris_kernels::device::{Args, MAX_RANKS};
use iris_kernels::host::{GatherDim, Program};
use iris_kernels::{DType, Tile, shard};

/// Bytes of an element.
const ELEMENT: u64 = 2;
/// What addresses and strides must be multiples of, in bytes.
const UNIT: u64 = 16;

/// A strided matrix of a call, whose lines are rows of A, or columns of B.
#[derive(Debug, Clone, Copy)]
struct Lines {
    address: u64,
    lines: u64,
    depths: u64,
    /// Elements from one line, and one depth, to the next.
    line: u64,
    depth: u64,
}

/// The argument of the fast kernel; `None` where an operand cannot be mapped, and the portable kernel is to be taken.
///
/// `args` is what the portable kernel is given.
pub(super) fn arguments<D: Driver>(
    device: &Device<D>,
    step: &Step,
    dtype: DType,
    args: &Args,
    places: &Places,
) -> Option<FastArgs> {
    let bf16 = dtype == DType::BF16;
    let Tile { m, n } = step.shape.tile;
    let heap = args.heap[args.rank as usize % MAX_RANKS];
    let encode = |boxes: Boxes| device.tensor_map(&boxes).map(TensorMap);
    // What no tile is made of needs a map all the same, which is fetched and not used.
    let nothing = Lines {
        address: heap,
        lines: 8,
        depths: 8,
        line: 8,
        depth: 1,
    };
    let map = |of: Lines, lines_of_box: u32| {
        let of = if of.lines == 0 || of.depths == 0 {
            nothing
        } else {
            of
        };
        let deep = of.depth == 1;
        let (inner, outer, stride) = if deep {
            (of.depths, of.lines, of.line)
        } else {
            (of.lines, of.depths, of.depth)
        };
        let mappable = (deep || of.line == 1)
            && of.address.is_multiple_of(UNIT)
            && (stride * ELEMENT).is_multiple_of(UNIT)
            && stride > 0;
        let boxes = Boxes {
            bf16,
            address: of.address,
            lens: [inner, outer, 1],
            strides: [stride * ELEMENT, 0],
            sides: if deep {
                [SLAB_K as u32, lines_of_box]
            } else {
                [64, SLAB_K as u32]
            },
            stacked: false,
        };
        mappable
            .then(|| encode(boxes))
            .flatten()
            .map(|map| (deep, map))
    };
    let a = Lines {
        address: args.a,
        lines: places.a_rows,
        depths: places.a_cols,
        line: args.a_row,
        depth: args.a_col,
    };
    let b = Lines {
        address: args.b,
        lines: places.b_cols,
        depths: places.b_rows,
        line: args.b_col,
        depth: args.b_row,
    };
    // Few rows are not copied as if there were a tile of them.
    let rows = places.a_rows.clamp(1, m as u64).next_multiple_of(8);
    let (a_deep, a) = map(a, rows as u32)?;
    let (b_deep, b) = map(b, n as u32)?;
    if !takes(step.program, args, a_deep) {
        return None;
    }
    let c = Boxes {
        bf16,
        address: args.c,
        lens: [places.c_cols, places.c_rows, 1],
        strides: [args.c_row * ELEMENT, 0],
        sides: [64, 64],
        stacked: false,
    };
    let c_mappable = places.c_cols > 0
        && places.c_rows > 0
        && args.c.is_multiple_of(UNIT)
        && (args.c_row * ELEMENT).is_multiple_of(UNIT);
    let c = c_mappable.then(|| encode(c)).flatten();
    let slab_rows = if a_deep { rows } else { m as u64 };
    let mut fast = FastArgs::default();
    fast.args = *args;
    fast.a_deep = u64::from(a_deep);
    fast.b_deep = u64::from(b_deep);
    fast.a_bytes = slab_rows * SLAB_K as u64 * ELEMENT;
    fast.c_mapped = u64::from(c.is_some());
    (fast.a, fast.b, fast.c) = (a, b, c.unwrap_or_default());
    if let Program::AllGatherMatmul(gather) = step.program {
        let world = args.world as usize;
        let k = step.shape.k;
        let depths = match gather {
            GatherDim::Rows => [k, k],
            GatherDim::Columns => {
                let last = (0..world).rev().map(|rank| shard(k, world, rank).len());
                [k.div_ceil(world), last.into_iter().find(|&len| len > 0)?]
            }
        };
        for (piece, depth) in fast.pieces.iter_mut().zip(depths) {
            *piece = encode(Boxes {
                bf16,
                address: heap + args.staging,
                lens: [depth as u64, m as u64, 2 * args.world * args.slots],
                strides: [
                    (depth as u64).next_multiple_of(8) * ELEMENT,
                    args.slot_bytes,
                ],
                sides: [SLAB_K as u32, m as u32],
                stacked: true,
            })?;
        }
    }
    Some(fast)
}

/// Whether boxes of the operands begin where the copy engine takes them: along what lies side by side at multiples of 16 bytes, or it
/// faults; and whether none reaches from one rank's depth into another's.
fn takes(program: Program, args: &Args, a_deep: bool) -> bool {
    let alone = args.world == 1;
    match program {
        // Tiles begin at the first row of each rank's share.
        Program::ReduceScatter => a_deep || alone || args.m.div_ceil(args.world).is_multiple_of(8),
        // Staged pieces are deep, and a kernel multiplies all of A in one way.
        Program::AllGatherMatmul(GatherDim::Rows) => a_deep || alone,
        Program::AllGatherMatmul(GatherDim::Columns) => {
            let share = args.k.div_ceil(args.world);
            alone || (a_deep && share.is_multiple_of(SLAB_K as u64))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_begin_where_the_engine_takes_them() {
        let call = |m, k, world| Args {
            m,
            k,
            world,
            ..Args::default()
        };
        let scatter = |m, world, deep| takes(Program::ReduceScatter, &call(m, 1, world), deep);
        assert!(scatter(300, 2, true) && scatter(301, 1, false) && scatter(320, 4, false));
        assert!(!scatter(300, 2, false) && !scatter(28, 4, false));
        let rows = Program::AllGatherMatmul(GatherDim::Rows);
        assert!(takes(rows, &call(8, 100, 2), true) && takes(rows, &call(8, 100, 1), false));
        assert!(!takes(rows, &call(8, 100, 2), false));
        let columns = Program::AllGatherMatmul(GatherDim::Columns);
        assert!(takes(columns, &call(8, 100, 1), true) && takes(columns, &call(8, 128, 2), true));
        // The last rank's depth may be any.
        assert!(takes(columns, &call(8, 253, 4), true));
        assert!(
            !takes(columns, &call(8, 250, 3), true) && !takes(columns, &call(8, 128, 2), false)
        );
        assert!(takes(Program::TwoShot, &call(7, 7, 3), false));
    }
}

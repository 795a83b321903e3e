//! What a call is launched with on Hopper: tensor maps of its operands, where they can be mapped.

use super::kernel::Places;
use super::program::RESIDENT;
use crate::plan::Step;
use iris_heap::device::{Boxes, Device, Driver};
use iris_kernels::device::Args;
use iris_kernels::device::fast::{
    BOX_K, Crews, FastArgs, KEEP, PASS, STREAMERS, TensorMap, may_stream, partial_bytes,
};
use iris_kernels::host::{GatherDim, MOST_UNPACKED, Program, Shape};
use iris_kernels::{DType, Tile};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Bytes of an element.
const ELEMENT: u64 = 2;
/// Calls of up to so many rows bring their operands to the cache 128 bytes at a time, which is what a line of a box has, others 256: by that B
/// comes from memory up to 6 % faster, but calls of 128 rows and 28672 depths take 2 % longer. See `docs/performance.md`.
const MOST_SINGLY: u64 = 64;
/// Bytes that the cache of an H100 or an H200 holds.
const CACHE: u64 = 50_000_000;
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

/// The maps that an operation's calls have been launched with. Encoding one takes the driver about a microsecond, and calls come back to
/// the same operands.
#[derive(Debug, Default)]
pub(super) struct Maps {
    known: Mutex<HashMap<Boxes, TensorMap>>,
}

impl Maps {
    /// More than an engine's layers and buffers have; then the operands must be new each time, and what is known is no longer of use.
    const MOST: usize = 4096;

    /// The map of `boxes`; `None` where the driver cannot make one.
    fn encode<D: Driver>(&self, device: &Device<D>, boxes: Boxes) -> Option<TensorMap> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = known.get(&boxes) {
            return Some(*map);
        }
        let map = TensorMap(device.tensor_map(&boxes)?);
        if known.len() >= Self::MOST {
            known.clear();
        }
        known.insert(boxes, map);
        Some(map)
    }
}

/// The argument of the fast kernel; `None` where an operand cannot be mapped, and the portable kernel is to be taken.
///
/// `args` is what the portable kernel is given; without a program it is that of the product alone.
pub(super) fn arguments<D: Driver>(
    device: &Device<D>,
    maps: &Maps,
    program: Option<Program>,
    tile: Tile,
    dtype: DType,
    args: &Args,
    places: &Places,
) -> Option<FastArgs> {
    let bf16 = dtype == DType::BF16;
    let Tile { m, n } = tile;
    let encode = |boxes: Boxes| maps.encode(device, boxes);
    let doubly = args.m > MOST_SINGLY;
    let heap = *args.heap.get(args.rank as usize)?;
    // Where there is no depth, slabs of zeros are loaded, which are what lies outside of this. See `slabs_of` in `crews.h`.
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
        let mappable = (deep || of.line == 1) && is_mappable(of.address, stride);
        let boxes = Boxes {
            bf16,
            address: of.address,
            lens: [inner, outer],
            stride: stride * ELEMENT,
            sides: if deep {
                [BOX_K as u32, lines_of_box]
            } else {
                [64, BOX_K as u32]
            },
            doubly,
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
    let rows_of_box = |rows: u64| rows.clamp(1, m as u64).next_multiple_of(8);
    let a_rows = rows_of_box(places.a_rows);
    // Where its own part is gathered with the others', or comes in packets, a rank's A is not mapped.
    let gathers_all = matches!(
        program,
        Some(Program::AllGatherMatmul(GatherDim::Columns)) if args.world > 1
    ) || program == Some(Program::AllGatherMatmulPackets);
    let a = if gathers_all { nothing } else { a };
    let (a_deep, a) = map(a, a_rows as u32)?;
    let (b_deep, b) = map(b, n as u32)?;
    if program.is_some_and(|program| !takes(program, args, a_deep)) {
        return None;
    }
    let slab = |rows: u64| rows * BOX_K as u64 * ELEMENT;
    let mut fast = FastArgs {
        args: *args,
        a_deep: u64::from(a_deep),
        b_deep: u64::from(b_deep),
        b_policy: policy(args.m, tile, places.b_rows * places.b_cols * ELEMENT),
        a_bytes: slab(if a_deep { a_rows } else { m as u64 }),
        a,
        b,
        ..FastArgs::default()
    };
    // What finished tiles are copied into, and what its rows are apart.
    let c = match program {
        Some(Program::TwoShot | Program::MatmulAllGather) => {
            Some((heap + args.output, args.m, args.n, args.output_row))
        }
        Some(
            Program::ReduceScatter | Program::AllGatherMatmul(_) | Program::AllGatherMatmulPackets,
        )
        | None => Some((args.c, places.c_rows, places.c_cols, args.c_row)),
        Some(_) => None,
    };
    let c = c.and_then(|(address, rows, columns, row)| {
        let boxes = Boxes {
            bf16,
            address,
            lens: [columns, rows],
            stride: row * ELEMENT,
            sides: [64, 64],
            doubly,
        };
        (columns > 0 && rows > 0 && is_mappable(address, row))
            .then(|| encode(boxes))
            .flatten()
    });
    fast.c_mapped = u64::from(c.is_some());
    fast.c = c.unwrap_or_default();
    if matches!(program, Some(Program::AllGatherMatmul(_))) && args.world > 1 {
        let both_banks = 2 * args.world * args.slots * args.slot_bytes;
        let pitch = args.k.next_multiple_of(UNIT / ELEMENT);
        let box_rows = rows_of_box(args.m);
        fast.gathered_bytes = slab(box_rows);
        fast.gathered = encode(Boxes {
            bf16,
            address: heap + args.staging,
            lens: [args.k, both_banks / (pitch * ELEMENT)],
            stride: pitch * ELEMENT,
            sides: [BOX_K as u32, box_rows as u32],
            doubly,
        })?;
    }
    Some(fast)
}

/// Whether blocks of a step's calls go in pairs: where that is expected to be faster, unless a table says that their tiles are streamed.
pub(super) fn pairs(step: &Step, world: usize) -> bool {
    let tile = step.shape.tile;
    let [rows, depth, cols] = product_of(step, world);
    let gathers = matches!(step.program, Program::AllGatherMatmul(_));
    Crews::may_pair(Some(step.program), tile, rows)
        && step.streamed != Some(true)
        && pairs_pay(tile, cols, depth, gathers)
}

/// Of the product that a rank makes in a call of a step: its rows, if the call has as many as the step allows; its depth, and its columns.
pub(super) fn product_of(step: &Step, world: usize) -> [usize; 3] {
    let Shape { n, k, .. } = step.shape;
    match step.program {
        Program::AllGatherMatmul(_) | Program::AllGatherMatmulPackets => {
            [step.rows, k, n.div_ceil(world)]
        }
        Program::MatmulAllGather => [step.rows.div_ceil(world), k, n],
        _ => [step.rows, k.div_ceil(world), n],
    }
}

/// The same of the product alone.
pub(super) fn product_pairs(tile: Tile, [rows, depth, cols]: [usize; 3]) -> bool {
    Crews::may_pair(None, tile, rows) && pairs_pay(tile, cols, depth, false)
}

/// Whether it is faster if two blocks that each make a tile of the same rows bring these rows once for both, as measured on H200: a multiprocessor
/// is brought no more than 92 bytes a nanosecond, all together no more of B than 4600, of which nothing is to be seen where B comes while parts of A
/// are waited for; and it must save more than the 4 us that, all in all, it costs.
fn pairs_pay(tile: Tile, cols: usize, depth: usize, waits: bool) -> bool {
    let [cols, depth, high, wide] = [cols, depth, tile.m, tile.n].map(|it| it as u64);
    let each = cols.div_ceil(wide).div_ceil(RESIDENT);
    let of_a = each * high * depth * ELEMENT / 92;
    let of_b = each * wide * depth * ELEMENT / 92;
    let memory = if waits {
        0
    } else {
        cols * depth * ELEMENT / 4600
    };
    (of_a / 2 + of_b).max(memory) + 4000 < (of_a + of_b).max(memory)
}

/// Whether the tiles of a call of a step, of `m` rows and `cols` columns here, are streamed by so many blocks: where they can be, if a table
/// says so, or else if that is expected to save more than a twentieth.
pub(super) fn streams(step: &Step, m: u64, cols: u64, blocks: u64) -> bool {
    let Shape { k, tile, .. } = step.shape;
    let (high, wide) = (tile.m as u64, tile.n as u64);
    let (rows, across) = (m.div_ceil(high), cols.div_ceil(wide));
    let slabs = k.div_ceil(BOX_K) as u64;
    let packets = step.program == Program::AllGatherMatmulPackets;
    let possible = usize::try_from(m).is_ok_and(|m| may_stream(tile, m))
        && (!packets || m <= MOST_UNPACKED as u64)
        && (1..=STREAMERS as u64).contains(&blocks)
        && rows <= blocks
        // Kernels number a row's slabs by 32 bits.
        && (1..1 << 32).contains(&across.saturating_mul(slabs));
    let pays = || {
        // Nanoseconds, on an H100: a slab's at 5 TFLOP/s a multiprocessor, but no faster than 65 GB/s bring it there; all of B's at 3 TB/s; and
        // what handing over cost, as measured before it went by copies (`hip/iris/sm90/stream.h`).
        let slab = (2 * high * wide * BOX_K as u64 / 5000)
            .max((high + wide) * BOX_K as u64 * ELEMENT / 65);
        let b = k as u64 * cols * ELEMENT / 3000;
        let tiles = rows * across;
        let whole = (tiles.div_ceil(blocks) * slabs * slab).max(b);
        let streamed = (tiles * slabs * slab / blocks).max(b) + 10_000;
        streamed + streamed / 20 < whole
    };
    possible && step.streamed.unwrap_or_else(pays)
}

/// Where in the workspace blocks leave parts of a call's tiles, if these are streamed. `room` is where there is room for some, and how many bytes:
/// for tiles of steps that were expected to be streamed by all multiprocessors. Fewer blocks, or fewer columns than other ranks have, may
/// make it worth for others too, which can be larger.
pub(super) fn partials(
    step: &Step,
    room: Option<(usize, usize)>,
    [m, cols, blocks]: [u64; 3],
) -> Option<usize> {
    let (offset, bytes) = room?;
    let fits = partial_bytes(step.shape.tile) <= bytes;
    (fits && streams(step, m, cols, blocks)).then_some(offset)
}

/// For how long the cache is to keep B, of so many bytes, in a call of `m` rows.
///
/// What is read once, or is more than the cache holds, would drive out of it what calls come back to: their instructions above all, for which a
/// kernel that begins then waits. What fits, and is read once for each row of tiles, is better kept.
fn policy(m: u64, tile: Tile, bytes: u64) -> u64 {
    let once = m <= tile.m as u64;
    if once || bytes > CACHE { PASS } else { KEEP }
}

/// Whether the copy engine takes lines that begin so many elements after each other.
fn is_mappable(address: u64, stride: u64) -> bool {
    address.is_multiple_of(UNIT) && (stride * ELEMENT).is_multiple_of(UNIT) && stride > 0
}

/// Whether boxes of the operands begin where the copy engine takes them: along what lies side by side at multiples of 16 bytes, or it
/// faults.
fn takes(program: Program, args: &Args, a_deep: bool) -> bool {
    let alone = args.world == 1;
    match program {
        // Tiles begin at the first row of each rank's share.
        Program::ReduceScatter => a_deep || alone || args.m.div_ceil(args.world).is_multiple_of(8),
        // What is gathered is deep, and a kernel multiplies all of A in one way.
        Program::AllGatherMatmul(GatherDim::Rows) => a_deep || alone,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iris_kernels::host::Staging;

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
        assert!(!scatter(300, 2, false) && !scatter(24, 2, false) && !scatter(28, 4, false));
        let rows = Program::AllGatherMatmul(GatherDim::Rows);
        assert!(takes(rows, &call(8, 100, 2), true) && takes(rows, &call(8, 100, 1), false));
        assert!(!takes(rows, &call(8, 100, 2), false));
        let columns = Program::AllGatherMatmul(GatherDim::Columns);
        assert!(takes(columns, &call(8, 250, 3), false));
        assert!(takes(Program::TwoShot, &call(7, 7, 3), false));
    }

    /// As measured on 2 H200, of 128 rows: columns and depth of a rank's product, and whether it, or an all-gather first, is to go in pairs. Where they do, calls
    /// were up to 18 % faster, and most others as fast.
    #[test]
    fn blocks_go_in_pairs_where_that_is_faster() {
        let tile = Tile { m: 128, n: 64 };
        for (cols, depth, product, gather) in [
            (8192, 3584, false, true),
            (8192, 4096, false, true),
            (4096, 2048, false, false),
            (4096, 7168, true, true),
            (8192, 14336, true, true),
            (16384, 8192, true, true),
            (5120, 8192, true, true),
            (28672, 8192, true, true),
            (3072, 4096, true, true),
            (14336, 4096, true, true),
        ] {
            assert_eq!(product_pairs(tile, [128, depth, cols]), product, "{cols}");
            assert_eq!(pairs_pay(tile, cols, depth, true), gather, "{cols}");
        }
        let step = |streamed, rows, tile| Step {
            rows,
            program: Program::AllGatherMatmul(GatherDim::Rows),
            fused: true,
            streamed,
            shape: Shape {
                n: 16384,
                k: 3584,
                tile,
            },
            staging: Staging::default(),
            packets: Staging::default(),
        };
        assert!(pairs(&step(None, 128, tile), 2) && pairs(&step(Some(false), 1, tile), 2));
        assert!(!pairs(&step(Some(true), 128, tile), 2) && !pairs(&step(None, 129, tile), 2));
        assert!(!pairs(&step(None, 128, Tile { m: 128, n: 128 }), 2));
        // So few columns that nothing takes long.
        assert!(!product_pairs(tile, [128, 64, 64]) && !product_pairs(tile, [129, 8192, 5120]));
    }

    #[test]
    fn the_cache_keeps_what_it_holds_and_is_read_again() {
        let tile = Tile { m: 128, n: 64 };
        assert_eq!(policy(128, tile, 1), PASS);
        assert_eq!(policy(129, tile, CACHE), KEEP);
        assert_eq!(policy(129, tile, CACHE + 1), PASS);
        // As measured on 2 H200: 8192 rows by (8192, 1024) and by (8192, 3584).
        assert_eq!(policy(8192, tile, 8192 * 1024 * 2), KEEP);
        assert_eq!(policy(8192, tile, 8192 * 3584 * 2), PASS);
    }

    /// As measured on 2 H200, (M, N, K) of the whole: the best tile streamed, which is given, was faster than the best one that is not, or was not.
    #[test]
    fn tiles_are_streamed_where_that_is_faster_or_where_a_table_says_so() {
        let step = |k, tile, streamed| Step {
            rows: 1024,
            program: Program::AllGatherMatmul(GatherDim::Rows),
            fused: true,
            streamed,
            shape: Shape { n: 1, k, tile },
            staging: Staging::default(),
            packets: Staging::default(),
        };
        for (m, n, k, tile, faster) in [
            (512, 18432, 16384, (128, 256), true),
            (256, 57344, 8192, (128, 256), true),
            (512, 10240, 8192, (128, 128), true),
            (128, 18432, 16384, (128, 128), true),
            (512, 6144, 4096, (128, 128), false),
            (256, 28672, 4096, (128, 128), false),
            (512, 16384, 3584, (128, 128), false),
            (16, 10240, 8192, (64, 64), false),
            (16, 16384, 3584, (64, 64), false),
        ] {
            let tile = Tile {
                m: tile.0,
                n: tile.1,
            };
            let says = |said| streams(&step(k, tile, said), m, n / 2, 132);
            assert_eq!(says(None), faster, "{m} {n} {k} {tile:?}");
            assert!(says(Some(true)) && !says(Some(false)));
        }
        // Of rows that come in packets one row of tiles is.
        let few = Step {
            program: Program::AllGatherMatmulPackets,
            ..step(64, Tile { m: 64, n: 64 }, Some(true))
        };
        assert!(super::streams(&few, 16, 1, 144) && !super::streams(&few, 17, 1, 144));
        // Where it cannot be done, nobody is asked.
        let tile = Tile { m: 128, n: 256 };
        let streams = |m, k, cols, blocks| streams(&step(k, tile, Some(true)), m, cols, blocks);
        assert!(streams(1024, 64, 1, 144) && streams(1, 1, 1, 1));
        assert!(!streams(1025, 64, 1, 132) && !streams(1024, 64, 1, 145));
        assert!(!streams(1024, 64, 0, 132) && !streams(1024, 0, 1, 132));
        assert!(!streams(1024, 64, 1, 7) && !streams(1024, 1 << 28, 1 << 20, 132));
        // Nor where there is no room, or too little: it may have been made for smaller tiles.
        let bytes = partial_bytes(tile);
        let partials = |room| partials(&step(64, tile, Some(true)), room, [1024, 1, 132]);
        assert_eq!(partials(Some((256, bytes))), Some(256));
        assert_eq!(partials(Some((256, bytes - 1))), None);
        assert_eq!(partials(None), None);
    }
}

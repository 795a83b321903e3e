//! How a rank goes about a call of `all_gather_matmul` of rows: what it multiplies first, and how it sends its part of A.
//!
//! None of it is part of the protocol, so each rank has its own. It is worked out here, and passed to the kernel, since a kernel that begins
//! has no time for it: a block comes to a multiprocessor when the call before has left it, so whatever it works out before it loads anything is
//! seen in the call's time.

use super::Args;
use super::fast::{Crews, FastArgs, MOST_HIGH, Streams, raster};
use super::memory::PIECE_ROWS;
use crate::Tile;
use crate::host::{GatherDim, Program};

/// Bytes that a rank sends, or with tiles of 256 columns sends to each peer, at most, before it multiplies anything.
const EARLY: u64 = 1_600_000;
/// Bytes of an element of the fast kernels.
const ELEMENT: u64 = 2;
/// Elements of what a thread stores at a time, and how many of these it loads before: as in `hip/all_gather_matmul.hip`.
const CHUNK: u64 = 16 / ELEMENT;
const COPIED: u64 = 4;
/// Clock cycles from one step of what is sent to the next, at most, should depths be such that all this is far from the truth: as in
/// `hip/iris/sm90/pace.h`.
const LONGEST: u64 = 40_000;

impl Args {
    /// The same for the portable kernel of a program, by its tile: such blocks send all they have, and then multiply.
    #[must_use]
    pub fn gathering(self, program: Program, tile: Tile) -> Self {
        let rows_first = match program {
            Program::AllGatherMatmul(GatherDim::Rows) => rows_first(&self, tile, false),
            _ => 0,
        };
        Self { rows_first, ..self }
    }

    /// Columns of B, and of C, that this rank has of those that are dealt out.
    fn cols(&self) -> u64 {
        let after = |ranks: u64| self.n.min(ranks * self.n_share);
        after(self.rank + 1) - after(self.rank)
    }
    /// Rows of A, likewise.
    fn rows(&self) -> u64 {
        let after = |ranks: u64| self.m.min(ranks * self.m_share);
        after(self.rank + 1) - after(self.rank)
    }
}

impl FastArgs {
    /// The same for a program by crews: `args.blocks` of them, which stream tiles if there are `partials`.
    #[must_use]
    pub fn gathering(mut self, program: Program, crews: &Crews) -> Self {
        let tile = crews.tile;
        let args = self.args;
        let high = |rows: usize| args.m.div_ceil(rows as u64);
        let streamed = self.partials != 0;
        let heights = match program {
            Program::AllGatherMatmul(GatherDim::Rows) => {
                let first = rows_first(&args, tile, streamed);
                self.args = by_crews(&args, crews, first);
                [first, high(tile.m) - first]
            }
            Program::AllGatherMatmul(GatherDim::Columns) => [0, high(tile.m)],
            Program::AllGatherMatmulPackets => [0, high(crews.a_rows)],
            _ => return self,
        };
        if streamed {
            let across = args.cols().div_ceil(tile.n as u64);
            self.streams = Streams::of(heights, across, slabs(args.k, crews), args.blocks);
        }
        self
    }
}

/// Slabs of a tile that has depth.
fn slabs(depth: u64, crews: &Crews) -> u64 {
    depth.div_ceil(crews.slab_depth() as u64)
}

/// How many rows of tiles come first: this rank's own, while the others' rows are on their way. If none, all tiles wait for all rows.
///
/// Of streamed tiles none come first where more than two blocks would share each of them: what these hand over, once more for the others' rows,
/// costs more than the wait, as measured before it went by copies. On 2 H200 with 3 blocks for each, (512, 5120, 8192), 59 us in place of 65;
/// with 5, (512, 3072, 4096), 32 for 44; with 1.7, (1024, 5120, 8192), 102 for 90.
///
/// For each group of rows that are made together B is read once more. With groups of less than 303 rows on average that takes longer
/// than multiplying by it can hide, which on an H100 costs n k (303 groups - m) / 454500 ns, as measured for 256 to 1024 rows; waiting
/// for all rows costs 12 us. And where some wait while others that share columns of B do not, those are so far ahead that
/// B is read as often.
fn rows_first(args: &Args, tile: Tile, streamed: bool) -> u64 {
    let (high, group) = (tile.m as u64, raster(tile) as u64);
    let all = args.m.div_ceil(high);
    let own = (args.m_share / high).min(all);
    if streamed && 2 * own * args.cols().div_ceil(tile.n as u64) < args.blocks {
        return 0;
    }
    let left = all - own;
    // As in the kernel: rank by rank, unless all that are left are one group.
    let each = if own == 0 || left <= group { left } else { own };
    let mut groups = own.div_ceil(group);
    if let (Some(whole), Some(rest)) = (left.checked_div(each), left.checked_rem(each)) {
        groups += whole * each.div_ceil(group) + rest.div_ceil(group);
    }
    let missing = (303 * groups).saturating_sub(args.m);
    if groups == all.div_ceil(group) || missing == 0 {
        return own;
    }
    let cost = args.n_share.saturating_mul(args.k).saturating_mul(missing);
    if cost > 12_000 * 454_500 { 0 } else { own }
}

/// `args` for crews, of which `first` rows of tiles come first.
///
/// Whether a rank's part is sent to one peer after the other: where tiles of its own rows come first, and all that follow are so many that
/// they are gone through rank by rank. Fewer, which may also be streamed, need all ranks' rows at once.
///
/// Whether it is sent by all blocks' warpgroups, before they multiply: where most blocks have no tile of own rows to begin with, and it is not
/// much, or has to be gathered element by element, for which movers are too few. On 2 H200 (512, 3072, 4096), 2.1 MB, takes 32.2 us in place of
/// 34.9 if it is sent beside the product, and (512, 5120, 8192) in tiles of 128 x 128 62.6 for 68.4; (256, 3072, 4096) would take 27.0 for 24.2.
/// Beside tiles of 256 columns it is what one peer gets that counts: on 4 H200 (512, 32768, 3584), 0.9 MB for each peer, takes 62 beside them
/// and 58 before; (512, 28672, 4096) 68 and 61.
fn by_crews(args: &Args, crews: &Crews, first: u64) -> Args {
    let Tile { m: high, n: wide } = crews.tile;
    let peers = args.world - 1;
    let in_turn =
        peers > 1 && first != 0 && args.m.div_ceil(high as u64) - first > MOST_HIGH as u64;

    let blocks = args.blocks.max(1);
    let own_tiles = first * args.cols().div_ceil(wide as u64);
    let most_wait = 2 * own_tiles < blocks;
    // As the kernel finds out for itself, which sends so or so.
    let places = [args.a, args.a_row * ELEMENT, args.k * ELEMENT];
    let whole = args.a_col == 1 && places.iter().all(|it| it.is_multiple_of(16));
    let pieces = match peers == 0 || args.k == 0 {
        true => 0,
        false => args.rows().div_ceil(PIECE_ROWS as u64) * args.row_parts,
    };
    let sent = pieces * PIECE_ROWS as u64 * args.row_part * ELEMENT * peers;
    let is_early = !whole || sent <= EARLY * if wide == 256 { peers } else { 1 };

    // What is sent beside a block's first tiles, if these are of own rows, takes three fifths of the time in which it multiplies them, at 2048 products
    // a cycle: see `pace.h`.
    let slab_cycles = (high * wide * crews.slab_depth() / 2048) as u64;
    let cycles = match most_wait {
        true => 0,
        false => own_tiles * slabs(args.k, crews) / blocks * slab_cycles * 3 / 5,
    };
    let lanes = crews.movers() as u64 / PIECE_ROWS as u64;
    let steps = pieces.div_ceil(blocks) * (args.row_part / CHUNK).div_ceil(COPIED * lanes);
    Args {
        rows_first: first,
        in_turn: u64::from(in_turn),
        sends_first: u64::from(most_wait && is_early),
        apart: (cycles / steps.max(1)).min(LONGEST),
        ..*args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: Program = Program::AllGatherMatmul(GatherDim::Rows);

    /// A call of `m` rows on rank 1 of `world`, each with `cols` columns, whose A lies in whole chunks; by 132 blocks.
    fn call(world: u64, m: u64, cols: u64, k: u64) -> Args {
        Args {
            world,
            rank: world.min(2) - 1,
            blocks: 132,
            m,
            n: cols * world,
            k,
            a: 1 << 20,
            a_row: k,
            a_col: 1,
            ..Args::default()
        }
        .with_shares()
    }

    fn crews(m: usize, n: usize) -> Crews {
        Crews::of_program(ROWS, Tile { m, n }).unwrap()
    }

    /// How crews go about it with such tiles, streamed if there are `partials`.
    fn goes(args: Args, (high, wide): (usize, usize), partials: u64) -> FastArgs {
        let fast = FastArgs {
            args,
            partials,
            ..FastArgs::default()
        };
        fast.gathering(ROWS, &crews(high, wide))
    }

    #[test]
    fn own_rows_come_first_where_that_pays() {
        let first = |args, tile, partials| goes(args, tile, partials).args.rows_first;
        // Whole rows of tiles alone.
        assert_eq!(first(call(4, 2048, 8192, 3584), (128, 256), 0), 4);
        assert_eq!(first(call(4, 2044, 8192, 3584), (128, 256), 0), 3);
        assert_eq!(first(call(4, 128, 1536, 4096), (64, 64), 0), 0);
        assert_eq!(first(call(1, 250, 100, 1000), (64, 64), 0), 3);
        // With two groups in place of one B is read twice: 8192 x 3584 (606 - m) / 454500 ns, beside 12 us.
        assert_eq!(first(call(2, 256, 8192, 3584), (128, 128), 0), 0);
        assert_eq!(first(call(2, 512, 8192, 3584), (128, 128), 0), 2);
        assert_eq!(first(call(2, 256, 1536, 4096), (128, 128), 0), 1);
        // The peers' rows by themselves, two and one at a time, are six groups in all in place of two.
        assert_eq!(first(call(4, 1408, 8192, 3584), (128, 256), 0), 0);
        // Gone through row by row it is read as often.
        assert_eq!(first(call(2, 256, 8192, 3584), (64, 64), 0), 2);
        // Streamed, two blocks or fewer for each tile: 2 x 24 of 132 are too few, 4 x 20 are not.
        assert_eq!(first(call(2, 512, 1536, 4096), (128, 128), 1), 0);
        assert_eq!(first(call(2, 512, 1536, 4096), (128, 128), 0), 2);
        assert_eq!(first(call(2, 1024, 2560, 8192), (128, 128), 1), 4);
        // The portable kernel is not asked whether it streams.
        let portable = call(2, 512, 1536, 4096).gathering(ROWS, Tile { m: 128, n: 128 });
        assert_eq!((portable.rows_first, portable.in_turn), (2, 0));
        let columns = Program::AllGatherMatmul(GatherDim::Columns);
        assert_eq!(
            call(2, 512, 1536, 4096)
                .gathering(columns, Tile { m: 128, n: 128 })
                .rows_first,
            0
        );
    }

    #[test]
    fn what_is_little_is_sent_before_anything_is_multiplied() {
        let sent = |args, tile, partials| {
            let Args {
                in_turn,
                sends_first,
                apart,
                ..
            } = goes(args, tile, partials).args;
            (in_turn, sends_first, apart)
        };
        // 2.75 MB, of which each peer gets a third; tiles of own rows for a quarter of the blocks.
        let few = call(4, 512, 8192, 3584);
        assert_eq!(sent(few, (128, 256), 0), (0, 1, 0));
        assert_eq!(sent(few, (128, 128), 0).1, 0);
        // A that has to be gathered element by element is.
        for (a, a_col, sends_first) in [(0, 1, 0), (0, 2, 1), (8, 1, 1)] {
            let args = Args { a, a_col, ..few };
            assert_eq!(sent(args, (128, 128), 0).1, sends_first);
        }
        // Streamed, no block is without a tile of own rows, if these come first.
        assert_eq!(sent(call(2, 1024, 2560, 8192), (128, 128), 1).1, 0);
        assert_eq!(sent(call(4, 128, 1536, 4096), (64, 128), 1), (0, 1, 0));
        // One peer after the other, beside 128 tiles of 56 slabs; 128 pieces of 1792 depths, one a block, of each of whose rows 8 threads have 4 chunks of
        // 8 depths at a time: 7 steps.
        assert_eq!(
            sent(call(4, 2048, 8192, 3584), (128, 256), 0),
            (1, 0, 54 * 1024 * 3 / 5 / 7)
        );
        // Two ranks have one peer each, and all of what is left may be needed at once.
        assert_eq!(sent(call(2, 4096, 8192, 3584), (128, 256), 0).0, 0);
        assert_eq!(sent(call(4, 1408, 1536, 3584), (128, 256), 0).0, 1);
        assert_eq!(sent(call(4, 1280, 1536, 3584), (128, 256), 0).0, 0);
        // A rank by itself, and one without depth, send nothing.
        assert_eq!(
            sent(call(1, 512, 8192, 3584), (128, 256), 0),
            (0, 0, 54 * 1024 * 3 / 5)
        );
        assert_eq!(sent(call(2, 64, 8192, 0), (128, 256), 0), (0, 1, 0));
    }

    #[test]
    fn what_is_streamed_is_dealt_out() {
        let args = call(2, 1024, 2560, 8192);
        let streams = goes(args, (128, 128), 1).streams;
        assert_eq!(
            (streams.slabs, streams.height, streams.share, streams.more),
            (128, [4, 4], [2560 / 33; 2], [2560 % 33; 2])
        );
        assert_eq!(goes(args, (128, 128), 0).streams, Streams::default());
        let columns = Program::AllGatherMatmul(GatherDim::Columns);
        let fast = FastArgs {
            args,
            partials: 1,
            ..FastArgs::default()
        };
        assert_eq!(
            fast.gathering(columns, &crews(64, 64)).streams.height,
            [0, 16]
        );
        let packets = Program::AllGatherMatmulPackets;
        let unpacks = Crews::of_program(packets, Tile { m: 64, n: 64 }).unwrap();
        let few = FastArgs {
            args: call(2, 16, 2560, 8192),
            ..fast
        };
        let streams = few.gathering(packets, &unpacks).streams;
        assert_eq!((streams.slabs, streams.height), (64, [0, 1]));
        // As many rows of tiles as a slab has room for.
        let more = FastArgs {
            args: call(2, 40, 2560, 8192),
            ..fast
        };
        assert_eq!(more.gathering(packets, &unpacks).streams.height, [0, 3]);
        // Of what nothing is streamed, nothing changes.
        assert_eq!(fast.gathering(Program::TwoShot, &crews(64, 64)), fast);
    }
}

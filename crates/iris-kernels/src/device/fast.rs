//! The kernels for Hopper whose blocks consist of crews (`hip/iris/sm90`): which tiles they have, how they are compiled and launched,
//! and their argument.
//!
//! They multiply by `wgmma` from shared memory that the copy engine fills by *tensor maps*, so that both operands must lie in steps of
//! 16 bytes. Where one does not, the portable kernel of the same tile takes the call: all ranks then still find each other's tiles in
//! the same places.

use super::Args;
use super::compile::Request;
use crate::host::{MOST_UNPACKED, Program};
use crate::{DType, Tile};

/// A tensor map, as the driver encodes it: how a matrix in memory is cut into boxes that the copy engine moves.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TensorMap(pub [u64; 16]);

/// Which slabs of tiles fall to which blocks where tiles are streamed: the twin of that in `hip/iris/sm90/args.h`.
///
/// Of each group of rows of tiles, a *team* is as many blocks as it has rows, each of which makes the same slabs of its row. A row's slabs, tile
/// after tile, are dealt out to the teams in equal parts.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// Slabs of a tile.
    pub slabs: u64,
    /// Of each group the rows of tiles.
    pub height: [u64; STREAMS_OF_CALL],
    /// 2^16 divided by that and rounded up: kernels divide a block's number by it so.
    pub inverse: [u64; STREAMS_OF_CALL],
    /// Its teams.
    pub teams: [u64; STREAMS_OF_CALL],
    /// Slabs of a row that each team has at least.
    pub share: [u64; STREAMS_OF_CALL],
    /// So many teams, the first ones, have one more.
    pub more: [u64; STREAMS_OF_CALL],
}

impl Streams {
    /// For groups of so many rows of tiles, each of `across` tiles of `slabs` slabs, by so many blocks: at least as many as a group has rows.
    pub(super) fn of(height: [u64; STREAMS_OF_CALL], across: u64, slabs: u64, blocks: u64) -> Self {
        let teams = height.map(|rows| blocks.checked_div(rows).unwrap_or(0));
        let row = across * slabs;
        Self {
            slabs,
            height,
            inverse: height.map(|rows| (1u64 << 16).div_ceil(rows.max(1))),
            teams,
            share: teams.map(|teams| row.checked_div(teams).unwrap_or(0)),
            more: teams.map(|teams| row.checked_rem(teams).unwrap_or(0)),
        }
    }
}

/// The argument of a kernel whose blocks consist of crews: the twin of `FastArgs` in `hip/iris/sm90/args.h`.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FastArgs {
    /// What all kernels take.
    pub args: Args,
    /// Whether A's depth is what lies side by side.
    pub a_deep: u64,
    /// Whether B's is.
    pub b_deep: u64,
    /// Bytes of a box of A in shared memory.
    pub a_bytes: u64,
    /// Of a box of the gathered A.
    pub gathered_bytes: u64,
    /// Whether `c` is C.
    pub c_mapped: u64,
    /// The address of as many bytes as [`partial_bytes`] says, zero before the first call, if tiles are streamed; else 0.
    pub partials: u64,
    /// For how long the device's cache is to keep B: [`KEEP`] or [`PASS`]. Without a world nothing is copied, and it may be 0.
    pub b_policy: u64,
    /// What is streamed, if there are `partials`.
    pub streams: Streams,
    /// A.
    pub a: TensorMap,
    /// B.
    pub b: TensorMap,
    /// This rank's C: its output, where peers store into that.
    pub c: TensorMap,
    /// The A that is gathered in this rank's staging.
    pub gathered: TensorMap,
}

/// What `createpolicy.fractional.L2` makes of all of a matrix: that the device's cache keeps it as it does anything, `evict_normal`, or gives it up
/// first, `evict_first`.
pub const KEEP: u64 = 0x1000_0000_0000_0000;
/// See [`KEEP`].
pub const PASS: u64 = 0x12f0_0000_0000_0000;

const _: () = assert!(size_of::<FastArgs>() == 704 + 4 * size_of::<TensorMap>());

/// Depth of a box, of which a slab has one, or more: what 128 bytes hold of 16-bit elements.
pub const BOX_K: usize = 64;
/// The largest tile.
pub const LARGEST: Tile = Tile { m: 128, n: 256 };

/// How the fast kernels of a tile are built and launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crews {
    /// The tile.
    pub tile: Tile,
    /// Warpgroups that multiply, 64 rows each.
    pub warpgroups: usize,
    /// Slabs in the ring.
    pub stages: usize,
    /// Waves that load, take away, reduce or unpack.
    pub helpers: usize,
    /// Rows of A for which a slab has room.
    pub a_rows: usize,
    /// Whether blocks go in pairs, of which there is an even number: see [`Crews::paired`].
    pub paired: bool,
}

impl Crews {
    /// Shared memory that the ring and a finished tile may take, in bytes: what a block of sm_90 can have, less what its crews share.
    const ROOM: usize = 227 * 1024 - 4096;

    /// For a tile; `None` where there are no fast kernels of it.
    pub fn of(tile: Tile) -> Option<Self> {
        let (64 | 128, 64 | 128 | 192 | 256) = (tile.m, tile.n) else {
            return None;
        };
        let crews = Self {
            tile,
            warpgroups: tile.m / 64,
            stages: 0,
            helpers: 4,
            a_rows: tile.m,
            paired: false,
        };
        // More than 8 do not help, and take a moment to be made.
        Some(crews.staged(8))
    }

    /// The same where a program's blocks wait for parts of A that peers send: B is copied meanwhile, as far as there is room. Rows that come in
    /// packets are few, and many waves unpack them: there are none of tiles that are higher than a warpgroup's, or take more registers.
    pub fn of_program(program: Program, tile: Tile) -> Option<Self> {
        let crews = Self::of(tile)?;
        Some(match program {
            Program::AllGatherMatmul(_) => crews.staged(16),
            Program::AllGatherMatmulPackets if tile.m > 64 || tile.n > 128 => return None,
            Program::AllGatherMatmulPackets => Self {
                helpers: 12,
                a_rows: MOST_UNPACKED,
                ..crews
            }
            .staged(16),
            _ => crews,
        })
    }

    /// Whether blocks of calls of up to `rows` rows may go in pairs: where tiles are higher than wide, so that most of what a block is brought is of
    /// A, and all have the same rows. `program` is none for the product alone.
    pub fn may_pair(program: Option<Program>, tile: Tile, rows: usize) -> bool {
        // Of these the first makes tiles of each owner's rows, and the second has no such tiles.
        let others = [Program::ReduceScatter, Program::AllGatherMatmulPackets];
        let one_row = rows <= tile.m && program.is_none_or(|it| !others.contains(&it));
        one_row && tile == Tile { m: 128, n: 64 }
    }

    /// The same in pairs: two blocks make two tiles together, each one half of their depth, and then each gives its partner its part of the partner's
    /// tile, in shared memory (`hip/iris/sm90/pair.h`).
    #[must_use]
    pub fn paired(self) -> Self {
        Self {
            paired: true,
            ..self
        }
        .staged(8)
    }

    /// What a partner gives, in bytes.
    fn exchanged(self) -> usize {
        let Tile { m, n } = self.tile;
        if self.paired { m * n * 4 } else { 0 }
    }

    /// The same with as many slabs as there is room for, and no more than `most`.
    fn staged(self, most: usize) -> Self {
        let Tile { m, n } = self.tile;
        let room = (Self::ROOM - m * n * 2 - self.exchanged()) / self.slab_bytes();
        Self {
            stages: room.min(most),
            ..self
        }
    }

    /// Boxes of a slab, by depth: where one is read sooner than another can be asked for and waited for, two. Where rows are unpacked, the wider
    /// tiles have one: with two there is room for five slabs, at four of which movers are at work, and none to spare for B. It has not been tried.
    fn boxes(self) -> usize {
        let Tile { m, n } = self.tile;
        let most = if self.a_rows < m { 64 * 64 } else { 64 * 128 };
        if m * n <= most && !self.paired { 2 } else { 1 }
    }

    /// Depth of a slab.
    pub fn slab_depth(&self) -> usize {
        BOX_K * self.boxes()
    }

    /// Bytes of a slab of both.
    fn slab_bytes(self) -> usize {
        let tiles = if self.paired { 2 } else { 1 };
        (self.a_rows + tiles * self.tile.n) * BOX_K * 2 * self.boxes()
    }

    /// Threads of a block: those of warpgroups, and the helpers'.
    pub fn threads(&self) -> u32 {
        (self.warpgroups * 128 + self.helpers * 32) as u32
    }

    /// Threads of its movers, which are the helpers but for a loader and a courier.
    pub(super) fn movers(&self) -> u32 {
        (self.helpers as u32 - 2) * 32
    }

    /// Bytes of dynamic shared memory of a block: the ring, a finished tile, what a partner gives, their barriers, and what aligns them.
    pub fn shared(&self) -> u32 {
        let Tile { m, n } = self.tile;
        let ring = self.stages * (self.slab_bytes() + 24);
        let barriers = self.warpgroups * if self.paired { 32 } else { 16 };
        (ring + m * n * 2 + self.exchanged() + barriers + 1024) as u32
    }

    /// A request for the fast kernel in place of the portable one.
    #[must_use]
    pub fn request(&self, request: Request) -> Request {
        let request = match self.paired {
            true => request.define("IRIS_PAIRED", 1),
            false => request,
        };
        request
            .define("IRIS_SM90", 1)
            .define("IRIS_WARPGROUPS", self.warpgroups)
            .define("IRIS_STAGES", self.stages)
            .define("IRIS_HELPERS", self.helpers)
            .define("IRIS_BOXES", self.boxes())
            .define("IRIS_A_ROWS", self.a_rows)
    }
}

/// The most blocks that stream tiles, and how many groups of rows of tiles there are: the twins of those in `hip/iris/sm90/stints.h` and `args.h`.
pub const STREAMERS: usize = 144;
const STREAMS_OF_CALL: usize = 2;
/// Bytes of the flags by which blocks tell each other of parts of tiles: zero between calls.
pub const FLAG_BYTES: usize = STREAMS_OF_CALL * STREAMERS * 2 * 4;

/// So many tiles high at most is what can be streamed, and what ranks may need of each other at once.
pub const MOST_HIGH: usize = 8;

/// Whether the tiles of calls of so many rows can be streamed: all rows of tiles are gone through together.
pub fn may_stream(tile: Tile, rows: usize) -> bool {
    Crews::of(tile).is_some() && rows.div_ceil(tile.m) <= MOST_HIGH
}

/// Bytes in which blocks leave what they have made of tiles that others finish: flags, and then sums.
pub fn partial_bytes(tile: Tile) -> usize {
    FLAG_BYTES + STREAMS_OF_CALL * STREAMERS * tile.m * tile.n * 4
}

/// Whether there are fast kernels for an architecture, as kernels are compiled for it, and elements.
pub fn is_fast(architecture: &str, dtype: DType) -> bool {
    architecture == "sm_90a" && dtype != DType::F32
}

/// Rows of tiles that are gone through together, so that what blocks have in common of A and B stays in the cache: the same in the fast
/// and the portable kernels of a tile, since it numbers the tiles.
pub fn raster(tile: Tile) -> usize {
    if tile.m * tile.n >= 128 * 128 { 8 } else { 1 }
}

/// How many waves of 32 lanes of a portable kernel's block lie side by side in a tile, two high.
pub fn waves_n(tile: Tile) -> usize {
    if tile.n > 128 { 8 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::GatherDim;

    /// As the kernel works out where a team's part begins, and whose a block is (`hip/iris/sm90/stints.h`).
    #[test]
    fn teams_have_equal_parts_of_a_rows_slabs() {
        for rows in 0..=MOST_HIGH as u64 {
            for (across, slabs, blocks) in [(20, 128, 132), (3, 1, 9), (1, 32, 144), (77, 57, 8)] {
                let streams = Streams::of([0, rows], across, slabs, blocks);
                let [teams, share, more] =
                    [streams.teams, streams.share, streams.more].map(|of| of[1]);
                let begin = |team: u64| share * team + team.min(more);
                assert_eq!(begin(teams), if rows == 0 { 0 } else { across * slabs });
                assert!(more == 0 || more < teams);
                for block in 0..blocks {
                    let team = (block as u32 * streams.inverse[1] as u32) >> 16;
                    assert_eq!(u64::from(team), block / rows.max(1), "{rows} {block}");
                }
                assert_eq!(
                    (streams.teams[0], streams.share[0], streams.more[0]),
                    (0, 0, 0)
                );
            }
        }
    }

    #[test]
    fn a_block_of_every_tile_fits_a_multiprocessor() {
        for m in [64, 128] {
            for n in [64, 128, 192, 256] {
                let gathers = Program::AllGatherMatmul(GatherDim::Rows);
                for crews in [
                    Crews::of(Tile { m, n }),
                    Crews::of_program(gathers, Tile { m, n }),
                ] {
                    let crews = crews.unwrap();
                    assert!(crews.stages >= 3, "{crews:?}");
                    assert!(crews.shared() as usize <= 227 * 1024 - 2048, "{crews:?}");
                }
            }
        }
        // Few rows in packets: of low and narrow tiles, with more slabs than there are teams that unpack, and more of them than of all rows.
        let packets = |m, n| Crews::of_program(Program::AllGatherMatmulPackets, Tile { m, n });
        for n in [64, 128] {
            let crews = packets(64, n).unwrap();
            let of_all = Crews::of(Tile { m: 64, n }).unwrap();
            assert!(crews.stages > of_all.stages.max(4), "{crews:?}");
            assert!(crews.shared() as usize <= 227 * 1024 - 2048, "{crews:?}");
            assert_eq!(crews.threads(), 512);
        }
        for (m, n) in [(64, 192), (64, 256), (128, 64), (128, 128)] {
            assert_eq!(packets(m, n), None);
        }
        // Pairs have two tiles' columns in a slab, and room for what they give each other.
        let high = Tile { m: 128, n: 64 };
        let pairs = Crews::of(high).unwrap().paired();
        assert_eq!(pairs.stages, 5);
        assert!(pairs.shared() as usize <= 227 * 1024 - 2048, "{pairs:?}");
        let may = |program, tile, rows| Crews::may_pair(program, tile, rows);
        assert!(may(None, high, 128) && may(Some(Program::TwoShot), high, 1));
        assert!(!may(None, high, 129) && !may(None, Tile { m: 64, n: 64 }, 64));
        assert!(!may(Some(Program::ReduceScatter), high, 1));
        for (m, n) in [(32, 128), (64, 32), (128, 320)] {
            assert_eq!(Crews::of(Tile { m, n }), None);
        }
        assert_eq!(Crews::of(LARGEST).unwrap().stages, 3);
        assert_eq!(Crews::of(LARGEST).unwrap().threads(), 384);
    }
}

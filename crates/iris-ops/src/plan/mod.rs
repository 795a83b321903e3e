//! From a configuration to programs and memory: what is decided when an operation is created, the same on all ranks.

mod layout;
mod steps;
#[cfg(test)]
mod tests;

use crate::config::{FusedConfig, Variant};
use iris_kernels::Tile;
use iris_kernels::host::{Accumulators, Needs, Program, Shape, Staging};
use iris_sync::Layout;
pub(crate) use steps::{packets_of, tiled_as, variant_of};

/// How a call of so many rows is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The variant: never `Auto` for `matmul_all_reduce`.
    pub variant: Variant,
    /// The tile that signals speak of.
    pub tile: Tile,
    /// Whether one kernel does all of it; else a product goes before it.
    pub fused: bool,
}

/// Which operation, before its variant is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    AllReduce,
    ReduceScatter,
    AllGatherMatmul,
    MatmulAllGather,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [
        Self::AllReduce,
        Self::ReduceScatter,
        Self::AllGatherMatmul,
        Self::MatmulAllGather,
    ];

    pub fn operation(self) -> &'static str {
        match self {
            Self::AllReduce => "matmul_all_reduce",
            Self::ReduceScatter => "matmul_reduce_scatter",
            Self::AllGatherMatmul => "all_gather_matmul",
            Self::MatmulAllGather => "matmul_all_gather",
        }
    }
}

/// The grids of tiles that a rank multiplies in a call: rows and columns of each, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grids {
    /// Rows of each.
    pub rows: usize,
    /// Columns of each.
    pub cols: usize,
    /// How many.
    pub count: usize,
}

impl Grids {
    /// Tiles of all of them.
    #[must_use]
    pub fn tiles(self, tile: Tile) -> usize {
        self.count * self.rows.div_ceil(tile.m) * self.cols.div_ceil(tile.n)
    }
}

impl Kind {
    /// Those of a call of `m` rows and `n` columns.
    pub(crate) fn grids(self, m: usize, n: usize, world: usize) -> Grids {
        let (rows, cols, count) = match self {
            Self::AllReduce => (m, n, 1),
            Self::ReduceScatter => (m.div_ceil(world), n, world),
            Self::AllGatherMatmul => (m, n.div_ceil(world), 1),
            Self::MatmulAllGather => (m.div_ceil(world), n, 1),
        };
        Grids { rows, cols, count }
    }
}

/// How a backend's programs lay out their memory.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The bytes of a rank's words and cells.
    pub words: fn(Layout) -> usize,
    /// The tile for calls of an operation whose user names none: of the most rows a call may have, of a call's rows, columns, on so
    /// many ranks, by bytes of an element.
    pub tile: fn(Kind, [usize; 2], usize, usize, usize) -> Tile,
    /// What a tile's sides must be multiples of, and the most they may be; `None` where any tile will do, which is then made no
    /// larger than the result.
    pub tiles: Option<(Tile, Tile)>,
    /// Tiles that there are besides.
    pub also: &'static [Tile],
    /// What a program needs for up to so many rows, on so many ranks.
    pub needs: fn(Program, usize, Shape, usize) -> Needs,
    /// The bytes of a staging slot of a program, for so many bytes an element.
    pub slot: fn(Program, Needs, usize) -> Option<usize>,
    /// Bytes of packets that travel for 16 of data, if there are packets.
    pub packets: Option<usize>,
    /// The tile of calls whose rows of A come in packets, where these are faster for few rows.
    pub unpacks: Option<Tile>,
    /// The bytes in which blocks leave parts of tiles, in calls of a step of so many rows at least, on so many ranks.
    pub partials: fn(&Step, usize, usize) -> usize,
}

impl Target {
    /// The tile of calls of few rows of A where these go in packets unasked: there has to be a peer, a tile that is asked for is that of all rows,
    /// and portable kernels are not known to be faster so.
    pub(crate) fn unpacks_unasked(
        &self,
        kind: Kind,
        config: &FusedConfig,
        world: usize,
    ) -> Option<Tile> {
        let has = packets_of(kind, config.gather) == Some(Program::AllGatherMatmulPackets);
        let wanted = config.packets && config.tile.is_none() && !config.portable;
        self.unpacks.filter(|_| has && wanted && world > 1)
    }

    /// Whether there are programs of a tile.
    pub(crate) fn has(&self, tile: Tile) -> bool {
        let fits =
            |side: usize, step: usize, most: usize| side.is_multiple_of(step) && side <= most;
        let of_steps = self.tiles.is_none_or(|(step, most)| {
            fits(tile.m, step.m, most.m) && fits(tile.n, step.n, most.n)
        });
        of_steps || self.also.contains(&tile)
    }
}

/// How calls of up to so many rows are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub rows: usize,
    pub program: Program,
    /// Whether the program multiplies; else it is given what a product has left in the workspace.
    pub fused: bool,
    /// Whether tiles are streamed where they can be, if a table says so or not.
    pub streamed: Option<bool>,
    /// The problem, with the tile of these calls.
    pub shape: Shape,
    /// Relative to the workspace. Each source has the same bytes in each bank, whatever the step: a call's bank is never another
    /// call's other bank.
    pub staging: Staging,
    /// The same of packets: all of their memory, also where the step has none, since every call clears them once in a while.
    pub packets: Staging,
}

/// The programs an operation may run, and where everything of its workspace lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blueprint {
    /// In rising order of rows; the last covers the largest `m`.
    pub steps: Vec<Step>,
    pub layout: Layout,
    /// Where staging begins, relative to the workspace, as are the offsets below.
    pub staging: usize,
    /// Where packets lie, and how many bytes they take, if there are any.
    pub packets: Option<(usize, usize)>,
    pub accumulators: Accumulators,
    /// Where blocks leave parts of tiles to each other, and how many bytes there are for that, if they do.
    pub partials: Option<(usize, usize)>,
    /// Where products are left, if there are steps that are not fused.
    pub product: Option<usize>,
    /// Where plain outputs are bounced, if they may be plain.
    pub bounce: Option<usize>,
    /// The bytes of the whole workspace at each rank.
    pub bytes: usize,
}

impl Blueprint {
    /// How a call of `m` rows is carried out, which are at most the largest.
    pub(crate) fn step(&self, m: usize) -> &Step {
        &self.steps[self.step_index(m)]
    }

    /// Its place among the steps.
    pub(crate) fn step_index(&self, m: usize) -> usize {
        let found = self.steps.iter().position(|step| m <= step.rows);
        found.unwrap_or(self.steps.len() - 1)
    }
}

//! From a configuration to programs and memory: what is decided when an operation is created, the same on all ranks.

use crate::config::{FusedConfig, Variant};
use crate::error::OpError;
use iris_kernels::host::{Accumulators, Needs, Program, Shape, Staging};
use iris_kernels::{Element, Tile};
use iris_sync::{Layout, Word};

/// An all-reduce of up to this many elements is bound by the number of steps and not by traffic: `auto` makes it one-shot.
/// Measured on a CPU, where a step costs about as much as copying a few thousand elements; see `docs/performance.md`.
const ONE_SHOT_ELEMENTS: usize = 4096;
/// `auto` does not take more one-shot staging than this at a rank, in bytes.
const ONE_SHOT_CAP: usize = 64 << 20;

/// What parts of a workspace are aligned to: lines of every device's caches.
const ALIGN: usize = 256;

/// How a call of so many rows is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The variant: never `Auto` for `matmul_all_reduce`.
    pub variant: Variant,
    /// The tile that signals speak of.
    pub tile: Tile,
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
    pub fn operation(self) -> &'static str {
        match self {
            Self::AllReduce => "matmul_all_reduce",
            Self::ReduceScatter => "matmul_reduce_scatter",
            Self::AllGatherMatmul => "all_gather_matmul",
            Self::MatmulAllGather => "matmul_all_gather",
        }
    }
}

/// How a backend's programs lay out their memory.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The bytes of a rank's words and cells.
    pub words: fn(Layout) -> usize,
    /// The tile for an operation whose user names none, of so many rows and columns on so many ranks.
    pub tile: fn(Kind, usize, usize, usize) -> Tile,
    /// What a tile's sides must be multiples of, and the most they may be; `None` where any tile will do, which is then made no
    /// larger than the result.
    pub tiles: Option<(Tile, Tile)>,
    /// The bytes of a staging slot of a program, for so many bytes an element.
    pub slot: fn(Program, Needs, Tile, usize) -> Option<usize>,
}

/// The programs an operation may run, and where everything of its workspace lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blueprint {
    pub shape: Shape,
    /// The program for up to so many rows, in rising order; the last entry covers the largest `m`.
    pub programs: Vec<(usize, Program)>,
    pub layout: Layout,
    /// Relative to the workspace, as are the offsets below.
    pub staging: Staging,
    pub accumulators: Accumulators,
    /// Where plain outputs are bounced, if they may be plain.
    pub bounce: Option<usize>,
    /// The bytes of the whole workspace at each rank.
    pub bytes: usize,
}

impl Blueprint {
    pub(crate) fn new<T: Element, W: Word>(
        kind: Kind,
        config: &FusedConfig,
        world: usize,
        target: &Target,
    ) -> Result<Self, OpError> {
        let operation = kind.operation();
        let &FusedConfig { m, n, k, .. } = config;
        for (field, size) in [("m", m), ("n", n), ("k", k)] {
            if size == 0 {
                return Err(OpError::Empty { operation, field });
            }
        }
        if let Some(tile) = config.tile {
            for (field, size) in [("tile.m", tile.m), ("tile.n", tile.n)] {
                if size == 0 {
                    return Err(OpError::Empty { operation, field });
                }
            }
        }
        if kind != Kind::AllReduce && config.variant != Variant::Auto {
            return Err(OpError::NoSuchVariant {
                operation,
                variant: config.variant,
            });
        }
        if !(1..=W::MAX).contains(&config.first) {
            return Err(OpError::FirstValue {
                operation,
                first: config.first,
                max: W::MAX,
            });
        }
        let too_large = || OpError::TooLarge {
            operation,
            m,
            n,
            k,
            world,
        };
        // Every product of sizes below is one of these or smaller by a constant.
        m.checked_mul(n)
            .and_then(|_| m.checked_mul(k))
            .and_then(|_| k.checked_mul(n))
            .and_then(|_| m.max(n).max(k).checked_mul(64 * world))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(too_large)?;
        let tile = config
            .tile
            .unwrap_or_else(|| (target.tile)(kind, m, n, world));
        let tile = match target.tiles {
            // A tile no larger than the result: slots are not larger than what they hold.
            None => Tile {
                m: tile.m.min(m),
                n: tile.n.min(n),
            },
            Some((step, most)) => {
                let fits = |side: usize, step: usize, most: usize| {
                    side.is_multiple_of(step) && side <= most
                };
                if !fits(tile.m, step.m, most.m) || !fits(tile.n, step.n, most.n) {
                    return Err(OpError::Tile {
                        operation,
                        tile,
                        step,
                        most,
                    });
                }
                tile
            }
        };
        let shape = Shape { n, k, tile };
        let programs = programs(kind, config, shape, world, size_of::<T>());
        let needs = programs
            .iter()
            .map(|&(rows, program)| program.needs(rows, shape, world))
            .fold(Needs::default(), Needs::or);

        let layout = Layout::new(world, needs.slots, needs.locks);
        let mut end = (target.words)(layout).next_multiple_of(ALIGN);
        let mut take = |bytes: Option<usize>| {
            let start = end;
            end = bytes
                .and_then(|bytes| end.checked_add(bytes))
                .and_then(|end| end.checked_next_multiple_of(ALIGN))?;
            Some(start)
        };
        // The largest of what its programs need, as the number of slots is.
        let slot_bytes = programs
            .iter()
            .map(|&(rows, program)| {
                let needs = program.needs(rows, shape, world);
                (target.slot)(program, needs, tile, size_of::<T>())
            })
            .try_fold(0, |most, bytes| Some(most.max(bytes?)))
            .ok_or_else(too_large)?;
        let mut staging = Staging::new(0, needs.slots, slot_bytes);
        staging.offset = take(staging.bytes(world)).ok_or_else(too_large)?;
        let mut accumulators = Accumulators {
            offset: 0,
            elements: needs.accumulators,
        };
        accumulators.offset = take(accumulators.bytes()).ok_or_else(too_large)?;
        let stored = programs
            .iter()
            .any(|(_, program)| program.stores_to_peers());
        let bounce = if config.plain_output && stored {
            Some(take((m * n).checked_mul(size_of::<T>())).ok_or_else(too_large)?)
        } else {
            None
        };
        Ok(Self {
            shape,
            programs,
            layout,
            staging,
            accumulators,
            bounce,
            bytes: end,
        })
    }

    /// The program for `m` rows, which are at most the largest.
    pub(crate) fn program(&self, m: usize) -> Program {
        self.programs[self.program_index(m)].1
    }

    /// Its place among the programs.
    pub(crate) fn program_index(&self, m: usize) -> usize {
        let found = self.programs.iter().position(|&(rows, _)| m <= rows);
        found.unwrap_or(self.programs.len() - 1)
    }
}

fn programs(
    kind: Kind,
    config: &FusedConfig,
    shape: Shape,
    world: usize,
    element: usize,
) -> Vec<(usize, Program)> {
    let m = config.m;
    let program = match (kind, config.variant) {
        (Kind::ReduceScatter, _) => Program::ReduceScatter,
        (Kind::AllGatherMatmul, _) => Program::AllGatherMatmul(config.gather),
        (Kind::MatmulAllGather, _) => Program::MatmulAllGather,
        (Kind::AllReduce, Variant::OneShot) => Program::OneShot,
        (Kind::AllReduce, Variant::TwoShot) => Program::TwoShot,
        (Kind::AllReduce, Variant::Atomic) => Program::Atomic,
        (Kind::AllReduce, Variant::Spinlock) => Program::Spinlock,
        (Kind::AllReduce, Variant::Auto) => {
            let small = m.min(ONE_SHOT_ELEMENTS / shape.n);
            let needs = Program::OneShot.needs(small, shape, world);
            let bytes = Staging::new(0, needs.slots, needs.slot_elements * element).bytes(world);
            let fits = small > 0 && bytes.is_some_and(|bytes| bytes <= ONE_SHOT_CAP);
            return match (fits, small < m) {
                (true, false) => vec![(m, Program::OneShot)],
                (true, true) => vec![(small, Program::OneShot), (m, Program::TwoShot)],
                (false, _) => vec![(m, Program::TwoShot)],
            };
        }
    };
    vec![(m, program)]
}

/// The variant that a program is.
pub(crate) fn variant_of(program: Program) -> Variant {
    match program {
        Program::OneShot => Variant::OneShot,
        Program::TwoShot => Variant::TwoShot,
        Program::Atomic => Variant::Atomic,
        Program::Spinlock => Variant::Spinlock,
        Program::ReduceScatter | Program::AllGatherMatmul(_) | Program::MatmulAllGather => {
            Variant::Auto
        }
    }
}

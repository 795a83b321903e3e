//! From a configuration to programs and memory: what is decided when an operation is created, the same on all ranks.

use crate::config::{FusedConfig, Variant};
use crate::error::OpError;
use iris_kernels::host::{Accumulators, Needs, Program, Shape, Staging};
use iris_kernels::{Element, Tile};
use iris_sync::{Layout, Mapped, Word};

/// An all-reduce of up to this many elements is bound by the number of steps and not by traffic: `auto` makes it one-shot.
/// Measured on a CPU, where a step costs about as much as copying a few thousand elements; see `docs/performance.md`.
const ONE_SHOT_ELEMENTS: usize = 4096;
/// `auto` does not take more one-shot staging than this at a rank, in bytes.
const ONE_SHOT_CAP: usize = 64 << 20;

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
pub(crate) enum Kind {
    AllReduce,
    ReduceScatter,
    AllGatherMatmul,
    MatmulAllGather,
}

impl Kind {
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::AllReduce => "matmul_all_reduce",
            Self::ReduceScatter => "matmul_reduce_scatter",
            Self::AllGatherMatmul => "all_gather_matmul",
            Self::MatmulAllGather => "matmul_all_gather",
        }
    }
}

/// The programs an operation may run, and where everything of its workspace lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blueprint {
    pub(crate) shape: Shape,
    /// The program for up to so many rows, in rising order; the last entry covers the largest `m`.
    pub(crate) programs: Vec<(usize, Program)>,
    pub(crate) layout: Layout,
    /// Relative to the workspace, as are the offsets below.
    pub(crate) staging: Staging,
    pub(crate) accumulators: Accumulators,
    /// Where plain outputs are bounced, if they may be plain.
    pub(crate) bounce: Option<usize>,
    /// The bytes of the whole workspace at each rank.
    pub(crate) bytes: usize,
}

impl Blueprint {
    pub(crate) fn new<T: Element, W: Word>(
        kind: Kind,
        config: &FusedConfig,
        world: usize,
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
        let tile = config.tile.unwrap_or_else(|| match kind {
            Kind::AllReduce => Tile::choose(m, n, world),
            // The grid restarts at each owner's first row; a gathered piece is as high as a tile.
            _ => Tile::choose(m.div_ceil(world), n, 1),
        });
        // A tile no larger than the result: slots are not larger than what they hold.
        let tile = Tile {
            m: tile.m.min(m),
            n: tile.n.min(n),
        };
        let shape = Shape { n, k, tile };
        let programs = programs(kind, config, shape, world, size_of::<T>());
        let needs = programs
            .iter()
            .map(|&(rows, program)| program.needs(rows, shape, world))
            .fold(Needs::default(), Needs::or);

        let layout = Layout::new(world, needs.slots, needs.locks);
        let mut end = Mapped::<W>::bytes(layout).next_multiple_of(64);
        let mut take = |bytes: Option<usize>| {
            let start = end;
            end = bytes
                .and_then(|bytes| end.checked_add(bytes))
                .and_then(|end| end.checked_next_multiple_of(64))?;
            Some(start)
        };
        let slot_bytes = needs
            .slot_elements
            .checked_mul(size_of::<T>())
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
        let found = self.programs.iter().find(|&&(rows, _)| m <= rows);
        found.unwrap_or(&self.programs[self.programs.len() - 1]).1
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

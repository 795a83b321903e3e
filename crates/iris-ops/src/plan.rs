//! From a configuration to programs and memory: what is decided when an operation is created, the same on all ranks.

use crate::config::{FusedConfig, Variant};
use crate::error::OpError;
use crate::tuning::Choice;
use iris_kernels::host::{Accumulators, Needs, Program, Shape, Staging};
use iris_kernels::{Element, Tile};
use iris_sync::{Layout, Word};

/// An all-reduce of up to this many elements is bound by the number of steps and not by traffic: `auto` makes it one-shot.
/// Measured on a CPU, where a step costs about as much as copying a few thousand elements; see `docs/performance.md`.
const ONE_SHOT_ELEMENTS: usize = 4096;
/// On devices, calls are made in packets up to so many bytes of partial sums that a rank hands to all its peers together: beyond,
/// the links take the time, and packets take half as many bytes again on NVIDIA, and twice as many on AMD. From a model (docs/performance.md), not yet from measurements.
const PACKET_BYTES: usize = 1 << 20;
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
    /// Whether there are packets.
    pub packets: bool,
}

impl Target {
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
    /// Where products are left, if there are steps that are not fused.
    pub product: Option<usize>,
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
        choices: &[Choice],
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
        let element = size_of::<T>();
        let chosen = choices.iter().filter_map(|choice| choice.tile);
        for tile in config.tile.into_iter().chain(chosen) {
            if let (false, Some((step, most))) = (target.has(tile), target.tiles) {
                return Err(OpError::Tile {
                    operation,
                    tile,
                    step,
                    most,
                    also: target.also.to_vec(),
                });
            }
        }
        let tile_asked = |rows: usize| {
            let chosen =
                || choice_of(choices, rows, [n, world, element]).and_then(|choice| choice.tile);
            config.tile.or_else(chosen)
        };
        let tile_of = |kind: Kind, rows: usize| match (tile_asked(rows), target.tiles) {
            (Some(tile), Some(_)) => tile,
            (None, Some(_)) => (target.tile)(kind, [m, rows], n, world, element),
            (given, None) => {
                let tile = given.unwrap_or_else(|| (target.tile)(kind, [m, m], n, world, element));
                // A tile no larger than the result: slots are not larger than what they hold.
                Tile {
                    m: tile.m.min(m),
                    n: tile.n.min(n),
                }
            }
        };
        let in_packets = target.packets && config.packets;
        let mut steps = steps(kind, config, choices, world, element, in_packets, tile_of);
        let needs_of = |step: &Step| (target.needs)(step.program, step.rows, step.shape, world);
        let needs = steps.iter().map(needs_of).fold(Needs::default(), Needs::or);

        let layout = Layout::new(world, needs.words, needs.locks);
        let mut end = (target.words)(layout).next_multiple_of(ALIGN);
        let mut take = |bytes: Option<usize>| {
            let start = end;
            end = bytes
                .and_then(|bytes| end.checked_add(bytes))
                .and_then(|end| end.checked_next_multiple_of(ALIGN))?;
            Some(start)
        };
        // What a source has in a bank: for the most demanding step, and whole slots of every one.
        let mut source_bytes = 0usize;
        let mut whole = 1usize;
        for step in &mut steps {
            let needs = needs_of(step);
            let bytes = (target.slot)(step.program, needs, element);
            let bytes = bytes.ok_or_else(too_large)?;
            step.staging = Staging::new(0, if bytes == 0 { 0 } else { needs.slots }, bytes);
            let Staging {
                slots, slot_bytes, ..
            } = step.staging;
            if slots == 0 {
                continue;
            }
            source_bytes = source_bytes.max(slots.checked_mul(slot_bytes).ok_or_else(too_large)?);
            whole = lcm(whole, slot_bytes).ok_or_else(too_large)?;
        }
        let source_bytes = source_bytes
            .checked_next_multiple_of(whole)
            .ok_or_else(too_large)?;
        let all = source_bytes.checked_mul(2 * world);
        let staging = take(all).ok_or_else(too_large)?;
        for step in &mut steps {
            step.staging.offset = staging;
            if step.staging.slots > 0 {
                step.staging.slots = source_bytes / step.staging.slot_bytes;
            }
        }
        let packets = match packets(&mut steps, element, needs_of) {
            Some(0) => None,
            Some(bytes) => {
                let offset = take(bytes.checked_mul(2 * world)).ok_or_else(too_large)?;
                for step in &mut steps {
                    step.packets.offset = offset;
                }
                Some((offset, 2 * world * bytes))
            }
            None => return Err(too_large()),
        };
        let mut accumulators = Accumulators {
            offset: 0,
            elements: needs.accumulators,
        };
        accumulators.offset = take(accumulators.bytes()).ok_or_else(too_large)?;
        let unfused = steps.iter().filter(|step| !step.fused);
        let product = match unfused.map(|step| product_rows(step, world)).max() {
            Some(rows) => Some(take((rows * n).checked_mul(element)).ok_or_else(too_large)?),
            None => None,
        };
        let stored = steps.iter().any(|step| step.program.stores_to_peers());
        let bounce = if config.plain_output && stored {
            Some(take((m * n).checked_mul(size_of::<T>())).ok_or_else(too_large)?)
        } else {
            None
        };
        Ok(Self {
            steps,
            layout,
            staging,
            packets,
            accumulators,
            product,
            bounce,
            bytes: end,
        })
    }

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

/// The most rows of the product of a step that is not fused.
fn product_rows(step: &Step, world: usize) -> usize {
    match step.program {
        Program::MatmulAllGather => step.rows.div_ceil(world),
        _ => step.rows,
    }
}

/// Lays out the packets that a source has in a bank, and returns their bytes; `None` where no integer holds them.
fn packets(steps: &mut [Step], element: usize, needs_of: impl Fn(&Step) -> Needs) -> Option<usize> {
    // Whole slots of every step that has some, and whole rows of all.
    let (mut most, mut whole) = (0usize, 1usize);
    for step in steps.iter_mut() {
        let has = in_packets(step.program);
        let needs = needs_of(step);
        let row = step.shape.tile.n.checked_mul(2 * element)?;
        let slot_bytes = match has {
            true => needs.packet_elements.checked_mul(2 * element)?,
            false => row,
        };
        whole = lcm(whole, lcm(row, slot_bytes)?)?;
        if has {
            most = most.max(needs.packet_slots.checked_mul(slot_bytes)?);
        }
        step.packets = Staging::new(0, 0, slot_bytes);
    }
    if most == 0 {
        return Some(0);
    }
    let bytes = most.checked_next_multiple_of(whole)?;
    for step in steps {
        step.packets.slots = bytes / step.packets.slot_bytes;
    }
    Some(bytes)
}

/// Whether a program's tiles travel in packets.
fn in_packets(program: Program) -> bool {
    matches!(
        program,
        Program::OneShotPackets | Program::ReduceScatterPackets
    )
}

/// The least common multiple, where it fits an integer.
fn lcm(a: usize, b: usize) -> Option<usize> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b)
}

/// The steps, without their staging: a new one wherever the program or the tile changes.
fn steps(
    kind: Kind,
    config: &FusedConfig,
    choices: &[Choice],
    world: usize,
    element: usize,
    packets: bool,
    tile_of: impl Fn(Kind, usize) -> Tile,
) -> Vec<Step> {
    let &FusedConfig { m, n, k, .. } = config;
    // In packets, the tiles of a reduce-scatter are those of all rows, as an all-reduce's.
    let shape_of = |program, rows| {
        let kind = match program {
            Program::ReduceScatterPackets => Kind::AllReduce,
            _ => kind,
        };
        let tile = tile_of(kind, rows);
        Shape { n, k, tile }
    };
    let (small, program) = program(kind, config, world, element, packets, &shape_of);
    // Rows are told apart by powers of 2 of them, and as the program asks.
    let powers = (0..usize::BITS).map(|power| 1 << power);
    let mut ends: Vec<usize> = powers.take_while(|&rows| rows < m).collect();
    ends.extend([small.map_or(m, |(rows, _)| rows), m]);
    ends.extend(choices.iter().map(|choice| choice.rows.min(m)));
    ends.sort_unstable();
    ends.dedup();
    let mut steps: Vec<Step> = Vec::new();
    for rows in ends {
        let modelled = match small {
            Some((most, small)) if rows <= most => small,
            _ => program,
        };
        let choice = choice_of(choices, rows, [n, world, element]);
        let program = choice.map_or(modelled, |choice| chosen(kind, choice, program));
        let step = Step {
            rows,
            program,
            fused: choice.is_none_or(|choice| choice.fused),
            shape: shape_of(program, rows),
            staging: Staging::default(),
            packets: Staging::default(),
        };
        match steps.last_mut() {
            Some(last)
                if (last.program, last.shape, last.fused)
                    == (step.program, step.shape, step.fused) =>
            {
                last.rows = rows;
            }
            _ => steps.push(step),
        }
    }
    steps
}

/// What a table says of calls of so many rows, if `auto` can have the staging for it: what all send to all has to be kept, twice, and in
/// packets takes twice the room.
fn choice_of(choices: &[Choice], rows: usize, sizes: [usize; 3]) -> Option<&Choice> {
    let choice = choices.iter().find(|choice| rows <= choice.rows)?;
    let copies = match (choice.variant, choice.packets) {
        (Variant::OneShot, false) => 2,
        (Variant::OneShot, true) => 4,
        _ => return Some(choice),
    };
    let bytes = sizes
        .into_iter()
        .try_fold(copies * rows, usize::checked_mul);
    bytes.filter(|&bytes| bytes <= ONE_SHOT_CAP)?;
    Some(choice)
}

/// The program of an operation for few rows in packets, if it has one.
pub(crate) fn packets_of(kind: Kind) -> Option<Program> {
    match kind {
        Kind::AllReduce => Some(Program::OneShotPackets),
        Kind::ReduceScatter => Some(Program::ReduceScatterPackets),
        Kind::AllGatherMatmul | Kind::MatmulAllGather => None,
    }
}

/// The program that a table asks for; `program` is that of many rows.
fn chosen(kind: Kind, choice: &Choice, program: Program) -> Program {
    match (choice.packets, choice.variant) {
        (true, _) => packets_of(kind).unwrap_or(program),
        (false, Variant::OneShot) => Program::OneShot,
        (false, _) => program,
    }
}

/// The program; and up to how many rows it is another one all the same, if it is for any.
fn program(
    kind: Kind,
    config: &FusedConfig,
    world: usize,
    element: usize,
    packets: bool,
    shape_of: &impl Fn(Program, usize) -> Shape,
) -> (Option<(usize, Program)>, Program) {
    let FusedConfig { m, n, .. } = *config;
    // Few rows in packets: all of a rank's go to every peer, or each of them to its owner.
    let peers = world.saturating_sub(1).max(1);
    let few = |program, rows: usize| {
        let few = Some(m.min(rows)).filter(|&rows| packets && rows > 0);
        few.map(|rows| (rows, program))
    };
    let scattered = few(
        Program::ReduceScatterPackets,
        PACKET_BYTES / (peers * n * element) * world,
    );
    let few = few(
        Program::OneShotPackets,
        PACKET_BYTES / (peers * n * element),
    );
    let program = match (kind, config.variant) {
        (Kind::ReduceScatter, _) => return (scattered, Program::ReduceScatter),
        (Kind::AllGatherMatmul, _) => Program::AllGatherMatmul(config.gather),
        (Kind::MatmulAllGather, _) => Program::MatmulAllGather,
        (Kind::AllReduce, Variant::OneShot) => return (few, Program::OneShot),
        (Kind::AllReduce, Variant::TwoShot) => Program::TwoShot,
        (Kind::AllReduce, Variant::Atomic) => Program::Atomic,
        (Kind::AllReduce, Variant::Spinlock) => Program::Spinlock,
        (Kind::AllReduce, Variant::Auto) if few.is_some() => return (few, Program::TwoShot),
        (Kind::AllReduce, Variant::Auto) => {
            let small = m.min(ONE_SHOT_ELEMENTS / n);
            let shape = shape_of(Program::OneShot, small.max(1));
            let needs = Program::OneShot.needs(small, shape, world);
            let bytes = Staging::new(0, needs.slots, needs.slot_elements * element).bytes(world);
            let fits = small > 0 && bytes.is_some_and(|bytes| bytes <= ONE_SHOT_CAP);
            return (fits.then_some((small, Program::OneShot)), Program::TwoShot);
        }
    };
    (None, program)
}

/// The variant that a program is.
pub(crate) fn variant_of(program: Program) -> Variant {
    match program {
        Program::OneShot | Program::OneShotPackets => Variant::OneShot,
        Program::TwoShot => Variant::TwoShot,
        Program::Atomic => Variant::Atomic,
        Program::Spinlock => Variant::Spinlock,
        Program::ReduceScatter
        | Program::ReduceScatterPackets
        | Program::AllGatherMatmul(_)
        | Program::MatmulAllGather => Variant::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target {
        words: |_| 100,
        tile: |_, [_, rows], _, _, _| {
            let m = if rows <= 64 { 64 } else { 128 };
            Tile { m, n: 128 }
        },
        tiles: Some((Tile { m: 32, n: 32 }, Tile { m: 128, n: 256 })),
        also: &[Tile { m: 8, n: 8 }],
        needs: Program::needs,
        slot: |_, needs, element| needs.slot_elements.checked_mul(element),
        packets: false,
    };

    fn blueprint(kind: Kind, config: &FusedConfig) -> Blueprint {
        Blueprint::new::<f32, i32>(kind, config, 3, &TARGET, &[]).unwrap()
    }

    #[test]
    fn calls_of_few_rows_have_tiles_of_their_own() {
        let config = FusedConfig::new(500, 300, 70).variant(Variant::TwoShot);
        let blueprint = blueprint(Kind::AllReduce, &config);
        let rows: Vec<_> = blueprint.steps.iter().map(|step| step.rows).collect();
        assert_eq!(rows, [64, 500]);
        for (m, tile) in [(1, 64), (64, 64), (65, 128), (500, 128)] {
            assert_eq!(blueprint.step(m).shape.tile.m, tile, "{m} rows");
        }
        let auto = FusedConfig::new(500, 300, 70);
        let steps = self::blueprint(Kind::AllReduce, &auto).steps;
        let first = (steps[0].program, steps[0].rows);
        assert_eq!(first, (Program::OneShot, ONE_SHOT_ELEMENTS / 300));
        assert_eq!(steps.last().unwrap().rows, 500);
    }

    /// A slow rank may still read a bank of one step while a fast one writes the other bank by another step.
    #[test]
    fn banks_lie_in_the_same_places_whatever_the_step() {
        // Slots of which none is a multiple of the other.
        let target = Target {
            tile: |_, [_, rows], _, _, _| match rows {
                0..=64 => Tile { m: 64, n: 160 },
                _ => Tile { m: 128, n: 96 },
            },
            ..TARGET
        };
        for kind in [Kind::AllReduce, Kind::ReduceScatter, Kind::AllGatherMatmul] {
            let config = FusedConfig::new(700, 300, 77);
            let blueprint = Blueprint::new::<f32, i32>(kind, &config, 3, &target, &[]).unwrap();
            let bank = |step: &Step| 3 * step.staging.slots * step.staging.slot_bytes;
            let all: Vec<_> = blueprint.steps.iter().map(bank).collect();
            assert!(all.iter().all(|&bank| bank == all[0]), "{kind:?}: {all:?}");
            let end = blueprint.staging + 2 * all[0];
            assert!(end <= blueprint.accumulators.offset, "{kind:?}");
            for step in &blueprint.steps {
                let needs = step.program.needs(step.rows, step.shape, 3);
                assert!(needs.slots <= step.staging.slots, "{kind:?}: {step:?}");
            }
        }
    }

    /// Every step finds the whole of them, in whole slots and rows: it clears what others have left.
    #[test]
    fn packets_lie_in_the_same_places_whatever_the_step() {
        let target = Target {
            packets: true,
            slot: |program, needs, element| match program {
                Program::OneShotPackets => Some(0),
                _ => needs.slot_elements.checked_mul(element),
            },
            tile: |_, [_, rows], _, _, _| match rows {
                0..=64 => Tile { m: 64, n: 64 },
                65..=128 => Tile { m: 128, n: 96 },
                _ => Tile { m: 128, n: 256 },
            },
            ..TARGET
        };
        for variant in [Variant::Auto, Variant::OneShot] {
            let config = FusedConfig::new(5000, 700, 70)
                .variant(variant)
                .packets(true);
            let blueprint = Blueprint::new::<f32, i32>(Kind::AllReduce, &config, 3, &target, &[]);
            let blueprint = blueprint.unwrap();
            let few = PACKET_BYTES / (2 * 700 * 4);
            assert_eq!(blueprint.step(few).program, Program::OneShotPackets);
            assert_ne!(blueprint.step(few + 1).program, Program::OneShotPackets);
            let (offset, bytes) = blueprint.packets.unwrap();
            assert!(offset + bytes <= blueprint.accumulators.offset);
            assert!(blueprint.steps.len() > 3);
            for step in &blueprint.steps {
                let Staging {
                    offset: at,
                    slots,
                    slot_bytes,
                } = step.packets;
                assert_eq!((at, 6 * slots * slot_bytes), (offset, bytes), "{step:?}");
                assert!(slot_bytes.is_multiple_of(2 * 4 * step.shape.tile.n));
                if step.program == Program::OneShotPackets {
                    let needs = step.program.needs(step.rows, step.shape, 3);
                    assert!(needs.packet_slots <= slots && step.staging.slots == 0);
                }
            }
        }
        assert_eq!(
            blueprint(Kind::AllReduce, &FusedConfig::new(50, 70, 7)).packets,
            None
        );
    }

    fn choice(rows: usize, variant: Variant, packets: bool, tile: [usize; 2]) -> Choice {
        let [m, n] = tile;
        Choice {
            rows,
            variant,
            packets,
            tile: (m > 0).then_some(Tile { m, n }),
            fused: true,
        }
    }

    #[test]
    fn products_that_go_before_have_room_of_their_own() {
        for (kind, variant, rows) in [
            (Kind::AllReduce, Variant::TwoShot, 500),
            (Kind::ReduceScatter, Variant::Auto, 500),
            (Kind::MatmulAllGather, Variant::Auto, 167),
        ] {
            let all = [
                choice(64, variant, false, [0, 0]),
                Choice {
                    fused: false,
                    ..choice(usize::MAX, variant, false, [0, 0])
                },
            ];
            let config = FusedConfig::new(500, 300, 70).plain_output(true);
            let blueprint = Blueprint::new::<f32, i32>(kind, &config, 3, &TARGET, &all).unwrap();
            assert!(
                blueprint.step(64).fused && !blueprint.step(65).fused,
                "{kind:?}"
            );
            let product = blueprint.product.unwrap();
            let end = product + rows * 300 * 4;
            let before = blueprint.accumulators;
            assert!(
                product >= before.offset + before.bytes().unwrap(),
                "{kind:?}"
            );
            assert!(
                end <= blueprint.bounce.unwrap_or(blueprint.bytes),
                "{kind:?}"
            );
            let fused = Blueprint::new::<f32, i32>(kind, &config, 3, &TARGET, &all[..1]);
            assert_eq!(fused.unwrap().product, None, "{kind:?}");
        }
    }

    #[test]
    fn a_table_decides_programs_and_tiles_and_banks_stay_where_they_are() {
        let target = Target {
            packets: true,
            slot: |program, needs, element| match program {
                Program::OneShotPackets => Some(0),
                _ => needs.slot_elements.checked_mul(element),
            },
            ..TARGET
        };
        let choices = [
            choice(4, Variant::TwoShot, false, [0, 0]),
            choice(30, Variant::OneShot, true, [32, 160]),
            choice(100, Variant::OneShot, false, [96, 64]),
            choice(usize::MAX, Variant::TwoShot, false, [128, 224]),
        ];
        let config = FusedConfig::new(700, 300, 77);
        let new = |choices: &[Choice]| {
            let blueprint =
                Blueprint::new::<f32, i32>(Kind::AllReduce, &config, 3, &target, choices);
            blueprint.unwrap()
        };
        let blueprint = new(&choices);
        let of = |rows| {
            let step = blueprint.step(rows);
            (step.program, [step.shape.tile.m, step.shape.tile.n])
        };
        for (rows, program, tile) in [
            (1, Program::TwoShot, [64, 128]),
            (4, Program::TwoShot, [64, 128]),
            (5, Program::OneShotPackets, [32, 160]),
            (30, Program::OneShotPackets, [32, 160]),
            (31, Program::OneShot, [96, 64]),
            (100, Program::OneShot, [96, 64]),
            (101, Program::TwoShot, [128, 224]),
            (700, Program::TwoShot, [128, 224]),
        ] {
            assert_eq!(of(rows), (program, tile), "{rows}");
        }
        let first = &blueprint.steps[0];
        for step in &blueprint.steps {
            let bank = |staging: Staging| (staging.offset, staging.slots * staging.slot_bytes);
            if step.staging.slots > 0 {
                assert_eq!(bank(step.staging), bank(first.staging), "{step:?}");
            }
            assert_eq!(bank(step.packets), bank(first.packets), "{step:?}");
            let needs = step.program.needs(step.rows, step.shape, 3);
            match step.program {
                Program::OneShotPackets => assert!(needs.packet_slots <= step.packets.slots),
                _ => assert!(needs.slots <= step.staging.slots),
            }
        }
        // Beyond what a table speaks of, the model decides.
        let little = new(&choices[..1]);
        assert_eq!(little.step(5), new(&[]).step(5));
        assert_ne!(little.step(4).program, new(&[]).step(4).program);
    }

    #[test]
    fn a_table_does_not_make_staging_larger_than_auto_does() {
        let config = FusedConfig::new(4000, 3000, 77);
        let choices = [choice(4000, Variant::OneShot, false, [96, 160])];
        let of = |config: &FusedConfig, choices: &[Choice]| {
            Blueprint::new::<f32, i32>(Kind::AllReduce, config, 3, &TARGET, choices).unwrap()
        };
        let blueprint = of(&config, &choices);
        let of_auto = of(&config, &[]);
        let how = |step: &Step| (step.program, step.shape);
        assert_eq!(how(blueprint.step(4000)), how(of_auto.step(4000)));
        // 2 x 3 x 3000 x 4 bytes a row.
        let most = ONE_SHOT_CAP / 72_000;
        assert!(
            blueprint
                .steps
                .iter()
                .all(|step| { (step.program == Program::OneShot) == (step.rows <= most) })
        );
        assert!(blueprint.steps.len() > 1);
    }

    #[test]
    fn few_rows_are_in_packets_where_a_table_says_so() {
        let target = Target {
            packets: true,
            slot: |program, needs, element| match in_packets(program) {
                true => Some(0),
                false => needs.slot_elements.checked_mul(element),
            },
            ..TARGET
        };
        // More rows than by the model, and fewer.
        let config = FusedConfig::new(5000, 700, 70);
        let of = |choices: &[Choice], rows| {
            let kind = Kind::ReduceScatter;
            let blueprint = Blueprint::new::<f32, i32>(kind, &config, 3, &target, choices);
            blueprint.unwrap().step(rows).program
        };
        let (few, many) = (Program::ReduceScatterPackets, Program::ReduceScatter);
        assert_eq!((of(&[], 8), of(&[], 2000)), (few, many));
        let all = [choice(usize::MAX, Variant::Auto, true, [0, 0])];
        assert_eq!((of(&all, 8), of(&all, 2000)), (few, few));
        let none = [choice(usize::MAX, Variant::Auto, false, [0, 0])];
        assert_eq!((of(&none, 8), of(&none, 2000)), (many, many));
    }

    #[test]
    fn tiles_are_whole_steps_or_named() {
        for (m, n, there) in [
            (32, 32, true),
            (128, 256, true),
            (160, 32, false),
            (32, 40, false),
            (8, 8, true),
            (8, 32, false),
        ] {
            let tile = Tile { m, n };
            assert_eq!(TARGET.has(tile), there, "{m}x{n}");
            let config = FusedConfig::new(500, 300, 70).tile(tile);
            let made = Blueprint::new::<f32, i32>(Kind::AllReduce, &config, 3, &TARGET, &[]);
            assert_eq!(made.is_ok(), there, "{m}x{n}");
        }
    }

    #[test]
    fn other_operations_take_tiles_from_a_table() {
        for kind in [
            Kind::ReduceScatter,
            Kind::AllGatherMatmul,
            Kind::MatmulAllGather,
        ] {
            let choices = [choice(usize::MAX, Variant::Auto, false, [96, 160])];
            let config = FusedConfig::new(500, 300, 70);
            let blueprint = Blueprint::new::<f32, i32>(kind, &config, 3, &TARGET, &choices);
            let step = *blueprint.unwrap().step(500);
            assert_eq!(
                (step.shape.tile.m, step.shape.tile.n),
                (96, 160),
                "{kind:?}"
            );
            let plain = Blueprint::new::<f32, i32>(kind, &config, 3, &TARGET, &[]).unwrap();
            assert_eq!(step.program, plain.step(500).program);
            // Rank 0's device has it, and this one does not.
            let choices = [choice(usize::MAX, Variant::Auto, false, [96, 161])];
            let refused = Blueprint::new::<f32, i32>(kind, &config, 3, &TARGET, &choices);
            assert!(matches!(refused, Err(OpError::Tile { .. })), "{kind:?}");
        }
    }

    #[test]
    fn multiples_that_fit_no_integer_are_none() {
        assert_eq!(lcm(12, 18), Some(36));
        assert_eq!(lcm(usize::MAX, usize::MAX - 1), None);
    }
}

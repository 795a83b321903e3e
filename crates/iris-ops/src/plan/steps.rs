//! Which program calls of how many rows run, by a table of what was measured, or else by models.

use super::{Kind, Step};
use crate::config::{FusedConfig, Variant};
use crate::tuning::Choice;
use iris_kernels::Tile;
use iris_kernels::host::{GatherDim, MOST_UNPACKED, Program, Shape, Staging};

/// An all-reduce of up to this many elements is bound by the number of steps and not by traffic: `auto` makes it one-shot.
/// Measured on a CPU, where a step costs about as much as copying a few thousand elements; see `docs/performance.md`.
pub(super) const ONE_SHOT_ELEMENTS: usize = 4096;
/// `auto` does not take more one-shot staging than this at a rank, in bytes.
pub(super) const ONE_SHOT_CAP: usize = 64 << 20;

/// On devices, calls are made in packets up to so many bytes of partial sums that a rank hands to all its peers together, where `traffic`
/// bytes of packets travel for 16 of data: as many as take as long one-shot in packets as two-shot with words. By the model of
/// `docs/performance.md` that is where the links' time, at 300 GB/s, makes up for 4 us of fences. On 2 H100 it came out so.
pub(super) fn packet_bytes(traffic: usize, world: usize) -> usize {
    const IN_4_US: usize = 1_200_000;
    let world = world.max(2);
    // IN_4_US / (traffic / 16 - 2 / world)
    16 * IN_4_US * world / (traffic * world - 32)
}

/// The steps, without their staging: a new one wherever the program or the tile changes. `packets` is how many bytes travel for 16 of data, and
/// whether rows of A do so unasked.
pub(super) fn steps(
    kind: Kind,
    config: &FusedConfig,
    choices: &[Choice],
    world: usize,
    element: usize,
    packets: Option<(usize, bool)>,
    tile_of: impl Fn(Program, usize) -> Tile,
) -> Vec<Step> {
    let &FusedConfig { m, n, k, .. } = config;
    let shape_of = |program, rows| {
        let tile = tile_of(program, rows);
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
        let program = choice.map_or(modelled, |choice| {
            chosen(kind, config.gather, [rows, world], choice, program)
        });
        let step = Step {
            rows,
            program,
            fused: choice.is_none_or(|choice| choice.fused),
            streamed: choice.and_then(|choice| choice.streamed),
            shape: shape_of(program, rows),
            staging: Staging::default(),
            packets: Staging::default(),
        };
        match steps.last_mut() {
            Some(last)
                if (last.program, last.shape, last.fused, last.streamed)
                    == (step.program, step.shape, step.fused, step.streamed) =>
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
pub(super) fn choice_of(choices: &[Choice], rows: usize, sizes: [usize; 3]) -> Option<&Choice> {
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

/// The operation whose tiles an operation's are: in packets, those of a reduce-scatter are tiles of all rows, as an all-reduce's.
pub(crate) fn tiled_as(kind: Kind, in_packets: bool) -> Kind {
    match kind {
        Kind::ReduceScatter if in_packets => Kind::AllReduce,
        kind => kind,
    }
}

/// Whether a program's tiles travel in packets.
pub(super) fn in_packets(program: Program) -> bool {
    matches!(
        program,
        Program::OneShotPackets
            | Program::TwoShotPackets
            | Program::ReduceScatterPackets
            | Program::AllGatherMatmulPackets
    )
}

/// The program of an operation for few rows in packets, if it has one; `gather` counts where A is gathered.
pub(crate) fn packets_of(kind: Kind, gather: GatherDim) -> Option<Program> {
    match (kind, gather) {
        (Kind::AllReduce, _) => Some(Program::OneShotPackets),
        (Kind::ReduceScatter, _) => Some(Program::ReduceScatterPackets),
        (Kind::AllGatherMatmul, GatherDim::Rows) => Some(Program::AllGatherMatmulPackets),
        (Kind::AllGatherMatmul, GatherDim::Columns) | (Kind::MatmulAllGather, _) => None,
    }
}

/// The program that a table asks for in calls of up to so many rows, on so many ranks; `program` is that of many rows.
fn chosen(
    kind: Kind,
    gather: GatherDim,
    [rows, world]: [usize; 2],
    choice: &Choice,
    program: Program,
) -> Program {
    match (choice.packets, choice.variant) {
        (true, Variant::TwoShot) => Program::TwoShotPackets,
        // A row for few rows may be asked for more of them.
        (true, _) if kind == Kind::AllGatherMatmul && (rows > MOST_UNPACKED || world == 1) => {
            program
        }
        (true, _) => packets_of(kind, gather).unwrap_or(program),
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
    packets: Option<(usize, bool)>,
    shape_of: &impl Fn(Program, usize) -> Shape,
) -> (Option<(usize, Program)>, Program) {
    let FusedConfig { m, n, .. } = *config;
    // Few rows in packets: all of a rank's go to every peer, or each of them to its owner.
    let peers = world.saturating_sub(1).max(1);
    let most =
        packets.map_or(0, |(traffic, _)| packet_bytes(traffic, world)) / (peers * n * element);
    let few = |program, rows: usize| Some((m.min(rows), program)).filter(|&(rows, _)| rows > 0);
    let scattered = few(Program::ReduceScatterPackets, most * world);
    let few = few(Program::OneShotPackets, most);
    let program = match (kind, config.variant) {
        (Kind::ReduceScatter, _) => return (scattered, Program::ReduceScatter),
        (Kind::AllGatherMatmul, _) => {
            let unpacks = packets.is_some_and(|(_, unpacks)| unpacks);
            let few = (m.min(MOST_UNPACKED), Program::AllGatherMatmulPackets);
            let few = unpacks.then_some(few);
            return (few, Program::AllGatherMatmul(config.gather));
        }
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
        Program::TwoShot | Program::TwoShotPackets => Variant::TwoShot,
        Program::Atomic => Variant::Atomic,
        Program::Spinlock => Variant::Spinlock,
        Program::ReduceScatter
        | Program::ReduceScatterPackets
        | Program::AllGatherMatmul(_)
        | Program::AllGatherMatmulPackets
        | Program::MatmulAllGather => Variant::Auto,
    }
}

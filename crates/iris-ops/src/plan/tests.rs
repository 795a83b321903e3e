use super::layout::lcm;
use super::steps::{ONE_SHOT_CAP, ONE_SHOT_ELEMENTS, in_packets, packet_bytes};
use super::*;
use crate::config::FusedConfig;
use crate::error::OpError;
use crate::tuning::Choice;
use iris_kernels::host::{GatherDim, MOST_UNPACKED};

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
    packets: None,
    unpacks: None,
    partials: |_, _, _| 0,
};

/// The same with packets, which take no staging.
const IN_PACKETS: Target = Target {
    packets: Some(24),
    slot: |program, needs, element| match in_packets(program) {
        true => Some(0),
        false => needs.slot_elements.checked_mul(element),
    },
    ..TARGET
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
        tile: |_, [_, rows], _, _, _| match rows {
            0..=64 => Tile { m: 64, n: 64 },
            65..=128 => Tile { m: 128, n: 96 },
            _ => Tile { m: 128, n: 256 },
        },
        ..IN_PACKETS
    };
    for variant in [Variant::Auto, Variant::OneShot] {
        let config = FusedConfig::new(5000, 700, 70)
            .variant(variant)
            .packets(true);
        let blueprint = Blueprint::new::<f32, i32>(Kind::AllReduce, &config, 3, &target, &[]);
        let blueprint = blueprint.unwrap();
        let few = packet_bytes(24, 3) / (2 * 700 * 4);
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
        streamed: None,
    }
}

/// Only where a step may leave some, of the fewest rows that it is for; and nothing else lies there.
#[test]
fn parts_of_tiles_have_room_of_their_own() {
    let target = Target {
        partials: |step, fewest, world| match step.program {
            Program::AllGatherMatmul(_) if fewest <= 128 && step.streamed != Some(false) => {
                1000 * step.shape.tile.m * world
            }
            _ => 0,
        },
        ..TARGET
    };
    let config = FusedConfig::new(500, 300, 70);
    let of = |kind, choices: &[Choice]| {
        Blueprint::new::<f32, i32>(kind, &config, 3, &target, choices).unwrap()
    };
    let blueprint = of(Kind::AllGatherMatmul, &[]);
    let (offset, bytes) = blueprint.partials.unwrap();
    let accumulators = blueprint.accumulators;
    assert!(offset >= accumulators.offset + accumulators.bytes().unwrap());
    // From 65 rows on tiles are 128 high.
    assert_eq!(bytes, 3 * 128_000);
    assert!(offset + bytes <= blueprint.bytes);
    let unsaid = choice(usize::MAX, Variant::Auto, false, [64, 64]);
    let said = |streamed| Choice { streamed, ..unsaid };
    let streamed = |choice| of(Kind::AllGatherMatmul, &[choice]).partials.is_some();
    assert!(streamed(said(Some(true))) && streamed(said(None)) && !streamed(said(Some(false))));
    let many = [said(Some(false)), said(Some(true))];
    let many = [
        Choice {
            rows: 128,
            ..many[0]
        },
        many[1],
    ];
    assert_eq!(of(Kind::AllGatherMatmul, &many).steps.len(), 2);
    assert_eq!(of(Kind::AllGatherMatmul, &many).partials, None);
    assert_eq!(of(Kind::AllReduce, &[]).partials, None);
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
    let choices = [
        choice(4, Variant::TwoShot, false, [0, 0]),
        choice(30, Variant::OneShot, true, [32, 160]),
        choice(100, Variant::OneShot, false, [96, 64]),
        choice(150, Variant::TwoShot, true, [64, 96]),
        choice(usize::MAX, Variant::TwoShot, false, [128, 224]),
    ];
    let config = FusedConfig::new(700, 300, 77);
    let new = |choices: &[Choice]| {
        let blueprint =
            Blueprint::new::<f32, i32>(Kind::AllReduce, &config, 3, &IN_PACKETS, choices);
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
        (101, Program::TwoShotPackets, [64, 96]),
        (150, Program::TwoShotPackets, [64, 96]),
        (151, Program::TwoShot, [128, 224]),
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
            Program::OneShotPackets | Program::TwoShotPackets => {
                assert!(needs.packet_slots <= step.packets.slots);
            }
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
    // More rows than by the model, and fewer.
    let config = FusedConfig::new(5000, 700, 70);
    let of = |choices: &[Choice], rows| {
        let kind = Kind::ReduceScatter;
        let blueprint = Blueprint::new::<f32, i32>(kind, &config, 3, &IN_PACKETS, choices);
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

/// Of what `docs/performance.md` says.
#[test]
fn packets_are_for_as_many_bytes_as_the_model_says() {
    let of = |traffic| [2, 4, 8].map(|world| packet_bytes(traffic, world) / 10_000);
    assert_eq!(of(24), [240, 120, 96]);
    assert_eq!(of(32), [120, 80, 68]);
    assert_eq!(packet_bytes(24, 1), packet_bytes(24, 2));
}

#[test]
fn packets_are_for_few_rows_unless_they_are_not_wanted() {
    let most = packet_bytes(24, 3) / (2 * 700 * 4);
    // Of a reduce-scatter each peer is handed a third.
    for (kind, program, rows) in [
        (Kind::AllReduce, Program::OneShotPackets, most),
        (Kind::ReduceScatter, Program::ReduceScatterPackets, 3 * most),
    ] {
        let config = FusedConfig::new(5000, 700, 70);
        let of = |config: &FusedConfig, rows| {
            let blueprint = Blueprint::new::<f32, i32>(kind, config, 3, &IN_PACKETS, &[]);
            blueprint.unwrap().step(rows).program
        };
        assert_eq!(of(&config, rows), program);
        assert_ne!(of(&config, rows + 1), program);
        assert_ne!(of(&config.packets(false), 1), program);
    }
}

#[test]
fn few_rows_of_a_are_in_packets_where_these_are_faster_or_a_table_says_so() {
    let (few, many) = (
        Program::AllGatherMatmulPackets,
        Program::AllGatherMatmul(GatherDim::Rows),
    );
    let tile = Tile { m: 8, n: 8 };
    let unpacking = Target {
        unpacks: Some(tile),
        ..IN_PACKETS
    };
    let of = |config: &FusedConfig, target: &Target, choices: &[Choice], world, rows| {
        let kind = Kind::AllGatherMatmul;
        let blueprint = Blueprint::new::<f32, i32>(kind, config, world, target, choices);
        let step = *blueprint.unwrap().step(rows);
        (step.program, step.shape.tile)
    };
    let config = FusedConfig::new(500, 300, 70);
    assert_eq!(of(&config, &unpacking, &[], 3, 1), (few, tile));
    assert_eq!(of(&config, &unpacking, &[], 3, MOST_UNPACKED), (few, tile));
    assert_eq!(of(&config, &unpacking, &[], 3, MOST_UNPACKED + 1).0, many);
    // Alone there is nobody to send to.
    assert_eq!(of(&config, &unpacking, &[], 1, 1).0, many);
    assert_eq!(of(&config, &IN_PACKETS, &[], 3, 1).0, many);
    for other in [
        config.clone().packets(false),
        config.clone().portable(true),
        config.clone().tile(Tile { m: 64, n: 64 }),
    ] {
        assert_eq!(of(&other, &unpacking, &[], 3, 1).0, many);
    }
    let columns = config.clone().gather(GatherDim::Columns);
    assert_ne!(of(&columns, &unpacking, &[], 3, 1).0, few);
    // Whatever a table says, it is for few rows, and for peers.
    let says = |packets| [choice(usize::MAX, Variant::Auto, packets, [64, 128])];
    assert_eq!(of(&config, &unpacking, &says(false), 3, 1).0, many);
    let asked = (few, Tile { m: 64, n: 128 });
    assert_eq!(of(&config, &IN_PACKETS, &says(true), 3, 16), asked);
    assert_eq!(of(&config, &IN_PACKETS, &says(true), 3, 17).0, many);
    assert_eq!(of(&config, &IN_PACKETS, &says(true), 1, 16).0, many);
}

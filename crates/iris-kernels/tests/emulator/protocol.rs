//! The HIP header's protocol beside `iris_sync`'s: places, values, comparisons, and how calls end that cannot go on.

use crate::cases::MAX;
use crate::compile::{TARGETS, compiler, emulate, kernel};
use crate::kinds::{kinds, kinds_of_two, op_of, program_of};
use iris_kernels::device::ALL_SHARES;
use iris_kernels::host::{GatherDim, Program};
use iris_sync::{Layout, Phase, Signal, SignalCounter, reached};
use std::path::Path;

#[test]
fn words_and_cells_have_the_places_that_the_rust_side_gives_them() {
    if compiler().is_none() {
        return;
    }
    for (world, tiles, locks) in [(1, 1, 0), (2, 3, 5), (3, 0, 1), (16, 7, 2)] {
        let asked = [world, tiles, locks].map(|number: usize| number.to_string());
        let asked: Vec<_> = std::iter::once("--layout")
            .chain(asked.iter().map(String::as_str))
            .map(Path::new)
            .collect();
        let answer = emulate(&asked, &[]);
        let layout = Layout::new(world, tiles, locks);
        // The arrival count comes after the cells that both sides have.
        let expected = format!("{} {} {ALL_SHARES}", layout.words(), layout.cells());
        assert_eq!(answer, [expected]);
    }
}

#[test]
fn values_and_comparisons_are_those_of_the_rust_side() {
    if compiler().is_none() {
        return;
    }
    for first in [1, 2, MAX - 3, MAX] {
        let first = first.to_string();
        let answer = emulate(&[Path::new("--signals"), Path::new(&first)], &[]);
        let counter =
            SignalCounter::<i32>::starting_at(first.parse().expect("a number")).expect("a value");
        let mut lines = answer.iter();
        let edges = [0, 1, 2, 3, MAX - 1, MAX, MAX + 1, 2 * MAX + 5, u64::MAX];
        for index in edges {
            let value = counter.value(index).get();
            assert_eq!(lines.next(), Some(&format!("{value}")), "index {index}");
        }
        let half = i64::from(i32::MAX) / 2;
        let seen = [
            0,
            1,
            2,
            half - 1,
            half,
            half + 1,
            half + 2,
            i64::from(i32::MAX) - 1,
            i64::from(i32::MAX),
        ];
        for target in seen.into_iter().skip(1) {
            let signal = Signal::<i32>::new(target).expect("a value");
            for seen in seen {
                let expected = u8::from(reached(seen, signal));
                assert_eq!(
                    lines.next(),
                    Some(&expected.to_string()),
                    "{seen} for {target}"
                );
            }
        }
        assert_eq!(lines.next(), None);
    }
}

/// A rank's tiles, owner and index, in the order in which it makes them, see `Rounds` in `tile.h`; `order` as `--rounds` takes it. Each comes
/// once, and before a peer's tile only own ones of smaller indices: that keeps ranks from waiting in a ring.
fn tiles_in_order(world: usize, share: usize, order: &[usize], me: usize) -> Vec<(usize, usize)> {
    let asked = [&[world, share], order, &[me]].concat();
    let asked: Vec<_> = asked.iter().map(usize::to_string).collect();
    let asked: Vec<_> = std::iter::once("--rounds")
        .chain(asked.iter().map(String::as_str))
        .map(Path::new)
        .collect();
    let made: Vec<(usize, usize)> = emulate(&asked, &[])
        .iter()
        .map(|line| {
            let (rank, index) = line.split_once(' ').expect("two numbers");
            let number = |text: &str| text.parse().expect("a number");
            (number(rank), number(index))
        })
        .collect();
    let shown = format!("{world} ranks of {share} tiles, {order:?}, rank {me}");
    let mut all = made.clone();
    all.sort_unstable();
    let whole = (0..world).flat_map(|rank| (0..share).map(move |index| (rank, index)));
    assert!(all.into_iter().eq(whole), "{shown}");
    let mut own = 0;
    for &(rank, index) in &made {
        if rank == me {
            assert_eq!(index, own, "{shown}");
            own += 1;
        } else {
            assert!(index >= own, "{shown}");
        }
    }
    made
}

#[test]
fn before_a_peers_tile_come_own_ones_of_smaller_indices() {
    if compiler().is_none() {
        return;
    }
    for (world, share) in [
        (1, 5),
        (2, 0),
        (2, 7),
        (3, 4),
        (3, 8),
        (4, 9),
        (4, 512),
        (8, 300),
    ] {
        for me in 0..world {
            tiles_in_order(world, share, &[], me);
            for [height, lag] in [[1, 0], [1, 3], [3, 1], [4, 2], [32, 1], [64, 9]] {
                tiles_in_order(world, share, &[height, lag], me);
            }
        }
    }
}

/// By turns, an own tile of these sizes is more steps behind the peers' of its index than there are blocks, or behind all of them; and all
/// blocks have as many own tiles, but for two.
#[test]
fn own_tiles_come_behind_the_peers() {
    if compiler().is_none() {
        return;
    }
    let sizes = [
        (2, 0, 4),
        (1, 5, 3),
        (2, 100, 132),
        (2, 1024, 132),
        (3, 8, 4),
        (3, 1, 132),
        (4, 9, 11),
        (4, 40, 132),
        (4, 64, 132),
        (4, 512, 132),
        (8, 64, 5),
        (8, 300, 78),
    ];
    for (world, share, blocks) in sizes {
        for me in 0..world {
            let made = tiles_in_order(world, share, &[blocks], me);
            if world == 1 {
                continue;
            }
            let shown = format!("{world} ranks of {share} tiles, {blocks} blocks, rank {me}");
            let of_peers = made.iter().filter(|&&(rank, _)| rank != me).count();
            let mut peers = 0;
            let mut peers_of = vec![0; share];
            for (step, &(rank, index)) in made.iter().enumerate() {
                if rank == me {
                    let behind = step - peers_of[index];
                    assert!(behind > blocks || peers == of_peers, "{shown}");
                } else {
                    peers += 1;
                    peers_of[index] = step;
                }
            }
            let owns = |block: usize| {
                let steps = made.iter().skip(block).step_by(blocks);
                steps.filter(|&&(rank, _)| rank == me).count()
            };
            let owns: Vec<_> = (0..blocks).map(owns).collect();
            let (least, most) = (owns.iter().min(), owns.iter().max());
            assert!(
                most <= least.map(|least| least + 2).as_ref(),
                "{owns:?} of {shown}"
            );
        }
    }
}

/// Runs one case of `op` on all kinds of its kernels.
fn run(op: &str, case: &str) -> Vec<String> {
    if compiler().is_none() {
        return Vec::new();
    }
    kinds(program_of(op), MAX)
        .into_iter()
        .flat_map(|kernel| {
            let line = format!("{} {case}", kernel.describe);
            emulate(&[&kernel.path], &[line])
        })
        .collect()
}

/// Operations that tell of tiles by words, by the tiles themselves, and of parts of A.
const OPS: [&str; 4] = [
    "two_shot",
    "one_shot_packets",
    "two_shot_packets",
    "all_gather_matmul_rows",
];

#[test]
fn a_call_with_other_rows_than_a_peer_is_a_fault_that_says_so() {
    for op in OPS {
        for result in run(op, "world=3 m=9,9,9 n=20 k=9 other_m=1,1 budget_ms=2000") {
            assert!(result.starts_with("fault call 1"), "{op}: {result}");
            assert!(
                result.contains("mismatch m 9 here, 10 there")
                    || result.contains("mismatch m 10 here, 9 there"),
                "{op}: {result}"
            );
        }
    }
}

#[test]
fn a_rank_that_stops_ends_its_peers_within_their_budget() {
    for op in OPS {
        for result in run(op, "world=3 m=9,9,9 n=20 k=9 dead=2,1 budget_ms=500") {
            assert!(
                result.starts_with("fault call 1 (value 2), rank"),
                "{op}: {result}"
            );
            assert!(
                result.contains("budget ended, at `") && result.contains("of rank 2"),
                "{op}: {result}"
            );
        }
    }
}

#[test]
fn calls_lap_the_smallest_ring_while_ranks_stall() {
    if compiler().is_none() {
        return;
    }
    for kernel in Program::ALL
        .into_iter()
        .flat_map(|program| kinds(program, 7))
    {
        // 22 calls: three laps. Sizes that vary, fewer rows than ranks among them; each phase stalled once.
        let lines: Vec<_> = Phase::ALL
            .into_iter()
            .enumerate()
            .map(|(number, phase)| {
                format!(
                    "{} world=3 m=40,1,70,2,1,3,99,1,2,40,3,1,1,70,5,1,2,3,40,1,2,70 n=34 k=7 bias=1 first={} seed={number} \
                     blocks=2,1,3 budget_ms=60000 bounced={} stall={},{},{},20",
                    kernel.describe,
                    1 + number % 7,
                    number % 2,
                    number % 3,
                    number % 9 + 2,
                    phase as u64,
                )
            })
            .collect();
        for (line, result) in lines.iter().zip(emulate(&[&kernel.path], &lines)) {
            assert_eq!(result, "ok", "{line}");
        }
    }
}

/// `auto` mixes two-shot calls with one-shot ones of few rows on one workspace.
#[test]
fn a_lap_of_small_calls_between_two_large_ones() {
    if compiler().is_none() {
        return;
    }
    for few in [
        Program::OneShot,
        Program::OneShotPackets,
        Program::TwoShotPackets,
    ] {
        for [large, small] in kinds_of_two([Program::TwoShot, few], 7) {
            // Calls 0, 7 and 14 have the same value. Rank 0 comes late to the tiles that it owns in one of them: whether a peer knows
            // that they are not there yet is in a word that nobody has awaited for a lap.
            let lines: Vec<_> = [(7, 0), (14, 1), (14, 0)]
                .into_iter()
                .map(|(stalled, bounced)| {
                    format!(
                        "{} op_of_few={} few=5 world=3 m=70,1,2,3,4,5,1,70,5,4,3,2,1,5,99,2,70 n=34 k=7 first={} blocks=2,1,3 \
                         budget_ms=60000 bounced={bounced} stall=0,{stalled},{},400",
                        large.describe,
                        op_of(few),
                        1 + stalled % 5,
                        Phase::Read as u64,
                    )
                })
                .collect();
            for (line, result) in lines
                .iter()
                .zip(emulate(&[&large.path, &small.path], &lines))
            {
                assert_eq!(result, "ok", "{line}");
            }
        }
    }
}

#[test]
fn a_kernel_of_ones_own_exchanges_around_a_ring() {
    if compiler().is_none() {
        return;
    }
    for (target, dtype) in [(&TARGETS[0], "f32"), (&TARGETS[2], "bf16")] {
        let kernel = kernel("../tests/emulator/ring_all_reduce", target, dtype, MAX);
        let lines: Vec<_> = (1..=4)
            .map(|world| {
                format!(
                    "{} world={world} m=5,40,1,33 n=45 k={world} given=1 blocks={world} budget_ms=60000",
                    target.describe("ring_all_reduce", dtype)
                )
            })
            .collect();
        for (line, result) in lines.iter().zip(emulate(&[&kernel], &lines)) {
            assert_eq!(result, "ok", "{line}");
        }
    }
}

/// A reduce-scatter hands few rows on in packets, by tiles of all of them, and many in staging, by tiles of each owner's. An all-gather hands on few
/// rows of A in packets, and gathers many in staging.
#[test]
fn few_rows_between_many() {
    if compiler().is_none() {
        return;
    }
    let gathers = Program::AllGatherMatmul(GatherDim::Rows);
    let programs = [
        [Program::ReduceScatter, Program::ReduceScatterPackets],
        [gathers, Program::AllGatherMatmulPackets],
    ];
    for (programs, [many, few]) in programs.into_iter().flat_map(|programs| {
        kinds_of_two(programs, 7)
            .into_iter()
            .map(move |kinds| (programs, kinds))
    }) {
        let lines: Vec<_> = [2_u64, 3, 4]
            .into_iter()
            .map(|world| {
                format!(
                    "{} op_of_few={} few=20 world={world} m=70,20,2,19,1,5,1,70,33,4,20,2,1,5,99,7,70 n=34 k=7 bias=1 first={} \
                     seed={world} blocks=2,1,3 budget_ms=60000 stall={},{},{},200",
                    many.describe,
                    op_of(programs[1]),
                    1 + world,
                    world - 1,
                    3 + world,
                    Phase::Ready as u64,
                )
            })
            .collect();
        for (line, result) in lines.iter().zip(emulate(&[&many.path, &few.path], &lines)) {
            assert_eq!(result, "ok", "{line}");
        }
    }
}

/// Packets that stand for two laps, since the calls between have fewer rows, or go in staging, are not taken for those of a late rank.
#[test]
fn packets_of_two_laps_ago_are_not_believed() {
    if compiler().is_none() {
        return;
    }
    for programs in [
        [Program::TwoShot, Program::OneShotPackets],
        [Program::TwoShot, Program::TwoShotPackets],
        [Program::ReduceScatter, Program::ReduceScatterPackets],
        [
            Program::AllGatherMatmul(GatherDim::Rows),
            Program::AllGatherMatmulPackets,
        ],
    ] {
        for [many, few] in kinds_of_two(programs, 7) {
            // Late with all of its packets, or with the second part of each chunk.
            let late = [Phase::Gate, Phase::Ready];
            let lines: Vec<_> = [3, 70]
                .into_iter()
                .flat_map(|between| [1, 2, 4].map(|first| (between, first)))
                .flat_map(|(between, first)| late.map(|phase| (between, first, phase)))
                .map(|(between, first, phase)| {
                    let between = format!(",{between}").repeat(13);
                    format!(
                        "{} op_of_few={} few=20 world=2 m=20{between},20 n=34 k=9 first={first} seed={first} blocks=3,1 \
                         budget_ms=60000 stall=1,14,{},300",
                        many.describe,
                        op_of(programs[1]),
                        phase as u64,
                    )
                })
                .collect();
            for (line, result) in lines.iter().zip(emulate(&[&many.path, &few.path], &lines)) {
                assert_eq!(result, "ok", "{line}");
            }
        }
    }
}

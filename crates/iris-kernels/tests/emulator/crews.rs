//! Hopper's kernels, whose blocks consist of crews, with the emulator's copies, barriers and matrix instructions in place of Hopper's.

use crate::cases::{MAX, lines};
use crate::compile::{compiler, emulate, emulate_to_the_end};
use crate::kinds::{Kernel, OfCrews, beside_crews, has_crews, of_wide_waves, op_of, plain};
use iris_kernels::device::fast::Crews;
use iris_kernels::host::{GatherDim, Program};
use iris_kernels::{DType, Tile};
use iris_sync::Phase;

/// Runs a program with tiles of two sizes on all shapes.
fn check(program: Program, tiles: [(usize, usize); 2]) {
    if compiler().is_none() {
        return;
    }
    for (tile, dtype) in tiles.into_iter().zip([DType::BF16, DType::F16]) {
        let kernel = OfCrews::new(program, tile, dtype, MAX).compile();
        let lines = lines(&kernel.describe, op_of(program));
        let results = emulate(&[&kernel.path], &lines);
        assert_eq!(lines.len(), results.len());
        for (line, result) in lines.iter().zip(&results) {
            assert_eq!(result, "ok", "{line}");
        }
    }
}

#[test]
fn one_shot() {
    check(Program::OneShot, [(64, 128), (128, 64)]);
}

#[test]
fn one_shot_packets() {
    check(Program::OneShotPackets, [(64, 64), (64, 192)]);
}

#[test]
fn two_shot() {
    check(Program::TwoShot, [(64, 64), (128, 192)]);
}

#[test]
fn two_shot_packets() {
    check(Program::TwoShotPackets, [(64, 64), (128, 64)]);
}

#[test]
fn matmul_reduce_scatter() {
    check(Program::ReduceScatter, [(64, 128), (128, 128)]);
}

#[test]
fn matmul_reduce_scatter_packets() {
    check(Program::ReduceScatterPackets, [(64, 64), (128, 256)]);
}

#[test]
fn all_gather_matmul_of_rows() {
    check(
        Program::AllGatherMatmul(GatherDim::Rows),
        [(64, 64), (128, 128)],
    );
}

#[test]
fn all_gather_matmul_of_columns() {
    check(
        Program::AllGatherMatmul(GatherDim::Columns),
        [(64, 64), (128, 64)],
    );
}

#[test]
fn all_gather_matmul_packets() {
    check(Program::AllGatherMatmulPackets, [(64, 64), (64, 128)]);
}

#[test]
fn matmul_all_gather() {
    check(Program::MatmulAllGather, [(64, 256), (128, 128)]);
}

/// Few rows that are deep, in calls of which some block of some rank begins late: so the parts of A that it sends come late. And in calls that
/// a rank begins late which has no rows: so all that it waits for is there.
pub(crate) fn late_parts(columns: bool) -> Vec<String> {
    let mut cases = vec!["world=3 m=2,2,2 n=130 k=1100 blocks=4 user=2,0,150".to_owned()];
    for slow in 0..4 {
        let slow = format!("blocks=4 slow=1,1,{slow},150");
        cases.push(format!("world=3 m=9,9,9 n=130 k=1100 {slow}"));
        if columns {
            // Parts that end where slabs that are waited for together do; and tiles of some rows of each part.
            cases.push(format!("world=3 m=9,9,9 n=130 k=1536 {slow}"));
            cases.push(format!("world=2 m=140,140 n=130 k=1024 {slow}"));
        }
    }
    cases
}

/// More rows than blocks make tiles of at once, of which some come late, and later than it takes to come to their tiles: a tile is made while
/// those of the next are under way.
pub(crate) fn late_rows() -> Vec<String> {
    let many = "m=520,520,520 n=260 k=300 blocks=2";
    let ready = Phase::Ready as u64;
    vec![
        // All of a rank's, behind those of another one.
        format!("world=3 {many} stall=2,1,{ready},300"),
        // A single piece, the last but four of 80, of rows that are not the first to be waited for; of tiles so deep that they do not fit into the ring.
        "world=2 m=256,256 n=260 k=1100 blocks=2,80 slow=1,1,4,300".to_owned(),
        format!("world=2 {many} slow=1,1,1,300"),
    ]
}

/// So deep that slabs go round the ring some times; and more tiles than blocks, that follow each other soon.
pub(crate) fn deep(op: &str) -> Vec<String> {
    let more = if op.ends_with("packets") { "" } else { ",200" };
    vec![
        format!("world=2 m=70,20{more} n=130 k=2600 blocks=2 bias=1"),
        format!("world=3 m=70,20{more} n=260 k=1900 blocks=1,2"),
        format!("world=2 m=70,20{more} n=600 k=20 blocks=1"),
    ]
}

/// Tiles that are shared by blocks where they can be: few and many for the blocks, deep and not, fewer slabs than blocks, and calls of all
/// heights in turn.
pub(crate) fn streamed() -> Vec<String> {
    [
        ("world=1 m=250,1,64,33,250", "n=100 k=1000 blocks=9"),
        ("world=1 m=250,40,161", "n=33 k=1000 blocks=24"),
        ("world=1 m=256,96", "n=64 k=65 blocks=40"),
        ("world=2 m=250,1,64,96,33,256", "n=330 k=1000 blocks=8,13"),
        ("world=2 m=500,70,70", "n=100 k=600 blocks=11"),
        ("world=2 m=500,70,500", "n=300 k=600 blocks=11"),
        ("world=2 m=250,70,250", "n=60 k=20 blocks=13,24"),
        ("world=3 m=400,9,200", "n=200 k=130 blocks=13,9"),
        ("world=3 m=450,30,450", "n=3 k=1 blocks=8,9"),
    ]
    .map(|(rows, rest)| format!("{rows} {rest} streamed=1 bias=1"))
    .to_vec()
}

/// The same of few rows, of which a tile has more than in those cases.
pub(crate) fn few_streamed() -> Vec<String> {
    [
        "world=1 m=16,3,9,16 n=100 k=1000 blocks=9",
        "world=2 m=16,1,16,5 n=330 k=2000 blocks=8,13",
        "world=3 m=2,16,11 n=700 k=900 blocks=13,9",
    ]
    .map(|case| format!("{case} streamed=1 bias=1"))
    .to_vec()
}

/// Streamed tiles of depths of which some come late: whoever sends them begins late.
pub(crate) fn late_depths() -> Vec<String> {
    let of = |blocks, slow| {
        format!("world=2 m=64,64,64 n=330 k=1000 blocks={blocks} streamed=1 slow={slow},150")
    };
    [3, 2, 1, 0]
        .map(|block| of("8,13", format!("0,1,{block}")))
        .into_iter()
        // Of a stint that is not a block's first the last depths come after the others.
        .chain([of("5,13", "1,1,0".to_owned())])
        .collect()
}

/// One tile that 24 blocks share, of those whose slabs have one box; and one of the last of them is late.
pub(crate) fn shared_by_many() -> Vec<String> {
    [20, 23, 18]
        .map(|late| {
            format!("world=1 m=40,33,40 n=33 k=2000 blocks=24 streamed=1 slow=0,1,{late},300")
        })
        .to_vec()
}

/// All cases one after the other, the first with this seed.
pub(crate) fn run(kernel: &Kernel, cases: &[String], seed: usize) -> Vec<String> {
    run_for(kernel, cases, seed, 3000)
}

/// The same where nothing is to fail: however slow the machine is.
pub(crate) fn run_patiently(kernel: &Kernel, cases: &[String], seed: usize) -> Vec<String> {
    run_for(kernel, cases, seed, 60_000)
}

fn run_for(kernel: &Kernel, cases: &[String], seed: usize, budget_ms: u64) -> Vec<String> {
    let describe = &kernel.describe;
    let lines: Vec<_> = cases
        .iter()
        .zip(seed..)
        .map(|(case, seed)| format!("{describe} {case} seed={seed} budget_ms={budget_ms}"))
        .collect();
    emulate_to_the_end(&[&kernel.path], &lines)
}

/// The tiles whose blocks go in pairs.
const HIGH: Tile = Tile { m: 128, n: 64 };

const GATHERS: [Program; 2] = [
    Program::AllGatherMatmul(GatherDim::Rows),
    Program::AllGatherMatmul(GatherDim::Columns),
];

#[test]
fn parts_of_a_may_come_late() {
    if compiler().is_none() {
        return;
    }
    for program in GATHERS {
        let crews = OfCrews::new(program, (64, 64), DType::BF16, MAX).compile();
        let portable = [plain(program, "bf16", MAX), of_wide_waves(program, None)];
        // Portable ones take longer here.
        for (kernel, each) in portable.into_iter().zip([3, 3]).chain([(crews, 1)]) {
            let rows = (program == GATHERS[0]).then(late_rows);
            let cases: Vec<_> = late_parts(program == GATHERS[1])
                .into_iter()
                .chain(rows.into_iter().flatten())
                .step_by(each)
                .collect();
            for (case, result) in cases.iter().zip(run_patiently(&kernel, &cases, 1)) {
                assert_eq!(result, "ok", "{} {case}", kernel.describe);
            }
        }
    }
}

#[test]
fn slabs_go_round_the_ring() {
    if compiler().is_none() {
        return;
    }
    for program in Program::ALL.into_iter().filter(|&it| has_crews(it)) {
        let kernel = OfCrews::new(program, (64, 64), DType::BF16, MAX).compile();
        let cases = deep(op_of(program));
        for (case, result) in cases.iter().zip(run_patiently(&kernel, &cases, 1)) {
            assert_eq!(result, "ok", "{} {case}", op_of(program));
        }
    }
}

/// A block that begins in the midst of a tile, and goes on with the next, needs depths of A that it did not wait for at first.
#[test]
fn depths_after_a_streamed_tiles_first_are_waited_for() {
    if compiler().is_none() {
        return;
    }
    let kernel = OfCrews::new(GATHERS[0], (64, 64), DType::BF16, MAX).compile();
    let cases = late_depths();
    for (case, result) in cases.iter().zip(run_patiently(&kernel, &cases, 1)) {
        assert_eq!(result, "ok", "{case}");
    }
}

#[test]
fn tiles_are_streamed() {
    if compiler().is_none() {
        return;
    }
    let programs = GATHERS.into_iter().chain([Program::AllGatherMatmulPackets]);
    // What a block leaves comes in one stage of the ring, in two, in one.
    for (program, tile) in programs.zip([(64, 64), (128, 128), (64, 64)]) {
        let kernel = OfCrews::new(program, tile, DType::BF16, MAX).compile();
        let mut cases = streamed();
        if program == Program::AllGatherMatmulPackets {
            cases.extend(few_streamed());
        }
        if program == GATHERS[1] {
            cases.extend(shared_by_many());
        }
        for (case, result) in cases.iter().zip(run_patiently(&kernel, &cases, 1)) {
            assert_eq!(result, "ok", "{} {case}", op_of(program));
        }
    }
}

/// Blocks in pairs: as many tiles as blocks or fewer, also of an odd number; more of them, that follow each other; and depth of which the second of a pair
/// has less than the first, or nothing.
pub(crate) fn in_pairs(m: u32) -> Vec<String> {
    let few = m / 3;
    [
        (format!("world=1 m={m},1,{few}"), "n=200 k=300 blocks=2,4"),
        (format!("world=2 m={m},{few},{m}"), "n=330 k=700 blocks=2"),
        (format!("world=2 m={few},{m},1"), "n=130 k=40 blocks=4,2"),
        (
            format!("world=3 m={m},2,{few},{m}"),
            "n=600 k=1300 blocks=2,4,6",
        ),
        (format!("world=4 m={m},1,{m}"), "n=300 k=2 blocks=2"),
    ]
    .into_iter()
    .flat_map(|(rows, rest)| [0, 1].map(|bias| format!("{rows} {rest} bias={bias}")))
    .collect()
}

/// Of some pair one block begins late.
pub(crate) fn late_partners() -> Vec<String> {
    [0, 1]
        .map(|block| format!("world=1 m=64,64 n=130 k=300 blocks=2 slow=0,0,{block},300"))
        .to_vec()
}

/// The programs whose blocks may go in pairs.
fn pairing() -> impl Iterator<Item = Program> {
    let may = |&program: &Program| has_crews(program) && Crews::may_pair(Some(program), HIGH, 1);
    Program::ALL.into_iter().filter(may)
}

#[test]
fn blocks_go_in_pairs() {
    if compiler().is_none() {
        return;
    }
    for program in pairing() {
        let kernel = OfCrews::paired(program, (64, 64)).compile();
        let cases = [in_pairs(64), late_partners()].concat();
        for (case, result) in cases.iter().zip(run_patiently(&kernel, &cases, 1)) {
            assert_eq!(result, "ok", "{} {case}", op_of(program));
        }
    }
    // With two warpgroups, as it is done.
    let kernel = OfCrews::paired(GATHERS[0], (HIGH.m, HIGH.n)).compile();
    let cases = in_pairs(128);
    for (case, result) in cases.iter().zip(run_patiently(&kernel, &cases, 1)) {
        assert_eq!(result, "ok", "{case}");
    }
}

/// A rank that ends calls no more: the others leave, and no block waits for its partner in vain.
#[test]
fn pairs_leave_a_call_that_a_peer_does_not_make() {
    if compiler().is_none() {
        return;
    }
    for program in pairing() {
        let kernel = OfCrews::paired(program, (64, 64)).compile();
        let dead = ["blocks=2", "blocks=4"]
            .map(|blocks| format!("world=2 m=64,64,64 n=330 k=700 {blocks} dead=1,1"));
        for (case, result) in dead.iter().zip(run(&kernel, &dead, 1)) {
            let leaves = result.starts_with("fault call 1");
            assert!(leaves, "{} {case}: {result}", op_of(program));
        }
    }
}

/// So many rows that ranks have rows of tiles of their own, which they begin with, while the others' come from one rank after the other.
#[test]
fn a_goes_to_one_peer_after_the_other() {
    if compiler().is_none() {
        return;
    }
    let kernel = OfCrews::new(GATHERS[0], (64, 64), DType::BF16, MAX).compile();
    let cases: Vec<_> = [(3, 900), (4, 1100), (4, 1000)]
        .into_iter()
        .map(|(world, rows)| {
            format!(
                "world={world} m={rows},20,{rows} n={} k=40 blocks=3,2",
                20 * world
            )
        })
        .collect();
    for (case, result) in cases.iter().zip(run_patiently(&kernel, &cases, 1)) {
        assert_eq!(result, "ok", "{case}");
    }
}

/// Ranks whose operands lie as copies want them work with ranks whose operands do not, which run the portable kernel.
#[test]
fn crews_work_with_portable_kernels_of_other_ranks() {
    if compiler().is_none() {
        return;
    }
    for program in Program::ALL.into_iter().filter(|&it| has_crews(it)) {
        let kernel = OfCrews::new(program, (64, 64), DType::BF16, MAX).compile();
        let (portable, threads) = beside_crews(program);
        let describe = format!("{} budget_ms=60000", kernel.describe);
        let lines: Vec<_> = lines(&describe, op_of(program))
            .into_iter()
            .filter(|line| line.contains(" world=2 ") || line.contains(" world=3 "))
            .zip(0..)
            .map(|(line, number)| format!("{line} portable={},{threads}", number % 2))
            .collect();
        let results = emulate(&[&kernel.path, &portable], &lines);
        for (line, result) in lines.iter().zip(&results) {
            assert_eq!(result, "ok", "{line}");
        }
    }
}

//! Tables of what was measured, as operations take them.

use iris_heap::{World, WorldConfig};
use iris_ops::tuning::{Machine, Tuning, TuningError, TuningRow};
use iris_ops::{
    AllGatherMatmul, DType, FusedConfig, GatherDim, MatmulAllReduce, MatmulReduceScatter, OpError,
    Plan, Tile, Variant,
};
use iris_testkit::{Exercise, Op};
use std::sync::Arc;

const M: usize = 200;
const N: usize = 48;
const K: usize = 64;
const RANKS: usize = 3;

fn row(m: usize, variant: Variant, tile: Option<[usize; 2]>) -> TuningRow {
    TuningRow {
        device: "host".to_owned(),
        ranks: RANKS,
        op: "matmul_all_reduce",
        gather: None,
        dtype: DType::F32,
        compiler: "another".to_owned(),
        m,
        n: N,
        k: K,
        variant,
        packets: false,
        tile: tile.map(|[m, n]| Tile { m, n }),
        fused: true,
        streamed: None,
        us: 1.0,
    }
}

fn plan(variant: Variant, tile: [usize; 2]) -> Plan {
    let [m, n] = tile;
    Plan {
        variant,
        tile: Tile { m, n },
        fused: true,
    }
}

/// What each rank that creates an all-reduce with its own configuration gets: its plans for so many rows.
fn plans(
    config: impl Fn(usize) -> FusedConfig + Sync,
    rows: &[usize],
) -> Vec<Result<Vec<Plan>, OpError>> {
    World::threads(RANKS, &WorldConfig::default(), |world| {
        let op = MatmulAllReduce::<f32>::new(&world, config(world.rank()))?;
        Ok::<_, OpError>(rows.iter().map(|&m| op.plan(m).unwrap()).collect())
    })
    .unwrap()
}

fn config() -> FusedConfig {
    // Whatever the user's own table says.
    FusedConfig::new(M, N, K).tuning(Arc::default())
}

fn table() -> Arc<Tuning> {
    Arc::new(Tuning::new([
        row(16, Variant::TwoShot, Some([8, 16])),
        row(100, Variant::OneShot, Some([24, 40])),
    ]))
}

#[test]
fn a_table_decides_how_calls_are_carried_out() {
    let rows = [1, 16, 17, 100, 101];
    let untuned = plans(|_| config(), &rows);
    for of_rank in plans(|_| config().tuning(table()), &rows) {
        let found = of_rank.unwrap();
        let small = plan(Variant::TwoShot, [8, 16]);
        let large = plan(Variant::OneShot, [24, 40]);
        assert_eq!(found[..4], [small, small, large, large]);
        // Beyond one-shot's largest, as without a table.
        assert_eq!(found[4], untuned[0].as_ref().unwrap()[4]);
        assert_ne!(found[..1], untuned[0].as_ref().unwrap()[..1]);
    }
    let two_shot = Arc::new(Tuning::new([row(16, Variant::TwoShot, Some([8, 16]))]));
    // What else is said of most rows holds for four times as many.
    for of_rank in plans(|_| config().tuning(Arc::clone(&two_shot)), &[64, 65]) {
        let found = of_rank.unwrap();
        assert_eq!(found[0], plan(Variant::TwoShot, [8, 16]));
        assert_ne!(found[1], found[0]);
    }
}

#[test]
fn what_is_asked_for_goes_before_a_table() {
    let rows = [1, M];
    let of = |config: FusedConfig| -> Vec<Plan> {
        let mut all = plans(|_| config.clone(), &rows);
        all.pop().unwrap().unwrap()
    };
    for asked in [
        config().tuned(false),
        config().variant(Variant::OneShot),
        config().tile(Tile { m: 32, n: 16 }),
    ] {
        let tuned = asked.clone().tuning(table());
        assert_eq!(of(tuned), of(asked.clone()), "{asked:?}");
    }
}

#[test]
fn rank_0s_table_counts_for_all() {
    let other = Arc::new(Tuning::new([row(M, Variant::OneShot, Some([40, 8]))]));
    // The others' tables are of another mind, or would be refused.
    let wrong = Arc::new(Tuning::new([TuningRow {
        packets: true,
        ..row(M, Variant::OneShot, None)
    }]));
    let tables = [table(), other, wrong];
    let found = plans(
        |rank| config().tuning(Arc::clone(&tables[rank])),
        &[16, 100],
    );
    for of_rank in found {
        let expected = [
            plan(Variant::TwoShot, [8, 16]),
            plan(Variant::OneShot, [24, 40]),
        ];
        assert_eq!(of_rank.unwrap(), expected);
    }
}

#[test]
fn a_row_that_the_backend_cannot_do_is_an_error_on_all_ranks() {
    let wrong = Arc::new(Tuning::new([
        row(1, Variant::TwoShot, None),
        TuningRow {
            packets: true,
            ..row(M, Variant::OneShot, None)
        },
    ]));
    let found = plans(|_| config().tuning(Arc::clone(&wrong)), &[1]);
    for (rank, error) in found.into_iter().enumerate() {
        let error = error.unwrap_err();
        let says = "the table given, line 2: `packets` is true, and must be false";
        assert!(error.to_string().contains(says), "rank {rank}: {error}");
        let own = matches!(&error, OpError::Tuning(TuningError::Field { line: 2, .. }));
        assert_eq!(own, rank == 0, "{error:?}");
    }
    // Where it is not asked for, it does no harm.
    let found = plans(|_| config().packets(false).tuning(Arc::clone(&wrong)), &[1]);
    assert!(found.into_iter().all(|plans| plans.is_ok()));
}

#[test]
fn ranks_that_differ_in_whether_they_ask_hear_of_it() {
    let found = plans(|rank| config().tuned(rank != 1).tuning(table()), &[1]);
    for error in found {
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("tuned") && error.contains("rank 1"),
            "{error}"
        );
    }
}

#[test]
fn other_operations_have_rows_of_their_own() {
    let of = |op, gather, tile| TuningRow {
        op,
        gather,
        variant: Variant::Auto,
        ..row(16, Variant::Auto, Some(tile))
    };
    let table = Arc::new(Tuning::new([
        row(16, Variant::OneShot, Some([8, 8])),
        of("matmul_reduce_scatter", None, [16, 8]),
        of("all_gather_matmul", Some(GatherDim::Rows), [24, 8]),
        of("all_gather_matmul", Some(GatherDim::Columns), [32, 8]),
    ]));
    let config = config().tuning(table);
    let tiles = World::threads(RANKS, &WorldConfig::default(), |world| {
        let scatter = MatmulReduceScatter::<f32>::new(&world, config.clone())?;
        let rows = AllGatherMatmul::<f32>::new(&world, config.clone())?;
        let columns = config.clone().gather(GatherDim::Columns);
        let columns = AllGatherMatmul::<f32>::new(&world, columns)?;
        Ok::<_, OpError>(
            [scatter.plan(16), rows.plan(16), columns.plan(16)].map(|plan| plan.unwrap().tile.m),
        )
    });
    for of_rank in tiles.unwrap() {
        assert_eq!(of_rank.unwrap(), [16, 24, 32]);
    }
}

/// A product and the operation on what it has left, among calls that are fused, with a bias and without, on ranks without rows or depth.
#[test]
fn calls_that_are_not_fused_come_out_right() {
    for (op, name, variants) in [
        (
            Op::AllReduce(Variant::Auto),
            "matmul_all_reduce",
            [Variant::OneShot, Variant::TwoShot],
        ),
        (
            Op::ReduceScatter,
            "matmul_reduce_scatter",
            [Variant::Auto; 2],
        ),
        (Op::MatmulAllGather, "matmul_all_gather", [Variant::Auto; 2]),
    ] {
        for (n, k) in [(N, K), (17, 2)] {
            let of = |m, variant, fused| TuningRow {
                op: name,
                n,
                k,
                fused,
                ..row(m, variant, Some([16, 8]))
            };
            let table = Arc::new(Tuning::new([
                of(2, variants[0], false),
                of(20, variants[1], true),
                of(60, variants[0], false),
                of(M, variants[1], false),
            ]));
            let calls = [1, 200, 7, 60, 2, 20, 61, 3, 199, 21].repeat(2);
            let tile = Tile { m: 8, n: 8 };
            let mut exercise = Exercise::new(op, (n, k), tile, calls);
            exercise.config.tile = None;
            exercise.config = exercise.config.tuning(table);
            for bias in [false, true] {
                exercise.config.bias = bias;
                exercise.strided = bias;
                let ran = World::threads(RANKS, &WorldConfig::default(), |world| {
                    let made = iris_testkit::AnyOperation::<f32>::new(
                        op,
                        &world,
                        exercise.config.clone(),
                    )?;
                    let fused = [2, 20, 60, M].map(|m| made.plan(m).map(|plan| plan.fused));
                    assert_eq!(fused, [Some(false), Some(true), Some(false), Some(false)]);
                    made.free()?;
                    exercise.run::<f32, i32>(&world)?;
                    exercise.run::<half::bf16, i8>(&world)
                });
                for of_rank in ran.unwrap() {
                    of_rank.unwrap();
                }
            }
        }
    }
}

#[test]
fn what_rows_are_of_can_be_asked() {
    let machines = World::threads(2, &WorldConfig::default(), |world| {
        Machine::of::<f32, i32, _>(&world)
    });
    for machine in machines.unwrap() {
        assert_eq!(machine.device, "host");
        assert!(machine.compiler.starts_with("iris "), "{machine:?}");
    }
}

/// Steps of a table follow one another in any order: a slow rank is in one while a fast one is in the next.
#[test]
fn calls_that_a_table_decides_come_out_right() {
    let rows = [
        (7, Variant::OneShot, Some([16, 24])),
        (20, Variant::TwoShot, Some([8, 40])),
        (60, Variant::OneShot, None),
        (M, Variant::TwoShot, Some([40, 16])),
    ];
    let table = Tuning::new(rows.map(|(m, variant, tile)| row(m, variant, tile)));
    let calls = [1, 200, 7, 60, 8, 20, 61, 3, 199, 21].repeat(3);
    let tile = Tile { m: 8, n: 8 };
    let mut exercise = Exercise::new(Op::AllReduce(Variant::Auto), (N, K), tile, calls);
    exercise.config.tile = None;
    exercise.config = exercise.config.tuning(Arc::new(table));
    let ran = World::threads(RANKS, &WorldConfig::default(), |world| {
        exercise.run::<f32, i32>(&world)
    });
    let hashes: Vec<_> = ran.unwrap().into_iter().map(Result::unwrap).collect();
    assert!(hashes.iter().all(|&hash| hash == hashes[0]), "{hashes:?}");
}

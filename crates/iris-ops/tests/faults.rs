//! Ranks that stop, die, disagree: everybody is told, soon, and names the same culprit.

use iris_heap::{Buffer, Stream, World, WorldConfig, WorldError};
use iris_ops::{
    FusedConfig, MatmulAllGather, MatmulAllReduce, MatmulReduceScatter, MatrixMut, MatrixRef,
    OpError, Tile, Variant, shard,
};
use iris_testkit::{ChosenStall, Failure, Op, worlds};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BUDGET: Duration = Duration::from_millis(400);
/// From the end of the budget, or a death, until all ranks have returned.
const SOON: Duration = Duration::from_secs(2);

const N: usize = 6;
const K: usize = 8;
const M: usize = 5;

fn config() -> WorldConfig {
    WorldConfig {
        heap_bytes: 4 << 20,
        timeout: Duration::from_secs(20),
    }
}

fn fused() -> FusedConfig {
    FusedConfig::new(M, N, K)
        .variant(Variant::TwoShot)
        .tile(Tile { m: 2, n: 2 })
        .budget(BUDGET)
}

/// A rank with an operation and its operands.
struct Rig {
    op: MatmulAllReduce<f32>,
    a: Buffer<f32>,
    b: Buffer<f32>,
    c: Buffer<f32>,
    depth: usize,
}

impl Rig {
    fn new(world: &World, config: FusedConfig) -> Result<Self, Failure> {
        let depth = shard(K, world.size(), world.rank()).len();
        let a = world.buffer(M * depth);
        let b = world.buffer(depth * N);
        a.fill(world.rank() as f32 + 1.0);
        b.fill(0.5);
        Ok(Self {
            op: MatmulAllReduce::new(world, config)?,
            a,
            b,
            c: world.symmetric_buffer(M * N)?,
            depth,
        })
    }

    /// Enqueues calls of the given rows; the first error, at once or when all have run.
    fn calls(
        &mut self,
        stream: &Stream,
        rows: impl IntoIterator<Item = usize>,
    ) -> Result<(), OpError> {
        let mut bound = self.op.bind(stream)?;
        let mut result = Ok(());
        for m in rows {
            result = bound.call(
                m,
                MatrixRef::new(&self.a, m, self.depth),
                MatrixRef::new(&self.b, self.depth, N),
                None,
                MatrixMut::new(&self.c, m, N),
            );
            if result.is_err() {
                break;
            }
        }
        drop(bound);
        stream.synchronize()?;
        result
    }

    /// The value of every element, where all are right.
    fn expected(world: usize) -> f32 {
        (0..world)
            .map(|rank| shard(K, world, rank).len() as f32 * (rank as f32 + 1.0) * 0.5)
            .sum()
    }
}

/// The message of a fault that came soon enough.
fn fault(result: Result<(), OpError>, since: Instant, within: Duration) -> Result<String, Failure> {
    let took = since.elapsed();
    let error = match result {
        Ok(()) => return Err("no fault".into()),
        Err(error) => error,
    };
    if took > within {
        return Err(format!("{error} took {took:?}").into());
    }
    Ok(error.to_string())
}

fn all_say_the_same(said: &[String]) -> &str {
    assert!(said.iter().all(|text| *text == said[0]), "{said:#?}");
    &said[0]
}

/// Rank 1 makes 3 calls and stops; the others queue more. What they say names rank 1, and it is told, too, when it calls again.
fn a_rank_stops_calling(world: &World, queued: usize) -> Result<String, Failure> {
    let mut rig = Rig::new(world, fused())?;
    let stream = Stream::new(world)?;
    let own = world.rank() == 1;
    rig.calls(&stream, [M; 3])?;
    let begun = Instant::now();
    if own {
        world.barrier()?; // the others have given up
    }
    let said = fault(rig.calls(&stream, vec![M; queued]), begun, BUDGET + SOON)?;
    if !own {
        world.barrier()?;
    }
    // It works again after a reset of all.
    rig.op.reset()?;
    rig.calls(&stream, [2, M, 1, M])?;
    let right = Rig::expected(world.size());
    if rig.c.read().iter().any(|&value| value != right) {
        return Err(format!("after the reset: {:?}, not {right}", rig.c.read()).into());
    }
    Ok(said)
}

fn names_rank_1(said: &[String]) {
    let text = all_say_the_same(said);
    assert!(
        text.starts_with("rank 1 stopped calling after 3 calls: rank "),
        "{text}"
    );
    for part in [
        "matmul_all_reduce, call 3 (value 4)",
        "of rank 1",
        "expected 4, seen 3",
    ] {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

#[test]
fn a_thread_that_stops_calling_is_named_by_all() {
    let said = worlds::threads(4, &config(), |world| a_rank_stops_calling(world, 5)).unwrap();
    names_rank_1(&said);
}

#[test]
fn ten_thousand_queued_calls_end_within_one_budget() {
    let said = worlds::threads(3, &config(), |world| a_rank_stops_calling(world, 10_000)).unwrap();
    names_rank_1(&said);
}

#[test]
fn a_process_that_stops_calling_is_named_by_all() {
    let test = "a_process_that_stops_calling_is_named_by_all";
    let said = worlds::processes(test, 3, &config(), |world| {
        a_rank_stops_calling(world, 10_000)
    });
    names_rank_1(&said.unwrap());
}

/// Rank `victim`'s process is killed while it is in a call. What the others say begins with the same words.
fn killed_in_a_call(test: &str, victim: usize) -> Vec<String> {
    let ended = worlds::processes_ended(test, 3, &config(), |world| {
        // The victim is held up in its call, far longer than it lives; the others' budget is far longer, too.
        let stall = ChosenStall {
            ranks: vec![victim],
            calls: vec![7],
            phases: vec![iris_sync::Phase::Ready],
            tiles: vec![],
            duration: Duration::from_secs(30),
        };
        let mut rig = Rig::new(
            world,
            fused()
                .budget(Duration::from_secs(20))
                .probe(Arc::new(stall)),
        )?;
        let stream = Stream::new(world)?;
        let lives = Duration::from_millis(500);
        if world.rank() == victim {
            std::thread::spawn(move || {
                std::thread::sleep(lives);
                // SIGKILL: no destructor runs, nothing is said.
                let own = rustix::process::getpid();
                let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            });
        }
        let begun = Instant::now();
        let result = rig.calls(&stream, vec![M; 10_000]);
        fault(result, begun, lives + SOON)
    })
    .unwrap();
    assert!(!ended[victim].status.success());
    let others = ended.iter().enumerate().filter(|&(rank, _)| rank != victim);
    let said: Vec<_> = others
        .map(|(_, ended)| ended.said.clone().unwrap())
        .collect();
    for text in &said {
        assert!(
            text.starts_with(&format!("rank {victim} died: rank ")),
            "{text}"
        );
    }
    said
}

#[test]
fn a_process_killed_in_a_call_is_named_by_all() {
    all_say_the_same(&killed_in_a_call(
        "a_process_killed_in_a_call_is_named_by_all",
        2,
    ));
}

/// With rank 0 ends what the verdicts are agreed through: each rank tells what it waited for itself.
#[test]
fn so_is_the_process_of_rank_0() {
    killed_in_a_call("so_is_the_process_of_rank_0", 0);
}

#[test]
fn a_rank_that_panics_is_named_by_the_others() {
    let said = std::sync::Mutex::new(Vec::new());
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        World::threads(3, &config(), |world| {
            let mut rig = Rig::new(&world, fused().budget(Duration::from_secs(20))).unwrap();
            let stream = Stream::new(&world).unwrap();
            rig.calls(&stream, [M; 2]).unwrap();
            assert!(world.rank() != 2, "on purpose");
            let begun = Instant::now();
            let text = fault(rig.calls(&stream, [M; 4]), begun, SOON).unwrap();
            said.lock().unwrap().push(text);
        })
    }));
    assert!(outcome.is_err());
    let said = said.into_inner().unwrap();
    assert_eq!(said.len(), 2);
    assert!(
        all_say_the_same(&said).starts_with("rank 2 died: "),
        "{said:?}"
    );
}

#[test]
fn a_rank_stalled_in_a_call_is_named_and_not_those_that_wait_for_each_other() {
    let said = worlds::threads(4, &config(), |world| {
        let stall = ChosenStall {
            ranks: vec![3],
            calls: vec![5],
            phases: vec![iris_sync::Phase::Gate],
            tiles: vec![],
            duration: BUDGET + Duration::from_millis(1200),
        };
        let mut rig = Rig::new(world, fused().probe(Arc::new(stall)))?;
        let stream = Stream::new(world)?;
        let begun = Instant::now();
        fault(rig.calls(&stream, [M; 9]), begun, BUDGET + SOON)
    })
    .unwrap();
    let text = all_say_the_same(&said);
    assert!(
        text.starts_with("rank 3 is still at work in call 5: "),
        "{text}"
    );
}

#[test]
fn different_rows_are_a_fault_that_names_the_field() {
    for victim in 0..3 {
        for op in Op::ALL {
            let said = worlds::threads(3, &config(), |world| {
                let mut operation = iris_testkit::AnyOperation::<f32>::new(
                    op,
                    world,
                    FusedConfig::new(M, N, 2)
                        .plain_output(true)
                        .tile(Tile { m: 2, n: 2 })
                        .budget(BUDGET),
                )?;
                let stream = Stream::new(world)?;
                let mut bound = operation.bind(&stream)?;
                let m = if world.rank() == victim { M - 1 } else { M };
                let tile = Tile { m: 1, n: 1 };
                let shape = iris_kernels::host::Shape { n: N, k: 2, tile };
                let parts = op.program().parts(m, shape, world.size(), world.rank());
                let sizes =
                    [&parts.a, &parts.b, &parts.c].map(|(rows, cols)| (rows.len(), cols.len()));
                let [a, b, c] = sizes.map(|(rows, cols)| world.buffer::<f32>(rows * cols));
                let begun = Instant::now();
                let result = bound.call(
                    m,
                    MatrixRef::new(&a, sizes[0].0, sizes[0].1),
                    MatrixRef::new(&b, sizes[1].0, sizes[1].1),
                    None,
                    MatrixMut::new(&c, sizes[2].0, sizes[2].1),
                );
                result?;
                // A rank that only sends may be through before the others have found it out; its next call tells it.
                let mut result = stream.synchronize().map_err(OpError::from);
                world.barrier()?;
                if result.is_ok() {
                    result = bound.call(
                        m,
                        MatrixRef::new(&a, sizes[0].0, sizes[0].1),
                        MatrixRef::new(&b, sizes[1].0, sizes[1].1),
                        None,
                        MatrixMut::new(&c, sizes[2].0, sizes[2].1),
                    );
                    if result.is_ok() {
                        result = stream.synchronize().map_err(OpError::from);
                    }
                }
                fault(result, begun, BUDGET + SOON)
            })
            .unwrap();
            let text = all_say_the_same(&said);
            assert!(text.starts_with("field `m` differs in "), "{op}: {text}");
            assert!(
                text.contains(&format!("{} on rank {victim}", M - 1)),
                "{op}: {text}"
            );
        }
    }
}

#[test]
fn parameters_that_differ_are_named_with_their_rank_on_all_ranks() {
    type Change = fn(FusedConfig) -> FusedConfig;
    let cases: [(&str, Change); 8] = [
        ("field `m` is 9 on rank 1", |c| FusedConfig { m: 9, ..c }),
        ("field `n` is 9 on rank 1", |c| FusedConfig { n: 9, ..c }),
        ("field `k` is 0 on rank 1", |c| FusedConfig { k: 0, ..c }),
        ("field `bias` is true on rank 1", |c| c.bias(true)),
        ("field `variant` is atomic on rank 1", |c| {
            c.variant(Variant::Atomic)
        }),
        ("field `tile` is 1x2 on rank 1", |c| {
            c.tile(Tile { m: 1, n: 2 })
        }),
        ("field `first` is 7 on rank 1", |c| c.first(7)),
        ("field `budget` is 1s on rank 1", |c| {
            c.budget(Duration::from_secs(1))
        }),
    ];
    worlds::threads(3, &config(), |world| {
        for (expected, change) in cases {
            let config = if world.rank() == 1 {
                change(fused())
            } else {
                fused()
            };
            let error = MatmulAllReduce::<f32>::new(world, config)
                .err()
                .ok_or("no error")?;
            if !error.to_string().contains(expected) {
                return Err(format!("no `{expected}` in: {error}").into());
            }
        }
        let error = if world.rank() == 1 {
            MatmulAllReduce::<half::f16>::new(world, fused())
                .err()
                .map(|error| error.to_string())
        } else {
            MatmulAllReduce::<f32>::new(world, fused())
                .err()
                .map(|error| error.to_string())
        };
        let error = error.ok_or("no error")?;
        if !error.contains("field `dtype` is f16 on rank 1") {
            return Err(error.into());
        }
        // The world is as good as before.
        Rig::new(world, fused())?;
        Ok(String::new())
    })
    .unwrap();
}

#[test]
fn unusable_parameters_are_errors_on_all_ranks() {
    worlds::threads(2, &config(), |world| {
        let new = |config| MatmulAllReduce::<f32, i8>::new(world, config).map(drop);
        let huge = usize::MAX / 2;
        assert!(matches!(
            new(FusedConfig::new(0, 1, 1)),
            Err(OpError::Empty { field: "m", .. })
        ));
        assert!(matches!(
            new(FusedConfig::new(1, 1, 0)),
            Err(OpError::Empty { field: "k", .. })
        ));
        assert!(matches!(
            new(FusedConfig::new(1, 1, 1).tile(Tile { m: 0, n: 1 })),
            Err(OpError::Empty {
                field: "tile.m",
                ..
            })
        ));
        assert!(matches!(
            new(FusedConfig::new(huge, 3, 1)),
            Err(OpError::TooLarge { .. })
        ));
        assert!(matches!(
            new(FusedConfig::new(1 << 40, 1 << 30, 1)),
            Err(OpError::TooLarge { .. })
        ));
        assert!(matches!(
            new(FusedConfig::new(1, 1, 1).first(128)),
            Err(OpError::FirstValue {
                first: 128,
                max: 127,
                ..
            })
        ));
        assert!(matches!(
            MatmulReduceScatter::<f32>::new(world, fused()),
            Err(OpError::NoSuchVariant { .. })
        ));
        // The message says how much is needed.
        match new(FusedConfig::new(4096, 4096, 1)) {
            Err(OpError::World(WorldError::HeapFull { needed, heap, .. })) => {
                assert!(needed > 4096 * 4096 * 4 && heap == 4 << 20);
            }
            other => return Err(format!("{other:?}").into()),
        }
        Ok(String::new())
    })
    .unwrap();
}

#[test]
fn bad_operands_are_errors_before_anything_is_enqueued() {
    worlds::threads(2, &config(), |world| {
        let mut rig = Rig::new(world, fused())?;
        let stream = Stream::new(world)?;
        let other = world.buffer::<f32>(1000);
        let bias = world.buffer::<f32>(N);
        let depth = rig.depth;
        let mut bound = rig.op.bind(&stream)?;
        let a = MatrixRef::new(&rig.a, M, depth);
        let b = MatrixRef::new(&rig.b, depth, N);
        let c = MatrixMut::new(&rig.c, M, N);
        assert!(matches!(
            bound.call(0, a, b, None, c),
            Err(OpError::Rows { m: 0, .. })
        ));
        assert!(matches!(
            bound.call(M + 1, a, b, None, c),
            Err(OpError::Rows { largest: M, .. })
        ));
        assert!(matches!(
            bound.call(M - 1, a, b, None, c),
            Err(OpError::Shape {
                tensor: "c",
                expected_rows: 4,
                ..
            })
        ));
        assert!(matches!(
            bound.call(M, a, a, None, c),
            Err(OpError::Shape { tensor: "b", .. })
        ));
        assert!(matches!(
            bound.call(M, MatrixRef::strided(&other, 0, M, depth, 2, 2), b, None, c),
            Err(OpError::Strides { tensor: "a", .. })
        ));
        assert!(matches!(
            bound.call(M, a, b, None, MatrixMut::strided(&rig.c, 0, M, N, N - 1)),
            Err(OpError::Strides { tensor: "c", .. })
        ));
        assert!(matches!(
            bound.call(
                M,
                MatrixRef::strided(&rig.a, 1, M, depth, depth, 1),
                b,
                None,
                c
            ),
            Err(OpError::OutOfBuffer { tensor: "a", .. })
        ));
        assert!(matches!(
            bound.call(
                M,
                MatrixRef::strided(&rig.a, 0, M, depth, usize::MAX, 1),
                b,
                None,
                c
            ),
            Err(OpError::OutOfBuffer { tensor: "a", .. })
        ));
        assert!(matches!(
            bound.call(
                M,
                MatrixRef::strided(&rig.c, 0, M, depth, depth, 1),
                b,
                None,
                c
            ),
            Err(OpError::Aliased { tensor: "a", .. })
        ));
        assert!(matches!(
            bound.call(M, a, b, Some(&bias), c),
            Err(OpError::Bias { .. })
        ));
        assert!(matches!(
            bound.call(M, a, b, None, MatrixMut::new(&other, M, N)),
            Err(OpError::PlainOutput { .. })
        ));
        bound.call(M, a, b, None, c)?;
        drop(bound);
        stream.synchronize()?;
        assert!(rig.c.read().iter().all(|&value| value == Rig::expected(2)));

        // One after the other on two streams, where the second waits for the first.
        let second = Stream::new(world)?;
        for stream in [&stream, &second, &stream, &second] {
            let mut bound = rig.op.bind(stream)?;
            for _ in 0..20 {
                bound.call(M, a, b, None, c)?;
            }
        }
        stream.synchronize()?;
        second.synchronize()?;
        assert_eq!(rig.op.workspace().index().unwrap(), 81);

        let mut gather = MatmulAllGather::<f32>::new(world, FusedConfig::new(M, N, K))?;
        let mut streams = World::of_threads(1, &config())?;
        let foreign = Stream::new(&streams.remove(0))?;
        if world.rank() == 1 {
            assert!(matches!(
                gather.bind(&foreign),
                Err(OpError::ForeignStream { .. })
            ));
        }
        Ok(String::new())
    })
    .unwrap();
}

#[test]
fn freed_memory_is_used_again_and_works() {
    worlds::threads(3, &config(), |world| {
        let stream = Stream::new(world)?;
        for round in 0..40 {
            let mut rig = Rig::new(world, fused().first(1 + round))?;
            rig.calls(&stream, [M, 1, M])?;
            assert!(rig.c.read().iter().all(|&value| value == Rig::expected(3)));
            rig.op.free()?;
            world.free_buffer(rig.c)?;
        }
        Ok(String::new())
    })
    .unwrap();
}

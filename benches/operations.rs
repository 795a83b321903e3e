//! What the operations cost at 2 ranks, call after call; and what it costs to enqueue a call.
//!
//! Ranks are threads. `iris bench OP` compares with the product and the collective one after the other; this is for looking at
//! one thing again and again.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use iris::heap::{Stream, World, WorldConfig};
use iris::kernels::host::{Parts, Shape};
use iris::ops::{FusedConfig, GatherDim, MatrixMut, MatrixRef, OpError, Tile, Variant};
use iris_testkit::{AnyOperation, Op};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const RANKS: usize = 2;

/// (M, N, K) of a decoding step, and of a prompt of some length.
const SIZES: [(usize, usize, usize); 2] = [(8, 256, 256), (256, 512, 1024)];

const OPERATIONS: [Op; 8] = [
    Op::AllReduce(Variant::OneShot),
    Op::AllReduce(Variant::TwoShot),
    Op::AllReduce(Variant::Atomic),
    Op::AllReduce(Variant::Spinlock),
    Op::ReduceScatter,
    Op::AllGatherMatmul(GatherDim::Rows),
    Op::AllGatherMatmul(GatherDim::Columns),
    Op::MatmulAllGather,
];

/// Makes `op` on each of `ranks` ranks, and returns what `measure` says on rank 0 of calling it.
fn on_all(
    ranks: usize,
    op: Op,
    (m, n, k): (usize, usize, usize),
    measure: impl Fn(
        &World,
        &Stream,
        &mut dyn FnMut() -> Result<(), OpError>,
    ) -> Result<Duration, OpError>
    + Sync,
) -> Duration {
    let rank = |world: World| {
        let tile = Tile { m: 1, n: 1 };
        let Parts { a, b, c } =
            op.program()
                .parts(m, Shape { n, k, tile }, world.size(), world.rank());
        let size =
            |part: &(std::ops::Range<usize>, std::ops::Range<usize>)| (part.0.len(), part.1.len());
        let ((a_rows, a_cols), (b_rows, b_cols), (c_rows, c_cols)) = (size(&a), size(&b), size(&c));
        let (a, b) = (
            world.buffer::<f32>(a_rows * a_cols),
            world.buffer::<f32>(b_rows * b_cols),
        );
        a.fill(0.5);
        b.fill(0.25);
        // Where outputs must be symmetric, they are alike on all ranks; elsewhere they need not be.
        let c = if op.stores_to_peers() {
            world.symmetric_buffer::<f32>(c_rows * c_cols)?
        } else {
            world.buffer::<f32>(c_rows * c_cols)
        };
        let mut operation = AnyOperation::<f32>::new(op, &world, FusedConfig::new(m, n, k))?;
        let stream = Stream::new(&world)?;
        let mut bound = operation.bind(&stream)?;
        let mut call = || {
            let (a, b) = (
                MatrixRef::new(&a, a_rows, a_cols),
                MatrixRef::new(&b, b_rows, b_cols),
            );
            bound.call(m, a, b, None, MatrixMut::new(&c, c_rows, c_cols))
        };
        measure(&world, &stream, &mut call)
    };
    let config = WorldConfig {
        heap_bytes: 64 << 20,
        ..WorldConfig::default()
    };
    let took = World::threads(ranks, &config, rank).expect("a world of threads");
    let took: Result<Vec<_>, OpError> = took.into_iter().collect();
    took.expect("all ranks take part")[0]
}

/// Back-to-back calls, from the first enqueued to the last that has run.
fn calls(criterion: &mut Criterion) {
    for (m, n, k) in SIZES {
        let mut group = criterion.benchmark_group(format!("call/{m}x{n}x{k}"));
        group.throughput(Throughput::Elements((2 * m * n * k) as u64)); // floating-point operations
        for op in OPERATIONS {
            group.bench_function(BenchmarkId::from_parameter(op), |bencher| {
                bencher.iter_custom(|times| {
                    on_all(RANKS, op, (m, n, k), |world, stream, call| {
                        call()?; // touches all memory
                        stream.synchronize()?;
                        world.barrier()?;
                        let start = Instant::now();
                        for _ in 0..times {
                            call()?;
                        }
                        stream.synchronize()?;
                        Ok(start.elapsed())
                    })
                });
            });
        }
        group.finish();
    }
}

/// What the caller pays for a call: checks and enqueueing, while the stream is at work on something else.
fn enqueue(criterion: &mut Criterion) {
    const BATCH: u64 = 512; // fewer than a stream holds
    criterion.bench_function("enqueue", |bencher| {
        bencher.iter_custom(|times| {
            on_all(1, Op::ReduceScatter, (1, 1, 1), |_, stream, call| {
                let mut took = Duration::ZERO;
                let mut left = times;
                while left > 0 {
                    let batch = left.min(BATCH);
                    let (open, gate) = mpsc::channel::<()>();
                    // Ends when `open` is dropped.
                    stream.host_fn(move || gate.iter().for_each(drop));
                    let start = Instant::now();
                    for _ in 0..batch {
                        call()?;
                    }
                    took += start.elapsed();
                    drop(open);
                    stream.synchronize()?;
                    left -= batch;
                }
                Ok(took)
            })
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = calls, enqueue
}
criterion_main!(benches);

//! What the fused operations cost on GPUs, call after call: one rank a GPU, bf16, by device time.
//!
//! Measured as `iris tune` and `iris bench` measure them: captured graphs of many calls, on random operands that take turns, the slowest rank's
//! time, with results held against exact sums before and after. `iris bench OP` compares with the vendor's product and collective; this is
//! for looking at one thing again and again. `IRIS_BENCH_RANKS` says how many ranks, if not as many as there are GPUs.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use iris::heap::cuda::Cuda;
use iris::heap::device::{Device, DeviceConfig, RankStream, Stream};
use iris::heap::{World, WorldConfig};
use iris::ops::{DType, FusedConfig, GatherDim, Variant};
use iris_measure::ours::{Fused, SAMPLES};
use iris_measure::{Alone, Case, Effort, Operation, Storage, Trial};
use iris_testkit::{Op, skipped};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Rows of the whole problem.
const ROWS: [usize; 3] = [16, 512, 8192];
/// Columns and depth of one rank's product.
const COLUMNS: usize = 8192;
const DEPTH: usize = 3584;
/// Room for what is symmetric, of the largest of these on up to 16 ranks.
const HEAP_BYTES: usize = 4 << 30;
const SEED: u64 = 1;
/// How long ranks, and whoever asks them, wait for each other: kernels may have to be compiled.
const PATIENCE: Duration = Duration::from_secs(180);

const OPERATIONS: [(Op, Operation); 3] = [
    (Op::AllReduce(Variant::Auto), Operation::MatmulAllReduce),
    (Op::ReduceScatter, Operation::MatmulReduceScatter),
    (
        Op::AllGatherMatmul(GatherDim::Rows),
        Operation::AllGatherMatmulRows,
    ),
];

/// The whole problem of `ranks` ranks of which each multiplies `m` rows by what is said above.
fn case(operation: Operation, m: usize, ranks: usize) -> Case {
    let (n, k) = match operation.gathers_first() {
        true => (COLUMNS * ranks, DEPTH),
        false => (COLUMNS, DEPTH * ranks),
    };
    Case {
        operation,
        m,
        n,
        k,
        dtype: DType::BF16,
        b: Storage::Rows,
        tf32: false,
    }
}

/// Ranks, each a thread with a GPU, that time one operation as often as they are asked to.
struct Session {
    /// To each rank, over how many calls.
    orders: Vec<Sender<u64>>,
    /// From each, its microseconds a call.
    times: Receiver<f64>,
    ranks: Option<JoinHandle<Result<(), String>>>,
}

impl Session {
    fn start(op: Op, case: Case, ranks: usize) -> Self {
        let (orders, ordered): (Vec<_>, Vec<_>) = (0..ranks).map(|_| channel()).unzip();
        let ordered = Mutex::new(ordered.into_iter().map(Some).collect::<Vec<_>>());
        let (answer, times) = channel();
        let ranks = thread::spawn(move || {
            let config = WorldConfig {
                heap_bytes: 1 << 20,
                timeout: PATIENCE,
            };
            let each = World::threads(ranks, &config, |world| {
                let own = ordered.lock().map(|mut all| all[world.rank()].take());
                let orders = own.ok().flatten().ok_or("a rank of its own")?;
                rank(&world, op, case, &orders, &answer).map_err(|error| format!("{error:#}"))
            });
            each.map_err(|error| error.to_string())?
                .into_iter()
                .collect()
        });
        Self {
            orders,
            times,
            ranks: Some(ranks),
        }
    }

    /// How long so many calls take.
    fn time(&mut self, calls: u64) -> Duration {
        let mut slowest = 0.0f64;
        for order in &self.orders {
            // A rank that has ended says why below.
            let _ = order.send(calls);
        }
        for _ in 0..self.orders.len() {
            match self.times.recv_timeout(PATIENCE) {
                Ok(us) => slowest = slowest.max(us),
                Err(_) => {
                    self.end();
                    panic!("a rank has ended, or does not answer");
                }
            }
        }
        Duration::from_secs_f64(slowest * 1e-6 * calls as f64)
    }

    /// Ends it, and all with it if a result was wrong, before or after, or a rank has failed.
    fn end(&mut self) {
        self.orders.clear();
        if let Some(ranks) = self.ranks.take() {
            let ended = ranks.join().expect("no rank panics");
            ended.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// One rank: measures until nobody asks any more.
fn rank(
    world: &World,
    op: Op,
    case: Case,
    orders: &Receiver<u64>,
    answer: &Sender<f64>,
) -> anyhow::Result<()> {
    let config = DeviceConfig {
        heap_bytes: HEAP_BYTES,
        ..DeviceConfig::default()
    };
    let on_devices = world.on::<Cuda>(&config)?;
    let stream = Stream::new(on_devices.device())?;
    let alone = Alone::new(world, &stream, case.dtype)?;
    let trial = Trial::new(&alone, case, SEED)?;
    let (plan, operands) = (trial.plan(), trial.operands());
    let samples = [0, operands.sets() - 1].map(|set| trial.samples(set, SAMPLES));
    let config = FusedConfig::new(case.m, case.n, case.k);
    let samples = samples.into();
    // SAFETY: the trial's operands, of its plan, which outlives this; its stream is the only one.
    let mut fused =
        unsafe { Fused::<bf16>::new(&on_devices, plan, operands, samples, op, config) }?;
    // SAFETY: the stream outlives this.
    let on_stream = unsafe { RankStream::foreign(&on_devices, stream.raw()) }?;
    trial.measure(
        &mut fused.on(&on_stream),
        Effort::default(),
        |clock, captured| {
            for calls in orders {
                // Where nobody listens any more, the next order does not come.
                let _ = answer.send(clock.measure_calls(captured, calls)?);
            }
            Ok(())
        },
    )?;
    drop(on_stream);
    Ok(fused.free()?)
}

/// As many ranks as there are GPUs, or as are wanted.
fn ranks() -> Option<usize> {
    let count = match Device::<Cuda>::count() {
        Ok(count) if count > 0 => count,
        Ok(_) => {
            skipped("benches on GPUs", "no GPU is visible");
            return None;
        }
        Err(error) => {
            skipped("benches on GPUs", error);
            return None;
        }
    };
    let wanted = std::env::var("IRIS_BENCH_RANKS").ok();
    Some(wanted.map_or(count, |wanted| {
        let ranks = wanted.parse().expect("IRIS_BENCH_RANKS is a number");
        assert!(
            (1..=count).contains(&ranks),
            "IRIS_BENCH_RANKS is {ranks}, and there are {count} GPUs"
        );
        ranks
    }))
}

fn calls(criterion: &mut Criterion) {
    let Some(ranks) = ranks() else {
        return;
    };
    for m in ROWS {
        let mut group = criterion.benchmark_group(format!("{ranks} GPUs, {m}x{COLUMNS}x{DEPTH}"));
        // A rank's floating-point operations.
        group.throughput(Throughput::Elements((2 * m * COLUMNS * DEPTH) as u64));
        for (op, operation) in OPERATIONS {
            // Started where it is wanted, and kept from sample to sample.
            let mut session = None;
            group.bench_function(BenchmarkId::from_parameter(op), |bencher| {
                let case = case(operation, m, ranks);
                let session = session.get_or_insert_with(|| Session::start(op, case, ranks));
                bencher.iter_custom(|calls| session.time(calls));
            });
            if let Some(mut session) = session {
                session.end();
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    targets = calls
}
criterion_main!(benches);

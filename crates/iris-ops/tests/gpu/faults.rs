//! Ranks that do not call, call otherwise, or die: everybody returns in time, and names the same culprit.

use crate::support::{GpuWorld, config, devices, gpus, threads};
use iris_heap::cuda::Cuda;
use iris_heap::device::RankStream;
use iris_heap::{Buffer, Reason, StreamError, Verdict};
use iris_ops::{FusedConfig, MatmulAllReduce, MatrixMut, MatrixRef, OpError, Variant, shard};
use iris_testkit::Failure;
use std::sync::Arc;
use std::time::{Duration, Instant};

const M: usize = 30;
const N: usize = 150;
const K: usize = 64;
const BUDGET: Duration = Duration::from_millis(700);
/// Beyond the budget of the first who waits: the inquiry, and all that is needed to leave.
const GRACE: Duration = Duration::from_secs(2);

struct Rig {
    op: MatmulAllReduce<f32, i32, Cuda>,
    a: Buffer<f32, Cuda>,
    b: Buffer<f32, Cuda>,
    c: Buffer<f32, Cuda>,
    depth: usize,
}

impl Rig {
    fn new(world: &GpuWorld, variant: Variant) -> Result<Self, Failure> {
        let depth = shard(K, world.size(), world.rank()).len();
        let config = FusedConfig::new(M, N, K).variant(variant).budget(BUDGET);
        let rig = Self {
            op: MatmulAllReduce::new(world, config)?,
            a: world.plain_buffer(M * depth)?,
            b: world.plain_buffer(depth * N)?,
            c: world.symmetric_buffer(M * N)?,
            depth,
        };
        rig.a.upload(0, &vec![1.0; M * depth])?;
        rig.b.upload(0, &vec![2.0; depth * N])?;
        Ok(rig)
    }

    fn calls(&mut self, stream: &RankStream<Cuda>, rows: &[usize]) -> Result<(), OpError> {
        let mut bound = self.op.bind(stream)?;
        for &m in rows {
            let a = MatrixRef::new(&self.a, m, self.depth);
            let b = MatrixRef::new(&self.b, self.depth, N);
            bound.call(m, a, b, None, MatrixMut::new(&self.c, m, N))?;
        }
        Ok(())
    }

    fn right(&self) -> Result<bool, Failure> {
        Ok(self.c.download()?.iter().all(|&sum| sum == 2.0 * K as f32))
    }
}

fn verdict(result: Result<(), StreamError>) -> Arc<Verdict> {
    match result {
        Err(StreamError::Fault(verdict)) => verdict,
        other => panic!("a fault was expected, not {other:?}"),
    }
}

const VARIANTS: [Variant; 4] = [
    Variant::OneShot,
    Variant::TwoShot,
    Variant::Atomic,
    Variant::Spinlock,
];

/// Rank 1 stops calling after three calls; later the operation is reset and works again.
#[test]
fn a_rank_that_stops_calling_is_named_by_all_and_a_reset_repairs_it() {
    let gpus = gpus("stops calling");
    if gpus == 0 {
        return;
    }
    for variant in VARIANTS {
        let results = threads(gpus.max(2), gpus, 64 << 20, |world| {
            let mut rig = Rig::new(world, variant)?;
            let stream = RankStream::new(world)?;
            rig.calls(&stream, &[M, 1, M])?;
            stream.synchronize()?;
            assert!(rig.right()?);
            world.barrier()?;
            let from = Instant::now();
            let said = if world.rank() == 1 {
                None
            } else {
                // Many calls are queued behind the one that faults, and end with it.
                rig.calls(&stream, &[M; 300])?;
                let verdict = verdict(stream.synchronize());
                assert!(from.elapsed() < BUDGET + GRACE, "{:?}", from.elapsed());
                let again = rig.calls(&stream, &[M]).unwrap_err();
                assert!(matches!(again, OpError::Fault(_)), "{again}");
                Some(verdict.to_string())
            };
            world.barrier()?;
            rig.op.reset()?;
            assert_eq!(rig.op.workspace().index()?, 0);
            rig.c.upload(0, &vec![f32::NAN; M * N])?;
            world.barrier()?;
            rig.calls(&stream, &[M, 2, M])?;
            stream.synchronize()?;
            assert!(rig.right()?, "after the reset");
            rig.op.free()?;
            world.free_buffer(rig.c)?;
            Ok(said)
        });
        let said: Vec<_> = results.into_iter().filter_map(Result::unwrap).collect();
        println!("{variant}: {}", said[0]);
        assert!(
            said.iter()
                .all(|verdict| verdict.contains("rank 1 stopped calling after 3 calls")),
            "{said:?}"
        );
    }
}

#[test]
fn different_rows_are_a_fault_that_names_the_field() {
    let gpus = gpus("different rows");
    if gpus == 0 {
        return;
    }
    let results = threads(gpus.max(2), gpus, 64 << 20, |world| {
        let mut rig = Rig::new(world, Variant::TwoShot)?;
        let stream = RankStream::new(world)?;
        let m = if world.rank() == 1 { M - 1 } else { M };
        rig.calls(&stream, &[M, m])?;
        let verdict = verdict(stream.synchronize());
        assert!(
            matches!(verdict.reason, Reason::Mismatch { .. }),
            "{verdict}"
        );
        world.barrier()?;
        Ok(verdict.to_string())
    });
    let said: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert!(said[0].contains("field `m` differs"), "{}", said[0]);
    assert!(said.iter().all(|verdict| *verdict == said[0]), "{said:?}");
}

/// A process is killed while its peers wait for it in a kernel: they leave at once, long before their budget ends.
#[test]
fn a_process_killed_in_a_call_is_named_by_all() {
    let gpus = gpus("killed");
    if gpus == 0 {
        return;
    }
    let ranks = gpus.clamp(2, 8);
    let test = "faults::a_process_killed_in_a_call_is_named_by_all";
    let ended = iris_testkit::worlds::processes_ended(test, ranks, &config(), |world| {
        let world = world.on::<Cuda>(&devices(64 << 20, ranks, gpus))?;
        let depth = shard(K, world.size(), world.rank()).len();
        let config = FusedConfig::new(M, N, K)
            .variant(Variant::TwoShot)
            .budget(Duration::from_secs(60));
        let mut op = MatmulAllReduce::<f32, i32, Cuda>::new(&world, config)?;
        let a = world.plain_buffer(M * depth)?;
        let b = world.plain_buffer(depth * N)?;
        let c = world.symmetric_buffer(M * N)?;
        let stream = RankStream::new(&world)?;
        let mut bound = op.bind(&stream)?;
        world.barrier()?;
        if world.rank() == 1 {
            std::thread::sleep(Duration::from_millis(300));
            std::process::abort();
        }
        let (a, b) = (MatrixRef::new(&a, M, depth), MatrixRef::new(&b, depth, N));
        for _ in 0..50 {
            bound.call(M, a, b, None, MatrixMut::new(&c, M, N))?;
        }
        let from = Instant::now();
        let verdict = verdict(stream.synchronize());
        assert!(
            from.elapsed() < Duration::from_millis(300) + GRACE,
            "{:?}",
            from.elapsed()
        );
        Ok(verdict.to_string())
    })
    .unwrap();
    for (rank, ended) in ended.iter().enumerate() {
        if rank == 1 {
            assert!(!ended.status.success());
        } else {
            let said = ended.said.as_ref().unwrap();
            assert!(said.contains("rank 1 died"), "{said}");
        }
    }
}

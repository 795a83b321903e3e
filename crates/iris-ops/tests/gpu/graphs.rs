//! Calls captured in graphs.

use crate::support::{GpuWorld, budget, threads};
use iris_heap::cuda::Cuda;
use iris_heap::device::RankStream;
use iris_heap::{Buffer, StreamError};
use iris_ops::device::{Captured, Launch};
use iris_ops::{
    FusedConfig, MatmulAllReduce, MatmulReduceScatter, MatrixMut, MatrixRef, OpError, Variant,
    shard,
};
use iris_testkit::Failure;
use iris_testkit::device::Gpus;

const M: usize = 40;
const N: usize = 200;
const K: usize = 12;
/// In two of three, a graph is replayed.
const ROUNDS: usize = 1500;

type AllReduce = MatmulAllReduce<f32, i32, Cuda>;
type ReduceScatter = MatmulReduceScatter<f32, i32, Cuda>;

/// One rank's operands: the same depth everywhere, so that the sum of what ranks give is easily told.
struct Rig {
    a: Buffer<f32, Cuda>,
    b: Buffer<f32, Cuda>,
    c: Buffer<f32, Cuda>,
    rows: Buffer<f32, Cuda>,
    depth: usize,
}

impl Rig {
    fn new(world: &GpuWorld) -> Result<Self, Failure> {
        let depth = shard(K, world.size(), world.rank()).len();
        Ok(Self {
            a: world.plain_buffer(M * depth)?,
            b: world.plain_buffer(depth * N)?,
            c: world.symmetric_buffer(M * N)?,
            rows: world.plain_buffer(M.div_ceil(world.size()) * N)?,
            depth,
        })
    }

    /// A is `round` + its rank everywhere, B is its column number mod 7: small integers, whose sums are exact.
    fn fill(&self, world: &GpuWorld, round: usize) -> Result<(), Failure> {
        let value = (round % 50 + world.rank()) as f32;
        self.a.upload(0, &vec![value; M * self.depth])?;
        let row: Vec<f32> = (0..N).map(|col| (col % 7) as f32).collect();
        self.b.upload(0, &row.repeat(self.depth))?;
        self.c.upload(0, &vec![f32::NAN; M * N])?;
        Ok(())
    }

    fn expected(world: &GpuWorld, round: usize, col: usize) -> f32 {
        let sum: usize = (0..world.size())
            .map(|rank| (round % 50 + rank) * shard(K, world.size(), rank).len())
            .sum();
        (sum * (col % 7)) as f32
    }

    fn check(&self, world: &GpuWorld, round: usize, m: usize) -> Result<(), Failure> {
        for (at, value) in self.c.download()?.into_iter().take(m * N).enumerate() {
            let expected = Self::expected(world, round, at % N);
            if value != expected {
                return Err(format!("round {round}, element {at}: {value}, not {expected}").into());
            }
        }
        Ok(())
    }

    fn call(
        &self,
        bound: &mut iris_ops::Bound<'_, f32, i32, Cuda>,
        m: usize,
    ) -> Result<(), OpError> {
        let a = MatrixRef::new(&self.a, m, self.depth);
        let b = MatrixRef::new(&self.b, self.depth, N);
        bound.call(m, a, b, None, MatrixMut::new(&self.c, m, N))
    }
}

fn config() -> FusedConfig {
    let config = FusedConfig::new(M, N, K).budget(budget());
    config.first(i64::from(i32::MAX) - 5)
}

/// Three calls captured once, replayed with changing inputs, mixed with eager calls, two graphs on one workspace.
fn replayed(world: &GpuWorld, variant: Variant) -> Result<(), Failure> {
    let rig = Rig::new(world)?;
    let mut op = AllReduce::new(world, config().variant(variant))?;
    let stream = RankStream::new(world)?;
    let mut bound = op.bind(&stream)?;
    let three = stream.capture(|| [M, 3, M].iter().try_for_each(|&m| rig.call(&mut bound, m)))?;
    let one = stream.capture(|| rig.call(&mut bound, M))?;
    drop(bound);
    assert_eq!(op.workspace().index()?, 0, "capturing is not calling");
    let mut calls = 0;
    for round in 0..ROUNDS {
        rig.fill(world, round)?;
        world.barrier()?;
        match round % 3 {
            0 => {
                three.launch(&stream, &mut [&mut op])?;
                calls += 3;
            }
            1 => {
                one.launch(&stream, &mut [&mut op])?;
                three.launch(&stream, &mut [&mut op])?;
                calls += 4;
            }
            _ => {
                let mut bound = op.bind(&stream)?;
                rig.call(&mut bound, 5)?;
                rig.call(&mut bound, M)?;
                calls += 2;
            }
        }
        stream.synchronize()?;
        rig.check(world, round, M)?;
        world.barrier()?;
    }
    assert_eq!(op.workspace().index()?, calls);
    // Graphs keep their operands.
    drop((three, one));
    op.free()?;
    world.free_buffer(rig.c)?;
    Ok(())
}

#[test]
fn replays_are_right_every_time() {
    let Some(gpus) = Gpus::take("graphs::replays", 1) else {
        return;
    };
    for variant in [
        Variant::OneShot,
        Variant::TwoShot,
        Variant::Atomic,
        Variant::Spinlock,
    ] {
        threads(gpus.devices().len().max(2), &gpus, |world| {
            replayed(world, variant)
        });
    }
}

/// A graph of two operations is launched with both, and with nothing else.
fn with_both(world: &GpuWorld) -> Result<(), Failure> {
    let rig = Rig::new(world)?;
    let mut sum = AllReduce::new(world, config().variant(Variant::TwoShot))?;
    let mut scatter = ReduceScatter::new(world, config())?;
    let mut other = ReduceScatter::new(world, config())?;
    let stream = RankStream::new(world)?;
    let own = shard(M, world.size(), world.rank()).len();
    let graph = {
        let (mut sum, mut scatter) = (sum.bind(&stream)?, scatter.bind(&stream)?);
        stream.capture(|| {
            rig.call(&mut sum, M)?;
            let a = MatrixRef::new(&rig.a, M, rig.depth);
            let b = MatrixRef::new(&rig.b, rig.depth, N);
            scatter.call(M, a, b, None, MatrixMut::new(&rig.rows, own, N))
        })?
    };
    let refused = graph.launch(&stream, &mut [&mut sum]).unwrap_err();
    assert!(
        matches!(refused, OpError::Graph { missing: 1, .. }),
        "{refused}"
    );
    let three: &mut [&mut dyn Captured<Cuda>] = &mut [&mut sum, &mut scatter, &mut other];
    let refused = graph.launch(&stream, three).unwrap_err();
    assert!(
        matches!(refused, OpError::Graph { missing: 0, .. }),
        "{refused}"
    );
    for round in 0..5 {
        rig.fill(world, round)?;
        world.barrier()?;
        graph.launch(&stream, &mut [&mut sum, &mut scatter])?;
        stream.synchronize()?;
        rig.check(world, round, M)?;
        for (at, value) in rig.rows.download()?.into_iter().take(own * N).enumerate() {
            assert_eq!(value, Rig::expected(world, round, at % N));
        }
        world.barrier()?;
    }
    // A capture within a capture is refused, and so is one whose body fails; the stream can be used afterwards.
    let twice = stream.capture(|| stream.capture(|| Ok::<(), StreamError>(())).map(drop));
    assert!(matches!(twice, Err(StreamError::Capturing)), "{twice:?}");
    stream.synchronize()?;
    Ok(())
}

#[test]
fn a_graph_is_launched_with_the_operations_that_it_calls() {
    let Some(gpus) = Gpus::take("graphs::of_two", 1) else {
        return;
    };
    threads(gpus.devices().len().max(2), &gpus, with_both);
}

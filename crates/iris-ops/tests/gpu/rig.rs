//! One rank with `matmul_all_reduce` and its operands, whose every sum is known.

use crate::support::GpuWorld;
use iris_heap::cuda::Cuda;
use iris_heap::device::{CapturedGraph, RankStream};
use iris_heap::{Buffer, StreamError, Verdict};
use iris_ops::{Bound, FusedConfig, MatmulAllReduce, MatrixMut, MatrixRef, OpError, shard};
use iris_testkit::Failure;
use std::sync::Arc;

pub(crate) const M: usize = 30;
pub(crate) const N: usize = 150;
pub(crate) const K: usize = 64;

pub(crate) struct Rig {
    pub(crate) op: MatmulAllReduce<f32, i32, Cuda>,
    pub(crate) operands: Operands,
}

pub(crate) struct Operands {
    pub(crate) a: Buffer<f32, Cuda>,
    pub(crate) b: Buffer<f32, Cuda>,
    pub(crate) c: Buffer<f32, Cuda>,
    depth: usize,
}

/// The operation's parameters but for variant, budget and stall.
pub(crate) fn sizes() -> FusedConfig {
    FusedConfig::new(M, N, K)
}

impl Rig {
    pub(crate) fn new(world: &GpuWorld, config: FusedConfig) -> Result<Self, Failure> {
        let depth = shard(K, world.size(), world.rank()).len();
        let rig = Self {
            op: MatmulAllReduce::new(world, config)?,
            operands: Operands {
                a: world.plain_buffer(M * depth)?,
                b: world.plain_buffer(depth * N)?,
                c: world.symmetric_buffer(M * N)?,
                depth,
            },
        };
        // Row i of the result is 3 i + 2, times K, plus what the ranks are, times their depths.
        let a = |row: usize| (3 * row + 2 + world.rank()) as f32;
        let a: Vec<f32> = (0..M * depth).map(|at| a(at / depth.max(1))).collect();
        rig.operands.a.upload(0, &a)?;
        rig.operands.b.upload(0, &vec![1.0; depth * N])?;
        rig.spoil(world)?;
        Ok(rig)
    }

    pub(crate) fn calls(
        &mut self,
        stream: &RankStream<Cuda>,
        rows: &[usize],
    ) -> Result<(), OpError> {
        let mut bound = self.op.bind(stream)?;
        self.operands.calls(&mut bound, rows)
    }

    /// A graph of calls, which binds the operation in the midst of the capture.
    pub(crate) fn capture(
        &mut self,
        stream: &RankStream<Cuda>,
        rows: &[usize],
    ) -> Result<CapturedGraph<Cuda>, OpError> {
        stream.capture(|| self.calls(stream, rows))
    }

    /// Makes the result wrong. Collective: nobody's call comes before.
    pub(crate) fn spoil(&self, world: &GpuWorld) -> Result<(), Failure> {
        self.operands.c.upload(0, &vec![f32::NAN; M * N])?;
        Ok(world.barrier()?)
    }

    pub(crate) fn right(&self, world: &GpuWorld) -> Result<(), Failure> {
        self.operands.right(world)
    }

    /// Gives everything back. Collective.
    pub(crate) fn free(self, world: &GpuWorld) -> Result<(), Failure> {
        self.op.free()?;
        Ok(world.free_buffer(self.operands.c)?)
    }
}

impl Operands {
    pub(crate) fn calls(
        &self,
        bound: &mut Bound<'_, f32, i32, Cuda>,
        rows: &[usize],
    ) -> Result<(), OpError> {
        rows.iter().try_for_each(|&m| {
            let a = MatrixRef::new(&self.a, m, self.depth);
            let b = MatrixRef::new(&self.b, self.depth, N);
            bound.call(m, a, b, None, MatrixMut::new(&self.c, m, N))
        })
    }

    /// Whether C is right, where the last call had all rows.
    pub(crate) fn right(&self, world: &GpuWorld) -> Result<(), Failure> {
        let ranks: usize = (0..world.size())
            .map(|rank| rank * shard(K, world.size(), rank).len())
            .sum();
        for (at, value) in self.c.download()?.into_iter().enumerate() {
            let expected = ((3 * (at / N) + 2) * K + ranks) as f32;
            if value != expected {
                return Err(format!("element {at} of C is {value}, not {expected}").into());
            }
        }
        Ok(())
    }
}

/// The verdict of a fault that was expected.
pub(crate) fn verdict(result: Result<(), StreamError>) -> Result<Arc<Verdict>, Failure> {
    match result {
        Err(StreamError::Fault(verdict)) => Ok(verdict),
        other => Err(format!("a fault was expected, not {other:?}").into()),
    }
}

/// The one thing that all say.
pub(crate) fn all_say_the_same(said: &[String]) -> &str {
    assert!(said.iter().all(|text| *text == said[0]), "{said:#?}");
    &said[0]
}

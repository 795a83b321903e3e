//! The operations as values, so that one test can go through all of them.

use crate::reference::Share;
use iris_heap::device::{Driver, RankStream};
use iris_heap::{Host, World};
use iris_kernels::Element;
use iris_kernels::host::Program;
use iris_ops::device::Captured;
use iris_ops::{
    AllGatherMatmul, Bound, FusedConfig, FusedWorkspace, GatherDim, MatmulAllGather,
    MatmulAllReduce, MatmulReduceScatter, OpError, Plan, Runs, Variant,
};
use iris_sync::Word;
use std::fmt;

/// An operation in one of its variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `matmul_all_reduce`.
    AllReduce(Variant),
    /// `matmul_reduce_scatter`.
    ReduceScatter,
    /// `all_gather_matmul`.
    AllGatherMatmul(GatherDim),
    /// `matmul_all_gather`.
    MatmulAllGather,
}

impl Op {
    /// All operations, each in all its variants.
    pub const ALL: [Self; 9] = [
        Self::AllReduce(Variant::Auto),
        Self::AllReduce(Variant::OneShot),
        Self::AllReduce(Variant::TwoShot),
        Self::AllReduce(Variant::Atomic),
        Self::AllReduce(Variant::Spinlock),
        Self::ReduceScatter,
        Self::AllGatherMatmul(GatherDim::Rows),
        Self::AllGatherMatmul(GatherDim::Columns),
        Self::MatmulAllGather,
    ];

    /// Which part of the result each rank gets.
    pub fn share(self) -> Share {
        match self {
            Self::AllReduce(_) | Self::MatmulAllGather => Share::Whole,
            Self::ReduceScatter => Share::Rows,
            Self::AllGatherMatmul(_) => Share::Columns,
        }
    }

    /// Whether its result has the same bits in every run, and on every rank that gets the same part.
    pub fn is_deterministic(self) -> bool {
        !matches!(self, Self::AllReduce(Variant::Atomic | Variant::Spinlock))
    }

    /// Whether partial sums are rounded to the dtype on their way.
    pub fn rounds_partials(self) -> bool {
        matches!(
            self,
            Self::AllReduce(Variant::Auto | Variant::OneShot | Variant::TwoShot)
                | Self::ReduceScatter
        )
    }

    /// Whether peers store into a rank's output, at whatever `m`.
    pub fn stores_to_peers(self) -> bool {
        matches!(
            self,
            Self::AllReduce(Variant::Auto | Variant::TwoShot) | Self::MatmulAllGather
        )
    }

    /// A program that has the operands' parts of this operation.
    pub fn program(self) -> Program {
        match self {
            Self::AllReduce(_) => Program::TwoShot,
            Self::ReduceScatter => Program::ReduceScatter,
            Self::AllGatherMatmul(gather) => Program::AllGatherMatmul(gather),
            Self::MatmulAllGather => Program::MatmulAllGather,
        }
    }

    /// `config` with this operation's variant and way of gathering.
    #[must_use]
    pub fn configure(self, config: FusedConfig) -> FusedConfig {
        match self {
            Self::AllReduce(variant) => config.variant(variant),
            Self::AllGatherMatmul(gather) => config.gather(gather),
            Self::ReduceScatter | Self::MatmulAllGather => config,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllReduce(variant) => write!(f, "matmul_all_reduce/{variant}"),
            Self::ReduceScatter => f.write_str("matmul_reduce_scatter"),
            Self::AllGatherMatmul(GatherDim::Rows) => f.write_str("all_gather_matmul/rows"),
            Self::AllGatherMatmul(GatherDim::Columns) => f.write_str("all_gather_matmul/columns"),
            Self::MatmulAllGather => f.write_str("matmul_all_gather"),
        }
    }
}

/// An operation of any of the four types.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyOperation<T: Element, W: Word = i32, B: Runs<T, W> = Host> {
    /// `matmul_all_reduce`.
    AllReduce(MatmulAllReduce<T, W, B>),
    /// `matmul_reduce_scatter`.
    ReduceScatter(MatmulReduceScatter<T, W, B>),
    /// `all_gather_matmul`.
    AllGatherMatmul(AllGatherMatmul<T, W, B>),
    /// `matmul_all_gather`.
    MatmulAllGather(MatmulAllGather<T, W, B>),
}

macro_rules! each {
    ($self:expr, $op:ident => $body:expr) => {
        match $self {
            AnyOperation::AllReduce($op) => $body,
            AnyOperation::ReduceScatter($op) => $body,
            AnyOperation::AllGatherMatmul($op) => $body,
            AnyOperation::MatmulAllGather($op) => $body,
        }
    };
}

impl<T: Element, W: Word, B: Runs<T, W>> AnyOperation<T, W, B> {
    /// Creates it. Collective.
    ///
    /// # Errors
    /// Those of the operation's `new`.
    pub fn new(op: Op, world: &World<B>, config: FusedConfig) -> Result<Self, OpError> {
        let config = op.configure(config);
        Ok(match op {
            Op::AllReduce(_) => Self::AllReduce(MatmulAllReduce::new(world, config)?),
            Op::ReduceScatter => Self::ReduceScatter(MatmulReduceScatter::new(world, config)?),
            Op::AllGatherMatmul(_) => Self::AllGatherMatmul(AllGatherMatmul::new(world, config)?),
            Op::MatmulAllGather => Self::MatmulAllGather(MatmulAllGather::new(world, config)?),
        })
    }

    /// Binds it to a stream.
    ///
    /// # Errors
    /// Those of the operation's `bind`.
    pub fn bind<'a>(&'a mut self, stream: &'a B::Stream) -> Result<Bound<'a, T, W, B>, OpError> {
        each!(self, op => op.bind(stream))
    }

    /// How a call of `m` rows is carried out, if it has any and no more than the operation was created for.
    pub fn plan(&self, m: usize) -> Option<Plan> {
        each!(self, op => op.plan(m))
    }

    /// Makes it work again after a fault. Collective.
    ///
    /// # Errors
    /// Those of the operation's `reset`.
    pub fn reset(&mut self) -> Result<(), OpError> {
        each!(self, op => op.reset())
    }

    /// Gives its memory back. Collective.
    ///
    /// # Errors
    /// Those of the operation's `free`.
    pub fn free(self) -> Result<(), OpError> {
        each!(self, op => op.free())
    }

    /// Its workspace.
    pub fn workspace(&self) -> &FusedWorkspace<T, W, B> {
        each!(self, op => op.workspace())
    }
}

impl<T: Element, D: Driver + Runs<T, i32, Stream = RankStream<D>>> AnyOperation<T, i32, D>
where
    MatmulAllReduce<T, i32, D>: Captured<D>,
    MatmulReduceScatter<T, i32, D>: Captured<D>,
    AllGatherMatmul<T, i32, D>: Captured<D>,
    MatmulAllGather<T, i32, D>: Captured<D>,
{
    /// For the launch of a graph in which it is called.
    pub fn captured(&mut self) -> &mut dyn Captured<D> {
        each!(self, op => op)
    }
}

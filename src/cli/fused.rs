//! The four operations behind one type.

use iris::heap::{Stream, World};
use iris::ops::{
    AllGatherMatmul, Bound, Element, FusedConfig, MatmulAllGather, MatmulAllReduce,
    MatmulReduceScatter, OpError, Plan,
};

use crate::cli::operation::Operation;

/// One rank's side of an operation that is known by name only.
#[derive(Debug)]
pub(crate) enum Fused<T: Element> {
    MatmulAllReduce(MatmulAllReduce<T>),
    MatmulReduceScatter(MatmulReduceScatter<T>),
    AllGatherMatmul(AllGatherMatmul<T>),
    MatmulAllGather(MatmulAllGather<T>),
}

impl<T: Element> Fused<T> {
    /// Creates the operation. Collective.
    pub(crate) fn new(
        operation: Operation,
        world: &World,
        config: FusedConfig,
    ) -> Result<Self, OpError> {
        Ok(match operation {
            Operation::MatmulAllReduce => {
                Self::MatmulAllReduce(MatmulAllReduce::new(world, config)?)
            }
            Operation::MatmulReduceScatter => {
                Self::MatmulReduceScatter(MatmulReduceScatter::new(world, config)?)
            }
            Operation::AllGatherMatmul => {
                Self::AllGatherMatmul(AllGatherMatmul::new(world, config)?)
            }
            Operation::MatmulAllGather => {
                Self::MatmulAllGather(MatmulAllGather::new(world, config)?)
            }
        })
    }

    /// Binds it to a stream.
    pub(crate) fn bind<'a>(&'a mut self, stream: &'a Stream) -> Result<Bound<'a, T>, OpError> {
        match self {
            Self::MatmulAllReduce(operation) => operation.bind(stream),
            Self::MatmulReduceScatter(operation) => operation.bind(stream),
            Self::AllGatherMatmul(operation) => operation.bind(stream),
            Self::MatmulAllGather(operation) => operation.bind(stream),
        }
    }

    /// How a call of `m` rows is carried out.
    pub(crate) fn plan(&self, m: usize) -> Option<Plan> {
        match self {
            Self::MatmulAllReduce(operation) => operation.plan(m),
            Self::MatmulReduceScatter(operation) => operation.plan(m),
            Self::AllGatherMatmul(operation) => operation.plan(m),
            Self::MatmulAllGather(operation) => operation.plan(m),
        }
    }

    /// Gives its symmetric memory back. Collective.
    pub(crate) fn free(self) -> Result<(), OpError> {
        match self {
            Self::MatmulAllReduce(operation) => operation.free(),
            Self::MatmulReduceScatter(operation) => operation.free(),
            Self::AllGatherMatmul(operation) => operation.free(),
            Self::MatmulAllGather(operation) => operation.free(),
        }
    }
}

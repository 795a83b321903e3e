//! The same work unfused: each rank's share of the product, then the collective, by the same kernels over the same heap.

use iris::heap::{Buffer, Stream, World};
use iris::ops::unfused::{BoundCollective, Collective, Product};
use iris::ops::{Element, FusedConfig, MatrixMut, MatrixRef, OpError};

use crate::cli::args::Gather;
use crate::cli::operands::Operands;
use crate::cli::operation::Operation;
use crate::cli::split::{Size, Split};

/// One rank's product and collective.
pub(crate) struct Unfused<T: Element> {
    split: Split,
    product: Product<T>,
    collective: Collective<T>,
    /// What lies between the two: this rank's partial or rows of C, or the whole of A where that is gathered first.
    between: Buffer<T>,
    /// This rank's columns of A, transposed, where A is gathered by columns: rows are what a collective gathers.
    columns: Option<Buffer<T>>,
}

impl<T: Element> Unfused<T> {
    /// Makes both for the problem that `config` is for. Collective.
    pub(crate) fn new(world: &World, split: Split, config: &FusedConfig) -> anyhow::Result<Self> {
        let Size { m, n, k } = split.size;
        let shares = split.of(world.rank());
        let collective = |m, n| FusedConfig {
            m,
            n,
            ..config.clone()
        };
        let (product, collective, between) = match split.operation {
            Operation::MatmulAllReduce => (
                Product::new(m, shares.a.columns.len(), n)?,
                Collective::all_reduce(world, collective(m, n))?,
                world.buffer(m * n),
            ),
            Operation::MatmulReduceScatter => (
                Product::new(m, shares.a.columns.len(), n)?,
                Collective::reduce_scatter(world, collective(m, n))?,
                world.buffer(m * n),
            ),
            Operation::MatmulAllGather => (
                Product::new(shares.a.rows.len(), k, n)?,
                Collective::all_gather(world, collective(m, n))?,
                world.buffer(shares.a.rows.len() * n),
            ),
            Operation::AllGatherMatmul => (
                Product::new(m, k, shares.b.columns.len())?,
                match split.gather {
                    Gather::Rows => Collective::all_gather(world, collective(m, k))?,
                    Gather::Columns => Collective::all_gather(world, collective(k, m))?,
                },
                world.symmetric_buffer(m * k)?,
            ),
        };
        let by_columns =
            split.operation == Operation::AllGatherMatmul && split.gather == Gather::Columns;
        Ok(Self {
            split,
            product,
            collective,
            between,
            columns: by_columns.then(|| world.buffer(shares.a.len())),
        })
    }

    /// Binds both to a stream.
    pub(crate) fn bind<'a>(
        &'a mut self,
        stream: &'a Stream,
        operands: &'a Operands<T>,
    ) -> Result<BoundUnfused<'a, T>, OpError> {
        Ok(BoundUnfused {
            split: self.split,
            product: &self.product,
            collective: self.collective.bind(stream)?,
            between: &self.between,
            columns: self.columns.as_ref(),
            stream,
            operands,
        })
    }

    /// Gives the symmetric memory back. Collective.
    pub(crate) fn free(self, world: &World) -> anyhow::Result<()> {
        self.collective.free()?;
        if self.between.is_symmetric() {
            world.free_buffer(self.between)?;
        }
        Ok(())
    }
}

/// Product and collective bound to a stream.
pub(crate) struct BoundUnfused<'a, T: Element> {
    split: Split,
    product: &'a Product<T>,
    collective: BoundCollective<'a, T>,
    between: &'a Buffer<T>,
    columns: Option<&'a Buffer<T>>,
    stream: &'a Stream,
    operands: &'a Operands<T>,
}

impl<T: Element> BoundUnfused<'_, T> {
    /// Enqueues this rank's share of the product.
    pub(crate) fn product(&self) -> Result<(), OpError> {
        let Size { m, n, k } = self.split.size;
        let (a, b) = (self.operands.a(), self.operands.b());
        let rows = self.operands.a_rows();
        match self.split.operation {
            Operation::MatmulAllReduce | Operation::MatmulReduceScatter => {
                self.product
                    .call(self.stream, a, b, MatrixMut::new(self.between, m, n))
            }
            Operation::MatmulAllGather => {
                self.product
                    .call(self.stream, a, b, MatrixMut::new(self.between, rows, n))
            }
            Operation::AllGatherMatmul => {
                let gathered = match self.split.gather {
                    Gather::Rows => MatrixRef::new(self.between, m, k),
                    Gather::Columns => MatrixRef::new(self.between, k, m).transposed(),
                };
                self.product
                    .call(self.stream, gathered, b, self.operands.c())
            }
        }
    }

    /// Enqueues the collective. Its input lies where the product leaves it, or the product's where it leaves that.
    pub(crate) fn collective(&mut self) -> Result<(), OpError> {
        let Size { m, n, k } = self.split.size;
        let rows = self.operands.a_rows();
        match self.split.operation {
            Operation::MatmulAllReduce | Operation::MatmulReduceScatter => {
                let x = MatrixRef::new(self.between, m, n);
                self.collective.call(m, x, self.operands.c())
            }
            Operation::MatmulAllGather => {
                let x = MatrixRef::new(self.between, rows, n);
                self.collective.call(m, x, self.operands.c())
            }
            Operation::AllGatherMatmul => match self.columns {
                None => {
                    self.collective
                        .call(m, self.operands.a(), MatrixMut::new(self.between, m, k))
                }
                Some(columns) => {
                    let x = MatrixRef::new(columns, columns.len() / m, m);
                    self.collective
                        .call(k, x, MatrixMut::new(self.between, k, m))
                }
            },
        }
    }

    /// Enqueues both, in the order in which one needs the other.
    pub(crate) fn both(&mut self) -> Result<(), OpError> {
        if self.split.operation == Operation::AllGatherMatmul {
            self.collective()?;
            self.product()
        } else {
            self.product()?;
            self.collective()
        }
    }
}

//! One rank's operands of a call, in buffers.

use anyhow::Context;
use iris::heap::{Backend, Buffer, Host, World};
use iris::ops::{Bound, Element, MatrixMut, MatrixRef, OpError, Runs};

use crate::cli::derive::{Derivation, Matrices};
use crate::cli::problem::transpose;
use crate::cli::split::{Shares, Split};

/// Buffers for A, B, bias and C.
#[derive(Debug)]
pub(crate) struct Operands<T, B: Backend = Host> {
    rank: usize,
    split: Split,
    shares: Shares,
    transpose_b: bool,
    a: Buffer<T, B>,
    b: Buffer<T, B>,
    bias: Option<Buffer<T, B>>,
    /// Symmetric, and so as long on every rank as the largest share of C.
    c: Buffer<T, B>,
}

impl<T: Element, B: Backend> Operands<T, B> {
    /// Makes the buffers. Collective.
    pub(crate) fn new(
        world: &World<B>,
        split: Split,
        transpose_b: bool,
        bias: bool,
    ) -> anyhow::Result<Self> {
        let shares = split.of(world.rank());
        Ok(Self {
            rank: world.rank(),
            a: world.plain_buffer(shares.a.len())?,
            b: world.plain_buffer(shares.b.len())?,
            bias: bias
                .then(|| world.plain_buffer(shares.bias.len()))
                .transpose()?,
            c: world
                .symmetric_buffer(split.largest().c.len())
                .context("allocating the output")?,
            split,
            shares,
            transpose_b,
        })
    }

    /// Gives the symmetric memory back. Collective.
    pub(crate) fn free(self, world: &World<B>) -> anyhow::Result<()> {
        Ok(world.free_buffer(self.c)?)
    }

    /// Fills in what this rank has in a call, and poisons the output.
    pub(crate) fn fill(
        &self,
        matrices: &Matrices<T>,
        derivation: Derivation,
    ) -> anyhow::Result<()> {
        self.a
            .upload(0, &matrices.a_of(&self.split, self.rank, derivation))?;
        let mut b = matrices.b_of(&self.split, self.rank, derivation);
        if self.transpose_b {
            b = transpose(&b, self.shares.b.rows.len(), self.shares.b.columns.len());
        }
        self.b.upload(0, &b)?;
        if let (Some(buffer), Some(bias)) = (&self.bias, matrices.bias_of(derivation)) {
            buffer.upload(0, &bias[self.shares.bias.clone()])?;
        }
        self.c.upload(0, &vec![T::NAN; self.c.len()])?;
        Ok(())
    }

    /// Enqueues a call on them.
    pub(crate) fn call(&self, bound: &mut Bound<'_, T, i32, B>) -> Result<(), OpError>
    where
        B: Runs<T, i32>,
    {
        bound.call(
            self.split.size.m,
            self.a(),
            self.b(),
            self.bias.as_ref(),
            self.c(),
        )
    }

    /// How many rows of A this rank has.
    pub(crate) fn a_rows(&self) -> usize {
        self.shares.a.rows.len()
    }

    /// This rank's A.
    pub(crate) fn a(&self) -> MatrixRef<'_, T, B> {
        let part = &self.shares.a;
        MatrixRef::new(&self.a, part.rows.len(), part.columns.len())
    }

    /// This rank's B, as it is stored.
    pub(crate) fn b(&self) -> MatrixRef<'_, T, B> {
        let part = &self.shares.b;
        if self.transpose_b {
            MatrixRef::new(&self.b, part.columns.len(), part.rows.len()).transposed()
        } else {
            MatrixRef::new(&self.b, part.rows.len(), part.columns.len())
        }
    }

    /// Where this rank's C goes.
    pub(crate) fn c(&self) -> MatrixMut<'_, T, B> {
        let part = &self.shares.c;
        MatrixMut::new(&self.c, part.rows.len(), part.columns.len())
    }

    /// What the last call left in this rank's C.
    pub(crate) fn result(&self) -> anyhow::Result<Vec<T>> {
        let mut result = vec![T::NAN; self.shares.c.len()];
        self.c.download_into(0, &mut result)?;
        Ok(result)
    }
}

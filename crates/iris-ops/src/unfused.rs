//! The parts of a fused operation by themselves: what it is compared with.

use crate::backend::Runs;
use crate::call::Strided;
use crate::config::{FusedConfig, Variant};
use crate::device::Captured;
use crate::error::OpError;
use crate::matrix::{MatrixMut, MatrixRef};
use crate::operation::{Bound, Operation};
use crate::plan::Kind;
use iris_heap::device::{Driver, RankStream};
use iris_heap::{Access, Host, Kernel, KernelArgs, KernelLaunch, Stream, StreamError, World};
use iris_kernels::host::{Input, Operands, Output, Scratch, product};
use iris_kernels::{Element, View, ViewMut};
use std::sync::{Arc, Mutex, PoisonError};

/// One rank's product `C = A B`, without any exchange. Nothing about it is collective.
pub struct Product<T> {
    kernel: Arc<ProductKernel<T>>,
    rows: usize,
    depth: usize,
    cols: usize,
}

impl<T: Element> Product<T> {
    /// For A `(rows, depth)`, row-major, B `(depth, cols)` and C `(rows, cols)`.
    ///
    /// # Errors
    /// [`OpError::TooLarge`] where one of them has more bytes than a buffer can have.
    pub fn new(rows: usize, depth: usize, cols: usize) -> Result<Self, OpError> {
        let elements = |rows: usize, cols: usize| {
            // In f32 at most, where it is worked with.
            let bytes = rows.checked_mul(cols)?.checked_mul(size_of::<f32>())?;
            isize::try_from(bytes).ok().map(|_| rows * cols)
        };
        let sizes = (
            elements(rows, depth),
            elements(depth, cols),
            elements(rows, cols),
        );
        let (Some(of_a), Some(of_b), Some(_)) = sizes else {
            return Err(OpError::TooLarge {
                operation: "product",
                m: rows,
                n: cols,
                k: depth,
                world: 1,
            });
        };
        // As many rows at once as are multiplied at full speed: each strip packs B anew.
        let strip = (1024 * 1024 / cols.max(1)).clamp(1, rows.max(1));
        Ok(Self {
            kernel: Arc::new(ProductKernel {
                scratch: Mutex::new(Scratch::new(T::DTYPE, of_a, of_b, strip * cols)),
                element: std::marker::PhantomData,
            }),
            rows,
            depth,
            cols,
        })
    }

    /// Enqueues the product.
    ///
    /// # Errors
    /// Where a matrix has another shape, does not lie in its buffer, or shares it with the result.
    pub fn call(
        &self,
        stream: &Stream,
        a: MatrixRef<'_, T>,
        b: MatrixRef<'_, T>,
        c: MatrixMut<'_, T>,
    ) -> Result<(), OpError> {
        let check = crate::operation::Check {
            operation: "product",
            rank: stream.rank(),
        };
        let a_view = check.input("a", &a, &(0..self.rows, 0..self.depth))?;
        let b_view = check.input("b", &b, &(0..self.depth, 0..self.cols))?;
        let c_view = check.output(&c, &(0..self.rows, 0..self.cols))?;
        check.apart("a", &c, &a)?;
        check.apart("b", &c, &b)?;
        let mut args = KernelArgs::default();
        for (slot, view) in [a_view, b_view, c_view].into_iter().enumerate() {
            view.to_scalars(&mut args.scalars[slot * Strided::SCALARS..]);
        }
        args.buffers[0] = Some((a.buffer.any(), Access::Read));
        args.buffers[1] = Some((b.buffer.any(), Access::Read));
        args.buffers[2] = Some((c.buffer.any(), Access::Write));
        stream.launch(KernelLaunch {
            kernel: Arc::clone(&self.kernel) as _,
            args,
        });
        Ok(())
    }
}

struct ProductKernel<T> {
    scratch: Mutex<Scratch>,
    element: std::marker::PhantomData<fn() -> T>,
}

impl<T: Element> Kernel for ProductKernel<T> {
    fn run(&self, args: &KernelArgs) -> Result<(), StreamError> {
        let [Some((a, _)), Some((b, _)), Some((c, _)), ..] = &args.buffers else {
            return Ok(());
        };
        let strided = |slot: usize| Strided::from_scalars(&args.scalars[slot * Strided::SCALARS..]);
        let (a, b): (View<T>, View<T>) = (strided(0).view(a), strided(1).view(b));
        let c: ViewMut<T> = strided(2).view_mut(c);
        let operands = Operands {
            m: c.rows,
            input: Input::Product { a, b },
            bias: None,
            c,
            output: Output {
                offset: 0,
                row_stride: 0,
                bounced: false,
            },
        };
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `call` has checked shapes, bounds and aliasing; the stream holds the buffers' locks while this runs; the
        // scratch was made for these sizes.
        unsafe { product(&operands, &mut scratch) };
        Ok(())
    }

    fn name(&self) -> &str {
        "product"
    }
}

/// A collective on matrices that are there already, by the same kernels and the same protocol as the fused operations.
pub struct Collective<T: Element, B: Runs<T, i32> = Host>(Operation<T, i32, B>);

impl<T: Element, B: Runs<T, i32>> Collective<T, B> {
    /// Sums matrices `(m, n)` of all ranks, for all ranks. `config.k` does not matter. Collective.
    ///
    /// # Errors
    /// As for the fused operations.
    pub fn all_reduce(world: &World<B>, config: FusedConfig) -> Result<Self, OpError> {
        Self::new(Kind::AllReduce, world, config)
    }

    /// Sums matrices `(m, n)` of all ranks; each gets its rows. `config.k` does not matter. Collective.
    ///
    /// # Errors
    /// As for the fused operations.
    pub fn reduce_scatter(world: &World<B>, config: FusedConfig) -> Result<Self, OpError> {
        Self::new(Kind::ReduceScatter, world, config.variant(Variant::Auto))
    }

    /// Gathers each rank's rows of a matrix `(m, n)`, for all ranks. `config.k` does not matter. Collective.
    ///
    /// # Errors
    /// As for the fused operations.
    pub fn all_gather(world: &World<B>, config: FusedConfig) -> Result<Self, OpError> {
        Self::new(Kind::MatmulAllGather, world, config.variant(Variant::Auto))
    }

    fn new(kind: Kind, world: &World<B>, config: FusedConfig) -> Result<Self, OpError> {
        // Every rank has something to give: a depth of one each.
        let config = FusedConfig {
            k: world.size(),
            bias: false,
            // Tables tell of products and what follows them.
            tuned: false,
            ..config
        };
        Operation::new(kind, world, config).map(Self)
    }

    /// Binds it to a stream, as the fused operations.
    ///
    /// # Errors
    /// Where the stream is another rank's; [`OpError::StillBound`].
    pub fn bind<'a>(
        &'a mut self,
        stream: &'a B::Stream,
    ) -> Result<BoundCollective<'a, T, B>, OpError> {
        self.0.bind(stream).map(BoundCollective)
    }

    /// Gives its symmetric memory back. Collective.
    ///
    /// # Errors
    /// Where a rank has died or does not come.
    pub fn free(self) -> Result<(), OpError> {
        self.0.free()
    }
}

impl<T: Element, D: Driver + Runs<T, i32>> Captured<D> for Collective<T, D>
where
    Operation<T, i32, D>: Captured<D>,
{
    fn number(&self) -> u64 {
        self.0.number()
    }

    fn before(&mut self, stream: &RankStream<D>) -> Result<(), OpError> {
        self.0.before(stream)
    }

    fn after(&mut self, stream: &RankStream<D>, calls: u64) -> Result<(), OpError> {
        self.0.after(stream, calls)
    }
}

/// A collective bound to a stream.
pub struct BoundCollective<'a, T: Element, B: Runs<T, i32> = Host>(Bound<'a, T, i32, B>);

impl<T: Element, B: Runs<T, i32>> BoundCollective<'_, T, B> {
    /// Enqueues a call of `m` rows on `x`, this rank's matrix.
    ///
    /// # Errors
    /// As for the fused operations.
    pub fn call(
        &mut self,
        m: usize,
        x: MatrixRef<'_, T, B>,
        c: MatrixMut<'_, T, B>,
    ) -> Result<(), OpError> {
        self.0.call_given(m, x, c)
    }
}

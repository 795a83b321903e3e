//! One rank's product by itself, on a device: what fused operations are compared with, and what goes before those that are not fused.

use super::fast::{self, Maps};
use super::graph::Captured;
use super::kernel::Places;
use super::program::{self, Loaded, Wanted};
use crate::call::Strided;
use crate::error::OpError;
use crate::matrix::{MatrixMut, MatrixRef};
use crate::operation::Check;
use crate::plan::Kind;
use iris_heap::World;
use iris_heap::device::{Driver, RankStream};
use iris_kernels::device::compile::{self, Architecture, Request};
use iris_kernels::device::fast::{Crews, is_fast};
use iris_kernels::device::{Args, CompileError, PRODUCT};
use iris_kernels::{DType, Element, Tile};
use std::marker::PhantomData;
use std::sync::Arc;

/// What errors call it.
const NAME: &str = "product";

/// Compiles and loads the kernels of products of up to so many rows, of a depth, and of so many columns, in tiles of a size; `portable` leaves the
/// fast one out.
pub(super) fn load<T: Element, D: Driver>(
    world: &World<D>,
    operation: &'static str,
    sizes: [usize; 3],
    tile: Tile,
    portable: bool,
) -> Result<Loaded<D>, OpError> {
    let device = world.device();
    let architecture: Architecture = (device.info().architecture)
        .parse()
        .map_err(CompileError::from)?;
    let architecture = compile::target(&architecture)?;
    let is_fast = !portable && device.has_tensor_maps() && is_fast(architecture.name(), T::DTYPE);
    let request = || Request::product(T::DTYPE, tile, architecture.clone());
    let load = |wanted: Wanted| program::load_kernel(world, operation, PRODUCT.1, &wanted);
    let fast = Crews::of(tile)
        .filter(|_| is_fast)
        .map(|crews| match fast::product_pairs(tile, sizes) {
            true => crews.paired(),
            false => crews,
        })
        .map(|crews| load(Wanted::of_crews(&crews, request())))
        .transpose()?;
    Ok(Loaded {
        program: None,
        portable: load(Wanted::portable(tile, request()))?,
        fast,
        before: None,
    })
}

/// A product to be enqueued.
pub(super) struct Multiplication<'a, D: Driver> {
    pub(super) world: &'a World<D>,
    pub(super) kernels: &'a Loaded<D>,
    pub(super) maps: &'a Maps,
    pub(super) tile: Tile,
    pub(super) dtype: DType,
}

impl<D: Driver> Multiplication<'_, D> {
    /// Enqueues it. Of `args` the sizes, the operands and the bias count: A is `m` x `k`, B `k` x `n`, C `m` x `n`, none of them empty.
    ///
    /// # Safety
    /// The operands are memory of this rank's device of these sizes, and stay allocated until it has run; so do the kernels.
    pub(super) unsafe fn enqueue(
        &self,
        stream: &RankStream<D>,
        args: &Args,
    ) -> Result<(), OpError> {
        let tiles = args.m.div_ceil(self.tile.m as u64) * args.n.div_ceil(self.tile.n as u64);
        let mut args = Args {
            // A world of this rank alone.
            world: 1,
            rank: 0,
            ..*args
        }
        .with_shares();
        args.heap[0] = self.world.base(self.world.rank());
        let Loaded { portable, fast, .. } = self.kernels;
        let fast = fast.as_ref().and_then(|kernel| {
            args.blocks = kernel.blocks(tiles);
            let places = Places {
                a_rows: args.m,
                a_cols: args.k,
                b_rows: args.k,
                b_cols: args.n,
                c_rows: args.m,
                c_cols: args.n,
            };
            let (device, maps) = (self.world.device(), self.maps);
            let fast = fast::arguments(device, maps, None, self.tile, self.dtype, &args, &places)?;
            Some((kernel, fast))
        });
        // SAFETY: each kernel takes such an argument, and accesses the operands alone; the rest is the caller's promise.
        unsafe {
            match fast {
                Some((kernel, fast)) => {
                    stream.launch_programmatic(&kernel.function, fast.args.blocks as u32, &fast)
                }
                None => {
                    args.blocks = portable.blocks(tiles);
                    stream.launch_programmatic(&portable.function, args.blocks as u32, &args)
                }
            }
        }?;
        Ok(())
    }
}

/// One rank's product `C = A B` on its device, without any exchange, by the kernels and with the tile that fused operations multiply by.
/// Nothing about it is collective.
///
/// Calls can be captured in graphs; the launch of such a graph takes the product among its [operations](Captured).
pub struct Product<T, D: Driver> {
    world: World<D>,
    kernels: Arc<Loaded<D>>,
    maps: Maps,
    number: u64,
    tile: Tile,
    rows: usize,
    depth: usize,
    cols: usize,
    element: PhantomData<fn() -> T>,
}

impl<T, D: Driver> Drop for Product<T, D> {
    fn drop(&mut self) {
        // It may be running, and unloading it would wait for the device, where another rank's kernel may be waiting for this rank.
        self.world.heap().retire(Arc::clone(&self.kernels));
    }
}

impl<T: Element, D: Driver> Product<T, D> {
    /// For A `(rows, depth)`, B `(depth, cols)` and C `(rows, cols)`: compiles and loads its kernels. As creating an operation does, it
    /// may wait for what runs on the device.
    ///
    /// # Errors
    /// [`OpError::Empty`] where a size is 0; where nothing compiles for the device, or the device refuses.
    pub fn new(world: &World<D>, rows: usize, depth: usize, cols: usize) -> Result<Self, OpError> {
        for (field, size) in [("rows", rows), ("depth", depth), ("cols", cols)] {
            if size == 0 {
                return Err(OpError::Empty {
                    operation: NAME,
                    field,
                });
            }
        }
        let target = program::target_of(world.device(), size_of::<T>());
        let tile = (target.tile)(Kind::AllReduce, [rows, rows], cols, 1, size_of::<T>());
        let kernels = load::<T, D>(world, NAME, [rows, depth, cols], tile, false)?;
        program::warm_up(world, std::slice::from_ref(&kernels))?;
        Ok(Self {
            world: world.clone(),
            kernels: Arc::new(kernels),
            maps: Maps::default(),
            number: super::next_number(),
            tile,
            rows,
            depth,
            cols,
            element: PhantomData,
        })
    }

    /// The tile that it is multiplied in.
    pub fn tile(&self) -> Tile {
        self.tile
    }

    /// Enqueues the product.
    ///
    /// # Errors
    /// Where a matrix has another shape, does not lie in its buffer, or shares it with the result; where a buffer or the stream is another
    /// rank's; where the device refuses.
    pub fn call(
        &self,
        stream: &RankStream<D>,
        a: MatrixRef<'_, T, D>,
        b: MatrixRef<'_, T, D>,
        c: MatrixMut<'_, T, D>,
    ) -> Result<(), OpError> {
        let rank = self.world.rank();
        if stream.rank() != rank {
            return Err(OpError::ForeignStream {
                operation: NAME,
                rank,
                stream: stream.rank(),
            });
        }
        let check = Check {
            operation: NAME,
            rank,
        };
        check.own("a", &self.world, a.buffer)?;
        check.own("b", &self.world, b.buffer)?;
        check.own("c", &self.world, c.buffer)?;
        let a_view = check.input("a", &a, &(0..self.rows, 0..self.depth))?;
        let b_view = check.input("b", &b, &(0..self.depth, 0..self.cols))?;
        let c_view = check.output(&c, &(0..self.rows, 0..self.cols))?;
        check.apart("a", &c, &a)?;
        check.apart("b", &c, &b)?;
        let address = |base: u64, view: &Strided| base + (view.offset * size_of::<T>()) as u64;
        let args = Args {
            m: self.rows as u64,
            n: self.cols as u64,
            k: self.depth as u64,
            a: address(a.buffer.address(), &a_view),
            a_row: a_view.row_stride as u64,
            a_col: a_view.col_stride as u64,
            b: address(b.buffer.address(), &b_view),
            b_row: b_view.row_stride as u64,
            b_col: b_view.col_stride as u64,
            c: address(c.buffer.address(), &c_view),
            c_row: c_view.row_stride as u64,
            ..Args::default()
        };
        let multiplication = Multiplication {
            world: &self.world,
            kernels: &self.kernels,
            maps: &self.maps,
            tile: self.tile,
            dtype: T::DTYPE,
        };
        // SAFETY: the operands were checked, and their memory is not given back before the device has run what is enqueued, or is kept by
        // the graph that captures this. The kernels are retired when this is dropped, not unloaded; a graph's launch takes this by `&mut`.
        unsafe { multiplication.enqueue(stream, &args) }?;
        let buffers = [a.buffer.any(), b.buffer.any(), c.buffer.any()];
        stream.note_call(self.number, buffers);
        Ok(())
    }
}

impl<T: Element, D: Driver> Captured<D> for Product<T, D> {
    fn number(&self) -> u64 {
        self.number
    }

    /// It has no workspace that another stream's calls might use.
    fn before(&mut self, _: &RankStream<D>) -> Result<(), OpError> {
        Ok(())
    }

    fn after(&mut self, _: &RankStream<D>, _: u64) -> Result<(), OpError> {
        Ok(())
    }
}

impl<T, D: Driver> std::fmt::Debug for Product<T, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Product")
            .field("rows", &self.rows)
            .field("depth", &self.depth)
            .field("cols", &self.cols)
            .field("tile", &self.tile)
            .finish_non_exhaustive()
    }
}

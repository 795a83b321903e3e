//! Calls with fresh random inputs, each held against its reference, one rank's side of it.

use crate::number::Number;
use crate::op::{AnyOperation, Op};
use crate::random::Tensor;
use crate::reference::{Operand, Reference};
use crate::tolerance::{Tolerance, compare};
use iris_heap::{Buffer, Stream, World};
use iris_kernels::Element;
use iris_kernels::Tile;
use iris_kernels::host::{Parts, Shape};
use iris_ops::{FusedConfig, MatrixMut, MatrixRef};
use iris_sync::Word;
use std::error::Error;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Anything that can go wrong in a test.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A run of calls of one operation.
#[derive(Debug, Clone)]
pub struct Exercise {
    /// The operation.
    pub op: Op,
    /// Its parameters. `m` is the most rows a call may have.
    pub config: FusedConfig,
    /// The rows of each call.
    pub calls: Vec<usize>,
    /// What all inputs are drawn by.
    pub seed: u64,
    /// Whether all calls are enqueued back to back, and only then waited for; else each is waited for before the next.
    pub queued: bool,
    /// Whether operands have gaps between their rows, begin in the midst of their buffers, and B is stored transposed, in every
    /// other call.
    pub strided: bool,
}

/// A call's shape: what the checks on the stream need to know.
#[derive(Debug, Clone)]
struct Call {
    op: Op,
    number: u64,
    seed: u64,
    m: usize,
    n: usize,
    k: usize,
    bias: bool,
    world: usize,
    rank: usize,
    parts: Parts,
    strided: bool,
}

/// Elements between the rows of strided operands, and before their first.
const GAP: usize = 3;

impl Exercise {
    /// Queued calls of `op` with the given rows each, dense operands, and the tile given.
    pub fn new(op: Op, (n, k): (usize, usize), tile: Tile, calls: Vec<usize>) -> Self {
        let largest = calls.iter().copied().max().unwrap_or(1);
        Self {
            op,
            config: FusedConfig::new(largest, n, k).tile(tile),
            calls,
            seed: 0,
            queued: true,
            strided: false,
        }
    }

    /// Creates the operation, runs all calls on this rank, checks each, and frees everything. Collective.
    ///
    /// Returns a hash of the bits of all results of this rank.
    ///
    /// # Errors
    /// The first thing that went wrong: a result outside its tolerance, a fault, an error of the operation.
    pub fn run<T: Element + Number, W: Word>(&self, world: &World) -> Result<u64, Failure> {
        let mut operation = AnyOperation::<T, W>::new(self.op, world, self.config.clone())?;
        let result = self.run_on(world, &mut operation);
        if result.is_ok() {
            operation.free()?;
        }
        result
    }

    /// The same on an operation that is there already.
    ///
    /// # Errors
    /// As [`Exercise::run`].
    pub fn run_on<T: Element + Number, W: Word>(
        &self,
        world: &World,
        operation: &mut AnyOperation<T, W>,
    ) -> Result<u64, Failure> {
        let FusedConfig { m, n, k, bias, .. } = self.config;
        let (size, rank) = (world.size(), world.rank());
        let parts = |m| {
            let tile = Tile { m: 1, n: 1 };
            self.op.program().parts(m, Shape { n, k, tile }, size, rank)
        };
        // The part of fewer rows may be larger than that of more: the last rank of 4 has 1 of 4 rows and none of 5.
        let room = |(rows, cols): &(Range<usize>, Range<usize>)| {
            (rows.len().max(m.div_ceil(size)) + GAP) * (cols.len() + GAP) + cols.len() * GAP
        };
        let most = parts(m);
        let a = world.buffer::<T>(room(&most.a));
        let b = world.buffer::<T>(room(&most.b));
        let bias_buffer = world.buffer::<T>(most.c.1.len());
        let c = if self.op.stores_to_peers() && !self.config.plain_output {
            world.symmetric_buffer::<T>(room(&most.c))?
        } else {
            world.buffer::<T>(room(&most.c))
        };
        let outcome = Arc::new(Mutex::new(Ok(0u64)));
        let stream = Stream::new(world)?;
        let mut bound = operation.bind(&stream)?;
        for (number, &m) in self.calls.iter().enumerate() {
            let call = Call {
                op: self.op,
                number: number as u64,
                seed: self.seed,
                m,
                n,
                k,
                bias,
                world: size,
                rank,
                parts: parts(m),
                strided: self.strided && number % 2 == 1,
            };
            let a_place = Place::new(&call.parts.a, call.strided, false);
            let b_place = Place::new(&call.parts.b, call.strided, call.strided);
            let c_place = Place::new(&call.parts.c, call.strided, false);

            let buffers = (a.clone(), b.clone(), bias_buffer.clone(), c.clone());
            let (filling, places) = (call.clone(), (a_place, b_place));
            stream.host_fn(move || filling.fill(&buffers, places));
            let result = bound.call(
                m,
                a_place.input(&a),
                b_place.input(&b),
                bias.then_some(&bias_buffer),
                MatrixMut::strided(
                    &c,
                    c_place.offset,
                    c_place.rows,
                    c_place.cols,
                    c_place.stride,
                ),
            );
            if let Err(error) = result {
                // A fault of an earlier call is told with its verdict; nothing queued is lost.
                let _ = stream.synchronize();
                return Err(error.into());
            }
            let (output, outcome_of_call) = (c.clone(), Arc::clone(&outcome));
            stream.host_fn(move || {
                let mut outcome = outcome_of_call
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if let Ok(hash) = *outcome {
                    *outcome = call.check(&output, c_place, hash);
                }
            });
            if !self.queued {
                stream.synchronize()?;
            }
        }
        drop(bound);
        stream.synchronize()?;
        let outcome = outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let hash = outcome.map_err(Failure::from)?;
        drop(stream);
        if c.is_symmetric() {
            world.free_buffer(c)?;
        }
        Ok(hash)
    }
}

/// Where a matrix lies in its buffer.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: usize,
    rows: usize,
    cols: usize,
    /// Elements from one row to the next, or from one column to the next if it is transposed.
    stride: usize,
    transposed: bool,
}

impl Place {
    fn new((rows, cols): &(Range<usize>, Range<usize>), strided: bool, transposed: bool) -> Self {
        let gap = if strided { GAP } else { 0 };
        Self {
            offset: gap,
            rows: rows.len(),
            cols: cols.len(),
            stride: gap + if transposed { rows.len() } else { cols.len() },
            transposed,
        }
    }

    fn index(self, row: usize, col: usize) -> usize {
        let (line, at) = if self.transposed {
            (col, row)
        } else {
            (row, col)
        };
        self.offset + line * self.stride + at
    }

    fn input<T>(self, buffer: &Buffer<T>) -> MatrixRef<'_, T> {
        let (row_stride, col_stride) = if self.transposed {
            (1, self.stride)
        } else {
            (self.stride, 1)
        };
        MatrixRef::strided(
            buffer,
            self.offset,
            self.rows,
            self.cols,
            row_stride,
            col_stride,
        )
    }
}

impl Call {
    /// The whole matrices of the call, the same on every rank: what each rank has of them differs.
    fn whole<T: Number>(&self) -> (Vec<T>, Vec<T>, Vec<T>) {
        let draw = |tensor, len| crate::random::uniform(self.seed, 0, self.number, tensor, len);
        (
            draw(Tensor::A, self.m * self.k),
            draw(Tensor::B, self.k * self.n),
            draw(Tensor::Bias, self.n),
        )
    }

    /// Puts this rank's parts into its buffers, and poisons its output.
    fn fill<T: Element + Number>(
        &self,
        (a, b, bias, c): &(Buffer<T>, Buffer<T>, Buffer<T>, Buffer<T>),
        (a_place, b_place): (Place, Place),
    ) {
        let (whole_a, whole_b, whole_bias) = self.whole::<T>();
        put(a, a_place, &whole_a, self.k, &self.parts.a);
        put(b, b_place, &whole_b, self.n, &self.parts.b);
        let biased = self.parts.c.1.clone();
        // The buffer is as long as the part; an error here would show as a wrong result.
        let _ = bias.write(0, &whole_bias[biased]);
        c.fill(<T as Element>::NAN);
    }

    /// Holds the output against the reference, gaps included: they must be left alone.
    fn check<T: Element + Number>(
        &self,
        c: &Buffer<T>,
        place: Place,
        hash: u64,
    ) -> Result<u64, String> {
        let (a, b, bias) = self.whole::<T>();
        let where_ = || {
            format!(
                "{}, {}, {} ranks, call {} (m={}, n={}, k={}), rank {}",
                self.op,
                T::DTYPE,
                self.world,
                self.number,
                self.m,
                self.n,
                self.k,
                self.rank
            )
        };
        let reference = Operand::row_major(&a, self.m, self.k)
            .and_then(|a| Ok((a, Operand::row_major(&b, self.k, self.n)?)))
            .and_then(|(a, b)| Reference::product(a, b, self.bias.then_some(&bias)))
            .map_err(|error| format!("{}: {error}", where_()))?
            .share(self.op.share(), self.world, self.rank);
        let everything = c.read();
        let mut got = Vec::with_capacity(place.rows * place.cols);
        let mut inside = vec![false; everything.len()];
        for row in 0..place.rows {
            for col in 0..place.cols {
                got.push(everything[place.index(row, col)]);
                inside[place.index(row, col)] = true;
            }
        }
        let spilled = everything
            .iter()
            .zip(inside)
            .position(|(value, inside)| !inside && !Number::to_f64(*value).is_nan());
        if let Some(at) = spilled {
            return Err(format!(
                "{}: element {at}, outside C, was written",
                where_()
            ));
        }
        let partials = if self.op.rounds_partials() {
            self.world
        } else {
            0
        };
        let tolerance = Tolerance::of::<T>(self.k, partials);
        let comparison = compare(&got, &reference, &tolerance)
            .map_err(|error| format!("{}: {error}", where_()))?;
        if !comparison.ok {
            return Err(format!("{}: {comparison:?}", where_()));
        }
        Ok(got.iter().fold(hash, |hash, value| {
            // FNV-1a over the bits.
            bytemuck::bytes_of(value)
                .iter()
                .fold(hash ^ 0xcbf2_9ce4_8422_2325, |hash, &byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                })
        }))
    }
}

/// Writes a part of a row-major matrix of `width` columns to where it belongs.
fn put<T: Element + Number>(
    buffer: &Buffer<T>,
    place: Place,
    whole: &[T],
    width: usize,
    (rows, cols): &(Range<usize>, Range<usize>),
) {
    let mut values = vec![<T as Element>::NAN; buffer.len()];
    for (i, row) in rows.clone().enumerate() {
        for (j, col) in cols.clone().enumerate() {
            values[place.index(i, j)] = whole[row * width + col];
        }
    }
    // As long as the buffer.
    let _ = buffer.write(0, &values);
}

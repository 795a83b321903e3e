//! Calls with fresh random inputs, each held against its reference, one rank's side of it.

use crate::number::Number;
use crate::op::{AnyOperation, Op};
use crate::random::Tensor;
use crate::reference::{Operand, Reference};
use crate::tolerance::{Tolerance, compare};
use iris_heap::{Backend, Buffer, Queue, Stream, World, WorldError};
use iris_kernels::Element;
use iris_kernels::Tile;
use iris_kernels::host::{Parts, Shape};
use iris_ops::{FusedConfig, MatrixMut, MatrixRef, Runs};
use iris_sync::Word;
use std::error::Error;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Anything that can go wrong in a test.
pub type Failure = Box<dyn Error + Send + Sync>;

/// (m, n, k): sizes of one, fewer rows or depth than ranks, primes.
pub const RAGGED: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 17, 5),
    (13, 1, 7),
    (7, 5, 1),
    (2, 6, 2),
    (3, 11, 3),
    (5, 13, 17),
    (8, 8, 8),
    (17, 19, 23),
    (29, 31, 4),
    (9, 40, 37),
    (41, 7, 11),
];

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
    /// Whether B is stored transposed in every call, without gaps.
    pub transposed: bool,
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
    transposed: bool,
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
            transposed: false,
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
        let FusedConfig { m, bias, .. } = self.config;
        let (size, rank) = (world.size(), world.rank());
        // The part of fewer rows may be larger than that of more: the last rank of 4 has 1 of 4 rows and none of 5.
        let room = |(rows, cols): &(Range<usize>, Range<usize>)| {
            (rows.len().max(m.div_ceil(size)) + GAP) * (cols.len() + GAP) + cols.len() * GAP
        };
        let most = self.parts(m, size, rank);
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
            let call = self.call(number, m, size, rank);
            let [a_place, b_place, c_place] = call.places();

            let buffers = (a.clone(), b.clone(), bias_buffer.clone(), c.clone());
            let (filling, places) = (call.clone(), (a_place, b_place));
            let outcome_of_fill = Arc::clone(&outcome);
            stream.host_fn(move || {
                if let Err(error) = filling.fill(&buffers, places) {
                    let mut outcome = outcome_of_fill
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    *outcome = Err(error.to_string());
                }
            });
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

    /// The same on any backend: every call has operands of its own, which are there before the first is enqueued; all are enqueued,
    /// with nothing between them, and checked once all have run. Collective.
    ///
    /// # Errors
    /// As [`Exercise::run`].
    pub fn run_at_once<T: Element + Number, W: Word, B: Runs<T, W>>(
        &self,
        world: &World<B>,
    ) -> Result<u64, Failure> {
        let config = self.config.clone();
        let mut operation = AnyOperation::<T, W, B>::new(self.op, world, config)?;
        let FusedConfig { bias, .. } = self.config;
        let (size, rank) = (world.size(), world.rank());
        let stored = self.op.stores_to_peers() && !self.config.plain_output;
        let mut calls = Vec::new();
        for (number, &m) in self.calls.iter().enumerate() {
            let call = self.call(number, m, size, rank);
            let places = call.places();
            let room = |place: Place, gap: usize| place.index(place.rows, place.cols) + gap;
            // Peers' outputs of this call may be larger, and symmetric allocations are of one size.
            let widest = room(places[2], GAP) + call.parts.c.1.len();
            let c = match stored {
                true => world.symmetric_buffer::<T>(widest)?,
                false => world.plain_buffer::<T>(widest)?,
            };
            let buffers = (
                world.plain_buffer::<T>(room(places[0], GAP))?,
                world.plain_buffer::<T>(room(places[1], GAP))?,
                world.plain_buffer::<T>(call.parts.c.1.len())?,
                c,
            );
            call.fill(&buffers, (places[0], places[1]))?;
            calls.push((call, places, buffers));
        }
        let stream = B::Stream::of(world)?;
        // Nobody's call waits for a rank that is still busy with its memory, and with the reference of another call.
        world.barrier()?;
        let mut bound = operation.bind(&stream)?;
        let mut refused = None;
        for (call, [a, b, c], buffers) in &calls {
            let output = MatrixMut::strided(&buffers.3, c.offset, c.rows, c.cols, c.stride);
            let result = bound.call(
                call.m,
                a.input(&buffers.0),
                b.input(&buffers.1),
                bias.then_some(&buffers.2),
                output,
            );
            if let Err(error) = result {
                refused = Some(error);
                break;
            }
        }
        drop(bound);
        stream.synchronize()?;
        if let Some(error) = refused {
            return Err(error.into());
        }
        let mut hash = 0;
        for (call, places, buffers) in &calls {
            hash = call.check(&buffers.3, places[2], hash)?;
        }
        drop(stream);
        operation.free()?;
        for (.., (.., c)) in calls {
            if c.is_symmetric() {
                world.free_buffer(c)?;
            }
        }
        Ok(hash)
    }

    fn parts(&self, m: usize, world: usize, rank: usize) -> Parts {
        let FusedConfig { n, k, .. } = self.config;
        let tile = Tile { m: 1, n: 1 };
        let shape = Shape { n, k, tile };
        self.op.program().parts(m, shape, world, rank)
    }

    fn call(&self, number: usize, m: usize, world: usize, rank: usize) -> Call {
        let FusedConfig { n, k, bias, .. } = self.config;
        Call {
            op: self.op,
            number: number as u64,
            seed: self.seed,
            m,
            n,
            k,
            bias,
            world,
            rank,
            parts: self.parts(m, world, rank),
            strided: self.strided && number % 2 == 1,
            transposed: self.transposed,
        }
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

    fn input<T, B: Backend>(self, buffer: &Buffer<T, B>) -> MatrixRef<'_, T, B> {
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
    /// Where its A, B and C lie.
    fn places(&self) -> [Place; 3] {
        [
            Place::new(&self.parts.a, self.strided, false),
            Place::new(&self.parts.b, self.strided, self.strided || self.transposed),
            Place::new(&self.parts.c, self.strided, false),
        ]
    }

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
    fn fill<T: Element + Number, B: Backend>(
        &self,
        (a, b, bias, c): &Buffers<T, B>,
        (a_place, b_place): (Place, Place),
    ) -> Result<(), WorldError> {
        let (whole_a, whole_b, whole_bias) = self.whole::<T>();
        put(a, a_place, &whole_a, self.k, &self.parts.a)?;
        put(b, b_place, &whole_b, self.n, &self.parts.b)?;
        bias.upload(0, &whole_bias[self.parts.c.1.clone()])?;
        c.upload(0, &vec![<T as Element>::NAN; c.len()])
    }

    /// Holds the output against the reference, gaps included: they must be left alone.
    fn check<T: Element + Number, B: Backend>(
        &self,
        c: &Buffer<T, B>,
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
        let everything = c
            .download()
            .map_err(|error| format!("{}: {error}", where_()))?;
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

/// A, B, bias and C.
type Buffers<T, B> = (Buffer<T, B>, Buffer<T, B>, Buffer<T, B>, Buffer<T, B>);

/// Writes a part of a row-major matrix of `width` columns to where it belongs.
fn put<T: Element + Number, B: Backend>(
    buffer: &Buffer<T, B>,
    place: Place,
    whole: &[T],
    width: usize,
    (rows, cols): &(Range<usize>, Range<usize>),
) -> Result<(), WorldError> {
    let mut values = vec![<T as Element>::NAN; buffer.len()];
    for (i, row) in rows.clone().enumerate() {
        for (j, col) in cols.clone().enumerate() {
            values[place.index(i, j)] = whole[row * width + col];
        }
    }
    buffer.upload(0, &values)
}

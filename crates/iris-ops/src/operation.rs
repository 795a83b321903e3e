//! Creating an operation, and calling it.

use crate::backend::{Executor, Runs};
use crate::call::{Arguments, Strided};
use crate::config::FusedConfig;
use crate::error::OpError;
use crate::matrix::{MatrixMut, MatrixRef, span};
use crate::plan::{Blueprint, Kind, Plan, variant_of};
use crate::tuning::{self, Asked};
use crate::workspace::FusedWorkspace;
use iris_heap::{Backend, Buffer, Host, Point, Queue, World};
use iris_kernels::host::Parts;
use iris_kernels::{Element, Tile};
use iris_sync::{SignalCounter, Word};
use std::ops::Range;
use std::sync::Arc;

/// An operation of one rank: what the four public types have in common.
pub(crate) struct Operation<T: Element, W: Word, B: Runs<T, W>> {
    kind: Kind,
    config: FusedConfig,
    workspace: FusedWorkspace<T, W, B>,
}

impl<T: Element, W: Word, B: Runs<T, W>> Operation<T, W, B> {
    pub(crate) fn new(kind: Kind, world: &World<B>, config: FusedConfig) -> Result<Self, OpError> {
        let operation = kind.operation();
        let target = B::Kernel::target(world);
        let asked = Asked {
            kind,
            config: &config,
            target: &target,
        };
        let choices = tuning::choices::<T, W, B>(world, &asked)?;
        let blueprint = Blueprint::new::<T, W>(kind, &config, world.size(), &target, &choices);
        let plan = blueprint.as_ref().map(|blueprint| {
            let steps = blueprint.steps.iter();
            let said = steps.map(|step| {
                let Tile { m, n } = step.shape.tile;
                let before = if step.fused { "" } else { "a product, then " };
                format!(
                    "{before}{:?} in {m}x{n} up to {} rows",
                    step.program, step.rows
                )
            });
            said.collect::<Vec<_>>().join(", ")
        });
        let tile = config.tile.map(|tile| format!("{}x{}", tile.m, tile.n));
        let packets = (target.packets).map(|bytes| format!("{bytes} bytes for 16 of data"));
        // Agreed upon before any rank may give up: a rank whose own parameters are bad would otherwise leave the others waiting.
        let fields = [
            ("backend", B::NAME.to_owned()),
            ("m", config.m.to_string()),
            ("n", config.n.to_string()),
            ("k", config.k.to_string()),
            ("dtype", T::DTYPE.to_string()),
            ("word", W::NAME.to_owned()),
            ("bias", config.bias.to_string()),
            ("variant", config.variant.to_string()),
            ("gather", format!("{:?}", config.gather).to_lowercase()),
            ("tuned", config.tuned.to_string()),
            ("tile", tile.unwrap_or_else(|| "chosen".to_owned())),
            ("plan", plan.unwrap_or_else(|_| "none".to_owned())),
            ("first", config.first.to_string()),
            ("budget", format!("{:?}", config.budget)),
            ("plain_output", config.plain_output.to_string()),
            // What kernels store, kernels of another compiler read.
            ("packets", packets.unwrap_or_else(|| "none".to_owned())),
        ];
        world.agree(operation, &fields)?;
        let blueprint = blueprint?;
        let counter = SignalCounter::starting_at(config.first).unwrap_or_default(); // checked by the blueprint
        let prepared = B::Kernel::prepare(world, kind, &blueprint, &config);
        let prepared = world.all_succeed(operation, prepared)?;
        let region = world.allocate(blueprint.bytes, 256)?;
        // SAFETY: the region was just made for this workspace, of the blueprint's size, zeroed on all ranks.
        let kernel =
            unsafe { B::Kernel::new(world, kind, blueprint, region.offset(), &config, prepared) };
        let made = kernel.and_then(|kernel| Ok((kernel, B::Event::of(world.heap())?)));
        let (kernel, last) = match world.all_succeed(operation, made) {
            Ok(made) => made,
            Err(error) => {
                // All ranks have an error, so all come here. Which error is told is decided already.
                let _ = world.free(region);
                return Err(error);
            }
        };
        let kernel = Arc::new(kernel);
        kernel.watched_as(world.watch(operation, Arc::clone(&kernel) as _)?);
        Ok(Self {
            kind,
            config,
            workspace: FusedWorkspace {
                operation,
                world: world.clone(),
                kernel,
                region: Some(region),
                counter,
                last,
                bound: false,
            },
        })
    }

    pub(crate) fn workspace(&self) -> &FusedWorkspace<T, W, B> {
        &self.workspace
    }

    pub(crate) fn config(&self) -> &FusedConfig {
        &self.config
    }

    pub(crate) fn plan(&self, m: usize) -> Option<Plan> {
        let blueprint = self.workspace.kernel.blueprint();
        (1..=self.config.m).contains(&m).then(|| Plan {
            variant: variant_of(blueprint.step(m).program),
            tile: blueprint.step(m).shape.tile,
            fused: blueprint.step(m).fused,
        })
    }

    pub(crate) fn reset(&mut self) -> Result<(), OpError> {
        self.workspace.reset()
    }

    pub(crate) fn free(self) -> Result<(), OpError> {
        self.workspace.free()
    }

    pub(crate) fn bind<'a>(
        &'a mut self,
        stream: &'a B::Stream,
    ) -> Result<Bound<'a, T, W, B>, OpError> {
        let rank = self.workspace.world.rank();
        if stream.rank() != rank {
            return Err(OpError::ForeignStream {
                operation: self.kind.operation(),
                rank,
                stream: stream.rank(),
            });
        }
        self.rebind(stream)?;
        self.workspace.bound = true;
        Ok(Bound {
            operation: self,
            stream,
        })
    }

    /// Has what is enqueued on `stream` from now on wait for the calls made before.
    pub(crate) fn rebind(&self, stream: &B::Stream) -> Result<(), OpError> {
        self.workspace.is_let_go()?;
        stream.wait(&self.workspace.last)?;
        stream.watch(Arc::clone(&self.workspace.kernel) as _);
        Ok(())
    }
}

/// An operation bound to a stream, on which its calls run in order. The operation can be bound to another stream once this is
/// dropped; what is called there waits, on the device, for what was called here. Where this is forgotten ([`std::mem::forget`]) in place of dropped,
/// nobody knows when these calls have ended, and whatever asks for that is [`OpError::StillBound`].
pub struct Bound<'a, T: Element, W: Word = i32, B: Runs<T, W> = Host> {
    operation: &'a mut Operation<T, W, B>,
    stream: &'a B::Stream,
}

impl<T: Element, W: Word, B: Runs<T, W>> Drop for Bound<'_, T, W, B> {
    fn drop(&mut self) {
        // Refused only by a device that has failed, and is waited for no more.
        let _ = self.stream.record(&self.operation.workspace.last);
        self.operation.workspace.bound = false;
    }
}

impl<T: Element, W: Word, B: Runs<T, W>> Bound<'_, T, W, B> {
    /// Enqueues a call with `m` rows. Not collective, allocates nothing and waits for nothing but room in the queue; but all
    /// ranks make the same calls, with the same `m`, in the same order. The result is there once the stream is synchronised.
    ///
    /// The shapes are those of the operation's type. The inputs must not be written, nor the output touched, by anything else
    /// until the call has run; on one stream that is so by itself.
    ///
    /// # Errors
    /// Where the operands do not fit the call, before anything is enqueued; [`OpError::Fault`] where an earlier call faulted.
    pub fn call(
        &mut self,
        m: usize,
        a: MatrixRef<'_, T, B>,
        b: MatrixRef<'_, T, B>,
        bias: Option<&Buffer<T, B>>,
        c: MatrixMut<'_, T, B>,
    ) -> Result<(), OpError> {
        let parts = self.parts(m)?;
        let inputs = [Some(("a", a, parts.a)), Some(("b", b, parts.b))];
        self.enqueue(m, inputs, bias, c, parts.c)
    }

    /// Enqueues a call in which `x` stands in place of this rank's product: the collective alone.
    pub(crate) fn call_given(
        &mut self,
        m: usize,
        x: MatrixRef<'_, T, B>,
        c: MatrixMut<'_, T, B>,
    ) -> Result<(), OpError> {
        let parts = self.parts(m)?;
        let inputs = [Some(("x", x, (parts.a.0, parts.b.1))), None];
        self.enqueue(m, inputs, None, c, parts.c)
    }

    /// The parts of the whole matrices that this rank has and gets in a call of `m` rows.
    fn parts(&self, m: usize) -> Result<Parts, OpError> {
        let largest = self.operation.config.m;
        if !(1..=largest).contains(&m) {
            return Err(OpError::Rows {
                operation: self.operation.kind.operation(),
                m,
                largest,
            });
        }
        let world = &self.operation.workspace.world;
        let blueprint = self.operation.workspace.kernel.blueprint();
        let step = blueprint.step(m);
        Ok(step
            .program
            .parts(m, step.shape, world.size(), world.rank()))
    }

    /// Checks all operands, and enqueues the call.
    fn enqueue(
        &mut self,
        m: usize,
        inputs: [Option<Input<'_, T, B>>; 2],
        bias: Option<&Buffer<T, B>>,
        c: MatrixMut<'_, T, B>,
        c_part: (Range<usize>, Range<usize>),
    ) -> Result<(), OpError> {
        let operation = self.operation.kind.operation();
        let config = &self.operation.config;
        let kernel = &self.operation.workspace.kernel;
        let rank = self.operation.workspace.world.rank();
        if let Some(verdict) = kernel.verdict() {
            return Err(OpError::Fault(verdict));
        }
        let world = &self.operation.workspace.world;
        let check = Check { operation, rank };
        check.own("c", world, c.buffer)?;
        let c_view = check.output(&c, &c_part)?;
        if bias.is_some() != config.bias {
            return Err(OpError::Bias {
                operation,
                rank,
                given: if bias.is_some() { "a" } else { "no" },
                created: if config.bias { "with one" } else { "without" },
            });
        }
        let cols = c_part.1.len();
        let bias_input = bias.map(|bias| ("bias", MatrixRef::new(bias, 1, cols), (0..1, c_part.1)));
        let mut views = [None, None];
        for (slot, input) in inputs.iter().chain([&bias_input]).enumerate() {
            let Some((tensor, matrix, part)) = input else {
                continue;
            };
            check.own(tensor, world, matrix.buffer)?;
            let view = check.input(tensor, matrix, part)?;
            check.apart(tensor, &c, matrix)?;
            if let Some(place) = views.get_mut(slot) {
                *place = Some((matrix.buffer.any(), view));
            }
        }
        let blueprint = kernel.blueprint();
        let stored = blueprint.step(m).program.stores_to_peers();
        let store = match (stored, c.buffer.offset(), blueprint.bounce) {
            (false, ..) => (0, false),
            (true, Some(offset), _) => (offset + c.offset * size_of::<T>(), false),
            (true, None, Some(bounce)) => (kernel.offset() + bounce, true),
            (true, None, None) => return Err(OpError::PlainOutput { operation, rank }),
        };
        let arguments = Arguments {
            m,
            inputs: views,
            bias: bias.map(Buffer::any),
            output: (c.buffer.any(), c_view),
            store,
        };
        B::Kernel::enqueue(kernel, self.stream, arguments)
    }

    /// The stream it is bound to.
    pub fn stream(&self) -> &B::Stream {
        self.stream
    }
}

/// An input's name, the matrix given, and the part of the whole matrix that it must be.
type Input<'a, T, B> = (
    &'static str,
    MatrixRef<'a, T, B>,
    (Range<usize>, Range<usize>),
);

/// Checks of one rank's operands.
pub(crate) struct Check {
    pub(crate) operation: &'static str,
    pub(crate) rank: usize,
}

impl Check {
    pub(crate) fn input<T: Element, B: Backend>(
        &self,
        tensor: &'static str,
        matrix: &MatrixRef<'_, T, B>,
        (rows, cols): &(Range<usize>, Range<usize>),
    ) -> Result<Strided, OpError> {
        let &MatrixRef {
            row_stride,
            col_stride,
            ..
        } = matrix;
        self.shape(tensor, matrix.rows, matrix.cols, rows.len(), cols.len())?;
        self.span_in(tensor, matrix)?;
        // One row needs no distance between rows, and one column none between columns.
        let by_rows = col_stride == 1 || matrix.cols <= 1;
        let by_columns = row_stride == 1 || matrix.rows <= 1;
        if !by_rows && !by_columns {
            return Err(OpError::Strides {
                operation: self.operation,
                rank: self.rank,
                tensor,
                row_stride,
                col_stride,
                expected: "one of them must be 1",
            });
        }
        // From here on, one stride is 1 for certain.
        let (row_stride, col_stride) = if by_rows {
            (row_stride, 1)
        } else {
            (1, col_stride)
        };
        // The shape that was expected: a matrix without elements may have been given in another.
        Ok(Strided {
            offset: matrix.offset,
            rows: rows.len(),
            cols: cols.len(),
            row_stride,
            col_stride,
        })
    }

    pub(crate) fn output<T: Element, B: Backend>(
        &self,
        c: &MatrixMut<'_, T, B>,
        (rows, cols): &(Range<usize>, Range<usize>),
    ) -> Result<Strided, OpError> {
        self.shape("c", c.rows, c.cols, rows.len(), cols.len())?;
        if c.rows > 1 && c.row_stride < c.cols {
            return Err(OpError::Strides {
                operation: self.operation,
                rank: self.rank,
                tensor: "c",
                row_stride: c.row_stride,
                col_stride: 1,
                expected: "its rows must not overlap",
            });
        }
        let view = self.output_view(c);
        self.span_in("c", &view)?;
        Ok(Strided {
            offset: c.offset,
            rows: rows.len(),
            cols: cols.len(),
            row_stride: c.row_stride,
            col_stride: 1,
        })
    }

    fn output_view<'a, T: Element, B: Backend>(
        &self,
        c: &MatrixMut<'a, T, B>,
    ) -> MatrixRef<'a, T, B> {
        MatrixRef::strided(c.buffer, c.offset, c.rows, c.cols, c.row_stride, 1)
    }

    fn shape(
        &self,
        tensor: &'static str,
        rows: usize,
        cols: usize,
        expected_rows: usize,
        expected_cols: usize,
    ) -> Result<(), OpError> {
        // A matrix of no elements has no shape worth arguing over.
        let empty = rows.min(cols) == 0 && expected_rows.min(expected_cols) == 0;
        if empty || (rows, cols) == (expected_rows, expected_cols) {
            return Ok(());
        }
        Err(OpError::Shape {
            operation: self.operation,
            rank: self.rank,
            tensor,
            rows,
            cols,
            expected_rows,
            expected_cols,
        })
    }

    /// The elements of its buffer that a matrix touches, wherever the buffer ends.
    fn span<T: Element, B: Backend>(
        &self,
        tensor: &'static str,
        matrix: &MatrixRef<'_, T, B>,
    ) -> Result<Range<usize>, OpError> {
        let &MatrixRef {
            offset,
            rows,
            cols,
            row_stride,
            col_stride,
            ..
        } = matrix;
        span(offset, rows, cols, row_stride, col_stride).ok_or(OpError::OutOfBuffer {
            operation: self.operation,
            rank: self.rank,
            tensor,
            needed: usize::MAX,
            len: usize::MAX,
        })
    }

    fn span_in<T: Element, B: Backend>(
        &self,
        tensor: &'static str,
        matrix: &MatrixRef<'_, T, B>,
    ) -> Result<(), OpError> {
        let span = self.span(tensor, matrix)?;
        let len = matrix.buffer.len();
        if span.is_empty() || span.end <= len {
            return Ok(());
        }
        Err(OpError::OutOfBuffer {
            operation: self.operation,
            rank: self.rank,
            tensor,
            needed: span.end,
            len,
        })
    }

    /// That a buffer is this rank's: of its device, and of no other rank's symmetric heap.
    pub(crate) fn own<T: Element, B: Backend>(
        &self,
        tensor: &'static str,
        world: &World<B>,
        buffer: &Buffer<T, B>,
    ) -> Result<(), OpError> {
        let (device, found) = (world.device_ordinal(), buffer.device_ordinal());
        if device != found {
            return Err(OpError::WrongDevice {
                operation: self.operation,
                rank: self.rank,
                tensor,
                device,
                found,
            });
        }
        match buffer.region() {
            Some(region) if !world.owns(region) => Err(OpError::ForeignBuffer {
                operation: self.operation,
                rank: self.rank,
                tensor,
            }),
            _ => Ok(()),
        }
    }

    /// That the output does not share elements with an input.
    pub(crate) fn apart<T: Element, B: Backend>(
        &self,
        tensor: &'static str,
        c: &MatrixMut<'_, T, B>,
        input: &MatrixRef<'_, T, B>,
    ) -> Result<(), OpError> {
        let read = self.span(tensor, input)?;
        let written = self.span("c", &self.output_view(c))?;
        // Compared by address: two buffers may be views of one piece of somebody else's memory.
        let bytes = |buffer: &Buffer<T, B>, span: Range<usize>| {
            let at = |element: usize| buffer.address() + (element * size_of::<T>()) as u64;
            at(span.start)..at(span.end)
        };
        let (written, read) = (bytes(c.buffer, written), bytes(input.buffer, read));
        let disjoint = written.is_empty()
            || read.is_empty()
            || written.end <= read.start
            || read.end <= written.start;
        if disjoint {
            return Ok(());
        }
        Err(OpError::Aliased {
            operation: self.operation,
            rank: self.rank,
            tensor,
        })
    }
}

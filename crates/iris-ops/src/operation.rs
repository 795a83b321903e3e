//! Creating an operation, and calling it.

use crate::config::FusedConfig;
use crate::error::OpError;
use crate::host::{Arguments, HostKernel, Strided};
use crate::matrix::{MatrixMut, MatrixRef, span};
use crate::plan::{Blueprint, Kind, Plan, variant_of};
use crate::workspace::FusedWorkspace;
use iris_heap::{Buffer, Event, KernelLaunch, Stream, World};
use iris_kernels::Element;
use iris_kernels::host::Parts;
use iris_sync::{Signal, SignalCounter, Word};
use std::ops::Range;
use std::sync::Arc;

/// An operation of one rank: what the four public types have in common.
pub(crate) struct Operation<T: Element, W: Word> {
    kind: Kind,
    config: FusedConfig,
    workspace: FusedWorkspace<T, W>,
}

impl<T: Element, W: Word> Operation<T, W> {
    pub(crate) fn new(kind: Kind, world: &World, config: FusedConfig) -> Result<Self, OpError> {
        let operation = kind.operation();
        let blueprint = Blueprint::new::<T, W>(kind, &config, world.size());
        let tile = blueprint.as_ref().map(|blueprint| blueprint.shape.tile);
        // Agreed upon before any rank may give up: a rank whose own parameters are bad would otherwise leave the others waiting.
        let fields = [
            ("m", config.m.to_string()),
            ("n", config.n.to_string()),
            ("k", config.k.to_string()),
            ("dtype", T::DTYPE.to_string()),
            ("word", W::NAME.to_owned()),
            ("bias", config.bias.to_string()),
            ("variant", config.variant.to_string()),
            ("gather", format!("{:?}", config.gather).to_lowercase()),
            (
                "tile",
                tile.map_or_else(
                    |_| "none".to_owned(),
                    |tile| format!("{}x{}", tile.m, tile.n),
                ),
            ),
            ("first", config.first.to_string()),
            ("budget", format!("{:?}", config.budget)),
            ("plain_output", config.plain_output.to_string()),
        ];
        world.agree(operation, &fields)?;
        let blueprint = blueprint?;
        let first = Signal::new(config.first).unwrap_or_default(); // checked by the blueprint
        let counter = SignalCounter::starting_at(config.first).unwrap_or_default();
        let region = world.allocate(blueprint.bytes, 256)?;
        // SAFETY: the region was just made for this workspace, of the blueprint's size, zeroed on all ranks.
        let kernel = Arc::new(unsafe {
            HostKernel::<T, W>::new(
                world,
                operation,
                blueprint,
                region.offset(),
                first,
                config.budget,
                config.rules,
                config.probe.clone(),
            )
        });
        kernel.watched_as(world.watch(operation, Arc::clone(&kernel) as _)?);
        Ok(Self {
            kind,
            config,
            workspace: FusedWorkspace {
                world: world.clone(),
                kernel,
                region: Some(region),
                counter,
                last: Event::new(),
            },
        })
    }

    pub(crate) fn workspace(&self) -> &FusedWorkspace<T, W> {
        &self.workspace
    }

    pub(crate) fn config(&self) -> &FusedConfig {
        &self.config
    }

    pub(crate) fn plan(&self, m: usize) -> Option<Plan> {
        let blueprint = self.workspace.kernel.blueprint();
        (1..=self.config.m).contains(&m).then(|| Plan {
            variant: variant_of(blueprint.program(m)),
            tile: blueprint.shape.tile,
        })
    }

    pub(crate) fn reset(&mut self) -> Result<(), OpError> {
        self.workspace.reset()
    }

    pub(crate) fn free(self) -> Result<(), OpError> {
        self.workspace.free()
    }

    pub(crate) fn bind<'a>(&'a mut self, stream: &'a Stream) -> Result<Bound<'a, T, W>, OpError> {
        let rank = self.workspace.world.rank();
        if stream.rank() != rank {
            return Err(OpError::ForeignStream {
                operation: self.kind.operation(),
                rank,
                stream: stream.rank(),
            });
        }
        stream.wait(&self.workspace.last);
        Ok(Bound {
            operation: self,
            stream,
        })
    }
}

/// An operation bound to a stream, on which its calls run in order. The operation can be bound to another stream once this is
/// dropped; what is called there waits, on the device, for what was called here.
pub struct Bound<'a, T: Element, W: Word = i32> {
    operation: &'a mut Operation<T, W>,
    stream: &'a Stream,
}

impl<T: Element, W: Word> Drop for Bound<'_, T, W> {
    fn drop(&mut self) {
        self.stream.record(&self.operation.workspace.last);
    }
}

impl<T: Element, W: Word> Bound<'_, T, W> {
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
        a: MatrixRef<'_, T>,
        b: MatrixRef<'_, T>,
        bias: Option<&Buffer<T>>,
        c: MatrixMut<'_, T>,
    ) -> Result<(), OpError> {
        let parts = self.parts(m)?;
        let inputs = [Some(("a", a, parts.a)), Some(("b", b, parts.b))];
        self.enqueue(m, inputs, bias, c, parts.c)
    }

    /// Enqueues a call in which `x` stands in place of this rank's product: the collective alone.
    pub(crate) fn call_given(
        &mut self,
        m: usize,
        x: MatrixRef<'_, T>,
        c: MatrixMut<'_, T>,
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
        let program = blueprint.program(m);
        Ok(program.parts(m, blueprint.shape, world.size(), world.rank()))
    }

    /// Checks all operands, and enqueues the call.
    fn enqueue(
        &mut self,
        m: usize,
        inputs: [Option<Input<'_, T>>; 2],
        bias: Option<&Buffer<T>>,
        c: MatrixMut<'_, T>,
        c_part: (Range<usize>, Range<usize>),
    ) -> Result<(), OpError> {
        let operation = self.operation.kind.operation();
        let config = &self.operation.config;
        let kernel = &self.operation.workspace.kernel;
        let rank = self.operation.workspace.world.rank();
        if let Some(verdict) = kernel.verdict() {
            return Err(OpError::Fault(verdict));
        }
        let check = Check { operation, rank };
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
            let view = check.input(tensor, matrix, part)?;
            check.apart(tensor, &c, matrix)?;
            if let Some(place) = views.get_mut(slot) {
                *place = Some((matrix.buffer.any(), view));
            }
        }
        let blueprint = kernel.blueprint();
        let stored = blueprint.program(m).stores_to_peers();
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
        self.stream.launch(KernelLaunch {
            kernel: Arc::clone(kernel) as _,
            args: arguments.into(),
        });
        Ok(())
    }

    /// The stream it is bound to.
    pub fn stream(&self) -> &Stream {
        self.stream
    }
}

/// An input's name, the matrix given, and the part of the whole matrix that it must be.
type Input<'a, T> = (&'static str, MatrixRef<'a, T>, (Range<usize>, Range<usize>));

/// Checks of one rank's operands.
pub(crate) struct Check {
    pub(crate) operation: &'static str,
    pub(crate) rank: usize,
}

impl Check {
    pub(crate) fn input<T: Element>(
        &self,
        tensor: &'static str,
        matrix: &MatrixRef<'_, T>,
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
        Ok(Strided {
            offset: matrix.offset,
            rows: matrix.rows,
            cols: matrix.cols,
            row_stride,
            col_stride,
        })
    }

    pub(crate) fn output<T: Element>(
        &self,
        c: &MatrixMut<'_, T>,
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
            rows: c.rows,
            cols: c.cols,
            row_stride: c.row_stride,
            col_stride: 1,
        })
    }

    fn output_view<'a, T: Element>(&self, c: &MatrixMut<'a, T>) -> MatrixRef<'a, T> {
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
    fn span<T: Element>(
        &self,
        tensor: &'static str,
        matrix: &MatrixRef<'_, T>,
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

    fn span_in<T: Element>(
        &self,
        tensor: &'static str,
        matrix: &MatrixRef<'_, T>,
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

    /// That the output does not share elements with an input.
    pub(crate) fn apart<T: Element>(
        &self,
        tensor: &'static str,
        c: &MatrixMut<'_, T>,
        input: &MatrixRef<'_, T>,
    ) -> Result<(), OpError> {
        let read = self.span(tensor, input)?;
        let written = self.span("c", &self.output_view(c))?;
        let disjoint = written.is_empty()
            || read.is_empty()
            || written.end <= read.start
            || read.end <= written.start;
        if disjoint || !c.buffer.same_memory(input.buffer) {
            return Ok(());
        }
        Err(OpError::Aliased {
            operation: self.operation,
            rank: self.rank,
            tensor,
        })
    }
}

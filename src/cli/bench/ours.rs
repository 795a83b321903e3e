//! What of ours is measured on GPUs beside the vendor's: the fused operation, and our collective alone, on the same operands.

use iris::heap::cuda::Cuda;
use iris::heap::device::{CapturedGraph, DeviceConfig, Driver, RankStream, Stream};
use iris::heap::{Buffer, World, WorldError};
use iris::ops::device::{Captured, Launch};
use iris::ops::unfused::Collective;
use iris::ops::{Element, FusedConfig, MatrixMut, MatrixRef, OpError};
use iris_measure::{
    CollectiveKind, Comparison, Enqueue, Failure, Operation, Part, Plan, Samples, Storage,
};
use iris_testkit::{AnyOperation, Op};

/// Elements of each result that are checked, on each of the sets that are.
const SAMPLES: usize = 24;
/// Room in the heap for what is not known beforehand, to begin with.
const SLACK: usize = 64 << 20;

/// One set of a rank's operands and results.
struct Set<T> {
    /// The vendor's A and B.
    a: Buffer<T, Cuda>,
    b: Buffer<T, Cuda>,
    /// Where the fused operation's result goes.
    c: Buffer<T, Cuda>,
    /// What the collective takes: a copy of the vendor's product, or this rank's part of A.
    given: Buffer<T, Cuda>,
    /// Where the collective's result goes.
    exchanged: Buffer<T, Cuda>,
}

/// One rank's side of one point.
pub(crate) struct Ours<T: Element> {
    plan: Plan,
    sets: Vec<Set<T>>,
    fused: AnyOperation<T, i32, Cuda>,
    collective: Collective<T, Cuda>,
    of_result: Vec<Samples>,
    of_exchange: Vec<Samples>,
    // The last: all above lies in its heap.
    world: World<Cuda>,
}

/// Gives `body` a world on devices whose heap is large enough: one that turns out too small is made anew with what it lacked.
/// Collective.
pub(crate) fn with_heap<R>(
    host: &World,
    least: usize,
    body: impl Fn(&World<Cuda>) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    let mut heap_bytes = least + SLACK;
    loop {
        let config = DeviceConfig {
            heap_bytes,
            ..DeviceConfig::default()
        };
        // Dropped before the next is made.
        let outcome = host.on::<Cuda>(&config).map_err(Into::into);
        let outcome = outcome.and_then(|world| body(&world));
        match outcome.as_ref().err().and_then(lacking) {
            // The same on all ranks, since all allocate the same.
            Some(lacking) => heap_bytes += lacking + SLACK,
            None => return outcome,
        }
    }
}

/// What a heap that is full would have needed besides.
fn lacking(error: &anyhow::Error) -> Option<usize> {
    error.chain().find_map(|cause| {
        let world = match cause.downcast_ref::<OpError>() {
            Some(OpError::World(world)) => Some(world),
            _ => cause.downcast_ref::<WorldError>(),
        };
        match world {
            Some(WorldError::HeapFull { needed, .. }) => Some(*needed),
            _ => None,
        }
    })
}

/// The bytes of symmetric memory that the results of a plan take.
pub(crate) fn results_bytes(plan: &Plan, sets: usize) -> usize {
    let elements = plan.case.m * plan.case.n + gathered_len(plan).max(plan.case.m * plan.case.n);
    sets * (elements * plan.case.dtype.bytes() + 8192)
}

/// The elements of the whole A, where that is gathered.
fn gathered_len(plan: &Plan) -> usize {
    if plan.case.operation.gathers_first() {
        plan.case.m * plan.case.k
    } else {
        0
    }
}

/// How the collective alone sees its matrices: rows, of the whole, and columns.
fn exchange(plan: &Plan) -> (usize, usize) {
    let case = &plan.case;
    match case.operation {
        Operation::AllGatherMatmulRows => (case.m, case.k),
        // Of the transpose, whose rows are gathered.
        Operation::AllGatherMatmulColumns => (case.k, case.m),
        _ => (case.m, case.n),
    }
}

impl<T: Element> Ours<T> {
    /// Creates both for a comparison's plan and operands. Collective.
    pub(crate) fn new(
        world: &World<Cuda>,
        comparison: &Comparison<'_, '_>,
        stream: &Stream<Cuda>,
        op: Op,
        config: FusedConfig,
    ) -> anyhow::Result<Self> {
        let plan = comparison.plan().clone();
        let largest = Plan::new(plan.case, plan.world, 0)?;
        let (rows, columns) = exchange(&plan);
        let config = op.configure(config);
        let of_collective = FusedConfig {
            m: rows,
            n: columns,
            ..config.clone()
        };
        let operands = comparison.operands();
        let exchanged = match plan.collective {
            CollectiveKind::AllReduce => rows * columns,
            CollectiveKind::ReduceScatter => largest.c.len(),
            CollectiveKind::AllGather => rows * columns,
        };
        let sets = (0..operands.sets())
            .map(|set| {
                let at = operands.plain(set);
                // SAFETY: the comparison's memory, which outlives this (see `gpu`), and which the vendor's library and our kernels
                // use on one stream.
                let foreign = |address, len| unsafe { world.foreign_buffer(address, len) };
                let given = if plan.case.operation.gathers_first() {
                    foreign(at.a, plan.a.len())?
                } else {
                    let own = world.plain_buffer(plan.m * plan.n)?;
                    // SAFETY: just made, of this size, and waited for below.
                    unsafe { comparison.product_into(set, own.address()) }?;
                    own
                };
                Ok(Set {
                    a: foreign(at.a, plan.a.len())?,
                    b: foreign(at.b, plan.b.len())?,
                    c: world.symmetric_buffer(largest.c.len())?,
                    given,
                    exchanged: world.symmetric_buffer(exchanged)?,
                })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        stream.synchronize()?;
        let collective = match plan.collective {
            CollectiveKind::AllReduce => Collective::all_reduce(world, of_collective)?,
            CollectiveKind::ReduceScatter => Collective::reduce_scatter(world, of_collective)?,
            CollectiveKind::AllGather => Collective::all_gather(world, of_collective)?,
        };
        let checked = [0, sets.len() - 1];
        Ok(Self {
            fused: AnyOperation::new(op, world, config)?,
            collective,
            of_result: checked.map(|set| comparison.samples(set, SAMPLES)).into(),
            of_exchange: checked
                .map(|set| {
                    if plan.case.operation.gathers_first() {
                        comparison.gathered(set, SAMPLES)
                    } else {
                        comparison.samples(set, SAMPLES)
                    }
                })
                .into(),
            plan,
            sets,
            world: world.clone(),
        })
    }

    /// The fused operation's name of its way to do it.
    pub(crate) fn variant(&self) -> Option<iris::ops::Variant> {
        self.fused.plan(self.plan.case.m).map(|plan| plan.variant)
    }

    /// The fused operation and the collective, to be measured.
    pub(crate) fn split<'a>(
        &'a mut self,
        stream: &'a RankStream<Cuda>,
    ) -> (Fused<'a, T>, Exchange<'a, T>) {
        let fused = Calls {
            operation: &mut self.fused,
            plan: &self.plan,
            sets: &self.sets,
            samples: &self.of_result,
            result: |set| &set.c,
            world: &self.world,
            stream,
            graph: None,
        };
        let collective = Calls {
            operation: &mut self.collective,
            plan: &self.plan,
            sets: &self.sets,
            samples: &self.of_exchange,
            result: |set| &set.exchanged,
            world: &self.world,
            stream,
            graph: None,
        };
        (fused, collective)
    }

    /// Gives the symmetric memory back. Collective.
    pub(crate) fn free(self) -> anyhow::Result<()> {
        self.fused.free()?;
        self.collective.free()?;
        for set in self.sets {
            self.world.free_buffer(set.c)?;
            self.world.free_buffer(set.exchanged)?;
        }
        Ok(())
    }
}

/// The fused operation, measured.
pub(crate) type Fused<'a, T> = Calls<'a, T, AnyOperation<T, i32, Cuda>>;
/// The collective alone, measured.
pub(crate) type Exchange<'a, T> = Calls<'a, T, Collective<T, Cuda>>;

/// An operation whose calls are measured.
pub(crate) struct Calls<'a, T, O> {
    operation: &'a mut O,
    plan: &'a Plan,
    sets: &'a [Set<T>],
    /// What the results should be.
    samples: &'a [Samples],
    /// Where a call leaves its result.
    result: fn(&Set<T>) -> &Buffer<T, Cuda>,
    world: &'a World<Cuda>,
    stream: &'a RankStream<Cuda>,
    graph: Option<CapturedGraph<Cuda>>,
}

/// What is measured, and how it is called.
trait Callable<T: Element> {
    /// Binds it to the stream, and has calls on so many sets made, the first on set `first`.
    fn calls(
        &mut self,
        plan: &Plan,
        stream: &RankStream<Cuda>,
        sets: &mut dyn Iterator<Item = &Set<T>>,
        capture: bool,
    ) -> Result<Option<CapturedGraph<Cuda>>, OpError>;

    fn captured(&mut self) -> &mut dyn Captured<Cuda>;
}

/// A rank's part of a matrix, as it lies in a buffer.
fn matrix<'a, T>(buffer: &'a Buffer<T, Cuda>, part: &Part) -> MatrixRef<'a, T, Cuda> {
    let (rows, columns) = (part.rows.len(), part.columns.len());
    match part.storage {
        Storage::Rows => MatrixRef::new(buffer, rows, columns),
        Storage::Columns => MatrixRef::new(buffer, columns, rows).transposed(),
    }
}

/// Has `call` made on each set, captured or not.
fn each<'s, T: 's>(
    stream: &RankStream<Cuda>,
    sets: &mut dyn Iterator<Item = &'s Set<T>>,
    capture: bool,
    mut call: impl FnMut(&Set<T>) -> Result<(), OpError>,
) -> Result<Option<CapturedGraph<Cuda>>, OpError> {
    let mut all = || {
        for set in &mut *sets {
            call(set)?;
        }
        Ok(())
    };
    if capture {
        stream.capture(all).map(Some)
    } else {
        all().map(|()| None)
    }
}

impl<T: Element> Callable<T> for AnyOperation<T, i32, Cuda> {
    fn calls(
        &mut self,
        plan: &Plan,
        stream: &RankStream<Cuda>,
        sets: &mut dyn Iterator<Item = &Set<T>>,
        capture: bool,
    ) -> Result<Option<CapturedGraph<Cuda>>, OpError> {
        let mut bound = self.bind(stream)?;
        each(stream, sets, capture, |set| {
            let (a, b) = (matrix(&set.a, &plan.a), matrix(&set.b, &plan.b));
            let c = MatrixMut::new(&set.c, plan.c.rows.len(), plan.c.columns.len());
            bound.call(plan.case.m, a, b, None, c)
        })
    }

    fn captured(&mut self) -> &mut dyn Captured<Cuda> {
        AnyOperation::captured(self)
    }
}

impl<T: Element> Callable<T> for Collective<T, Cuda> {
    fn calls(
        &mut self,
        plan: &Plan,
        stream: &RankStream<Cuda>,
        sets: &mut dyn Iterator<Item = &Set<T>>,
        capture: bool,
    ) -> Result<Option<CapturedGraph<Cuda>>, OpError> {
        let (rows, columns) = exchange(plan);
        let given = match plan.case.operation {
            Operation::AllGatherMatmulRows => plan.a.rows.len(),
            Operation::AllGatherMatmulColumns => plan.a.columns.len(),
            _ => plan.m,
        };
        let result = match plan.collective {
            CollectiveKind::ReduceScatter => plan.c.rows.len(),
            CollectiveKind::AllReduce | CollectiveKind::AllGather => rows,
        };
        let mut bound = self.bind(stream)?;
        each(stream, sets, capture, |set| {
            let x = MatrixRef::new(&set.given, given, columns);
            bound.call(rows, x, MatrixMut::new(&set.exchanged, result, columns))
        })
    }

    fn captured(&mut self) -> &mut dyn Captured<Cuda> {
        self
    }
}

impl<T: Element, O: Callable<T>> Enqueue<Cuda> for Calls<'_, T, O> {
    fn enqueue(&mut self, set: usize, _: &Stream<Cuda>) -> Result<(), Failure> {
        let mut sets = std::iter::once(&self.sets[set]);
        self.operation
            .calls(self.plan, self.stream, &mut sets, false)?;
        Ok(())
    }

    fn capture(&mut self, calls: usize, sets: usize, _: &Stream<Cuda>) -> Result<(), Failure> {
        self.graph = None;
        let mut sets = self.sets[..sets].iter().cycle().take(calls);
        self.graph = self
            .operation
            .calls(self.plan, self.stream, &mut sets, true)?;
        Ok(())
    }

    fn launch(&mut self, _: &Stream<Cuda>) -> Result<(), Failure> {
        let graph = self.graph.as_ref().ok_or("nothing was captured")?;
        graph.launch(self.stream, &mut [self.operation.captured()])?;
        Ok(())
    }

    fn check(&mut self, stream: &Stream<Cuda>) -> Result<(), Failure> {
        let mut wrong = Ok(());
        for samples in self.samples {
            let set = &self.sets[samples.set];
            let result = (self.result)(set);
            let bytes = result.len() * size_of::<T>();
            if bytes > 0 {
                let driver = Cuda::load()?;
                driver.bind(stream.device().ordinal())?;
                // No number, so that nothing left of an earlier call can pass for a result of this.
                // SAFETY: the buffer is that large, and nothing that is enqueued elsewhere uses it: peers store into it in calls
                // alone, and make the next one after the barrier.
                unsafe { driver.fill(result.address(), 0xff, bytes, stream.raw()) }?;
            }
            stream.synchronize()?;
            self.world.barrier()?;
            self.enqueue(samples.set, stream)?;
            self.stream.synchronize()?;
            // A peer's synchronisation says nothing of this rank's result; its own does, by the protocol.
            for sample in &samples.elements {
                let mut element = [T::NAN];
                result.download_into(sample.at, &mut element)?;
                let actual = f64::from(element[0].to_f32());
                if !sample.accepts(actual) && wrong.is_ok() {
                    wrong = Err(format!(
                        "operands {}: the result at row {}, column {} is {actual}, and should be {} (give or take {:.3e}); nothing of this measurement counts",
                        samples.set, sample.row, sample.column, sample.expected, sample.bound
                    )
                    .into());
                }
            }
        }
        wrong
    }
}

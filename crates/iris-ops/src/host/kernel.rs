//! One rank's side of an operation, as a stream's worker runs it.

use crate::backend::{Executor, Runs};
use crate::call::{Arguments, Strided};
use crate::config::FusedConfig;
use crate::error::OpError;
use crate::plan::{Blueprint, Kind, Step, Target};
use crate::tuning::Machine;
use iris_heap::{
    Access, Activity, AnyBuffer, Faults, Host, Kernel, KernelArgs, KernelLaunch, Report, Stream,
    StreamError, Verdict, WatchId, Watched, World,
};
use iris_kernels::host::{
    Accumulators, Input, Operands, Output, Program, Rank, Scratch, Staging, product,
};
use iris_kernels::{DType, Element, Tile, View, ViewMut};
use iris_sync::{Cause, Mapped, Patience, Port, Probe, Rules, Signal, Word};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

impl Strided {
    pub(crate) const SCALARS: usize = 5;

    pub(crate) fn to_scalars(self, scalars: &mut [i64]) {
        let fields = [
            self.offset,
            self.rows,
            self.cols,
            self.row_stride,
            self.col_stride,
        ];
        for (scalar, field) in scalars.iter_mut().zip(fields) {
            *scalar = field as i64;
        }
    }

    pub(crate) fn from_scalars(scalars: &[i64]) -> Self {
        let field = |index: usize| scalars[index] as usize;
        Self {
            offset: field(0),
            rows: field(1),
            cols: field(2),
            row_stride: field(3),
            col_stride: field(4),
        }
    }

    pub(crate) fn view<T>(self, buffer: &AnyBuffer) -> View<T> {
        View {
            data: buffer.ptr().cast::<T>().wrapping_add(self.offset),
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
            col_stride: self.col_stride,
        }
    }

    pub(crate) fn view_mut<T>(self, buffer: &AnyBuffer) -> ViewMut<T> {
        ViewMut {
            data: buffer.ptr().cast::<T>().wrapping_add(self.offset),
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
        }
    }
}

/// The places of a call's arguments in a kernel's.
const M: usize = 0;
const STORE: usize = 1;
const BOUNCED: usize = 2;
const FIRST_VIEW: usize = 3;
const BIAS: usize = 2;
const OUTPUT: usize = 3;

impl From<Arguments<Host>> for KernelArgs {
    fn from(arguments: Arguments<Host>) -> Self {
        let mut args = Self::default();
        args.scalars[M] = arguments.m as i64;
        args.scalars[STORE] = arguments.store.0 as i64;
        args.scalars[BOUNCED] = i64::from(arguments.store.1);
        let mut place = FIRST_VIEW;
        for (slot, input) in arguments.inputs.into_iter().enumerate() {
            if let Some((buffer, strided)) = input {
                strided.to_scalars(&mut args.scalars[place..]);
                args.buffers[slot] = Some((buffer, Access::Read));
            }
            place += Strided::SCALARS;
        }
        args.buffers[BIAS] = arguments.bias.map(|bias| (bias, Access::Read));
        let (buffer, strided) = arguments.output;
        strided.to_scalars(&mut args.scalars[place..]);
        args.buffers[OUTPUT] = Some((buffer, Access::Write));
        args
    }
}

/// The kernel's view of its arguments.
fn operands<T>(args: &KernelArgs) -> Option<Operands<T>> {
    let strided =
        |slot: usize| Strided::from_scalars(&args.scalars[FIRST_VIEW + slot * Strided::SCALARS..]);
    let buffer = |slot: usize| args.buffers[slot].as_ref().map(|(buffer, _)| buffer);
    let a = strided(0).view(buffer(0)?);
    let c = strided(2);
    Some(Operands {
        m: args.scalars[M] as usize,
        input: match buffer(1) {
            Some(b) => Input::Product {
                a,
                b: strided(1).view(b),
            },
            None => Input::Given(a),
        },
        bias: buffer(BIAS).map(|bias| bias.ptr().cast_const().cast()),
        c: c.view_mut(buffer(OUTPUT)?),
        output: Output {
            offset: args.scalars[STORE] as usize,
            row_stride: if args.scalars[BOUNCED] != 0 {
                c.cols
            } else {
                c.row_stride
            },
            bounced: args.scalars[BOUNCED] != 0,
        },
    })
}

/// One rank's side of an operation.
pub struct HostKernel<T, W> {
    world: World,
    operation: &'static str,
    blueprint: Blueprint,
    first: Signal<W>,
    waiting: Patience,
    rules: Rules,
    probe: Option<Arc<dyn Probe>>,
    /// Each rank's heap, and each rank's words in it.
    heap: Vec<*mut u8>,
    words: Vec<*mut u8>,
    /// The workspace's offset in the heap.
    offset: usize,
    scratch: Mutex<Scratch>,
    running: AtomicBool,
    epoch: AtomicU64,
    watch: OnceLock<WatchId>,
    fault: Mutex<Faulted>,
    element: PhantomData<fn() -> T>,
}

/// What has become of a fault so far.
#[derive(Debug, Default)]
struct Faulted {
    report: Option<Report>,
    verdict: Option<Arc<Verdict>>,
}

// SAFETY: the pointers are the bases of the world's heap, which `world` keeps mapped; what is done through them follows the
// protocol, on whatever thread, and the scratch is behind a lock.
unsafe impl<T, W> Send for HostKernel<T, W> {}
// SAFETY: as above.
unsafe impl<T, W> Sync for HostKernel<T, W> {}

impl<T: Element, W: Word> HostKernel<T, W> {
    fn port(&self) -> Port<'_, W, Mapped<'_, W>, Patience> {
        // SAFETY: the words lie at the start of the workspace of each rank, which `new` was promised: aligned, zero at first,
        // and used for nothing else.
        let memory = unsafe { Mapped::new(self.world.rank(), self.blueprint.layout, &self.words) };
        let mut port = Port::new(self.operation, memory, self.waiting);
        port.first = self.first;
        port.rules = self.rules;
        port.probe = self.probe.as_deref();
        port
    }

    /// How many calls this rank has completed since the last reset.
    fn completed(&self) -> u64 {
        self.port().index()
    }

    fn faulted(&self) -> MutexGuard<'_, Faulted> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, step: &Step, operands: &Operands<T>) -> Result<(), iris_sync::Fault> {
        let workspace = |offset| self.offset + offset;
        let rank = Rank {
            port: self.port(),
            heap: &self.heap,
            shape: step.shape,
            staging: Staging {
                offset: workspace(step.staging.offset),
                ..step.staging
            },
            accumulators: Accumulators {
                offset: workspace(self.blueprint.accumulators.offset),
                ..self.blueprint.accumulators
            },
        };
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let operands = match (step.fused, self.blueprint.product) {
            (false, Some(product)) => &self.multiply(step, operands, product, &mut scratch),
            _ => operands,
        };
        // SAFETY: the operation has checked the operands' sizes, bounds and aliasing, and the stream holds their locks while
        // this runs; all ranks run the same calls in the same order, as whoever calls an operation promises; the workspace is
        // the blueprint's, which covers this program at this `m`.
        unsafe { step.program.run(&rank, operands, &mut scratch) }
    }
}

impl<T: Element, W: Word> HostKernel<T, W> {
    /// Multiplies, and leaves the product at `place` in the workspace: the operands of a program to which it is given.
    fn multiply(
        &self,
        step: &Step,
        operands: &Operands<T>,
        place: usize,
        scratch: &mut Scratch,
    ) -> Operands<T> {
        let Input::Product { a, b } = operands.input else {
            return *operands;
        };
        let own = self.heap[self.world.rank()];
        let c = ViewMut {
            data: own.wrapping_add(self.offset + place).cast::<T>(),
            rows: a.rows,
            cols: b.cols,
            row_stride: b.cols,
        };
        // What is only gathered gets its bias before it is rounded.
        let before = step.program == Program::MatmulAllGather;
        let of_product = Operands {
            bias: operands.bias.filter(|_| before),
            c,
            ..*operands
        };
        // SAFETY: the operands were checked, and the stream holds their locks; the memory is this rank's workspace's, of the blueprint's
        // size for this step, and nobody else's; the scratch was made for this product, too.
        unsafe { product(&of_product, scratch) };
        Operands {
            input: Input::Given(View {
                data: c.data.cast_const(),
                rows: c.rows,
                cols: c.cols,
                row_stride: c.row_stride,
                col_stride: 1,
            }),
            bias: operands.bias.filter(|_| !before),
            ..*operands
        }
    }
}

/// What `rank` works in when it multiplies by itself, in a step that is not fused.
fn scratch_of_product(dtype: DType, step: &Step, ranks: usize, rank: usize) -> Scratch {
    let parts = (step.program).parts(step.rows, step.shape, ranks, rank);
    let rows = match step.program {
        // Fewer rows may fall to this rank at the largest m than at a smaller one.
        Program::MatmulAllGather => step.rows.div_ceil(ranks),
        _ => parts.a.0.len(),
    };
    let (depth, cols) = (parts.b.0.len(), parts.b.1.len());
    // As many rows at once as are multiplied at full speed.
    let strip = (1024 * 1024 / cols.max(1)).clamp(1, rows.max(1));
    Scratch::new(dtype, rows * depth, depth * cols, strip * cols)
}

impl<T: Element, W: Word> Runs<T, W> for Host {
    type Kernel = HostKernel<T, W>;
}

/// The tile that suits a processor.
fn tile(kind: Kind, [m, _]: [usize; 2], n: usize, world: usize, _: usize) -> Tile {
    match kind {
        Kind::AllReduce => Tile::choose(m, n, world),
        // The grid restarts at each owner's first row; a gathered piece is as high as a tile.
        _ => Tile::choose(m.div_ceil(world), n, 1),
    }
}

impl<T: Element, W: Word> Executor<T, W, Host> for HostKernel<T, W> {
    type Prepared = ();

    fn target(_: &World) -> Target {
        Target {
            words: Mapped::<W>::bytes,
            tile,
            tiles: None,
            also: &[],
            needs: iris_kernels::host::Program::needs,
            slot: |_, needs, element| needs.slot_elements.checked_mul(element),
            packets: None,
            unpacks: None,
            partials: |_, _, _| 0,
        }
    }

    fn machine(_: &World) -> Machine {
        Machine {
            device: "host".to_owned(),
            // What is run was compiled with this.
            compiler: concat!("iris ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    fn prepare(_: &World, _: Kind, _: &Blueprint, _: &FusedConfig) -> Result<(), OpError> {
        Ok(())
    }

    unsafe fn new(
        world: &World,
        kind: Kind,
        blueprint: Blueprint,
        offset: usize,
        config: &FusedConfig,
        (): (),
    ) -> Result<Self, OpError> {
        let ranks = world.size();
        let heap: Vec<_> = (0..ranks).map(|rank| world.base(rank)).collect();
        let scratch = blueprint
            .steps
            .iter()
            .map(|step| {
                let rank = world.rank();
                let of_program =
                    (step.program).scratch(T::DTYPE, step.rows, step.shape, ranks, rank);
                match step.fused {
                    true => of_program,
                    false => of_program.or(scratch_of_product(T::DTYPE, step, ranks, rank)),
                }
            })
            .reduce(Scratch::or)
            .unwrap_or_default();
        Ok(Self {
            words: heap.iter().map(|base| base.wrapping_add(offset)).collect(),
            heap,
            offset,
            scratch: Mutex::new(scratch),
            world: world.clone(),
            operation: kind.operation(),
            blueprint,
            first: Signal::new(config.first).unwrap_or_default(), // checked by the blueprint
            waiting: Patience::new(config.budget, ranks),
            rules: config.rules,
            probe: config.probe.clone(),
            running: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            watch: OnceLock::new(),
            fault: Mutex::default(),
            element: PhantomData,
        })
    }

    fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    fn offset(&self) -> usize {
        self.offset
    }

    fn index(&self) -> Result<u64, OpError> {
        Ok(self.completed())
    }

    fn verdict(&self) -> Option<Arc<Verdict>> {
        self.faulted().verdict.clone()
    }

    fn watched_as(&self, id: WatchId) {
        // Set once, right after creation.
        let _ = self.watch.set(id);
    }

    fn watch_id(&self) -> Option<WatchId> {
        self.watch.get().copied()
    }

    fn reset(&self) -> Result<(), OpError> {
        // First, so that no inquiry into the old fault sets an abort word that was zeroed already.
        if let Some(id) = self.watch_id() {
            self.world.clear_verdict(id);
        }
        self.port().zero();
        let bytes = self.blueprint.accumulators.bytes().unwrap_or(0);
        let start = self.heap[self.world.rank()]
            .wrapping_add(self.offset + self.blueprint.accumulators.offset);
        // SAFETY: the accumulators lie in this rank's workspace; between the barriers of a reset nobody else touches them.
        unsafe { start.write_bytes(0, bytes) };
        *self.faulted() = Faulted::default();
        self.epoch.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn enqueue(
        this: &Arc<Self>,
        stream: &Stream,
        arguments: Arguments<Host>,
    ) -> Result<(), OpError> {
        stream.launch(KernelLaunch {
            kernel: Arc::clone(this) as _,
            args: arguments.into(),
        });
        Ok(())
    }
}

impl<T: Element, W: Word> Faults for HostKernel<T, W> {
    fn settle(&self) -> Option<Arc<Verdict>> {
        self.verdict()
    }
}

impl<T, W> std::fmt::Debug for HostKernel<T, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKernel")
            .field("operation", &self.operation)
            .field("blueprint", &self.blueprint)
            .finish_non_exhaustive()
    }
}

impl<T: Element, W: Word> Kernel for HostKernel<T, W> {
    fn run(&self, args: &KernelArgs) -> Result<(), StreamError> {
        // Always there: calls are launched by `Arguments` alone.
        let Some(operands) = operands::<T>(args) else {
            return Ok(());
        };
        // Behind a fault, queued calls leave at once.
        if let Some(verdict) = self.verdict() {
            return Err(StreamError::Fault(verdict));
        }
        self.running.store(true, Ordering::Release);
        let outcome = self.call(self.blueprint.step(operands.m), &operands);
        let fault = outcome.err();
        self.faulted().report = fault.map(Report::from);
        self.running.store(false, Ordering::Release);
        let Some(fault) = fault else {
            return Ok(());
        };
        let Some(id) = self.watch_id() else {
            return Err(StreamError::kernel(self.operation, fault));
        };
        let epoch = self.epoch.load(Ordering::Relaxed);
        let verdict = self.world.verdict(id, epoch, fault.into());
        let verdict = Arc::new(verdict);
        self.faulted().verdict = Some(Arc::clone(&verdict));
        Err(StreamError::Fault(verdict))
    }

    fn name(&self) -> &str {
        self.operation
    }
}

impl<T: Element, W: Word> Watched for HostKernel<T, W> {
    fn abort(&self, by: usize) {
        self.port().abort(by);
    }

    fn activity(&self) -> Activity {
        let index = self.completed();
        if let Some(report) = self.faulted().report.clone() {
            // A rank that was only asked to leave, and waited for nobody, was in no call.
            if report.wait.is_some() || !matches!(report.cause, Cause::Aborted { .. }) {
                return Activity::Faulted(report);
            }
            return Activity::Idle { calls: index };
        }
        if self.running.load(Ordering::Acquire) {
            Activity::Busy { index }
        } else {
            Activity::Idle { calls: index }
        }
    }
}

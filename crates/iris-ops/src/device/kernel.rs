//! One rank's side of an operation on a GPU.
//!
//! The host enqueues kernels and looks at what they leave behind; it never waits for one unless asked to. What a kernel needs to
//! know of a call lies in its arguments but for the call's index, value and bank, which it finds in the workspace: so a call can be
//! captured in a graph.

use super::control::{Control, report};
use super::fast;
use super::product::Multiplication;
use super::program::{self, Loaded};
use crate::backend::{Executor, Runs};
use crate::call::{Arguments, Strided};
use crate::config::FusedConfig;
use crate::error::OpError;
use crate::plan::{Blueprint, Kind, Step, Target};
use crate::tuning::Machine;
use iris_heap::cuda::Cuda;
use iris_heap::device::{DeviceError, Driver, RankStream};
use iris_heap::hip::Hip;
use iris_heap::{Activity, AnyBuffer, Faults, Heap, Report, Verdict, WatchId, Watched, World};
use iris_kernels::Element;
use iris_kernels::device::fast::FLAG_BYTES;
use iris_kernels::device::{Args, completed};
use iris_kernels::host::Program;
use iris_sync::{Cause, SignalCounter};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// One rank's side of an operation on a device.
pub struct DeviceKernel<T, D: Driver> {
    world: World<D>,
    operation: &'static str,
    /// Nobody else's in this process.
    number: u64,
    blueprint: Blueprint,
    /// The workspace's offset in the heap.
    offset: usize,
    resident: Arc<Resident<D>>,
    /// What is the same in all calls.
    common: Args,
    maps: fast::Maps,
    /// How many calls this rank has enqueued, be it one by one or in graphs, since the last reset.
    enqueued: AtomicU64,
    epoch: AtomicU64,
    watch: OnceLock<WatchId>,
    verdict: Mutex<Option<Arc<Verdict>>>,
    element: PhantomData<fn() -> T>,
}

/// What an operation's kernels need of the device beside the heap. It outlives them: see [`iris_heap::device::Heaps::retire`].
#[derive(Debug)]
struct Resident<D: Driver> {
    /// Dropped before what follows: a module waits for the device, so that no kernel is left to touch the rest.
    loaded: Vec<Loaded<D>>,
    control: Control<D>,
}

impl<T, D: Driver> Drop for DeviceKernel<T, D> {
    fn drop(&mut self) {
        self.world.heap().retire(Arc::clone(&self.resident));
    }
}

impl<T: Element> Runs<T, i32> for Cuda {
    type Kernel = DeviceKernel<T, Self>;
}

impl<T: Element> Runs<T, i32> for Hip {
    type Kernel = DeviceKernel<T, Self>;
}

impl<T: Element, D: Driver> DeviceKernel<T, D> {
    /// What tells this operation from others that a graph may call.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A graph with so many calls of this operation has been enqueued.
    pub(super) fn enqueued_more(&self, calls: u64) {
        self.enqueued.fetch_add(calls, Ordering::AcqRel);
    }

    /// How many calls this rank has completed since the last reset: read from the device, on a stream of the host's own.
    fn completed(&self) -> Result<u64, DeviceError> {
        let mut bytes = [0; 8];
        let heap = self.world.heap();
        heap.transfers().read(heap.own(), self.offset, &mut bytes)?;
        Ok(completed(u64::from_ne_bytes(bytes)))
    }

    /// What is to be said of a device that answers no more. Which call it was in is not known; the last is told that it was given.
    fn failed(&self) -> Report {
        let index = self.enqueued.load(Ordering::Acquire).saturating_sub(1);
        let counter =
            SignalCounter::<i32>::starting_at(self.common.first as i64).unwrap_or_default();
        Report {
            operation: self.operation.to_owned(),
            index,
            value: counter.value(index).get(),
            rank: self.world.rank(),
            wait: None,
            cause: Cause::DeviceFailed,
        }
    }

    /// The verdict on what this rank has to report, which is remembered.
    fn judged(&self, own: Report) -> Option<Arc<Verdict>> {
        let epoch = self.epoch.load(Ordering::Relaxed);
        // Watched from its creation on. The lock is not held: the inquiry asks this operation what it is doing.
        let verdict = Arc::new(self.world.verdict(*self.watch.get()?, epoch, own));
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&verdict));
        Some(verdict)
    }

    /// What the portable kernel is launched with, but for the number of blocks.
    fn arguments(&self, step: &Step, call: &Arguments<D>) -> Args {
        let address = |buffer: &AnyBuffer<D>, view: &Strided| {
            buffer.address() + (view.offset * size_of::<T>()) as u64
        };
        let Arguments {
            m,
            inputs,
            bias,
            output: (c, c_view),
            store: (store, bounced),
        } = call;
        let mut args = Args {
            m: *m as u64,
            slots: step.staging.slots as u64,
            slot_bytes: step.staging.slot_bytes as u64,
            packet_slots: step.packets.slots as u64,
            packet_bytes: step.packets.slot_bytes as u64,
            bias: bias.as_ref().map_or(0, AnyBuffer::address),
            c: address(c, c_view),
            c_row: c_view.row_stride as u64,
            output: *store as u64,
            output_row: match bounced {
                true => c_view.cols as u64,
                false => c_view.row_stride as u64,
            },
            bounced: u64::from(*bounced),
            ..self.common
        };
        if let [Some((a, view)), _] = inputs {
            args.a = address(a, view);
            args.a_row = view.row_stride as u64;
            args.a_col = view.col_stride as u64;
        }
        match &inputs[1] {
            Some((b, view)) => {
                args.b = address(b, view);
                args.b_row = view.row_stride as u64;
                args.b_col = view.col_stride as u64;
            }
            None => args.given = 1,
        }
        args.with_shares().gathering(step.program, step.shape.tile)
    }
}

/// The sizes of a call's matrices.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) a_rows: u64,
    pub(super) a_cols: u64,
    pub(super) b_rows: u64,
    pub(super) b_cols: u64,
    pub(super) c_rows: u64,
    pub(super) c_cols: u64,
}

impl Places {
    /// Those of a product; nothing where a matrix is given in its place.
    fn of<D: Driver>(call: &Arguments<D>) -> Option<Self> {
        let [Some((_, a)), Some((_, b))] = &call.inputs else {
            return None;
        };
        let (_, c) = &call.output;
        Some(Self {
            a_rows: a.rows as u64,
            a_cols: a.cols as u64,
            b_rows: b.rows as u64,
            b_cols: b.cols as u64,
            c_rows: c.rows as u64,
            c_cols: c.cols as u64,
        })
    }
}

impl<T: Element, D: Driver> DeviceKernel<T, D> {
    /// Enqueues the product of a step that is not fused, and has the program take what it leaves at `place` in the workspace.
    ///
    /// # Safety
    /// `args` are those of a call whose operands were checked, of the sizes `places`, and stay allocated until it has run. The workspace has
    /// room for the product, which nobody else uses.
    unsafe fn multiply(
        &self,
        stream: &RankStream<D>,
        product: &Loaded<D>,
        step: &Step,
        places: &Places,
        place: usize,
        args: &mut Args,
    ) -> Result<(), OpError> {
        // What is only gathered gets its bias before it is rounded.
        let before = step.program == Program::MatmulAllGather;
        let left = self.common.heap[self.world.rank()] + (self.offset + place) as u64;
        let of_product = Args {
            m: places.a_rows,
            n: places.b_cols,
            k: places.a_cols,
            a: args.a,
            a_row: args.a_row,
            a_col: args.a_col,
            b: args.b,
            b_row: args.b_row,
            b_col: args.b_col,
            bias: if before { args.bias } else { 0 },
            c: left,
            c_row: places.b_cols,
            ..Args::default()
        };
        // A rank without rows or depth has nothing to give, and is not asked for it.
        if of_product.m.min(of_product.n).min(of_product.k) > 0 {
            let multiplication = Multiplication {
                world: &self.world,
                kernels: product,
                maps: &self.maps,
                tile: step.shape.tile,
                dtype: T::DTYPE,
            };
            // SAFETY: the caller's promise.
            unsafe { multiplication.enqueue(stream, &of_product) }?;
        }
        if before {
            args.bias = 0;
        }
        args.given = 1;
        (args.a, args.a_row, args.a_col) = (left, places.b_cols, 1);
        (args.b, args.b_row, args.b_col) = (0, 0, 0);
        Ok(())
    }
}

impl<T: Element, D: Driver> Executor<T, i32, D> for DeviceKernel<T, D> {
    type Prepared = Vec<Loaded<D>>;

    fn target(world: &World<D>) -> Target {
        program::target_of(world.device(), size_of::<T>())
    }

    fn machine(world: &World<D>) -> Machine {
        Machine {
            device: world.device().info().name.clone(),
            compiler: program::compiler(world.device()),
        }
    }

    fn prepare(
        world: &World<D>,
        kind: Kind,
        blueprint: &Blueprint,
        config: &FusedConfig,
    ) -> Result<Self::Prepared, OpError> {
        program::load::<T, D>(world, kind, blueprint, config)
    }

    unsafe fn new(
        world: &World<D>,
        kind: Kind,
        blueprint: Blueprint,
        offset: usize,
        config: &FusedConfig,
        prepared: Self::Prepared,
    ) -> Result<Self, OpError> {
        program::warm_up(world, &prepared)?;
        let control = Control::new(world.device())?;
        let layout = blueprint.layout;
        let at = |part: usize| (offset + part) as u64;
        let mut common = Args {
            world: world.size() as u64,
            rank: world.rank() as u64,
            n: config.n as u64,
            k: config.k as u64,
            cells: at(0),
            words: at(program::cells(layout)),
            tiles: layout.tiles() as u64,
            locks: layout.locks() as u64,
            staging: at(blueprint.staging),
            packets: blueprint.packets.map_or(0, |(offset, _)| at(offset)),
            accumulators: at(blueprint.accumulators.offset),
            accumulator_elements: blueprint.accumulators.elements as u64,
            first: config.first as u64,
            budget_ns: u64::try_from(config.budget.as_nanos()).unwrap_or(u64::MAX),
            abort: control.abort_address(),
            fault: control.fault_address(),
            removed: u64::from(config.rules.removed()),
            ..Args::default()
        };
        if let Some(stall) = config.stall {
            common.stall_rank = stall.rank as u64 + 1;
            common.stall_index = stall.index;
            common.stall_phase = stall.phase as u64;
            common.stall_ns = u64::try_from(stall.time.as_nanos()).unwrap_or(u64::MAX);
        }
        for (rank, base) in common.heap.iter_mut().take(world.size()).enumerate() {
            *base = world.base(rank);
        }
        Ok(Self {
            world: world.clone(),
            operation: kind.operation(),
            number: super::next_number(),
            blueprint,
            offset,
            resident: Arc::new(Resident {
                loaded: prepared,
                control,
            }),
            common,
            maps: fast::Maps::default(),
            enqueued: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            watch: OnceLock::new(),
            verdict: Mutex::default(),
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
        Ok(self.completed()?)
    }

    fn verdict(&self) -> Option<Arc<Verdict>> {
        // Costs a look at host memory; only a fault costs more.
        self.settle()
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
        let heap = self.world.heap();
        let accumulators = self.blueprint.accumulators;
        let parts = [
            (0, self.blueprint.staging),
            self.blueprint.packets.unwrap_or_default(),
            (accumulators.offset, accumulators.bytes().unwrap_or(0)),
            (self.blueprint.partials).map_or((0, 0), |(offset, _)| (offset, FLAG_BYTES)),
        ];
        for (start, bytes) in parts {
            // SAFETY: both lie in this rank's workspace; between the barriers of a reset nobody else touches them.
            unsafe { heap.zero(self.offset + start, bytes) }?;
        }
        self.resident.control.clear();
        self.enqueued.store(0, Ordering::Release);
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.epoch.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn enqueue(
        this: &Arc<Self>,
        stream: &RankStream<D>,
        arguments: Arguments<D>,
    ) -> Result<(), OpError> {
        let step = this.blueprint.step(arguments.m);
        // One for each step, in their order.
        let loaded = &this.resident.loaded[this.blueprint.step_index(arguments.m)];
        let mut args = this.arguments(step, &arguments);
        let places = Places::of(&arguments);
        let places = match (&loaded.before, this.blueprint.product, places) {
            (Some(product), Some(place), Some(places)) => {
                // SAFETY: as below; the product's place in the workspace is this rank's alone, and large enough for this step.
                unsafe { this.multiply(stream, product, step, &places, place, &mut args) }?;
                None
            }
            (_, _, places) => places,
        };
        let work = program::work(step.program, arguments.m, step.shape, this.world.size()) as u64;
        let fast = loaded.fast.as_ref().zip(places);
        let fast = fast.and_then(|(kernel, places)| {
            let crews = kernel.crews?;
            let most = u64::from(kernel.most_blocks);
            let room = this.blueprint.partials;
            let sizes = [args.m, places.c_cols, most];
            let partials = match crews.paired {
                true => None,
                false => fast::partials(step, room, sizes),
            };
            // Blocks without a tile of their own have parts of others'.
            args.blocks = match partials {
                Some(_) => most,
                None => kernel.blocks(work),
            };
            let device = this.world.device();
            let (program, tile) = (Some(step.program), step.shape.tile);
            let maps = &this.maps;
            let mut fast = fast::arguments(device, maps, program, tile, T::DTYPE, &args, &places)?;
            let own = args.heap[this.world.rank()] + this.offset as u64;
            fast.partials = partials.map_or(0, |offset| own + offset as u64);
            Some((kernel, fast.gathering(step.program, &crews)))
        });
        // SAFETY: each kernel takes such a block, and as many blocks are resident at once beside those of the device's other ranks. The
        // operands were checked, and their memory is not given back before the device has run what is enqueued, or is kept by the graph
        // that captures this; the workspace is freed by all ranks together, after each has drained its stream.
        unsafe {
            match fast {
                Some((kernel, fast)) => {
                    stream.launch_programmatic(&kernel.function, args.blocks as u32, &fast)
                }
                None => {
                    args.blocks = loaded.portable.blocks(work);
                    stream.launch_programmatic(&loaded.portable.function, args.blocks as u32, &args)
                }
            }
        }?;
        let Arguments {
            inputs,
            bias,
            output,
            ..
        } = arguments;
        let buffers = inputs.into_iter().flatten().chain([output]);
        let buffers = buffers.map(|(buffer, _)| buffer).chain(bias);
        if !stream.note_call(this.number(), buffers) {
            this.enqueued_more(1);
        }
        Ok(())
    }
}

impl<T: Element, D: Driver> Faults for DeviceKernel<T, D> {
    fn settle(&self) -> Option<Arc<Verdict>> {
        if let Some(verdict) = &*self.verdict.lock().unwrap_or_else(PoisonError::into_inner) {
            return Some(Arc::clone(verdict));
        }
        self.judged(report(self.operation, &self.resident.control.record()?))
    }

    fn device_failed(&self) {
        let known = self
            .verdict
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some();
        if !known {
            self.judged(self.failed());
        }
    }
}

impl<T: Element, D: Driver> Watched for DeviceKernel<T, D> {
    fn abort(&self, by: usize) {
        self.resident.control.abort(by);
    }

    fn activity(&self) -> Activity {
        let enqueued = self.enqueued.load(Ordering::Acquire);
        if let Some(record) = self.resident.control.record() {
            let report = report(self.operation, &record);
            // A rank that was only asked to leave, and waited for nobody, was in no call.
            if report.wait.is_some() || !matches!(report.cause, Cause::Aborted { .. }) {
                return Activity::Faulted(report);
            }
            return Activity::Idle {
                calls: record.index,
            };
        }
        match self.completed() {
            Ok(index) if index >= enqueued => Activity::Idle { calls: index },
            Ok(index) => Activity::Busy { index },
            Err(_) => Activity::Faulted(self.failed()),
        }
    }
}

impl<T, D: Driver> std::fmt::Debug for DeviceKernel<T, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceKernel")
            .field("operation", &self.operation)
            .field("blueprint", &self.blueprint)
            .field("loaded", &self.resident.loaded)
            .finish_non_exhaustive()
    }
}

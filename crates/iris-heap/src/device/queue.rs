//! A rank's streams and events on its device: streams that know which operations ran in them.

use super::{DeviceError, Driver, Event, Function, Graph, Heaps, Raw, Stream};
use crate::backend::{AnyBuffer, Faults, Point, Queue};
use crate::host::stream::StreamError;
use crate::world::World;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A queue of work of one rank's device, in which operations are called: the [`Queue`] of GPUs.
///
/// Kernels of the user's own go among the calls, by [`RankStream::launch`], or by whatever means on [`RankStream::stream`]. Dropped, it is
/// waited for, unless it is another's.
#[derive(Debug)]
pub struct RankStream<D: Driver> {
    stream: Arc<Stream<D>>,
    heap: Arc<Heaps<D>>,
    /// Whether somebody else made the stream.
    foreign: bool,
    /// The operations that were bound to it.
    faults: Mutex<Vec<Weak<dyn Faults>>>,
    /// What has been captured since a capture began.
    recording: Mutex<Option<Recording<D>>>,
}

/// What a graph that is being captured will need.
#[derive(Debug)]
struct Recording<D: Driver> {
    calls: Vec<(u64, u64)>,
    kept: Vec<AnyBuffer<D>>,
    /// What orders this stream's calls among those of others, put off until the capture has ended: it is no part of the graph, whose
    /// every launch is ordered anew.
    put_off: Vec<PutOff<D>>,
}

impl<D: Driver> Default for Recording<D> {
    fn default() -> Self {
        Self {
            calls: Vec::new(),
            kept: Vec::new(),
            put_off: Vec::new(),
        }
    }
}

#[derive(Debug)]
enum PutOff<D: Driver> {
    Record(Arc<Event<D>>),
    Wait(Arc<Event<D>>),
}

impl<D: Driver> RankStream<D> {
    /// A new stream of `world`'s rank.
    ///
    /// # Errors
    /// Where the runtime makes none.
    pub fn new(world: &World<D>) -> Result<Self, StreamError> {
        Ok(Self::around(world, Stream::new(world.device())?, false))
    }

    /// A stream that somebody else made, for operations to be called among their work.
    ///
    /// # Safety
    /// `raw` is a stream, alive for as long as this is and what is enqueued by it has not run.
    ///
    /// # Errors
    /// Those of [`Stream::foreign`].
    pub unsafe fn foreign(world: &World<D>, raw: Raw) -> Result<Self, StreamError> {
        // SAFETY: the caller's promise.
        let stream = unsafe { Stream::foreign(world.device(), raw) }?;
        Ok(Self::around(world, stream, true))
    }

    fn around(world: &World<D>, stream: Stream<D>, foreign: bool) -> Self {
        let stream = Arc::new(stream);
        world.heap().watch(&stream);
        Self {
            stream,
            heap: Arc::clone(world.heap()),
            foreign,
            faults: Mutex::default(),
            recording: Mutex::new(None),
        }
    }

    /// The rank whose stream it is.
    pub fn rank(&self) -> usize {
        self.heap.rank()
    }

    /// The device's stream, for work of the user's own.
    pub fn stream(&self) -> &Stream<D> {
        &self.stream
    }

    /// Enqueues a grid whose blocks may wait for each other and for those of other ranks, with `arguments` as the kernel's one
    /// parameter: all of its blocks are resident at once, beside the grids of ranks that share the device.
    ///
    /// A rank that has its device alone launches a cooperative grid, where the runtime has those. Cooperative grids may be run one after
    /// the other, each being held against the whole device, so ranks that share one launch ordinary grids, each in its part of it.
    ///
    /// # Safety
    /// The kernel is one of this rank's device and takes one parameter of this type. All memory that the parameter names may be
    /// accessed by it, on this and on other ranks, and stays allocated until it has run: [`Buffer`](crate::Buffer)s of this rank do
    /// even where they are dropped, symmetric memory of others does until it is freed by all ranks together.
    ///
    /// # Errors
    /// [`DeviceError::TooManyBlocks`] where they are more than [`World::most_blocks`]; where the runtime refuses.
    pub unsafe fn launch<A: Copy>(
        &self,
        function: &Function<D>,
        blocks: u32,
        arguments: &A,
    ) -> Result<(), StreamError> {
        function.check_blocks(blocks, self.heap.part(function.shape().most_blocks))?;
        // SAFETY: the caller's promise. The blocks of an ordinary grid are resident at once, since the parts of all ranks are.
        Ok(unsafe {
            match self.heap.ranks_here() {
                1 => function.launch(&self.stream, blocks, arguments),
                _ => function.launch_ordinary(&self.stream, blocks, arguments),
            }
        }?)
    }

    /// The same of a kernel that may begin before what is enqueued before it has ended, and waits for that by itself: see
    /// [`Function::launch_programmatic`]. Where ranks share the device it does not begin early.
    ///
    /// # Safety
    /// As for [`RankStream::launch`] and [`Function::launch_programmatic`].
    ///
    /// # Errors
    /// As for [`RankStream::launch`].
    pub unsafe fn launch_programmatic<A: Copy>(
        &self,
        function: &Function<D>,
        blocks: u32,
        arguments: &A,
    ) -> Result<(), StreamError> {
        match self.heap.ranks_here() {
            // SAFETY: the caller's promise.
            1 => Ok(unsafe { function.launch_programmatic(&self.stream, blocks, arguments) }?),
            // SAFETY: the caller's promise: a kernel that waits by itself can be launched as any other.
            _ => unsafe { self.launch(function, blocks, arguments) },
        }
    }

    /// Waits until all that has been enqueued has run.
    ///
    /// # Errors
    /// What the device failed with; the verdict, where a call of an operation that was bound to this stream has faulted and the
    /// operation has not been reset since.
    pub fn synchronize(&self) -> Result<(), StreamError> {
        let ended = self.stream.synchronize();
        let bound = self.bound();
        if let Err(error) = ended {
            bound.iter().for_each(|operation| operation.device_failed());
            return Err(error.into());
        }
        match bound.iter().find_map(|operation| operation.settle()) {
            Some(verdict) => Err(StreamError::Fault(verdict)),
            None => Ok(()),
        }
    }

    /// The operations that were bound to it and are still there.
    fn bound(&self) -> Vec<Arc<dyn Faults>> {
        let mut bound = self.faults();
        bound.retain(|operation| operation.strong_count() > 0);
        bound.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether all that has been enqueued has run.
    ///
    /// # Errors
    /// What the device failed with.
    pub fn is_idle(&self) -> Result<bool, StreamError> {
        Ok(self.stream.is_idle()?)
    }

    /// Captures what `body` enqueues on this stream, from this thread, into a graph: calls of operations that are bound to it, and
    /// work of the user's own. Nothing in `body` may wait for the stream. A panic of `body` ends the capture.
    ///
    /// # Errors
    /// What `body` fails with; where the runtime cannot capture it, or a capture is under way already.
    pub fn capture<E: From<StreamError>>(
        &self,
        body: impl FnOnce() -> Result<(), E>,
    ) -> Result<CapturedGraph<D>, E> {
        {
            let mut recording = self.recording();
            if recording.is_some() {
                return Err(StreamError::Capturing.into());
            }
            *recording = Some(Recording::default());
        }
        let under_way = UnderWay(self);
        // The body's own error is more telling than that of a capture it has spoilt.
        let mut failed = None;
        let graph = self.stream.capture(|| {
            body().map_err(|error| {
                failed = Some(error);
                DeviceError::CaptureGivenUp
            })
        });
        let (recording, ordered) = under_way.end();
        if let Some(error) = failed {
            return Err(error);
        }
        let graph = graph.map_err(StreamError::from)?;
        ordered.map_err(StreamError::from)?;
        Ok(CapturedGraph {
            graph,
            calls: recording.calls,
            _kept: recording.kept,
            heap: Arc::clone(&self.heap),
        })
    }

    /// Takes what was recorded of a capture that has ended, and makes up for what was put off.
    fn take_recording(&self) -> (Recording<D>, Result<(), DeviceError>) {
        let recording = self.recording().take().unwrap_or_default();
        let ordered = recording.put_off.iter().try_for_each(|it| match it {
            PutOff::Record(event) => self.stream.record(event),
            PutOff::Wait(event) => self.stream.wait(event),
        });
        (recording, ordered)
    }

    /// Whether a capture is under way.
    pub fn is_capturing(&self) -> bool {
        self.recording().is_some()
    }

    /// Tells a capture, if one is under way, of a call of the operation numbered `operation`, and of the buffers that it uses.
    /// Returns whether one is.
    pub fn note_call(
        &self,
        operation: u64,
        buffers: impl IntoIterator<Item = AnyBuffer<D>>,
    ) -> bool {
        let mut recording = self.recording();
        let Some(recording) = &mut *recording else {
            return false;
        };
        match recording.calls.iter_mut().find(|(of, _)| *of == operation) {
            Some((_, calls)) => *calls += 1,
            None => recording.calls.push((operation, 1)),
        }
        recording.kept.extend(buffers);
        true
    }

    /// Puts something off, if a capture is under way.
    fn put_off(&self, what: PutOff<D>) -> bool {
        let mut recording = self.recording();
        let recording = recording.as_mut();
        recording.map(|it| it.put_off.push(what)).is_some()
    }

    fn faults(&self) -> MutexGuard<'_, Vec<Weak<dyn Faults>>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recording(&self) -> MutexGuard<'_, Option<Recording<D>>> {
        let recording = &self.recording;
        recording.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A capture under way. What was put off is made up for also where it failed, or its body panicked: calls made before it may be
/// what is to be waited for.
struct UnderWay<'a, D: Driver>(&'a RankStream<D>);

impl<D: Driver> UnderWay<'_, D> {
    fn end(self) -> (Recording<D>, Result<(), DeviceError>) {
        std::mem::ManuallyDrop::new(self).0.take_recording()
    }
}

impl<D: Driver> Drop for UnderWay<'_, D> {
    fn drop(&mut self) {
        drop(self.0.take_recording());
    }
}

impl<D: Driver> Drop for RankStream<D> {
    fn drop(&mut self) {
        // One of ours is waited for when it is given back. Another's is not ours to wait for: it may be being captured.
        if self.foreign {
            self.heap.leave(&self.stream);
        }
    }
}

/// Captured work, with the memory that its calls use kept alive: what [`RankStream::capture`] makes. Where operations are called in it,
/// `iris_ops::device::Launch` launches it, and takes them by `&mut`. Dropped, all that this rank has enqueued is waited for.
#[derive(Debug)]
pub struct CapturedGraph<D: Driver> {
    graph: Graph<D>,
    calls: Vec<(u64, u64)>,
    _kept: Vec<AnyBuffer<D>>,
    heap: Arc<Heaps<D>>,
}

impl<D: Driver> Drop for CapturedGraph<D> {
    fn drop(&mut self) {
        // It may be running. A device that has failed runs nothing.
        let _ = self.heap.synchronize();
    }
}

impl<D: Driver> CapturedGraph<D> {
    /// The operations called in it, by number, and how often each is.
    pub fn calls(&self) -> &[(u64, u64)] {
        &self.calls
    }

    /// Enqueues it.
    ///
    /// # Safety
    /// The workspaces of the operations called in it are alive and used nowhere else meanwhile, and so is what else was captured.
    ///
    /// # Errors
    /// Where the runtime refuses.
    pub unsafe fn launch_unchecked(&self, stream: &RankStream<D>) -> Result<(), StreamError> {
        // SAFETY: the caller's promise; operands are kept by this.
        Ok(unsafe { self.graph.launch(&stream.stream) }?)
    }
}

/// A point in a rank's stream: the [`Point`] of GPUs.
#[derive(Debug)]
pub struct RankEvent<D: Driver>(Arc<Event<D>>);

impl<D: Driver> Queue<D> for RankStream<D> {
    fn of(world: &World<D>) -> Result<Self, StreamError> {
        Self::new(world)
    }

    fn synchronize(&self) -> Result<(), StreamError> {
        self.synchronize()
    }

    fn watch(&self, faults: Arc<dyn Faults>) {
        let mut bound = self.faults();
        let known = |operation: &Weak<dyn Faults>| {
            std::ptr::addr_eq(operation.as_ptr(), Arc::as_ptr(&faults))
        };
        if !bound.iter().any(known) {
            bound.push(Arc::downgrade(&faults));
        }
    }

    fn rank(&self) -> usize {
        self.rank()
    }

    fn record(&self, event: &RankEvent<D>) -> Result<(), StreamError> {
        if self.put_off(PutOff::Record(Arc::clone(&event.0))) {
            return Ok(());
        }
        Ok(self.stream.record(&event.0)?)
    }

    fn wait(&self, event: &RankEvent<D>) -> Result<(), StreamError> {
        if self.put_off(PutOff::Wait(Arc::clone(&event.0))) {
            return Ok(());
        }
        Ok(self.stream.wait(&event.0)?)
    }
}

impl<D: Driver> Point<D> for RankEvent<D> {
    fn of(heap: &Arc<Heaps<D>>) -> Result<Self, StreamError> {
        Ok(Self(Arc::new(Event::new(heap.device())?)))
    }

    fn synchronize(&self) -> Result<(), StreamError> {
        Ok(self.0.synchronize()?)
    }
}

//! Streams, events and graphs of a device.

use super::{Device, DeviceError, Driver, ForeignMemory, Memory, Raw, SharedMemory};

/// A queue of work of a device. Dropped, it is waited for, unless it is another's.
#[derive(Debug)]
pub struct Stream<D: Driver> {
    device: Device<D>,
    raw: Raw,
    owned: bool,
}

impl<D: Driver> Stream<D> {
    /// A stream of one's own: a new one, or one that was dropped.
    ///
    /// # Errors
    /// Where the runtime makes none.
    pub fn new(device: &Device<D>) -> Result<Self, DeviceError> {
        Ok(Self {
            raw: device.take_stream()?,
            device: device.clone(),
            owned: true,
        })
    }

    /// A stream that somebody else made and will destroy: a `CUstream` or a `hipStream_t`, which those of the runtime APIs are
    /// too. 0 is the legacy default stream, which cannot be captured.
    ///
    /// # Safety
    /// `raw` is a stream, alive for as long as this is and what is enqueued by it has not run.
    ///
    /// # Errors
    /// [`DeviceError::WrongStream`] where it is another device's, or was made in another context than the primary one.
    pub unsafe fn foreign(device: &Device<D>, raw: Raw) -> Result<Self, DeviceError> {
        device.bind()?;
        // SAFETY: a stream, by the caller's promise.
        if !unsafe { device.driver().is_of_current_device(raw) }? {
            return Err(DeviceError::WrongStream {
                stream: raw,
                device: device.ordinal(),
            });
        }
        Ok(Self {
            device: device.clone(),
            raw,
            owned: false,
        })
    }

    /// Whether it is one of ours, and not another's.
    pub(super) fn is_owned(&self) -> bool {
        self.owned
    }

    /// The runtime's handle, a `CUstream` or a `hipStream_t`: others may use it for as long as this lives.
    pub fn raw(&self) -> Raw {
        self.raw
    }

    /// Its device.
    pub fn device(&self) -> &Device<D> {
        &self.device
    }

    /// Waits until all that has been enqueued has run.
    ///
    /// # Errors
    /// What any of it failed with.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.device.bind()?;
        // SAFETY: the stream is alive.
        unsafe { self.device.driver().synchronize_stream(self.raw) }
    }

    /// Whether all that has been enqueued has run.
    ///
    /// # Errors
    /// What any of it failed with.
    pub fn is_idle(&self) -> Result<bool, DeviceError> {
        self.device.bind()?;
        // SAFETY: the stream is alive.
        unsafe { self.device.driver().is_idle(self.raw) }
    }

    /// Moves `event` to the end of the queue.
    ///
    /// # Errors
    /// Where the runtime refuses.
    pub fn record(&self, event: &Event<D>) -> Result<(), DeviceError> {
        self.device.bind()?;
        // SAFETY: both are alive.
        unsafe { self.device.driver().record(event.raw, self.raw) }
    }

    /// Has what is enqueued from now on wait for `event`.
    ///
    /// # Errors
    /// Where the runtime refuses.
    pub fn wait(&self, event: &Event<D>) -> Result<(), DeviceError> {
        self.device.bind()?;
        // SAFETY: both are alive.
        unsafe { self.device.driver().wait_event(self.raw, event.raw) }
    }

    /// Copies bytes to device memory, from byte `at` on; waits until they are there.
    ///
    /// # Errors
    /// Where they do not lie inside, or the runtime refuses.
    pub fn write(&self, to: &impl Bytes<D>, at: usize, from: &[u8]) -> Result<(), DeviceError> {
        let address = range(to, at, from.len())?;
        self.device.bind()?;
        // SAFETY: the range lies in memory that is alive; `from` is valid until the stream has been synchronised.
        unsafe {
            self.device
                .driver()
                .upload(address, from.as_ptr(), from.len(), self.raw)?;
        }
        self.synchronize()
    }

    /// Copies bytes from device memory, from byte `at` on.
    ///
    /// # Errors
    /// Where they do not lie inside, or the runtime refuses.
    pub fn read(&self, from: &impl Bytes<D>, at: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        let address = range(from, at, to.len())?;
        self.device.bind()?;
        // SAFETY: as above.
        unsafe {
            self.device
                .driver()
                .download(to.as_mut_ptr(), address, to.len(), self.raw)?;
        }
        self.synchronize()
    }

    /// Enqueues copying bytes from the host.
    ///
    /// # Safety
    /// `to` is memory of the device, alive until the stream has been synchronised, and so is `from`.
    pub(super) unsafe fn upload(
        &self,
        to: Raw,
        from: *const u8,
        len: usize,
    ) -> Result<(), DeviceError> {
        self.device.bind()?;
        // SAFETY: the caller's promise.
        unsafe { self.device.driver().upload(to, from, len, self.raw) }
    }

    /// Enqueues copying bytes to the host.
    ///
    /// # Safety
    /// `from` is memory of the device, alive until the stream has been synchronised, and so is `to`.
    pub(super) unsafe fn download(
        &self,
        to: *mut u8,
        from: Raw,
        len: usize,
    ) -> Result<(), DeviceError> {
        self.device.bind()?;
        // SAFETY: the caller's promise.
        unsafe { self.device.driver().download(to, from, len, self.raw) }
    }

    /// Enqueues setting `len` bytes of device memory, from byte `at` on.
    ///
    /// # Errors
    /// Where they do not lie inside, or the runtime refuses.
    pub fn fill(
        &self,
        memory: &impl Bytes<D>,
        at: usize,
        len: usize,
        value: u8,
    ) -> Result<(), DeviceError> {
        let address = range(memory, at, len)?;
        self.device.bind()?;
        // SAFETY: the range lies in memory that is alive, and whose drop waits for the device.
        unsafe { self.device.driver().fill(address, value, len, self.raw) }
    }

    /// Captures what `body` enqueues on this stream, from this thread, into a graph. A panic of `body` ends the capture.
    ///
    /// # Errors
    /// What `body` fails with, or where the runtime cannot capture it.
    pub fn capture<E: From<DeviceError>>(
        &self,
        body: impl FnOnce() -> Result<(), E>,
    ) -> Result<Graph<D>, E> {
        self.device.bind()?;
        // SAFETY: the stream is alive.
        unsafe { self.device.driver().begin_capture(self.raw) }?;
        let capture = Capture(self);
        let enqueued = body();
        let graph = capture.end();
        enqueued?;
        Ok(graph?)
    }
}

/// A capture under way. It is ended in any case, on the thread that began it, or the stream could not be used again.
struct Capture<'a, D: Driver>(&'a Stream<D>);

impl<D: Driver> Capture<'_, D> {
    fn end(self) -> Result<Graph<D>, DeviceError> {
        std::mem::ManuallyDrop::new(self).graph()
    }

    /// Ends it; called once.
    fn graph(&self) -> Result<Graph<D>, DeviceError> {
        let device = &self.0.device;
        // SAFETY: the stream is alive.
        let raw = unsafe { device.driver().end_capture(self.0.raw) }?;
        Ok(Graph {
            device: device.clone(),
            raw,
        })
    }
}

impl<D: Driver> Drop for Capture<'_, D> {
    fn drop(&mut self) {
        // The body panicked: whatever it enqueued is given up.
        drop(self.graph());
    }
}

impl<D: Driver> Drop for Stream<D> {
    fn drop(&mut self) {
        // Another's may be being captured, which waiting for it would spoil; memory and modules wait by themselves.
        if self.owned {
            let _ = self.synchronize();
            self.device.give_stream(self.raw);
        }
    }
}

/// Device memory that can be copied to and from.
pub trait Bytes<D: Driver> {
    /// Where it begins.
    fn start(&self) -> Raw;
    /// Its bytes.
    fn size(&self) -> usize;
}

impl<D: Driver> Bytes<D> for Memory<D> {
    fn start(&self) -> Raw {
        self.address()
    }
    fn size(&self) -> usize {
        self.len()
    }
}

impl<D: Driver> Bytes<D> for SharedMemory<D> {
    fn start(&self) -> Raw {
        self.address()
    }
    fn size(&self) -> usize {
        self.len()
    }
}

impl<D: Driver> Bytes<D> for ForeignMemory<D> {
    fn start(&self) -> Raw {
        self.address()
    }
    fn size(&self) -> usize {
        self.len()
    }
}

fn range<D: Driver>(memory: &impl Bytes<D>, at: usize, len: usize) -> Result<Raw, DeviceError> {
    let end = at.saturating_add(len);
    if end > memory.size() {
        return Err(DeviceError::Range {
            at,
            end,
            len: memory.size(),
        });
    }
    Ok(memory.start() + at as Raw)
}

/// A point in a stream, with a time stamp.
#[derive(Debug)]
pub struct Event<D: Driver> {
    device: Device<D>,
    raw: Raw,
}

impl<D: Driver> Event<D> {
    /// A new event, not recorded yet.
    ///
    /// # Errors
    /// Where the runtime makes none.
    pub fn new(device: &Device<D>) -> Result<Self, DeviceError> {
        device.bind()?;
        // SAFETY: given back once, when this is dropped.
        let raw = unsafe { device.driver().create_event() }?;
        Ok(Self {
            device: device.clone(),
            raw,
        })
    }

    /// The runtime's handle, a `CUevent` or a `hipEvent_t`: others may use it for as long as this lives.
    pub fn raw(&self) -> Raw {
        self.raw
    }

    /// Waits until its stream has come there.
    ///
    /// # Errors
    /// What went wrong before it.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.device.bind()?;
        // SAFETY: the event is alive.
        unsafe { self.device.driver().synchronize_event(self.raw) }
    }

    /// Milliseconds from `earlier` to this; both have been reached.
    ///
    /// # Errors
    /// Where they have not.
    pub fn since_ms(&self, earlier: &Self) -> Result<f32, DeviceError> {
        self.device.bind()?;
        // SAFETY: both are alive.
        unsafe { self.device.driver().elapsed_ms(earlier.raw, self.raw) }
    }
}

impl<D: Driver> Drop for Event<D> {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made in `new`, and not given back before.
            unsafe { self.device.driver().destroy_event(self.raw) };
        }
    }
}

/// Captured work, to be launched as often as wanted.
#[derive(Debug)]
pub struct Graph<D: Driver> {
    device: Device<D>,
    raw: Raw,
}

impl<D: Driver> Graph<D> {
    /// The runtime's handle, a `CUgraphExec` or a `hipGraphExec_t`: others may use it for as long as this lives.
    pub fn raw(&self) -> Raw {
        self.raw
    }

    /// Enqueues it.
    ///
    /// # Safety
    /// What it was captured from - memory, modules - is alive until it has run.
    ///
    /// # Errors
    /// Where the runtime refuses.
    pub unsafe fn launch(&self, stream: &Stream<D>) -> Result<(), DeviceError> {
        self.device.bind()?;
        // SAFETY: graph and stream are alive; the rest is the caller's promise.
        unsafe { self.device.driver().launch_graph(self.raw, stream.raw()) }
    }
}

impl<D: Driver> Drop for Graph<D> {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by a capture, and not given back before.
            unsafe { self.device.driver().destroy_graph(self.raw) };
        }
    }
}

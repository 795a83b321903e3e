//! Devices: what a GPU runtime must do for ranks to share memory and run kernels, and what is built on it.
//!
//! Three layers, each made of the one below. `D` is a [`Driver`]: [`Cuda`](crate::cuda::Cuda) or [`Hip`](crate::hip::Hip).
//!
//! | | what it knows | |
//! |---|---|---|
//! | ranks | that ranks share memory and wait for each other | [`World::on`](crate::World::on) with a [`DeviceConfig`]; [`Buffer`](crate::Buffer)s; [`RankStream`], [`RankEvent`], [`CapturedGraph`] |
//! | devices | what owns what, and what lies where | [`Device`]; [`Memory`], [`SharedMemory`], [`PinnedMemory`], [`ForeignMemory`]; [`Stream`], [`Event`], [`Graph`]; [`Module`], [`Function`] |
//! | the runtime | nothing: raw handles, every function unsafe that can be misused | [`Driver`] |
//!
//! Programs use the first, and of the second what a kernel of their own needs: it is loaded as a [`Module`], and launched by
//! [`RankStream::launch`]. Its argument is a `#[repr(C)]` value; addresses are those of [`Buffer::address`](crate::Buffer::address)
//! and [`World::bases`](crate::World::bases).
//!
//! ```no_run
//! use iris_heap::cuda::Cuda;
//! use iris_heap::device::{Module, RankStream};
//! use iris_heap::{StreamError, World};
//!
//! #[repr(C)]
//! #[derive(Clone, Copy)]
//! struct Double {
//!     numbers: u64,
//!     count: u64,
//! }
//!
//! /// `image` was compiled for the world's device. It has a kernel `twice`, which takes a `Double`.
//! fn twice(world: &World<Cuda>, image: &[u8], numbers: &[f32]) -> Result<Vec<f32>, StreamError> {
//!     let kernel = Module::load(world.device(), image)?.function("twice", 256, 0)?;
//!     let buffer = world.plain_buffer::<f32>(numbers.len()).unwrap();
//!     buffer.upload(0, numbers).unwrap();
//!     let stream = RankStream::new(world)?;
//!     let double = Double { numbers: buffer.address(), count: buffer.len() as u64 };
//!     // SAFETY: the kernel takes a `Double`, and accesses the numbers that it names, which are there until the stream is empty.
//!     unsafe { stream.launch(&kernel, 1, &double) }?;
//!     stream.synchronize()?;
//!     Ok(buffer.download().unwrap())
//! }
//! ```
//!
//! **Others' streams and memory.** All is done in a device's primary context, which is the one that CUDA's and HIP's runtimes,
//! PyTorch, and cudarc use. [`Stream::foreign`] takes a stream that another library made there, [`ForeignMemory`] memory that it
//! allocated there; both are looked at before they are taken. The other way round, `raw()` and `address()` give the runtime's own
//! handles of what is made here (`CUstream`, `hipStream_t`, an address), to be used for as long as the owner lives. Calls make
//! their device current on the thread that makes them, and leave it so.

mod buffer;
mod driver;
mod error;
mod foreign;
mod heap;
mod memory;
mod module;
mod queue;
mod stream;

pub use buffer::Storage;
pub use driver::{Boxes, Driver, Grid, Info, MemoryKind, Pointer, Raw, Uuid};
pub use error::DeviceError;
pub use foreign::ForeignMemory;
pub use heap::{DeviceConfig, Heaps};
pub use memory::{Memory, PinnedMemory, SharedMemory};
pub use module::{Function, LaunchShape, Module};
pub use queue::{CapturedGraph, RankEvent, RankStream};
pub use stream::{Event, Graph, Stream};

use std::sync::{Arc, Mutex, PoisonError};

/// A GPU, with its runtime's per-device state held for as long as this or a clone lives.
#[derive(Debug)]
pub struct Device<D: Driver> {
    inner: Arc<Held<D>>,
}

#[derive(Debug)]
struct Held<D: Driver> {
    driver: &'static D,
    ordinal: usize,
    info: Info,
    /// Streams that were dropped, for the next that are wanted: so what was readied on one (see [`Heaps::own_streams`]) is ready where it
    /// is asked for. And a runtime has so many queues for streams, which ranks that share a device do not use up.
    streams: Mutex<Vec<Raw>>,
}

impl<D: Driver> Clone for Device<D> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<D: Driver> Drop for Held<D> {
    fn drop(&mut self) {
        let streams = self
            .streams
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if self.driver.bind(self.ordinal).is_ok() {
            for &stream in &*streams {
                // SAFETY: made on this device, idle, and nobody's.
                unsafe { self.driver.destroy_stream(stream) };
            }
        }
        // SAFETY: retained in `Device::open`, once; everything made on the device holds a clone of it and so is gone.
        unsafe { self.driver.release(self.ordinal) };
    }
}

impl<D: Driver> Device<D> {
    /// How many devices there are.
    ///
    /// # Errors
    /// Where the runtime is not there, or does not work.
    pub fn count() -> Result<usize, DeviceError> {
        D::load()?.count()
    }

    /// Device number `ordinal`, as the runtime counts those that are visible.
    ///
    /// # Errors
    /// Where the runtime is not there, or has no such device.
    pub fn open(ordinal: usize) -> Result<Self, DeviceError> {
        let driver = D::load()?;
        let count = driver.count()?;
        if ordinal >= count {
            return Err(DeviceError::NoSuchDevice {
                runtime: D::NAME,
                ordinal,
                count,
            });
        }
        let info = driver.info(ordinal)?;
        driver.retain(ordinal)?;
        Ok(Self {
            inner: Arc::new(Held {
                driver,
                ordinal,
                info,
                streams: Mutex::default(),
            }),
        })
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.inner.ordinal
    }

    /// A stream that is nobody's, and idle: a new one where there is none.
    fn take_stream(&self) -> Result<Raw, DeviceError> {
        let mut streams = self
            .inner
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = streams.pop() {
            return Ok(stream);
        }
        self.bind()?;
        // SAFETY: given back once, in `Held::drop`.
        unsafe { self.driver().create_stream() }
    }

    /// Gives such a stream back.
    fn give_stream(&self, stream: Raw) {
        let mut streams = self
            .inner
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        streams.push(stream);
    }

    /// What it is.
    pub fn info(&self) -> &Info {
        &self.inner.info
    }

    /// Whether kernels here can access memory of `other`, and with native atomics.
    ///
    /// # Errors
    /// Where the runtime cannot tell.
    pub fn reaches(&self, other: &Self) -> Result<Reach, DeviceError> {
        if self.ordinal() == other.ordinal() {
            return Ok(Reach {
                access: true,
                atomics: true,
            });
        }
        self.driver().reach(self.ordinal(), other.ordinal())
    }

    /// The bytes of its memory that nobody has, be it this process or another, as they are now.
    ///
    /// # Errors
    /// Where the runtime cannot tell.
    pub fn free_memory(&self) -> Result<u64, DeviceError> {
        self.bind()?;
        self.driver().free_memory()
    }

    /// Whether the runtime encodes tensor maps.
    pub fn has_tensor_maps(&self) -> bool {
        self.driver().has_tensor_maps()
    }

    /// A tensor map, by which kernels copy boxes; `None` where the runtime has none, or cannot express these. Nothing is accessed.
    pub fn tensor_map(&self, boxes: &Boxes) -> Option<[u64; 16]> {
        self.driver().tensor_map(boxes)
    }

    /// Waits until everything on the device has run.
    ///
    /// # Errors
    /// What any of it failed with.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.bind()?;
        self.driver().synchronize_device()
    }

    pub(crate) fn driver(&self) -> &'static D {
        self.inner.driver
    }

    /// Makes the device current on this thread, which most functions of a runtime go by.
    pub(crate) fn bind(&self) -> Result<(), DeviceError> {
        self.driver().bind(self.ordinal())
    }
}

/// How far a device reaches into another's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Loads and stores.
    pub access: bool,
    /// Atomic read-modify-writes, carried out there.
    pub atomics: bool,
}

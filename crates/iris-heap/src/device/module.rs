//! Machine code of a device, and its kernels.

use super::{Device, DeviceError, Driver, Grid, Raw, Stream};
use std::ffi::CString;
use std::sync::Arc;

/// Loaded machine code. Each kernel is on the device from [`Module::function`] on, and none is loaded when it is launched, which
/// could wait for a kernel that waits for it.
#[derive(Debug)]
pub struct Module<D: Driver> {
    loaded: Arc<Loaded<D>>,
}

impl<D: Driver> Clone for Module<D> {
    fn clone(&self) -> Self {
        Self {
            loaded: Arc::clone(&self.loaded),
        }
    }
}

#[derive(Debug)]
struct Loaded<D: Driver> {
    device: Device<D>,
    raw: Raw,
}

impl<D: Driver> Module<D> {
    /// Loads an image that was compiled for the device.
    ///
    /// # Errors
    /// Where it was compiled for another, or is damaged.
    pub fn load(device: &Device<D>, image: &[u8]) -> Result<Self, DeviceError> {
        device.bind()?;
        // SAFETY: given back once, when the last clone is dropped.
        let raw = unsafe { device.driver().load_module(image) }?;
        Ok(Self {
            loaded: Arc::new(Loaded {
                device: device.clone(),
                raw,
            }),
        })
    }

    /// A kernel, to be launched with `threads` threads a block and `shared` bytes of dynamic shared memory. `name` is the symbol's:
    /// that of a kernel made by `IRIS_KERNEL`, or `extern "C"`.
    ///
    /// It keeps the module. When this returns the kernel is on the device.
    ///
    /// # Errors
    /// Where there is none of that name, or it cannot have that much.
    pub fn function(
        &self,
        name: &str,
        threads: u32,
        shared: u32,
    ) -> Result<Function<D>, DeviceError> {
        let Loaded { device, raw } = &*self.loaded;
        let symbol = CString::new(name).unwrap_or_default(); // a name with a zero in it is no kernel's
        device.bind()?;
        // SAFETY: the module is alive, and stays so as long as the function.
        unsafe {
            let raw = device.driver().function(*raw, &symbol)?;
            device.driver().allow_shared(raw, shared)?;
            let resident = device
                .driver()
                .blocks_per_multiprocessor(raw, threads, shared)?;
            Ok(Function {
                name: name.to_owned(),
                raw,
                shape: LaunchShape {
                    threads,
                    shared,
                    most_blocks: resident * device.info().multiprocessors,
                },
                module: self.clone(),
            })
        }
    }
}

impl<D: Driver> Drop for Loaded<D> {
    fn drop(&mut self) {
        if self.device.synchronize().is_ok() {
            // SAFETY: loaded in `load`, given back once; nothing of it is running any more.
            unsafe { self.device.driver().unload_module(self.raw) };
        }
    }
}

/// How a kernel is launched, and how much of it fits the device at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchShape {
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// Blocks that are resident at once on an otherwise idle device.
    pub most_blocks: u32,
}

/// A kernel of a module, which it keeps loaded.
///
/// [`RankStream::launch`](super::RankStream::launch) launches it among ranks. The functions here know of one device only.
#[derive(Debug)]
pub struct Function<D: Driver> {
    name: String,
    raw: Raw,
    shape: LaunchShape,
    module: Module<D>,
}

impl<D: Driver> Function<D> {
    /// The runtime's handle, a `CUfunction` or a `hipFunction_t`: others may use it for as long as this lives.
    pub fn raw(&self) -> Raw {
        self.raw
    }

    /// How it is launched.
    pub fn shape(&self) -> LaunchShape {
        self.shape
    }

    /// Enqueues a grid all of whose blocks are resident at once on a device that runs nothing else, with `arguments` as its one
    /// parameter.
    ///
    /// # Safety
    /// The kernel takes one parameter of this type, and may access all memory that it names until it has run.
    ///
    /// # Errors
    /// [`DeviceError::TooManyBlocks`] where the blocks do not fit at once; where the runtime refuses.
    pub unsafe fn launch<A: Copy>(
        &self,
        stream: &Stream<D>,
        blocks: u32,
        arguments: &A,
    ) -> Result<(), DeviceError> {
        // SAFETY: the caller's promise.
        unsafe { self.launch_resident(stream, blocks, false, arguments) }
    }

    /// The same of a grid whose blocks may begin before the grid before it on the stream has ended, as that lets them and as they find
    /// room, where [`Info::programmatic`](super::Info::programmatic) says that this can be: CUDA's *programmatic dependent launch*. On
    /// an H200 a small grid behind another of its kind so comes a microsecond sooner.
    ///
    /// # Safety
    /// As for [`Function::launch`]. Before a thread of the kernel accesses memory that what is enqueued before may access, it waits for that
    /// (`griddepcontrol.wait`; `iris::await_launch_before` in our headers); and some thread of each block does so at all.
    ///
    /// # Errors
    /// As for [`Function::launch`].
    pub unsafe fn launch_programmatic<A: Copy>(
        &self,
        stream: &Stream<D>,
        blocks: u32,
        arguments: &A,
    ) -> Result<(), DeviceError> {
        let programmatic = self.module.loaded.device.info().programmatic;
        // SAFETY: the caller's promise.
        unsafe { self.launch_resident(stream, blocks, programmatic, arguments) }
    }

    /// # Safety
    /// As for [`Function::launch`], or [`Function::launch_programmatic`] if it is `programmatic`.
    unsafe fn launch_resident<A: Copy>(
        &self,
        stream: &Stream<D>,
        blocks: u32,
        programmatic: bool,
        arguments: &A,
    ) -> Result<(), DeviceError> {
        self.check_blocks(blocks, self.shape.most_blocks)?;
        let cooperative = self.module.loaded.device.info().cooperative;
        // SAFETY: the caller's promise.
        unsafe { self.enqueue(stream, blocks, cooperative, programmatic, arguments) }
    }

    /// Refuses more blocks than `most`.
    pub(super) fn check_blocks(&self, blocks: u32, most: u32) -> Result<(), DeviceError> {
        if blocks <= most {
            return Ok(());
        }
        Err(DeviceError::TooManyBlocks {
            kernel: self.name.clone(),
            asked: blocks,
            most,
        })
    }

    /// Enqueues a grid whose blocks begin as they find room, with `arguments` as its one parameter: more than fit at once, or
    /// beside other grids. Blocks that wait for each other, or for those of another grid, must all fit at once; nobody checks that.
    ///
    /// # Safety
    /// As for [`Function::launch`].
    ///
    /// # Errors
    /// Where the runtime refuses.
    pub unsafe fn launch_ordinary<A: Copy>(
        &self,
        stream: &Stream<D>,
        blocks: u32,
        arguments: &A,
    ) -> Result<(), DeviceError> {
        // SAFETY: the caller's promise.
        unsafe { self.enqueue(stream, blocks, false, false, arguments) }
    }

    /// # Safety
    /// As for [`Function::launch`], or [`Function::launch_programmatic`].
    unsafe fn enqueue<A: Copy>(
        &self,
        stream: &Stream<D>,
        blocks: u32,
        cooperative: bool,
        programmatic: bool,
        arguments: &A,
    ) -> Result<(), DeviceError> {
        let grid = Grid {
            blocks,
            threads: self.shape.threads,
            shared: self.shape.shared,
            cooperative,
            programmatic,
        };
        let device = &self.module.loaded.device;
        device.bind()?;
        // SAFETY: function and stream are alive; the driver copies the arguments before it returns; the rest is the caller's
        // promise.
        unsafe {
            device.driver().launch(
                self.raw,
                grid,
                stream.raw(),
                std::ptr::from_ref(arguments).cast(),
            )
        }
    }
}

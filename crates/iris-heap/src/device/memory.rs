//! Memory of devices, and of the host where devices see it.

use super::{Device, DeviceError, Driver, Raw, Stream};
use std::os::fd::{AsFd, OwnedFd};

/// Memory of one device, freed when dropped.
#[derive(Debug)]
pub struct Memory<D: Driver> {
    device: Device<D>,
    address: Raw,
    bytes: usize,
}

impl<D: Driver> Memory<D> {
    /// `bytes` bytes, whatever is in them.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] where they are not to be had.
    pub fn new(device: &Device<D>, bytes: usize) -> Result<Self, DeviceError> {
        device.bind()?;
        // SAFETY: the address is given back once, when this is dropped.
        let address = unsafe { device.driver().allocate(bytes.max(1)) }
            .map_err(|error| out_of_memory(error, device.ordinal(), bytes))?;
        Ok(Self {
            device: device.clone(),
            address,
            bytes,
        })
    }

    /// Where it begins, for this device's kernels.
    pub fn address(&self) -> Raw {
        self.address
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl<D: Driver> Drop for Memory<D> {
    fn drop(&mut self) {
        // What is enqueued may still use it: the runtime's free waits for the device.
        if self.device.bind().is_ok() {
            // SAFETY: allocated in `new`, on this device, and not given back before.
            unsafe { self.device.driver().free(self.address) };
        }
    }
}

/// Host memory that kernels of all devices can access, zeroed at first: for flags and records that both sides look at.
#[derive(Debug)]
pub struct PinnedMemory<D: Driver> {
    device: Device<D>,
    host: *mut u8,
    address: Raw,
    bytes: usize,
}

// SAFETY: the memory belongs to no thread, and this type itself does not access it.
unsafe impl<D: Driver> Send for PinnedMemory<D> {}
// SAFETY: as above.
unsafe impl<D: Driver> Sync for PinnedMemory<D> {}

impl<D: Driver> PinnedMemory<D> {
    /// `bytes` zeroed bytes.
    ///
    /// # Errors
    /// Where they are not to be had.
    pub fn new(device: &Device<D>, bytes: usize) -> Result<Self, DeviceError> {
        device.bind()?;
        // SAFETY: given back once, when this is dropped.
        let (host, address) = unsafe { device.driver().allocate_pinned(bytes.max(1)) }?;
        // SAFETY: just allocated, of this size, and nobody else knows of it.
        unsafe { host.write_bytes(0, bytes.max(1)) };
        Ok(Self {
            device: device.clone(),
            host,
            address,
            bytes,
        })
    }

    /// Where the host sees it.
    pub fn host(&self) -> *mut u8 {
        self.host
    }

    /// Where kernels see it.
    pub fn address(&self) -> Raw {
        self.address
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl<D: Driver> Drop for PinnedMemory<D> {
    fn drop(&mut self) {
        // What is enqueued may still use it.
        if self.device.synchronize().is_ok() {
            // SAFETY: allocated in `new` and not given back before; nothing enqueued uses it any more.
            unsafe { self.device.driver().free_pinned(self.host) };
        }
    }
}

/// Memory of one device that others can map: an owner's, or a peer's as this device sees it.
///
/// Invariant: `address..address + bytes` is mapped to the memory of `handle`, and accessible from `device`.
#[derive(Debug)]
pub struct SharedMemory<D: Driver> {
    device: Device<D>,
    address: Raw,
    bytes: usize,
    handle: Raw,
}

impl<D: Driver> SharedMemory<D> {
    /// New memory of `device`, of at least `bytes` bytes: rounded up to what the device can share, which [`Self::len`] tells.
    /// It is zeroed before this returns, so before any handle of it can be had.
    ///
    /// # Errors
    /// Where the device cannot share memory, or has no room.
    pub fn new(device: &Device<D>, bytes: usize) -> Result<Self, DeviceError> {
        let info = device.info();
        if !info.shareable {
            return Err(DeviceError::Unsupported {
                device: device.ordinal(),
                name: info.name.clone(),
                what: "share its memory by file descriptors",
            });
        }
        device.bind()?;
        let granularity = device.driver().granularity(device.ordinal())?;
        let bytes =
            bytes
                .max(1)
                .checked_next_multiple_of(granularity)
                .ok_or(DeviceError::OutOfMemory {
                    device: device.ordinal(),
                    bytes,
                })?;
        // SAFETY: the size is a multiple of the granularity; the handle is given back when this is dropped.
        let handle = unsafe { device.driver().create(device.ordinal(), bytes) }
            .map_err(|error| out_of_memory(error, device.ordinal(), bytes))?;
        let shared = Self::map(device, handle, bytes, granularity)?;
        let stream = Stream::new(device)?;
        // SAFETY: the range was just mapped, and nobody else knows of it.
        unsafe {
            device
                .driver()
                .fill(shared.address, 0, bytes, stream.raw())?;
        }
        stream.synchronize()?;
        Ok(shared)
    }

    /// A peer's memory of `bytes` bytes, as [`Self::len`] told there, by the descriptor that [`Self::export`] made.
    ///
    /// # Errors
    /// Where `device` cannot reach it.
    pub fn import(device: &Device<D>, fd: impl AsFd, bytes: usize) -> Result<Self, DeviceError> {
        device.bind()?;
        let granularity = device.driver().granularity(device.ordinal())?;
        // SAFETY: the handle is given back when this is dropped.
        let handle = unsafe { device.driver().import(fd.as_fd()) }?;
        Self::map(device, handle, bytes, granularity)
    }

    /// Maps `handle`, or gives it back.
    fn map(
        device: &Device<D>,
        handle: Raw,
        bytes: usize,
        granularity: usize,
    ) -> Result<Self, DeviceError> {
        let driver = device.driver();
        // SAFETY: mapping and handle are given back in this order, here or when this is dropped.
        unsafe {
            let address = driver
                .map(handle, bytes, granularity, device.ordinal())
                .inspect_err(|_| driver.release_handle(handle))?;
            Ok(Self {
                device: device.clone(),
                address,
                bytes,
                handle,
            })
        }
    }

    /// A file descriptor by which another device or process can import it.
    ///
    /// # Errors
    /// Where the runtime makes none.
    pub fn export(&self) -> Result<OwnedFd, DeviceError> {
        self.device.bind()?;
        // SAFETY: the handle is alive.
        let fd = unsafe { self.device.driver().export(self.handle) }?;
        // A program that is started meanwhile would keep it, and with it the memory.
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(|error| {
            DeviceError::Descriptor {
                reason: error.to_string(),
            }
        })?;
        Ok(fd)
    }

    /// Where it begins, for this device's kernels.
    pub fn address(&self) -> Raw {
        self.address
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has none; it never has.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl<D: Driver> Drop for SharedMemory<D> {
    fn drop(&mut self) {
        let driver = self.device.driver();
        // Nothing enqueued here uses it any more after this; that peers are through with it is the world's affair.
        let _ = self.device.synchronize();
        // SAFETY: by the invariant both are alive; unmapped first.
        unsafe {
            driver.unmap(self.address, self.bytes);
            driver.release_handle(self.handle);
        }
    }
}

fn out_of_memory(error: DeviceError, device: usize, bytes: usize) -> DeviceError {
    match error {
        DeviceError::OutOfMemory { .. } => DeviceError::OutOfMemory { device, bytes },
        other => other,
    }
}

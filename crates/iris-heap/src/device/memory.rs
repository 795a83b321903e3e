//! Memory of devices, and of the host where devices see it.

use super::{Device, DeviceError, Driver, MemoryKind, Pointer, Raw, Stream};
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

/// Memory of one device that somebody else allocated and will free.
#[derive(Debug)]
pub struct ForeignMemory<D: Driver> {
    device: Device<D>,
    address: Raw,
    bytes: usize,
}

impl<D: Driver> ForeignMemory<D> {
    /// `bytes` bytes from `address` on, which is a multiple of `align`.
    ///
    /// They may reach over several allocations that adjoin, as those of allocators that grow in place do. No bytes may lie
    /// anywhere: libraries give null for them.
    ///
    /// # Safety
    /// The memory stays allocated for as long as this, and what is enqueued with it, may use it; and nothing else accesses it
    /// meanwhile in a way that would race.
    ///
    /// # Errors
    /// Where it is not memory of `device`: [`DeviceError::UnknownMemory`], [`DeviceError::NotDeviceMemory`],
    /// [`DeviceError::WrongDevice`]; where it is [`DeviceError::Misaligned`], or [`DeviceError::TooSmall`].
    pub unsafe fn new(
        device: &Device<D>,
        address: Raw,
        bytes: usize,
        align: usize,
    ) -> Result<Self, DeviceError> {
        device.bind()?;
        let wanted = Wanted {
            device: device.ordinal(),
            address,
            bytes: bytes as u64,
            align: align as u64,
        };
        wanted.check(D::NAME, |address| device.driver().pointer(address))?;
        Ok(Self {
            device: device.clone(),
            address,
            bytes,
        })
    }

    /// Where it begins.
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

    /// Its device.
    pub fn device(&self) -> &Device<D> {
        &self.device
    }
}

/// Memory that is asked for: of which device, where, how much.
struct Wanted {
    device: usize,
    address: Raw,
    bytes: u64,
    align: u64,
}

impl Wanted {
    /// Whether it is there, by what `known` tells of an address.
    fn check(
        &self,
        runtime: &'static str,
        known: impl Fn(Raw) -> Result<Option<Pointer>, DeviceError>,
    ) -> Result<(), DeviceError> {
        let &Self {
            device,
            address,
            bytes,
            align,
        } = self;
        if !address.is_multiple_of(align.max(1)) {
            return Err(DeviceError::Misaligned { address, align });
        }
        // Invariant: `address..end` is memory of the device.
        let mut end = address;
        while end - address < bytes {
            let refused = match known(end)? {
                Some(Pointer { start, bytes, .. }) if end < start || bytes <= end - start => {
                    DeviceError::UnknownMemory { runtime, address }
                }
                Some(Pointer { kind, .. }) if kind != MemoryKind::Device => {
                    DeviceError::NotDeviceMemory {
                        address,
                        kind,
                        device,
                    }
                }
                Some(Pointer { device: found, .. }) if found != device => {
                    DeviceError::WrongDevice {
                        address,
                        found,
                        device,
                    }
                }
                Some(Pointer { start, bytes, .. }) => {
                    end = start.saturating_add(bytes);
                    continue;
                }
                None => DeviceError::UnknownMemory { runtime, address },
            };
            return Err(if end == address {
                refused
            } else {
                DeviceError::TooSmall {
                    address,
                    asked: bytes,
                    found: end - address,
                }
            });
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Device 1 has 0x1000..0x3000 in two pieces and 0x8000..0x9000, device 0 what lies between; then the host.
    fn known(address: Raw) -> Result<Option<Pointer>, DeviceError> {
        let pieces = [
            (0x1000, 0x800, 1, MemoryKind::Device),
            (0x1800, 0x1800, 1, MemoryKind::Device),
            (0x3000, 0x5000, 0, MemoryKind::Device),
            (0x8000, 0x1000, 1, MemoryKind::Device),
            (0x9000, 0x1000, 1, MemoryKind::Host),
            (0xa000, 0x1000, 1, MemoryKind::Managed),
        ];
        let mut pieces = pieces.into_iter();
        let piece = pieces.find(|&(start, bytes, ..)| (start..start + bytes).contains(&address));
        Ok(piece.map(|(start, bytes, device, kind)| Pointer {
            kind,
            device,
            start,
            bytes,
        }))
    }

    fn check(address: Raw, bytes: u64, align: u64) -> Result<(), DeviceError> {
        let wanted = Wanted {
            device: 1,
            address,
            bytes,
            align,
        };
        wanted.check("made up", known)
    }

    #[test]
    fn memory_is_taken_that_is_all_there() {
        for (address, bytes) in [
            (0x1000, 0x800),
            (0x1000, 0x2000), // over two pieces
            (0x17f0, 0x20),
            (0x2ffc, 4),
            (0x8000, 0x1000),
            (0, 0),
            (0x9000, 0),
        ] {
            check(address, bytes, 4).unwrap_or_else(|error| panic!("{address:#x}: {error}"));
        }
    }

    #[test]
    fn memory_that_is_not_is_refused_and_why() {
        let said = |address, bytes, align| check(address, bytes, align).unwrap_err().to_string();
        assert_eq!(said(0x1002, 4, 4), "0x1002 is not a multiple of 4");
        assert_eq!(
            said(0x100, 1, 1),
            "0x100 lies in no memory that made up knows"
        );
        assert_eq!(
            said(0x4000, 1, 1),
            "0x4000 lies in memory of device 0, and memory of device 1 is needed"
        );
        assert_eq!(
            said(0x9000, 1, 1),
            "0x9000 lies in host memory, and memory of device 1 is needed"
        );
        assert_eq!(
            said(0xa010, 1, 1),
            "0xa010 lies in managed memory, and memory of device 1 is needed"
        );
        // What follows it is another device's, the host's.
        for (address, bytes, found) in [(0x1000, 0x2001, 0x2000), (0x8800, 0x1000, 0x800)] {
            assert_eq!(
                said(address, bytes, 1),
                format!(
                    "{bytes} bytes are needed from {address:#x} on, and the memory ends after {found}"
                )
            );
        }
        assert!(matches!(
            check(0x8000, u64::MAX, 1),
            Err(DeviceError::TooSmall { found: 0x1000, .. })
        ));
    }

    /// A runtime that tells of memory in which the address does not lie is not believed, nor asked for ever.
    #[test]
    fn an_answer_for_other_memory_is_none() {
        for (start, bytes) in [(0x2000, 0x1000), (0, 0x1000), (0x1000, 0)] {
            let wanted = Wanted {
                device: 1,
                address: 0x1000,
                bytes: 8,
                align: 8,
            };
            let answer = Pointer {
                kind: MemoryKind::Device,
                device: 1,
                start,
                bytes,
            };
            let refused = wanted.check("made up", |_| Ok(Some(answer)));
            assert!(
                matches!(refused, Err(DeviceError::UnknownMemory { .. })),
                "{start:#x}: {refused:?}"
            );
        }
    }
}

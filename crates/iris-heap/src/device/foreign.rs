//! Memory of others, looked at before it is used.

use super::{Device, DeviceError, Driver, MemoryKind, Pointer, Raw};

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

//! IPC handles as file descriptors: a sealed file in memory that holds one.
//!
//! So what passes memory on from rank to rank passes descriptors, however the memory is shared.

use crate::device::{DeviceError, Raw};
use hip_sys::hipIpcMemHandle_t;
use rustix::fs::{MemfdFlags, SealFlags};
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;

const MAGIC: [u8; 8] = *b"irisipc1";
/// Magic, maker, address, bytes, handle.
const BYTES: usize = 8 + 16 + 8 + 8 + 64;
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE)
    .union(SealFlags::SEAL);

/// What the importer of an allocation must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The process that owns the allocation: [`this_process`] there.
    pub(super) maker: u128,
    /// Where the allocation begins in that process.
    pub(super) address: Raw,
    /// Its bytes.
    pub(super) bytes: u64,
    /// Its name.
    pub(super) handle: hipIpcMemHandle_t,
}

/// A number that no other process has, whatever names it has itself.
pub(super) fn this_process() -> Result<u128, DeviceError> {
    static NUMBER: OnceLock<u128> = OnceLock::new();
    if let Some(&number) = NUMBER.get() {
        return Ok(number);
    }
    let mut bytes = [0; 16];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    // The system gives up to 256 bytes whole.
    if got.map_err(unusable("making a number for this process"))? != bytes.len() {
        return Err(DeviceError::Descriptor {
            reason: "the system has no random numbers".into(),
        });
    }
    Ok(*NUMBER.get_or_init(|| u128::from_ne_bytes(bytes)))
}

/// The error of a call of the system's on a descriptor.
fn unusable<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> DeviceError {
    move |error| DeviceError::Descriptor {
        reason: format!("{what}: {}", error.into()),
    }
}

impl Ticket {
    /// A descriptor of it, which nobody can change any more.
    pub(super) fn seal(&self) -> Result<OwnedFd, DeviceError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file =
            rustix::fs::memfd_create("iris-hip-ipc", flags).map_err(unusable("making it"))?;
        let mut file = std::fs::File::from(file);
        file.write_all(&self.to_bytes())
            .map_err(unusable("writing it"))?;
        rustix::fs::fcntl_add_seals(&file, SEALS).map_err(unusable("sealing it"))?;
        Ok(file.into())
    }

    /// What `fd` holds, or `None` where it is no sealed file, and so a runtime's own descriptor of memory.
    pub(super) fn read(fd: BorrowedFd<'_>) -> Result<Option<Self>, DeviceError> {
        match rustix::fs::fcntl_get_seals(fd) {
            Ok(seals) if seals.contains(SEALS) => {}
            _ => return Ok(None),
        }
        // One more would show a file that is longer.
        let mut bytes = [0; BYTES + 1];
        let read = rustix::io::pread(fd, &mut bytes, 0).map_err(unusable("reading it"))?;
        let ticket = <&[u8; BYTES]>::try_from(&bytes[..read]).ok();
        let ticket = ticket.and_then(Self::from_bytes);
        ticket.map(Some).ok_or_else(|| DeviceError::Descriptor {
            reason: "it is a sealed file, and holds no IPC handle".into(),
        })
    }

    fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let (magic, rest) = bytes.split_at_mut(8);
        magic.copy_from_slice(&MAGIC);
        let (maker, rest) = rest.split_at_mut(16);
        maker.copy_from_slice(&self.maker.to_ne_bytes());
        let (address, rest) = rest.split_at_mut(8);
        address.copy_from_slice(&self.address.to_ne_bytes());
        let (length, handle) = rest.split_at_mut(8);
        length.copy_from_slice(&self.bytes.to_ne_bytes());
        handle.copy_from_slice(&self.handle.reserved.map(|byte| byte as u8));
        bytes
    }

    fn from_bytes(bytes: &[u8; BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (maker, rest) = rest.split_first_chunk()?;
        let (address, rest) = rest.split_first_chunk()?;
        let (length, handle) = rest.split_first_chunk()?;
        (*magic == MAGIC).then_some(Self {
            maker: u128::from_ne_bytes(*maker),
            address: u64::from_ne_bytes(*address),
            bytes: u64::from_ne_bytes(*length),
            handle: hipIpcMemHandle_t {
                reserved: <[u8; 64]>::try_from(handle).ok()?.map(|byte| byte as _),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn ticket() -> Ticket {
        Ticket {
            maker: this_process().unwrap(),
            address: 0x7f12_3456_7000,
            bytes: 3 << 20,
            handle: hipIpcMemHandle_t {
                reserved: std::array::from_fn(|i| (i * 37) as _),
            },
        }
    }

    #[test]
    fn a_ticket_comes_back_out_of_its_descriptor_as_often_as_it_is_read() {
        let fd = ticket().seal().unwrap();
        for _ in 0..2 {
            assert_eq!(Ticket::read(fd.as_fd()).unwrap(), Some(ticket()));
        }
        let mut file = std::fs::File::from(fd);
        assert!(file.write_all(b"x").is_err());
        assert_eq!(this_process().unwrap(), this_process().unwrap());
    }

    #[test]
    fn a_descriptor_of_something_else_is_none() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Ticket::read(file.as_fd()).unwrap(), None);
        let (read, _write) = std::io::pipe().unwrap();
        assert_eq!(Ticket::read(read.as_fd()).unwrap(), None);
        let open = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
        assert_eq!(Ticket::read(open.as_fd()).unwrap(), None);
    }

    #[test]
    fn a_sealed_file_without_a_ticket_is_an_error() {
        let whole = ticket().to_bytes();
        let mut other = whole;
        other[7] = b'2';
        for content in [
            &whole[..BYTES - 1],
            &[&whole[..], b"x"].concat(),
            &other,
            b"",
        ] {
            let file = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
            let mut file = std::fs::File::from(file);
            file.write_all(content).unwrap();
            rustix::fs::fcntl_add_seals(&file, SEALS).unwrap();
            let error = Ticket::read(file.as_fd()).unwrap_err();
            assert!(error.to_string().contains("holds no IPC handle"), "{error}");
        }
    }
}

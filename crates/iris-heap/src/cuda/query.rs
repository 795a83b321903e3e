//! What the CUDA driver tells of devices and addresses.

use super::driver::Cuda;
use super::table::Status;
use crate::device::{DeviceError, Driver, Info, MemoryKind, Pointer, Raw, Reach, Uuid};
use std::ffi::{CStr, c_char, c_int, c_uint};

// Values of cuda.h.
const INVALID_VALUE: Status = 1;
const NOT_FOUND: Status = 500;
const MULTIPROCESSORS: c_int = 16;
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;
const COOPERATIVE: c_int = 95;
const SHARED_MEMORY: c_int = 97;
const VIRTUAL_MEMORY: c_int = 102;
const FILE_DESCRIPTORS: c_int = 103;
const P2P_ATOMICS: c_int = 3;
const POINTER_MEMORY_TYPE: c_int = 2;
const POINTER_IS_MANAGED: c_int = 8;
const POINTER_DEVICE: c_int = 9;
const HOST_MEMORY: c_uint = 1;
/// The first version of the driver with which grids are launched that may begin early.
const PROGRAMMATIC_FROM: c_int = 13_000;

impl Cuda {
    fn attribute(&self, attribute: c_int, device: usize) -> Result<c_int, DeviceError> {
        let mut value = 0;
        // SAFETY: `value` is valid; a device that is not there is an error of the call.
        let status = unsafe { (self.table.attribute)(&raw mut value, attribute, device as c_int) };
        self.check("reading an attribute", Some(device), status)?;
        Ok(value)
    }

    /// A text that the driver writes into a buffer.
    fn text(
        &self,
        what: &'static str,
        device: usize,
        function: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> Status,
    ) -> Result<String, DeviceError> {
        let mut text = [0u8; 256];
        // SAFETY: the driver writes at most so many bytes, the last of which is zero.
        let status = unsafe {
            function(
                text.as_mut_ptr().cast(),
                text.len() as c_int,
                device as c_int,
            )
        };
        self.check(what, Some(device), status)?;
        Ok(CStr::from_bytes_until_nul(&text)
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned())
    }

    /// What a device is.
    pub(super) fn describe(&self, device: usize) -> Result<Info, DeviceError> {
        let mut memory = 0;
        // SAFETY: the results are valid; a device that is not there is an error of the call.
        let status = unsafe { (self.table.total_memory)(&raw mut memory, device as c_int) };
        self.check("reading the memory's size", Some(device), status)?;
        let (major, minor) = (
            self.attribute(CAPABILITY_MAJOR, device)?,
            self.attribute(CAPABILITY_MINOR, device)?,
        );
        let mut uuid = [0; 16];
        // SAFETY: the driver writes so many bytes.
        let status = unsafe { (self.table.uuid)(&raw mut uuid, device as c_int) };
        self.check("reading the UUID", Some(device), status)?;
        let flag = |attribute| Ok(self.attribute(attribute, device)? != 0);
        Ok(Info {
            name: self.text("reading the name", device, self.table.name)?,
            uuid: Uuid(uuid),
            architecture: format!("sm_{major}{minor}"),
            pci_bus_id: self.text("reading the PCI bus id", device, self.table.pci_bus_id)?,
            memory: memory as u64,
            multiprocessors: self.attribute(MULTIPROCESSORS, device)?.max(0) as u32,
            shared_memory: self.attribute(SHARED_MEMORY, device)?.max(0) as u32,
            cooperative: flag(COOPERATIVE)?,
            // Drivers before know such launches too, but not all of them in graphs, and together with cooperative ones none has been seen.
            programmatic: major >= 9
                && self.table.launch_with.is_some()
                && self.version()? >= PROGRAMMATIC_FROM,
            shareable: flag(VIRTUAL_MEMORY)? && flag(FILE_DESCRIPTORS)?,
        })
    }

    /// How far kernels on `device` reach into memory of `peer`.
    pub(super) fn peer(&self, device: usize, peer: usize) -> Result<Reach, DeviceError> {
        let (mut access, mut atomics) = (0, 0);
        let (from, to) = (device as c_int, peer as c_int);
        // SAFETY: the results are valid; a device that is not there is an error of the call.
        let status = unsafe { (self.table.can_access)(&raw mut access, from, to) };
        self.check("asking for peer access", Some(device), status)?;
        // SAFETY: the results are valid; a device that is not there is an error of the call.
        let status = unsafe { (self.table.p2p_attribute)(&raw mut atomics, P2P_ATOMICS, from, to) };
        self.check("asking for peer atomics", Some(device), status)?;
        Ok(Reach {
            access: access != 0,
            atomics: atomics != 0,
        })
    }

    /// What the driver knows of an address.
    pub(super) fn known(&self, address: Raw) -> Result<Option<Pointer>, DeviceError> {
        let (mut kind, mut managed, mut device): (c_uint, c_uint, c_int) = (0, 0, 0);
        // SAFETY: the driver writes an enumeration, a boolean (of a byte or of an int) and an int; any address may be asked for.
        let statuses = unsafe {
            let get = self.table.pointer_attribute;
            [
                get((&raw mut kind).cast(), POINTER_MEMORY_TYPE, address),
                get((&raw mut managed).cast(), POINTER_IS_MANAGED, address),
                get((&raw mut device).cast(), POINTER_DEVICE, address),
            ]
        };
        for status in statuses {
            if status == INVALID_VALUE {
                return Ok(None);
            }
            self.check("asking for an address", None, status)?;
        }
        let kind = match kind {
            _ if managed != 0 => MemoryKind::Managed,
            HOST_MEMORY => MemoryKind::Host,
            _ => MemoryKind::Device,
        };
        let (mut start, mut bytes) = (0, 0);
        // SAFETY: the results are valid; any address may be asked for.
        let status = unsafe { (self.table.address_range)(&raw mut start, &raw mut bytes, address) };
        if matches!(status, INVALID_VALUE | NOT_FOUND) {
            (start, bytes) = (address, 1);
        } else {
            self.check("asking for an allocation", None, status)?;
        }
        Ok(usize::try_from(device).ok().map(|device| Pointer {
            kind,
            device,
            start,
            bytes: bytes as u64,
        }))
    }
}

//! What the HIP runtime tells of devices, addresses and kernels.

use super::driver::{Hip, handle, raw};
use crate::device::{DeviceError, Info, MemoryKind, Pointer, Raw, Reach, Uuid};
use hip_sys::{
    HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, effective_architecture,
    hipDevP2PAttrNativeAtomicSupported, hipDeviceAttribute_t, hipDeviceAttributeCooperativeLaunch,
    hipDeviceAttributeMaxSharedMemoryPerBlock, hipDeviceAttributeMultiprocessorCount,
    hipErrorInvalidValue, hipErrorNotFound, hipMemoryTypeDevice, hipMemoryTypeHost,
    hipMemoryTypeManaged, hipMemoryTypeUnregistered, hipPointerAttribute_t, hipUUID,
};
use std::ffi::c_int;
use std::ptr;
use std::sync::PoisonError;

/// `hipExtGetLinkTypeAndHopCount`'s number for XGMI.
const XGMI: u32 = 4;

impl Hip {
    fn attribute(&self, device: usize, what: hipDeviceAttribute_t) -> Result<u32, DeviceError> {
        let value = self.loaded.device_attribute(device as c_int, what);
        let value = self.done("reading an attribute", device, value)?;
        Ok(value.max(0).cast_unsigned())
    }

    /// What a device is.
    pub(super) fn describe(&self, device: usize) -> Result<Info, DeviceError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(info) = known.get(&device) {
            return Ok(info.clone());
        }
        let info = self.ask(device)?;
        known.insert(device, info.clone());
        Ok(info)
    }

    fn ask(&self, device: usize) -> Result<Info, DeviceError> {
        let (hip, ordinal) = (self.loaded, device as c_int);
        let pci_bus_id = self.done(
            "reading the PCI bus id",
            device,
            hip.device_pci_bus_id(ordinal),
        )?;
        let architecture = effective_architecture(&pci_bus_id).map_err(|error| {
            DeviceError::UnknownArchitecture {
                device,
                reason: error.to_string(),
            }
        })?;
        let mut uuid = hipUUID { bytes: [0; 16] };
        // SAFETY: the result is valid; a device that is not there is an error of the call.
        let code = unsafe { (self.runtime().hipDeviceGetUuid)(&raw mut uuid, ordinal) };
        self.check("reading the UUID", Some(device), code)?;
        let memory = hip.device_total_memory(ordinal);
        let memory = self.done("reading the memory's size", device, memory)?;
        let cooperative = self.attribute(device, hipDeviceAttributeCooperativeLaunch)? != 0;
        Ok(Info {
            name: self.done("reading the name", device, hip.device_name(ordinal))?,
            uuid: identity(uuid.bytes.map(|byte| byte as u8), &pci_bus_id),
            architecture,
            pci_bus_id,
            memory: memory as u64,
            multiprocessors: self.attribute(device, hipDeviceAttributeMultiprocessorCount)?,
            shared_memory: self.attribute(device, hipDeviceAttributeMaxSharedMemoryPerBlock)?,
            cooperative: cooperative && self.runtime().hipModuleLaunchCooperativeKernel.is_some(),
            programmatic: false, // there is no such launch
            shareable: true,     // in one way or the other
        })
    }

    /// How far kernels on `device` reach into memory of `peer`, so that it is coherent while they run.
    pub(super) fn peer(&self, device: usize, peer: usize) -> Result<Reach, DeviceError> {
        let (hip, from, to) = (self.loaded, device as c_int, peer as c_int);
        let none = Reach {
            access: false,
            atomics: false,
        };
        let access = hip.can_access_peer(from, to);
        if !self.done("asking for peer access", device, access)? {
            return Ok(none);
        }
        if !self.is_uncached(peer)? {
            let (mut link, mut hops) = (0, 0);
            // SAFETY: the results are valid; devices that are not there are an error of the call.
            let code = unsafe {
                (self.runtime().hipExtGetLinkTypeAndHopCount)(
                    from,
                    to,
                    &raw mut link,
                    &raw mut hops,
                )
            };
            self.check("asking for the link to a peer", Some(device), code)?;
            if link != XGMI {
                return Ok(none);
            }
        }
        let atomics = hip.peer_attribute(from, to, hipDevP2PAttrNativeAtomicSupported);
        Ok(Reach {
            access: true,
            atomics: self.done("asking for peer atomics", device, atomics)? != 0,
        })
    }

    /// Whether shared memory of a device must not be cached to be coherent. See the module.
    pub(super) fn is_uncached(&self, device: usize) -> Result<bool, DeviceError> {
        let architecture = self.describe(device)?.architecture;
        Ok(!(architecture.starts_with("gfx94") || architecture.starts_with("gfx95")))
    }

    /// What the runtime knows of an address.
    pub(super) fn known_at(&self, address: Raw) -> Result<Option<Pointer>, DeviceError> {
        let mut known = hipPointerAttribute_t {
            r#type: hipMemoryTypeUnregistered,
            device: 0,
            devicePointer: ptr::null_mut(),
            hostPointer: ptr::null_mut(),
            isManaged: 0,
            allocationFlags: 0,
        };
        let attributes = self.runtime().hipPointerGetAttributes;
        // SAFETY: the result is valid; any address may be asked for.
        let code = unsafe { attributes(&raw mut known, handle(address)) };
        if code == hipErrorInvalidValue {
            return Ok(None);
        }
        self.check("asking for an address", None, code)?;
        let kind = match known.r#type {
            _ if known.isManaged != 0 => MemoryKind::Managed,
            hipMemoryTypeManaged => MemoryKind::Managed,
            hipMemoryTypeHost => MemoryKind::Host,
            hipMemoryTypeDevice => MemoryKind::Device,
            _ => return Ok(None),
        };
        let (mut start, mut bytes) = (ptr::null_mut(), 0);
        let range = self.runtime().hipMemGetAddressRange;
        // SAFETY: the results are valid; any address may be asked for.
        let code = unsafe { range(&raw mut start, &raw mut bytes, handle(address)) };
        let (start, bytes) = match code {
            hipErrorInvalidValue | hipErrorNotFound => (address, 1),
            code => {
                self.check("asking for an allocation", None, code)?;
                (raw(start), bytes as u64)
            }
        };
        Ok(usize::try_from(known.device).ok().map(|device| Pointer {
            kind,
            device,
            start,
            bytes,
        }))
    }

    /// Whether a block of a kernel can have so much shared memory beside what it declares.
    ///
    /// # Safety
    /// The function is one of a loaded module.
    pub(super) unsafe fn check_shared(&self, function: Raw, bytes: u32) -> Result<(), DeviceError> {
        let (device, mut declared) = (self.current()?, 0);
        let (get, what) = (
            self.runtime().hipFuncGetAttribute,
            HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
        );
        // SAFETY: the result is valid; the function by the caller's promise.
        let code = unsafe { get(&raw mut declared, what, handle(function)) };
        self.check("asking for a kernel's shared memory", Some(device), code)?;
        let info = self.describe(device)?;
        if declared.max(0).cast_unsigned().saturating_add(bytes) > info.shared_memory {
            return Err(DeviceError::Unsupported {
                device,
                name: info.name,
                what: "give a block as much shared memory as the kernel needs",
            });
        }
        Ok(())
    }
}

/// What tells a device from all others: the runtime's UUID, which is 16 hexadecimal digits, or no different on devices without
/// one, or the same for all partitions of a GPU; and the PCI address, whose function numbers them.
fn identity(uuid: [u8; 16], pci_bus_id: &str) -> Uuid {
    let digits = std::str::from_utf8(&uuid).ok();
    let unique = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    // Whatever else it is stays what it is, if not readable.
    let unique = unique.unwrap_or_else(|| hash(&uuid));
    let mut parts = pci_bus_id.split([':', '.']);
    let mut part = || u64::from_str_radix(parts.next()?, 16).ok();
    let address = match (part(), part(), part(), part()) {
        (Some(domain), Some(bus), Some(device), Some(function)) => {
            domain << 24 | bus << 16 | device << 8 | function
        }
        _ => hash(pci_bus_id.as_bytes()),
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&unique.to_be_bytes());
    bytes[8..].copy_from_slice(&address.to_be_bytes());
    Uuid(bytes)
}

/// FNV-1a: the same in every process.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_number_of_the_gpu_and_its_address() {
        let of = |uuid: &[u8; 16], address| identity(*uuid, address).to_string();
        assert_eq!(
            of(b"1f2e3d4c5b6a7988", "0000:c1:00.0"),
            "1f2e3d4c-5b6a-7988-0000-000000c10000"
        );
        assert_eq!(
            of(b"1f2e3d4c5b6a7988", "0001:05:01.3"),
            "1f2e3d4c-5b6a-7988-0000-000001050103"
        );
    }

    /// Without a number of their own, and as partitions of one GPU, devices have different ones all the same.
    #[test]
    fn devices_that_share_a_number_are_told_apart_by_their_address() {
        let none = *b"XX\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let uuids = [
            identity(none, "0000:c1:00.0"),
            identity(none, "0000:c2:00.0"),
            identity(none, "0000:c1:00.1"),
            identity(none, "0001:c1:00.0"),
            identity([0; 16], "0000:c1:00.0"),
            identity(none, "elsewhere"),
        ];
        for (at, uuid) in uuids.iter().enumerate() {
            assert!(!uuids[..at].contains(uuid), "{uuid}");
        }
    }
}

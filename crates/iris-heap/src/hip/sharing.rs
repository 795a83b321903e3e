//! Memory that other devices and processes map: by descriptors of physical memory, or by IPC handles.

use super::driver::{Hip, handle, raw};
use super::ticket::{Ticket, this_process};
use crate::device::{DeviceError, Driver, Raw};
use hip_sys::{
    Version, hipDeviceAttributeVirtualMemoryManagementSupported, hipDeviceMallocDefault,
    hipDeviceMallocUncached, hipErrorInvalidValue, hipErrorNotSupported,
    hipErrorPeerAccessAlreadyEnabled, hipIpcMemHandle_t, hipIpcMemLazyEnablePeerAccess,
    hipMemAccessDesc, hipMemAccessFlagsProtReadWrite, hipMemAllocationFlags,
    hipMemAllocationGranularityRecommended, hipMemAllocationProp, hipMemAllocationTypePinned,
    hipMemAllocationTypeUncached, hipMemGenericAllocationHandle_t,
    hipMemHandleTypePosixFileDescriptor, hipMemLocation, hipMemLocationTypeDevice,
};
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What chooses the way by hand.
const VARIABLE: &str = "IRIS_HIP_SHARING";
/// From this version on, physical memory can be uncached.
const UNCACHED: Version = Version::new(7, 1, 0);
/// What sizes of allocations are multiples of: pages.
const PAGE: usize = 4096;

/// How memory of a device is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// By descriptors of physical memory, which each device maps where it likes.
    Vmm,
    /// By IPC handles of allocations, which are where they are. The owner's process must keep one for as long as others use it.
    Ipc,
}

/// What this process shares, its own and others'.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How memory of each device is shared, once found out.
    ways: BTreeMap<usize, Sharing>,
    /// What the handles stand for that have been given out. They count from 1.
    handles: BTreeMap<Raw, Shared>,
    last: Raw,
    /// Allocations that are shared by IPC handles, by where they begin.
    places: BTreeMap<Raw, Place>,
}

#[derive(Debug)]
enum Shared {
    /// Physical memory: the runtime's handle, and where it was imported from, which the runtime looks at when it is mapped.
    Physical(
        Raw,
        #[expect(dead_code, reason = "kept open")] Option<OwnedFd>,
    ),
    /// An allocation: where it begins.
    At(Raw),
}

/// An allocation.
#[derive(Debug)]
struct Place {
    /// Handles and mappings of it. With the last one it goes.
    users: usize,
    bytes: u64,
    /// The device that was current when it was made.
    device: usize,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// This process's own.
    Own,
    /// Another's, opened by that handle. It is opened once, whichever devices use it.
    Opened(hipIpcMemHandle_t),
}

impl State {
    fn give_out(&mut self, shared: Shared) -> Raw {
        self.last += 1;
        self.handles.insert(self.last, shared);
        self.last
    }
}

impl Hip {
    /// How memory of a device is shared.
    ///
    /// # Errors
    /// Where the runtime does not do what `IRIS_HIP_SHARING` says, or cannot be asked.
    pub fn sharing(&self, device: usize) -> Result<Sharing, DeviceError> {
        if let Some(&way) = self.state().ways.get(&device) {
            return Ok(way);
        }
        let named = std::env::var_os(VARIABLE).unwrap_or_default();
        let way = match named.to_str() {
            Some("") if self.has_descriptors(device)? => Sharing::Vmm,
            Some("" | "ipc") => Sharing::Ipc,
            Some("vmm") if self.has_descriptors(device)? => Sharing::Vmm,
            Some("vmm") => {
                return Err(DeviceError::Unsupported {
                    device,
                    name: self.describe(device)?.name,
                    what: "share physical memory by file descriptors, as IRIS_HIP_SHARING asks for",
                });
            }
            _ => {
                return Err(DeviceError::Setting {
                    variable: VARIABLE,
                    value: named.to_string_lossy().into_owned(),
                    known: "vmm, ipc",
                });
            }
        };
        self.state().ways.insert(device, way);
        Ok(way)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shares.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Physical memory of a device, of the kind that is shared.
    fn physical(&self, device: usize) -> Result<hipMemAllocationProp, DeviceError> {
        let uncached = self.is_uncached(device)?;
        Ok(hipMemAllocationProp {
            r#type: if uncached {
                hipMemAllocationTypeUncached
            } else {
                hipMemAllocationTypePinned
            },
            requestedHandleTypes: hipMemHandleTypePosixFileDescriptor,
            location: location(device),
            win32HandleMetaData: ptr::null_mut(),
            allocFlags: hipMemAllocationFlags::default(),
        })
    }

    /// Whether the runtime makes descriptors of the kind of physical memory that is shared: some say so only when they are to.
    fn has_descriptors(&self, device: usize) -> Result<bool, DeviceError> {
        let attribute = hipDeviceAttributeVirtualMemoryManagementSupported;
        // A runtime that does not know of it does not have it.
        let supported = self.loaded.device_attribute(device as c_int, attribute);
        if !matches!(supported, Ok(1..))
            || self.is_uncached(device)? && self.runtime_version()? < UNCACHED
        {
            return Ok(false);
        }
        self.bind(device)?;
        let (prop, mut made) = (self.physical(device)?, ptr::null_mut());
        let bytes = self.physical_granularity(device)?;
        // SAFETY: `made` and `prop` are valid.
        let code =
            unsafe { (self.runtime().hipMemCreate)(&raw mut made, bytes, &raw const prop, 0) };
        if matches!(code, hipErrorNotSupported | hipErrorInvalidValue) {
            return Ok(false);
        }
        self.check("creating shareable memory", Some(device), code)?;
        let exported = self.export_physical(made);
        // SAFETY: just made.
        let _ = unsafe { (self.runtime().hipMemRelease)(made) };
        Ok(exported.is_ok())
    }

    fn physical_granularity(&self, device: usize) -> Result<usize, DeviceError> {
        let (mut granularity, prop) = (0, self.physical(device)?);
        let (get, which) = (
            self.runtime().hipMemGetAllocationGranularity,
            hipMemAllocationGranularityRecommended,
        );
        // SAFETY: result and `prop` are valid.
        let code = unsafe { get(&raw mut granularity, &raw const prop, which) };
        self.check("asking for the granularity", Some(device), code)?;
        Ok(granularity.max(1))
    }

    fn export_physical(
        &self,
        memory: hipMemGenericAllocationHandle_t,
    ) -> Result<OwnedFd, DeviceError> {
        let mut fd: c_int = -1;
        let (export, kind) = (
            self.runtime().hipMemExportToShareableHandle,
            hipMemHandleTypePosixFileDescriptor,
        );
        // SAFETY: the memory is alive by the caller's word; for this type of handle the runtime writes an int.
        let code = unsafe { export((&raw mut fd).cast(), memory, kind, 0) };
        self.check("exporting shareable memory", None, code)?;
        // SAFETY: the runtime made it for the caller.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// [`Driver::granularity`].
    pub(super) fn share_granularity(&self, device: usize) -> Result<usize, DeviceError> {
        match self.sharing(device)? {
            Sharing::Vmm => self.physical_granularity(device),
            Sharing::Ipc => Ok(PAGE),
        }
    }

    /// [`Driver::create`].
    pub(super) fn create_share(&self, device: usize, bytes: usize) -> Result<Raw, DeviceError> {
        let way = self.sharing(device)?;
        self.bind(device)?;
        match way {
            Sharing::Vmm => {
                let (mut made, prop) = (ptr::null_mut(), self.physical(device)?);
                let create = self.runtime().hipMemCreate;
                // SAFETY: `made` and `prop` are valid.
                let code = unsafe { create(&raw mut made, bytes, &raw const prop, 0) };
                self.check("creating shareable memory", Some(device), code)?;
                Ok(self.state().give_out(Shared::Physical(raw(made), None)))
            }
            Sharing::Ipc => {
                let flags = if self.is_uncached(device)? {
                    hipDeviceMallocUncached
                } else {
                    hipDeviceMallocDefault
                };
                let (mut made, allocate) = (ptr::null_mut(), self.runtime().hipExtMallocWithFlags);
                // SAFETY: `made` is valid.
                let code = unsafe { allocate(&raw mut made, bytes, flags) };
                self.check("allocating shareable memory", Some(device), code)?;
                let mut state = self.state();
                let place = Place {
                    users: 1,
                    bytes: bytes as u64,
                    device,
                    origin: Origin::Own,
                };
                state.places.insert(raw(made), place);
                Ok(state.give_out(Shared::At(raw(made))))
            }
        }
    }

    /// [`Driver::export`].
    pub(super) fn export_share(&self, share: Raw) -> Result<OwnedFd, DeviceError> {
        let state = self.state();
        let (address, place) = match state.handles.get(&share) {
            Some(&Shared::Physical(memory, _)) => return self.export_physical(handle(memory)),
            Some(Shared::At(address)) => (*address, &state.places[address]),
            None => return Err(unknown(share)),
        };
        if let Origin::Opened(_) = place.origin {
            return Err(DeviceError::Descriptor {
                reason: "memory that was imported by an IPC handle is its owner's to export".into(),
            });
        }
        let mut name = hipIpcMemHandle_t { reserved: [0; 64] };
        let (get, start) = (self.runtime().hipIpcGetMemHandle, handle(address));
        // SAFETY: `name` is valid, and the allocation alive, as it has a handle.
        let code = unsafe { get(&raw mut name, start) };
        self.check("naming shareable memory", Some(place.device), code)?;
        let ticket = Ticket {
            maker: this_process()?,
            address,
            bytes: place.bytes,
            handle: name,
        };
        ticket.seal()
    }

    /// [`Driver::import`].
    pub(super) fn import_share(&self, fd: BorrowedFd<'_>) -> Result<Raw, DeviceError> {
        let device = self.current()?;
        let Some(ticket) = Ticket::read(fd)? else {
            let kept = fd.try_clone_to_owned();
            let kept = kept.map_err(|error| DeviceError::Descriptor {
                reason: format!("keeping it open: {error}"),
            })?;
            let imported = self.loaded.import_descriptor(fd);
            let imported = self.done("importing shareable memory", device, imported)?;
            let shared = Shared::Physical(raw(imported), Some(kept));
            return Ok(self.state().give_out(shared));
        };
        let mut state = self.state();
        let address = if ticket.maker == this_process()? {
            Some(ticket.address)
        } else {
            let opened = Origin::Opened(ticket.handle);
            let mut places = state.places.iter();
            let place = places.find(|(_, place)| place.origin == opened);
            place.map(|(&address, _)| address)
        };
        let address = match address {
            Some(address) => {
                let place = state.places.get_mut(&address);
                let place = place.ok_or_else(|| DeviceError::Descriptor {
                    reason: "the memory that it names has been freed".into(),
                })?;
                place.users += 1;
                address
            }
            None => {
                let (mut opened, open) = (ptr::null_mut(), self.runtime().hipIpcOpenMemHandle);
                let flags = hipIpcMemLazyEnablePeerAccess;
                // SAFETY: `opened` is valid; a handle that names nothing is an error of the call.
                let code = unsafe { open(&raw mut opened, ticket.handle, flags) };
                self.check("opening shared memory", Some(device), code)?;
                let place = Place {
                    users: 1,
                    bytes: ticket.bytes,
                    device,
                    origin: Origin::Opened(ticket.handle),
                };
                state.places.insert(raw(opened), place);
                raw(opened)
            }
        };
        Ok(state.give_out(Shared::At(address)))
    }

    /// [`Driver::release_handle`].
    pub(super) fn release_share(&self, share: Raw) {
        let mut state = self.state();
        match state.handles.remove(&share) {
            Some(Shared::Physical(memory, _)) => {
                // SAFETY: this handle's, and given back once.
                let _ = unsafe { (self.runtime().hipMemRelease)(handle(memory)) };
            }
            Some(Shared::At(address)) => self.leave(&mut state, address),
            None => {}
        }
    }

    /// [`Driver::map`].
    pub(super) fn map_share(
        &self,
        share: Raw,
        bytes: usize,
        align: usize,
        device: usize,
    ) -> Result<Raw, DeviceError> {
        let mut state = self.state();
        let address = match state.handles.get(&share) {
            Some(&Shared::Physical(memory, _)) => {
                return self.map_physical(handle(memory), bytes, align, device);
            }
            Some(&Shared::At(address)) => address,
            None => return Err(unknown(share)),
        };
        if let Some(place) = state.places.get_mut(&address) {
            if bytes as u64 > place.bytes {
                return Err(DeviceError::TooSmall {
                    address,
                    asked: bytes as u64,
                    found: place.bytes,
                });
            }
            // What was opened is mapped for all devices that can reach it.
            if place.origin == Origin::Own && place.device != device {
                self.enable_peer(device, place.device)?;
            }
            place.users += 1;
        }
        Ok(address)
    }

    fn map_physical(
        &self,
        memory: hipMemGenericAllocationHandle_t,
        bytes: usize,
        align: usize,
        device: usize,
    ) -> Result<Raw, DeviceError> {
        let (runtime, mut address) = (self.runtime(), ptr::null_mut());
        let reserve = runtime.hipMemAddressReserve;
        // SAFETY: `address` is valid.
        let code = unsafe { reserve(&raw mut address, bytes, align, ptr::null_mut(), 0) };
        self.check("reserving addresses", Some(device), code)?;
        // SAFETY: just reserved; the memory is alive, as it has a handle.
        let code = unsafe { (runtime.hipMemMap)(address, bytes, 0, memory, 0) };
        self.check("mapping shareable memory", Some(device), code)
            // SAFETY: just reserved.
            .inspect_err(|_| unsafe {
                let _ = (runtime.hipMemAddressFree)(address, bytes);
            })?;
        let access = hipMemAccessDesc {
            location: location(device),
            flags: hipMemAccessFlagsProtReadWrite,
        };
        // SAFETY: just mapped.
        let code = unsafe { (runtime.hipMemSetAccess)(address, bytes, &raw const access, 1) };
        self.check("making shared memory accessible", Some(device), code)
            // SAFETY: just mapped.
            .inspect_err(|_| unsafe { self.unmap_physical(raw(address), bytes) })?;
        Ok(raw(address))
    }

    /// [`Driver::unmap`].
    ///
    /// # Safety
    /// Just as there.
    pub(super) unsafe fn unmap_share(&self, address: Raw, bytes: usize) {
        let mut state = self.state();
        if state.places.contains_key(&address) {
            self.leave(&mut state, address);
        } else {
            // SAFETY: mapped there, by the caller's promise, and not as an allocation.
            unsafe { self.unmap_physical(address, bytes) };
        }
    }

    /// # Safety
    /// Mapped there by [`Hip::map_physical`], and not used any more.
    unsafe fn unmap_physical(&self, address: Raw, bytes: usize) {
        // SAFETY: by the caller's promise.
        unsafe {
            let _ = (self.runtime().hipMemUnmap)(handle(address), bytes);
            let _ = (self.runtime().hipMemAddressFree)(handle(address), bytes);
        }
    }

    /// One handle or mapping less of the allocation at `address`.
    fn leave(&self, state: &mut State, address: Raw) {
        let Some(place) = state.places.get_mut(&address) else {
            return;
        };
        place.users -= 1;
        if place.users > 0 {
            return;
        }
        let (device, origin) = (place.device, place.origin);
        state.places.remove(&address);
        let before = self.current();
        let _ = self.bind(device);
        // SAFETY: allocated or opened by this, and given back once, with its last user.
        let _ = unsafe {
            match origin {
                Origin::Own => (self.runtime().hipFree)(handle(address)),
                Origin::Opened(_) => (self.runtime().hipIpcCloseMemHandle)(handle(address)),
            }
        };
        if let Ok(before) = before {
            let _ = self.bind(before);
        }
    }

    /// Has `device`, which is current, reach memory of `owner`.
    fn enable_peer(&self, device: usize, owner: usize) -> Result<(), DeviceError> {
        let enable = self.runtime().hipDeviceEnablePeerAccess;
        // SAFETY: takes no pointers.
        let code = unsafe { enable(owner as c_int, 0) };
        if code == hipErrorPeerAccessAlreadyEnabled {
            return Ok(());
        }
        self.check("reaching a peer's memory", Some(device), code)
    }
}

fn location(device: usize) -> hipMemLocation {
    hipMemLocation {
        r#type: hipMemLocationTypeDevice,
        id: device as c_int,
    }
}

fn unknown(share: Raw) -> DeviceError {
    DeviceError::Descriptor {
        reason: format!("no memory has the handle {share}"),
    }
}

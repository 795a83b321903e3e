//! Memory that other devices and processes map, by descriptors of physical memory.

use super::driver::Cuda;
use super::table::{AccessDesc, AllocationProp, Location};
#[cfg(doc)]
use crate::device::Driver;
use crate::device::{DeviceError, Raw};
use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

// Values of cuda.h.
const PINNED: c_uint = 1;
const FILE_DESCRIPTOR: c_uint = 1;
const ON_DEVICE: c_uint = 1;
const READ_WRITE: c_uint = 3;

fn on(device: usize) -> Location {
    Location {
        kind: ON_DEVICE,
        id: device as c_int,
    }
}

/// Shareable memory of a device.
fn shareable(device: usize) -> AllocationProp {
    AllocationProp {
        kind: PINNED,
        handle_types: FILE_DESCRIPTOR,
        location: on(device),
        win32: ptr::null_mut(),
        flags: [0; 8],
    }
}

impl Cuda {
    /// [`Driver::granularity`].
    pub(super) fn share_granularity(&self, device: usize) -> Result<usize, DeviceError> {
        let (mut granularity, prop) = (0, shareable(device));
        // SAFETY: the results are valid. Option 0 asks for the minimum.
        let status = unsafe { (self.table.granularity)(&raw mut granularity, &raw const prop, 0) };
        self.check("asking for the granularity", Some(device), status)?;
        Ok(granularity.max(1))
    }

    /// [`Driver::create`].
    pub(super) fn create_share(&self, device: usize, bytes: usize) -> Result<Raw, DeviceError> {
        let (mut created, prop) = (0, shareable(device));
        // SAFETY: result and `prop` are valid.
        let status = unsafe { (self.table.create)(&raw mut created, bytes, &raw const prop, 0) };
        self.check("creating shareable memory", Some(device), status)?;
        Ok(created)
    }

    /// [`Driver::export`].
    ///
    /// # Safety
    /// Just as there.
    pub(super) unsafe fn export_share(&self, handle: Raw) -> Result<OwnedFd, DeviceError> {
        let mut fd: c_int = -1;
        // SAFETY: the handle is alive by the caller's promise; for this type of handle the driver writes an int.
        let status = unsafe {
            (self.table.export)((&raw mut fd).cast::<c_void>(), handle, FILE_DESCRIPTOR, 0)
        };
        self.check("exporting shareable memory", None, status)?;
        // SAFETY: the driver made it for the caller.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// [`Driver::import`].
    pub(super) fn import_share(&self, fd: BorrowedFd<'_>) -> Result<Raw, DeviceError> {
        let mut imported = 0;
        let fd = ptr::without_provenance_mut(fd.as_raw_fd() as usize);
        // SAFETY: the result is valid; the descriptor is open, and passed as the pointer's value.
        let status = unsafe { (self.table.import)(&raw mut imported, fd, FILE_DESCRIPTOR) };
        self.check("importing shareable memory", None, status)?;
        Ok(imported)
    }

    /// [`Driver::release_handle`].
    ///
    /// # Safety
    /// Just as there.
    pub(super) unsafe fn release_share(&self, handle: Raw) {
        // SAFETY: by the caller's promise.
        unsafe { (self.table.release_handle)(handle) };
    }

    /// [`Driver::map`].
    ///
    /// # Safety
    /// Just as there.
    pub(super) unsafe fn map_share(
        &self,
        handle: Raw,
        bytes: usize,
        align: usize,
        device: usize,
    ) -> Result<Raw, DeviceError> {
        let mut address = 0;
        // SAFETY: `address` is valid.
        let status = unsafe { (self.table.reserve)(&raw mut address, bytes, align, 0, 0) };
        self.check("reserving addresses", Some(device), status)?;
        // SAFETY: just reserved; the handle is alive by the caller's promise.
        let status = unsafe { (self.table.map)(address, bytes, 0, handle, 0) };
        self.check("mapping shareable memory", Some(device), status)
            // SAFETY: just reserved.
            .inspect_err(|_| unsafe {
                (self.table.unreserve)(address, bytes);
            })?;
        let access = AccessDesc {
            location: on(device),
            flags: READ_WRITE,
        };
        // SAFETY: just mapped.
        let status = unsafe { (self.table.set_access)(address, bytes, &raw const access, 1) };
        self.check("making shared memory accessible", Some(device), status)
            // SAFETY: just mapped.
            .inspect_err(|_| unsafe { self.unmap_share(address, bytes) })?;
        Ok(address)
    }

    /// [`Driver::unmap`].
    ///
    /// # Safety
    /// Just as there.
    pub(super) unsafe fn unmap_share(&self, address: Raw, bytes: usize) {
        // SAFETY: by the caller's promise; mapped and reserved as one.
        unsafe {
            (self.table.unmap)(address, bytes);
            (self.table.unreserve)(address, bytes);
        }
    }
}

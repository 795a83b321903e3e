//! The HIP runtime, loaded.

use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::OnceLock;

use crate::attributes::{hipDeviceAttribute_t, hipDeviceP2PAttr};
use crate::dynamic::open::{Installation, Wanted, environment, once, open};
use crate::dynamic::text::text;
use crate::dynamic::{LoadError, Origin, Version};
use crate::enums::hipMemHandleTypePosixFileDescriptor;
use crate::error::{HipError, hipError_t};
use crate::runtime::Runtime;
use crate::types::hipMemGenericAllocationHandle_t;

/// The names of the runtime's library, the preferred one first.
const NAMES: &[&str] = &[
    "libamdhip64.so.7",
    "libamdhip64.so.6",
    "libamdhip64.so.5",
    "libamdhip64.so",
];

/// Where ROCm is installed.
pub(crate) const ROCM: Installation = Installation {
    variable: "ROCM_PATH",
    usual: "/opt/rocm",
};

/// From this version on, the layouts and numbers of these bindings are all true.
///
/// An older runtime can be loaded, and asked what it is. It differs in the numbers of
/// [`hipMemoryType`](crate::hipMemoryType) and
/// [`hipIpcMemLazyEnablePeerAccess`](crate::hipIpcMemLazyEnablePeerAccess), and before 5.3 in the order of the fields
/// of [`hipMemAllocationProp`](crate::hipMemAllocationProp).
pub const OLDEST_SUPPORTED: Version = Version::new(6, 0, 0);

/// From this version on, a file descriptor is given as a number; before, by its address.
const DESCRIPTOR_BY_VALUE: Version = Version::new(7, 1, 0);

/// The HIP runtime, loaded.
///
/// ```
/// match hip_sys::Loaded::load() {
///     Ok(hip) => match hip.device_count() {
///         Ok(devices) => println!("{devices} devices"),
///         Err(error) => println!("{error}"), // hipGetDeviceCount: hipErrorNoDevice (100)
///     },
///     Err(error) => println!("{error}"), // names all that was tried
/// }
/// ```
#[derive(Debug)]
pub struct Loaded {
    runtime: Runtime,
    origin: Origin,
}

impl Loaded {
    /// The runtime, loaded at the first call that succeeds.
    ///
    /// `IRIS_HIP_LIBRARY` names the library; where it is not set, `libamdhip64.so` is looked for under its versions 7,
    /// 6 and 5 and without one, in `$ROCM_PATH/lib`, wherever the dynamic linker looks, and in `/opt/rocm/lib` where
    /// `ROCM_PATH` is not set.
    ///
    /// # Errors
    /// Where there is no such library, or none that has the functions.
    pub fn load() -> Result<&'static Self, LoadError> {
        static LOADED: OnceLock<Loaded> = OnceLock::new();
        once(&LOADED, || Self::load_from(environment))
    }

    /// The same, with the environment that `lookup` knows, and anew at each call.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_from(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, LoadError> {
        let wanted = Wanted {
            what: "HIP runtime",
            variable: "IRIS_HIP_LIBRARY",
            names: NAMES,
            installation: Some(ROCM),
        };
        let (runtime, origin) = open(&wanted, &lookup)?;
        Ok(Self { runtime, origin })
    }

    /// The functions.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Where the library comes from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The version of the runtime.
    ///
    /// # Errors
    /// Where the runtime says so.
    pub fn runtime_version(&self) -> Result<Version, HipError> {
        let version = self.runtime.hipRuntimeGetVersion;
        // SAFETY: the pointer is to an integer.
        integer("hipRuntimeGetVersion", |out| unsafe { version(out) }).map(version_of)
    }

    /// The version of the driver; on AMD, that of the runtime.
    ///
    /// # Errors
    /// Where the runtime says so.
    pub fn driver_version(&self) -> Result<Version, HipError> {
        let version = self.runtime.hipDriverGetVersion;
        // SAFETY: the pointer is to an integer.
        integer("hipDriverGetVersion", |out| unsafe { version(out) }).map(version_of)
    }

    /// The devices that this process sees.
    ///
    /// # Errors
    /// Where the runtime says so: [`hipErrorNoDevice`](crate::hipErrorNoDevice) where there is none.
    pub fn device_count(&self) -> Result<usize, HipError> {
        let count = self.runtime.hipGetDeviceCount;
        // SAFETY: the pointer is to an integer.
        let count = integer("hipGetDeviceCount", |out| unsafe { count(out) })?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// A property of a device.
    ///
    /// # Errors
    /// Where the runtime says so: there is no such device, or it does not know the property.
    pub fn device_attribute(
        &self,
        device: c_int,
        attribute: hipDeviceAttribute_t,
    ) -> Result<c_int, HipError> {
        let get = self.runtime.hipDeviceGetAttribute;
        // SAFETY: the pointer is to an integer; any device and any attribute may be asked for.
        integer("hipDeviceGetAttribute", |out| unsafe {
            get(out, attribute, device)
        })
    }

    /// The name of a device.
    ///
    /// # Errors
    /// Where the runtime says so: there is no such device.
    pub fn device_name(&self, device: c_int) -> Result<String, HipError> {
        let name = self.runtime.hipDeviceGetName;
        // SAFETY: the pointer is to that many bytes; any device may be asked for.
        written("hipDeviceGetName", |out, len| unsafe {
            name(out, len, device)
        })
    }

    /// The PCI address of a device, as in `0000:c1:00.0`.
    ///
    /// # Errors
    /// Where the runtime says so: there is no such device.
    pub fn device_pci_bus_id(&self, device: c_int) -> Result<String, HipError> {
        let bus_id = self.runtime.hipDeviceGetPCIBusId;
        // SAFETY: the pointer is to that many bytes; any device may be asked for.
        written("hipDeviceGetPCIBusId", |out, len| unsafe {
            bus_id(out, len, device)
        })
    }

    /// The bytes of a device's memory.
    ///
    /// # Errors
    /// Where the runtime says so: there is no such device.
    pub fn device_total_memory(&self, device: c_int) -> Result<usize, HipError> {
        let mut bytes = 0;
        // SAFETY: the pointer is to an integer of this frame; any device may be asked for.
        let code = unsafe { (self.runtime.hipDeviceTotalMem)(&raw mut bytes, device) };
        code.check("hipDeviceTotalMem")?;
        Ok(bytes)
    }

    /// Whether `device` can reach the memory of `peer`.
    ///
    /// # Errors
    /// Where the runtime says so: one of the two does not exist.
    pub fn can_access_peer(&self, device: c_int, peer: c_int) -> Result<bool, HipError> {
        let can = self.runtime.hipDeviceCanAccessPeer;
        // SAFETY: the pointer is to an integer; any two devices may be asked for.
        let can = integer("hipDeviceCanAccessPeer", |out| unsafe {
            can(out, device, peer)
        })?;
        Ok(can != 0)
    }

    /// A property of a pair of devices.
    ///
    /// # Errors
    /// Where the runtime says so: one of the two does not exist, or they are the same.
    pub fn peer_attribute(
        &self,
        device: c_int,
        peer: c_int,
        attribute: hipDeviceP2PAttr,
    ) -> Result<c_int, HipError> {
        let get = self.runtime.hipDeviceGetP2PAttribute;
        // SAFETY: the pointer is to an integer; any two devices and any attribute may be asked for.
        integer("hipDeviceGetP2PAttribute", |out| unsafe {
            get(out, attribute, device, peer)
        })
    }

    /// What the library calls a code. It may know more of them than these bindings do.
    #[must_use]
    pub fn error_name(&self, code: hipError_t) -> String {
        // SAFETY: any code may be given; the string that comes back is a constant of the library, or null.
        unsafe { text((self.runtime.hipGetErrorName)(code)) }.unwrap_or_default()
    }

    /// What the library says of a code.
    #[must_use]
    pub fn error_string(&self, code: hipError_t) -> String {
        // SAFETY: any code may be given; the string that comes back is a constant of the library, or null.
        unsafe { text((self.runtime.hipGetErrorString)(code)) }.unwrap_or_default()
    }

    /// Imports the memory behind a file descriptor that
    /// [`hipMemExportToShareableHandle`](Runtime::hipMemExportToShareableHandle) gave to this process or another.
    ///
    /// HIP 7.1 takes the descriptor as a number, older versions by its address; this gives what the loaded one takes.
    /// Keep the descriptor open until the memory is mapped and its access is set: in versions up to 7 at least, the
    /// runtime looks at it again then.
    ///
    /// # Errors
    /// Where the runtime says so: the descriptor is not one of memory, or memory cannot be mapped on this device.
    pub fn import_descriptor(
        &self,
        descriptor: BorrowedFd<'_>,
    ) -> Result<hipMemGenericAllocationHandle_t, HipError> {
        let mut number: c_int = descriptor.as_raw_fd();
        let given = if self.runtime_version()? >= DESCRIPTOR_BY_VALUE {
            ptr::without_provenance_mut(usize::try_from(number).unwrap_or(usize::MAX))
        } else {
            (&raw mut number).cast::<c_void>()
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the descriptor is open, and given in the way that this version reads it; both pointers live as long
        // as the call.
        let code = unsafe {
            (self.runtime.hipMemImportFromShareableHandle)(
                &raw mut handle,
                given,
                hipMemHandleTypePosixFileDescriptor,
            )
        };
        code.check("hipMemImportFromShareableHandle")?;
        Ok(handle)
    }
}

/// The integer that `get` writes.
fn integer(
    call: &'static str,
    get: impl FnOnce(*mut c_int) -> hipError_t,
) -> Result<c_int, HipError> {
    let mut value = 0;
    get(&raw mut value).check(call)?;
    Ok(value)
}

/// The text that `get` writes, with a zero at its end, into so many bytes.
fn written(
    call: &'static str,
    get: impl FnOnce(*mut c_char, c_int) -> hipError_t,
) -> Result<String, HipError> {
    const BYTES: usize = 256;
    let mut bytes = [0_u8; BYTES];
    get(bytes.as_mut_ptr().cast(), BYTES as c_int).check(call)?;
    let text = CStr::from_bytes_until_nul(&bytes).map_or(&bytes[..], CStr::to_bytes);
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// The version that a number of HIP's stands for.
fn version_of(number: c_int) -> Version {
    let number = u32::try_from(number).unwrap_or(0);
    Version::new(
        number / 10_000_000,
        number / 100_000 % 100,
        number % 100_000,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_comes_out_of_its_number() {
        assert_eq!(version_of(50_221_153).to_string(), "5.2.21153");
        assert_eq!(version_of(70_125_424), Version::new(7, 1, 25_424));
        assert!(version_of(50_221_153) < OLDEST_SUPPORTED);
        assert!(version_of(60_000_000) >= OLDEST_SUPPORTED);
    }

    #[test]
    fn a_text_ends_at_its_zero_or_with_its_bytes() {
        let short = written("test", |out, len| {
            assert_eq!(len, 256);
            // SAFETY: the pointer is to 256 bytes.
            unsafe { ptr::copy_nonoverlapping(c"gfx942".as_ptr(), out, 7) };
            hipError_t(0)
        });
        assert_eq!(short, Ok("gfx942".to_owned()));
        let full = written("test", |out, len| {
            // SAFETY: the pointer is to `len` bytes.
            unsafe { ptr::write_bytes(out, b'x', len as usize) };
            hipError_t(0)
        });
        assert_eq!(full.map(|text| text.len()), Ok(256));
    }
}

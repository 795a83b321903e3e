//! The codes by which HIP functions say how they ended.

use std::ffi::c_uint;

use crate::dynamic::codes::{call_error, codes};

codes! {
    /// How a HIP function ended. Any value is valid; those known here have a name.
    ///
    /// ```
    /// use hip_sys::{hipError_t, hipErrorNoDevice};
    ///
    /// assert_eq!(hipErrorNoDevice.to_string(), "hipErrorNoDevice (100)");
    /// assert_eq!(hipError_t(4242).to_string(), "4242");
    /// ```
    #[must_use = "a HIP call that failed has done nothing"]
    pub struct hipError_t(c_uint) {
        /// The call succeeded.
        hipSuccess = 0;
        /// An argument is out of its range.
        hipErrorInvalidValue = 1;
        /// There is not enough memory.
        hipErrorOutOfMemory = 2;
        /// The runtime is not initialised.
        hipErrorNotInitialized = 3;
        /// The runtime has been shut down.
        hipErrorDeinitialized = 4;
        /// The profiler is disabled.
        hipErrorProfilerDisabled = 5;
        /// The profiler is not initialised.
        hipErrorProfilerNotInitialized = 6;
        /// The profiler runs already.
        hipErrorProfilerAlreadyStarted = 7;
        /// The profiler is stopped already.
        hipErrorProfilerAlreadyStopped = 8;
        /// A launch asks for more than the device has.
        hipErrorInvalidConfiguration = 9;
        /// A pitch is out of its range.
        hipErrorInvalidPitchValue = 12;
        /// A symbol is not one of the module's.
        hipErrorInvalidSymbol = 13;
        /// A pointer is not to device memory.
        hipErrorInvalidDevicePointer = 17;
        /// A copy's direction does not fit its pointers.
        hipErrorInvalidMemcpyDirection = 21;
        /// The kernel driver is older than the runtime needs.
        hipErrorInsufficientDriver = 35;
        /// A launch was not configured.
        hipErrorMissingConfiguration = 52;
        /// An earlier launch failed.
        hipErrorPriorLaunchFailure = 53;
        /// The function is not compiled for this device.
        hipErrorInvalidDeviceFunction = 98;
        /// This process sees no device.
        hipErrorNoDevice = 100;
        /// The device does not exist.
        hipErrorInvalidDevice = 101;
        /// A code object cannot be read.
        hipErrorInvalidImage = 200;
        /// The context is not one, or not current.
        hipErrorInvalidContext = 201;
        /// The context is current already.
        hipErrorContextAlreadyCurrent = 202;
        /// Memory could not be mapped.
        hipErrorMapFailed = 205;
        /// Memory could not be unmapped.
        hipErrorUnmapFailed = 206;
        /// The array is mapped.
        hipErrorArrayIsMapped = 207;
        /// The memory is mapped already.
        hipErrorAlreadyMapped = 208;
        /// A code object has no code for this device.
        hipErrorNoBinaryForGpu = 209;
        /// The resource has an owner already.
        hipErrorAlreadyAcquired = 210;
        /// The memory is not mapped.
        hipErrorNotMapped = 211;
        /// The memory is not mapped as an array.
        hipErrorNotMappedAsArray = 212;
        /// The memory is not mapped as a pointer.
        hipErrorNotMappedAsPointer = 213;
        /// A memory error that could not be corrected.
        hipErrorECCNotCorrectable = 214;
        /// The device does not have this limit.
        hipErrorUnsupportedLimit = 215;
        /// The context belongs to another thread.
        hipErrorContextAlreadyInUse = 216;
        /// The device cannot reach its peer.
        hipErrorPeerAccessUnsupported = 217;
        /// A kernel's source file is invalid.
        hipErrorInvalidKernelFile = 218;
        /// A graphics context is invalid.
        hipErrorInvalidGraphicsContext = 219;
        /// A kernel's source is invalid.
        hipErrorInvalidSource = 300;
        /// A file does not exist.
        hipErrorFileNotFound = 301;
        /// A shared object lacks a symbol.
        hipErrorSharedObjectSymbolNotFound = 302;
        /// A shared object could not be initialised.
        hipErrorSharedObjectInitFailed = 303;
        /// The operating system refused something.
        hipErrorOperatingSystem = 304;
        /// A handle is not one of the runtime's.
        hipErrorInvalidHandle = 400;
        /// The state of a resource does not allow the call.
        hipErrorIllegalState = 401;
        /// A name was not found.
        hipErrorNotFound = 500;
        /// What was asked for has not ended yet. Not a failure.
        hipErrorNotReady = 600;
        /// A kernel went to an address that is not mapped for its device.
        hipErrorIllegalAddress = 700;
        /// A launch asks for more registers or shared memory than there are.
        hipErrorLaunchOutOfResources = 701;
        /// A kernel took too long.
        hipErrorLaunchTimeOut = 702;
        /// Access to this peer is enabled already.
        hipErrorPeerAccessAlreadyEnabled = 704;
        /// Access to this peer is not enabled.
        hipErrorPeerAccessNotEnabled = 705;
        /// Flags were set on a device that is in use.
        hipErrorSetOnActiveProcess = 708;
        /// The context has been destroyed.
        hipErrorContextIsDestroyed = 709;
        /// A kernel's assertion failed.
        hipErrorAssert = 710;
        /// This host memory is registered already.
        hipErrorHostMemoryAlreadyRegistered = 712;
        /// This host memory is not registered.
        hipErrorHostMemoryNotRegistered = 713;
        /// A kernel failed on the device.
        hipErrorLaunchFailure = 719;
        /// The blocks of a cooperative launch do not fit on the device together.
        hipErrorCooperativeLaunchTooLarge = 720;
        /// The runtime or the device cannot do this.
        hipErrorNotSupported = 801;
        /// The call is not allowed while its stream is captured.
        hipErrorStreamCaptureUnsupported = 900;
        /// An earlier error has spoilt the capture.
        hipErrorStreamCaptureInvalidated = 901;
        /// The call would join two captures.
        hipErrorStreamCaptureMerge = 902;
        /// The capture did not begin in this stream.
        hipErrorStreamCaptureUnmatched = 903;
        /// The capture ends with work in another stream that was not joined.
        hipErrorStreamCaptureUnjoined = 904;
        /// The call would make captured work depend on work outside.
        hipErrorStreamCaptureIsolation = 905;
        /// The call would make the legacy stream wait for a capture.
        hipErrorStreamCaptureImplicit = 906;
        /// The event was recorded in a capture.
        hipErrorCapturedEvent = 907;
        /// The capture was begun by another thread.
        hipErrorStreamCaptureWrongThread = 908;
        /// A graph differs too much from the one that it is to replace.
        hipErrorGraphExecUpdateFailure = 910;
        /// A channel descriptor is invalid.
        hipErrorInvalidChannelDescriptor = 911;
        /// A texture is invalid.
        hipErrorInvalidTexture = 912;
        /// An error that the runtime does not tell more about.
        hipErrorUnknown = 999;
        /// A memory call of the layer below failed.
        hipErrorRuntimeMemory = 1052;
        /// A call of the layer below failed.
        hipErrorRuntimeOther = 1053;
    }
    aliases {
        /// The other name of [`hipErrorOutOfMemory`].
        hipErrorMemoryAllocation = hipErrorOutOfMemory;
        /// The other name of [`hipErrorNotInitialized`].
        hipErrorInitializationError = hipErrorNotInitialized;
        /// The other name of [`hipErrorInvalidHandle`].
        hipErrorInvalidResourceHandle = hipErrorInvalidHandle;
        /// The other name of [`hipErrorMapFailed`].
        hipErrorMapBufferObjectFailed = hipErrorMapFailed;
    }
}

call_error! {
    /// A HIP function that did not succeed.
    pub struct HipError(hipError_t);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_code_shows_its_name_and_an_unknown_one_its_number() {
        assert_eq!(hipErrorNoDevice.to_string(), "hipErrorNoDevice (100)");
        assert_eq!(format!("{hipErrorNoDevice:?}"), "hipErrorNoDevice (100)");
        assert_eq!(hipError_t(4242).to_string(), "4242");
        assert_eq!(format!("{:?}", hipError_t(4242)), "hipError_t(4242)");
        assert_eq!(hipError_t(u32::MAX).name(), None);
    }

    #[test]
    fn another_name_of_a_code_shows_the_first() {
        assert_eq!(
            hipErrorMemoryAllocation.to_string(),
            "hipErrorOutOfMemory (2)"
        );
    }

    #[test]
    fn no_number_has_two_names() {
        let mut codes: Vec<_> = hipError_t::NAMED.iter().map(|&(_, code)| code).collect();
        codes.sort();
        codes.dedup();
        assert_eq!(codes.len(), hipError_t::NAMED.len());
    }

    #[test]
    fn only_success_passes_a_check() {
        assert_eq!(hipSuccess.check("hipInit"), Ok(()));
        let error = hipErrorNoDevice.check("hipGetDeviceCount").unwrap_err();
        assert_eq!(
            error.to_string(),
            "hipGetDeviceCount: hipErrorNoDevice (100)"
        );
        assert!(hipError_t(4242).check("hipInit").is_err());
    }
}

//! The codes by which functions say how they ended.

use std::ffi::c_uint;

use crate::dynamic::codes::{call_error, codes};

codes! {
    /// How a function ended. Any value is valid; those known here have a name.
    ///
    /// ```
    /// use rccl_sys::{ncclInvalidUsage, ncclResult_t};
    ///
    /// assert_eq!(ncclInvalidUsage.to_string(), "ncclInvalidUsage (5)");
    /// assert_eq!(ncclResult_t(4242).to_string(), "4242");
    /// ```
    #[must_use = "a call that failed has done nothing"]
    pub struct ncclResult_t(c_uint) {
        /// The call succeeded.
        ncclSuccess = 0;
        /// A call of CUDA's or HIP's failed.
        ncclUnhandledCudaError = 1;
        /// A call of the system's failed.
        ncclSystemError = 2;
        /// The library failed.
        ncclInternalError = 3;
        /// An argument is out of its range.
        ncclInvalidArgument = 4;
        /// The call does not fit those before it, or those of other ranks.
        ncclInvalidUsage = 5;
        /// Another process ended, or the network failed.
        ncclRemoteError = 6;
        /// What was asked for has not ended yet. Not a failure.
        ncclInProgress = 7;
        /// It took too long. From NCCL 2.30 on.
        ncclTimeout = 8;
    }
}

call_error! {
    /// A function that did not succeed.
    ///
    /// A communicator that does not block returns [`ncclInProgress`], which is an error here: ask for the code itself
    /// where that is no failure.
    pub struct NcclError(ncclResult_t);
}

//! Handles, structs and enumerations.

use std::ffi::{c_int, c_uint};

use crate::dynamic::codes::{call_error, codes, handles};

handles! {
    /// The library's state for a device.
    cublasLtHandle_t = *mut cublasLtContext;
    /// What is to be computed.
    cublasLtMatmulDesc_t = *mut cublasLtMatmulDescOpaque_t;
    /// How a matrix lies in memory.
    cublasLtMatrixLayout_t = *mut cublasLtMatrixLayoutOpaque_t;
    /// What is asked of an algorithm.
    cublasLtMatmulPreference_t = *mut cublasLtMatmulPreferenceOpaque_t;
    /// A stream, CUDA's `CUstream`.
    cudaStream_t = *mut CUstream_st;
}

codes! {
    /// How a function ended. Any value is valid; those known here have a name.
    ///
    /// ```
    /// use cublaslt_sys::{CUBLAS_STATUS_NOT_SUPPORTED, cublasStatus_t};
    ///
    /// assert_eq!(CUBLAS_STATUS_NOT_SUPPORTED.to_string(), "CUBLAS_STATUS_NOT_SUPPORTED (15)");
    /// assert_eq!(cublasStatus_t(4242).to_string(), "4242");
    /// ```
    #[must_use = "a call that failed has done nothing"]
    pub struct cublasStatus_t(c_uint) {
        /// The call succeeded.
        CUBLAS_STATUS_SUCCESS = 0;
        /// There is no device, or the library could not be set up on it.
        CUBLAS_STATUS_NOT_INITIALIZED = 1;
        /// Memory ran out.
        CUBLAS_STATUS_ALLOC_FAILED = 3;
        /// An argument is out of its range.
        CUBLAS_STATUS_INVALID_VALUE = 7;
        /// The device cannot do it.
        CUBLAS_STATUS_ARCH_MISMATCH = 8;
        /// Memory could not be accessed.
        CUBLAS_STATUS_MAPPING_ERROR = 11;
        /// A kernel failed.
        CUBLAS_STATUS_EXECUTION_FAILED = 13;
        /// The library failed.
        CUBLAS_STATUS_INTERNAL_ERROR = 14;
        /// There is no algorithm for it.
        CUBLAS_STATUS_NOT_SUPPORTED = 15;
        /// There is no licence for it.
        CUBLAS_STATUS_LICENSE_ERROR = 16;
    }
}

call_error! {
    /// A function that did not succeed.
    pub struct CublasLtError(cublasStatus_t);
}

codes! {
    /// A type of elements.
    pub struct cudaDataType_t(c_uint) {
        /// IEEE single precision.
        CUDA_R_32F = 0;
        /// IEEE half precision.
        CUDA_R_16F = 2;
        /// The upper half of single precision.
        CUDA_R_16BF = 14;
    }
}

codes! {
    /// In what is multiplied and added up.
    pub struct cublasComputeType_t(c_uint) {
        /// Single precision.
        CUBLAS_COMPUTE_32F = 68;
        /// Single precision, of factors rounded to TF32.
        CUBLAS_COMPUTE_32F_FAST_TF32 = 77;
    }
}

codes! {
    /// What becomes of a matrix before it is multiplied.
    pub struct cublasOperation_t(c_uint) {
        /// It is taken as it is.
        CUBLAS_OP_N = 0;
        /// It is transposed.
        CUBLAS_OP_T = 1;
    }
}

codes! {
    /// What can be set of a [`cublasLtMatmulDesc_t`].
    pub struct cublasLtMatmulDescAttributes_t(c_uint) {
        /// What becomes of A: a [`cublasOperation_t`].
        CUBLASLT_MATMUL_DESC_TRANSA = 3;
        /// What becomes of B: a [`cublasOperation_t`].
        CUBLASLT_MATMUL_DESC_TRANSB = 4;
    }
}

codes! {
    /// What can be set of a [`cublasLtMatmulPreference_t`].
    pub struct cublasLtMatmulPreferenceAttributes_t(c_uint) {
        /// The most bytes of workspace: a `usize`.
        CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1;
    }
}

/// An algorithm, as the library describes it to itself.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct cublasLtMatmulAlgo_t {
    /// The library's own.
    pub data: [u64; 8],
}

/// An algorithm that the library suggests.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct cublasLtMatmulHeuristicResult_t {
    /// The algorithm.
    pub algo: cublasLtMatmulAlgo_t,
    /// The bytes of workspace that it needs.
    pub workspaceSize: usize,
    /// Whether the other fields mean anything.
    pub state: cublasStatus_t,
    /// How often it fills the device.
    pub wavesCount: f32,
    /// Nothing yet.
    pub reserved: [c_int; 4],
}

impl Default for cublasLtMatmulHeuristicResult_t {
    fn default() -> Self {
        Self {
            algo: cublasLtMatmulAlgo_t::default(),
            workspaceSize: 0,
            state: CUBLAS_STATUS_NOT_SUPPORTED,
            wavesCount: 0.0,
            reserved: [0; 4],
        }
    }
}

const _: () = {
    assert!(size_of::<cublasLtMatmulAlgo_t>() == 64);
    assert!(size_of::<cublasLtMatmulHeuristicResult_t>() == 96);
    assert!(size_of::<cublasStatus_t>() == 4);
};

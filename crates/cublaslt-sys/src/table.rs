//! The functions of cuBLASLt that a product needs.

use std::ffi::{c_char, c_int, c_void};

use crate::dynamic::table::table;
use crate::types::*;

table! {
    /// The functions of cuBLASLt that a product needs, as they are in C.
    ///
    /// Matrices are column-major where a layout does not say otherwise. A handle is of the device that is current when it is
    /// made, and is used where that one is current. What else each function asks for is said in NVIDIA's reference.
    pub struct CublasLt {
        /// The version of the library.
        required fn cublasLtGetVersion() -> usize;
        /// The name of a status. From 11.4 on.
        optional fn cublasLtGetStatusName(status: cublasStatus_t) -> *const c_char;
        /// Makes a handle for the current device.
        required fn cublasLtCreate(lightHandle: *mut cublasLtHandle_t) -> cublasStatus_t;
        /// See `cublasLtCreate`.
        required fn cublasLtDestroy(lightHandle: cublasLtHandle_t) -> cublasStatus_t;

        /// Describes a product: in what it is computed, and the type of its scale factors.
        required fn cublasLtMatmulDescCreate(
            matmulDesc: *mut cublasLtMatmulDesc_t, computeType: cublasComputeType_t,
            scaleType: cudaDataType_t,
        ) -> cublasStatus_t;
        /// See `cublasLtMatmulDescCreate`.
        required fn cublasLtMatmulDescDestroy(matmulDesc: cublasLtMatmulDesc_t) -> cublasStatus_t;
        /// Says more of a product.
        required fn cublasLtMatmulDescSetAttribute(
            matmulDesc: cublasLtMatmulDesc_t, attr: cublasLtMatmulDescAttributes_t,
            buf: *const c_void, sizeInBytes: usize,
        ) -> cublasStatus_t;
        /// Describes a matrix: its size, and elements from one column to the next.
        required fn cublasLtMatrixLayoutCreate(
            matLayout: *mut cublasLtMatrixLayout_t, ty: cudaDataType_t, rows: u64, cols: u64,
            ld: i64,
        ) -> cublasStatus_t;
        /// See `cublasLtMatrixLayoutCreate`.
        required fn cublasLtMatrixLayoutDestroy(
            matLayout: cublasLtMatrixLayout_t,
        ) -> cublasStatus_t;
        /// Asks nothing yet of an algorithm.
        required fn cublasLtMatmulPreferenceCreate(
            pref: *mut cublasLtMatmulPreference_t,
        ) -> cublasStatus_t;
        /// See `cublasLtMatmulPreferenceCreate`.
        required fn cublasLtMatmulPreferenceDestroy(
            pref: cublasLtMatmulPreference_t,
        ) -> cublasStatus_t;
        /// Asks something of an algorithm.
        required fn cublasLtMatmulPreferenceSetAttribute(
            pref: cublasLtMatmulPreference_t, attr: cublasLtMatmulPreferenceAttributes_t,
            buf: *const c_void, sizeInBytes: usize,
        ) -> cublasStatus_t;
        /// Suggests algorithms, the one thought fastest first.
        required fn cublasLtMatmulAlgoGetHeuristic(
            lightHandle: cublasLtHandle_t, operationDesc: cublasLtMatmulDesc_t,
            Adesc: cublasLtMatrixLayout_t, Bdesc: cublasLtMatrixLayout_t,
            Cdesc: cublasLtMatrixLayout_t, Ddesc: cublasLtMatrixLayout_t,
            preference: cublasLtMatmulPreference_t, requestedAlgoCount: c_int,
            heuristicResultsArray: *mut cublasLtMatmulHeuristicResult_t,
            returnAlgoCount: *mut c_int,
        ) -> cublasStatus_t;
        /// D = alpha A B + beta C, in the order of a stream.
        required fn cublasLtMatmul(
            lightHandle: cublasLtHandle_t, computeDesc: cublasLtMatmulDesc_t,
            alpha: *const c_void, A: *const c_void, Adesc: cublasLtMatrixLayout_t,
            B: *const c_void, Bdesc: cublasLtMatrixLayout_t, beta: *const c_void,
            C: *const c_void, Cdesc: cublasLtMatrixLayout_t, D: *mut c_void,
            Ddesc: cublasLtMatrixLayout_t, algo: *const cublasLtMatmulAlgo_t,
            workspace: *mut c_void, workspaceSizeInBytes: usize, stream: cudaStream_t,
        ) -> cublasStatus_t;
    }
}

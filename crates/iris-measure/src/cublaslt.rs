//! The vendor's product, by cuBLASLt.

use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;

use cublaslt_sys::*;
use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, Driver, Memory, Raw, Stream};
use iris_kernels::DType;

use crate::case::{Plan, Storage};
use crate::error::MeasureError;

/// How many of the library's suggestions are tried.
const SUGGESTIONS: usize = 8;
/// The bytes of workspace: what NVIDIA advises on Hopper.
const WORKSPACE: usize = 32 << 20;

/// cuBLASLt on one device.
#[derive(Debug)]
pub struct Handle {
    library: &'static Loaded,
    raw: cublasLtHandle_t,
    rank: usize,
    device: Device<Cuda>,
    workspace: Memory<Cuda>,
}

fn bind(device: &Device<Cuda>) -> Result<(), MeasureError> {
    Ok(Cuda::load()?.bind(device.ordinal())?)
}

fn pointer(address: Raw) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address as usize)
}

impl Handle {
    /// cuBLASLt for the device of rank `rank`.
    ///
    /// # Errors
    /// Where the library is not there, or refuses.
    pub fn new(device: &Device<Cuda>, rank: usize) -> Result<Rc<Self>, MeasureError> {
        let library = Loaded::load()?;
        let workspace = Memory::new(device, WORKSPACE)?;
        bind(device)?;
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is to a handle of this frame.
        let status = unsafe { (library.table().cublasLtCreate)(&raw mut raw) };
        status
            .check("cublasLtCreate")
            .map_err(|source| MeasureError::CublasLt { rank, source })?;
        Ok(Rc::new(Self {
            library,
            raw,
            rank,
            device: device.clone(),
            workspace,
        }))
    }

    /// The library's version.
    pub fn version(&self) -> Version {
        self.library.version()
    }

    fn check(&self, call: &'static str, status: cublasStatus_t) -> Result<(), MeasureError> {
        status.check(call).map_err(|source| MeasureError::CublasLt {
            rank: self.rank,
            source,
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // What is enqueued may still use the workspace and the handle.
        if self.device.synchronize().is_ok() {
            // SAFETY: made in `new`, and not destroyed before.
            let _ = unsafe { (self.library.table().cublasLtDestroy)(self.raw) };
        }
    }
}

/// Something of the library's, destroyed when dropped.
#[derive(Debug)]
struct Owned<T: Copy>(T, unsafe extern "C" fn(T) -> cublasStatus_t);

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by the library together with this, and destroyed once.
        let _ = unsafe { (self.1)(self.0) };
    }
}

/// One rank's product, row-major: D = A B.
///
/// cuBLASLt takes matrices by columns. A matrix stored by rows is its own transpose stored by columns; so it is asked for
/// the transpose of D, which is that of B times that of A.
#[derive(Debug)]
pub struct Product {
    handle: Rc<Handle>,
    /// What is multiplied; none of it where a size is 0.
    described: Option<Described>,
    algorithm: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Described {
    product: Owned<cublasLtMatmulDesc_t>,
    /// The layouts of the transposes of B, A and D.
    left: Owned<cublasLtMatrixLayout_t>,
    right: Owned<cublasLtMatrixLayout_t>,
    result: Owned<cublasLtMatrixLayout_t>,
    algorithms: Vec<cublasLtMatmulHeuristicResult_t>,
}

fn data_type(dtype: DType) -> cudaDataType_t {
    match dtype {
        DType::F32 => CUDA_R_32F,
        DType::F16 => CUDA_R_16F,
        DType::BF16 => CUDA_R_16BF,
    }
}

impl Product {
    /// This rank's product of a plan, with all algorithms that the library suggests; the first is chosen.
    ///
    /// # Errors
    /// [`MeasureError::NoAlgorithm`]; where the library refuses.
    pub fn new(handle: &Rc<Handle>, plan: &Plan) -> Result<Self, MeasureError> {
        let mut product = Self {
            handle: Rc::clone(handle),
            described: None,
            algorithm: 0,
            bytes: plan.m * plan.n * plan.case.dtype.bytes(),
        };
        if plan.m * plan.n * plan.k > 0 {
            bind(&handle.device)?;
            product.described = Some(product.describe(plan)?);
        }
        Ok(product)
    }

    fn describe(&self, plan: &Plan) -> Result<Described, MeasureError> {
        let (handle, table) = (&self.handle, self.handle.library.table());
        let dtype = data_type(plan.case.dtype);
        let compute = if plan.case.tf32 && plan.case.dtype == DType::F32 {
            CUBLAS_COMPUTE_32F_FAST_TF32
        } else {
            CUBLAS_COMPUTE_32F
        };
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is to a handle of this frame.
        let status = unsafe { (table.cublasLtMatmulDescCreate)(&raw mut raw, compute, CUDA_R_32F) };
        handle.check("cublasLtMatmulDescCreate", status)?;
        let product = Owned(raw, table.cublasLtMatmulDescDestroy);
        let operation = |storage| match storage {
            Storage::Rows => CUBLAS_OP_N,
            Storage::Columns => CUBLAS_OP_T,
        };
        for (attribute, value) in [
            (CUBLASLT_MATMUL_DESC_TRANSA, operation(plan.case.b)),
            (CUBLASLT_MATMUL_DESC_TRANSB, operation(plan.product_a)),
        ] {
            // SAFETY: the attribute is an operation, and so is the value, which is copied.
            let status = unsafe {
                (table.cublasLtMatmulDescSetAttribute)(
                    product.0,
                    attribute,
                    (&raw const value).cast(),
                    size_of_val(&value),
                )
            };
            handle.check("cublasLtMatmulDescSetAttribute", status)?;
        }
        // As the library sees it: what is stored, by columns.
        let layout = |rows: usize, columns: usize, storage: Storage, stride: usize| {
            let (rows, columns) = match storage {
                Storage::Rows => (columns, rows),
                Storage::Columns => (rows, columns),
            };
            let mut raw = ptr::null_mut();
            // SAFETY: the pointer is to a handle of this frame.
            let status = unsafe {
                (table.cublasLtMatrixLayoutCreate)(
                    &raw mut raw,
                    dtype,
                    rows as u64,
                    columns as u64,
                    stride as i64,
                )
            };
            handle.check("cublasLtMatrixLayoutCreate", status)?;
            Ok::<_, MeasureError>(Owned(raw, table.cublasLtMatrixLayoutDestroy))
        };
        let (m, n, k) = (plan.m, plan.n, plan.k);
        let b_stride = match plan.case.b {
            Storage::Rows => n,
            Storage::Columns => k,
        };
        let left = layout(k, n, plan.case.b, b_stride)?;
        let right = layout(m, k, plan.product_a, plan.product_a_stride)?;
        let result = layout(m, n, Storage::Rows, n)?;

        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is to a handle of this frame.
        let status = unsafe { (table.cublasLtMatmulPreferenceCreate)(&raw mut raw) };
        handle.check("cublasLtMatmulPreferenceCreate", status)?;
        let preference = Owned(raw, table.cublasLtMatmulPreferenceDestroy);
        let workspace = WORKSPACE;
        // SAFETY: the attribute is a number of bytes, and so is the value, which is copied.
        let status = unsafe {
            (table.cublasLtMatmulPreferenceSetAttribute)(
                preference.0,
                CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of_val(&workspace),
            )
        };
        handle.check("cublasLtMatmulPreferenceSetAttribute", status)?;
        let mut algorithms = vec![cublasLtMatmulHeuristicResult_t::default(); SUGGESTIONS];
        let mut found = 0;
        // SAFETY: all handles are alive, and there is room for as many results as are asked for.
        let status = unsafe {
            (table.cublasLtMatmulAlgoGetHeuristic)(
                handle.raw,
                product.0,
                left.0,
                right.0,
                result.0,
                result.0,
                preference.0,
                SUGGESTIONS as i32,
                algorithms.as_mut_ptr(),
                &raw mut found,
            )
        };
        if status != CUBLAS_STATUS_NOT_SUPPORTED {
            handle.check("cublasLtMatmulAlgoGetHeuristic", status)?;
        }
        algorithms.truncate(usize::try_from(found).unwrap_or(0));
        algorithms.retain(|found| {
            found.state == CUBLAS_STATUS_SUCCESS && found.workspaceSize <= WORKSPACE
        });
        if algorithms.is_empty() {
            return Err(MeasureError::NoAlgorithm {
                rank: handle.rank,
                m,
                n,
                k,
                dtype: plan.case.dtype,
            });
        }
        Ok(Described {
            product,
            left,
            right,
            result,
            algorithms,
        })
    }

    /// How many algorithms there are; one, which clears what result there is, where the product has no rows, columns or depth.
    pub fn algorithms(&self) -> usize {
        self.described
            .as_ref()
            .map_or(1, |described| described.algorithms.len())
    }

    /// Takes another algorithm.
    pub fn choose(&mut self, algorithm: usize) {
        self.algorithm = algorithm.min(self.algorithms() - 1);
    }

    /// Enqueues the product, by the algorithm chosen.
    ///
    /// # Safety
    /// At the addresses is memory of this device, of the sizes of the plan, until it has run; 256-byte aligned.
    ///
    /// # Errors
    /// Where the library refuses.
    pub unsafe fn enqueue(
        &self,
        a: Raw,
        b: Raw,
        d: Raw,
        stream: &Stream<Cuda>,
    ) -> Result<(), MeasureError> {
        let handle = &self.handle;
        bind(&handle.device)?;
        let Some(described) = &self.described else {
            // A sum of no terms.
            if self.bytes > 0 {
                // SAFETY: the result is that large, by the caller's word.
                unsafe { Cuda::load()?.fill(d, 0, self.bytes, stream.raw()) }?;
            }
            return Ok(());
        };
        let (one, zero) = (1.0f32, 0.0f32);
        let algorithm = &described.algorithms[self.algorithm];
        // SAFETY: the descriptors are alive, the scale factors are copied, the workspace is as large as the algorithm needs and
        // lives until the device is idle; the rest is the caller's word.
        let status = unsafe {
            (handle.library.table().cublasLtMatmul)(
                handle.raw,
                described.product.0,
                (&raw const one).cast(),
                pointer(b),
                described.left.0,
                pointer(a),
                described.right.0,
                (&raw const zero).cast(),
                pointer(d),
                described.result.0,
                pointer(d),
                described.result.0,
                &raw const algorithm.algo,
                pointer(handle.workspace.address()),
                WORKSPACE,
                pointer(stream.raw()).cast(),
            )
        };
        handle.check("cublasLtMatmul", status)
    }
}

//! The vendor's collectives, by NCCL.

use std::env;
use std::ffi::{c_int, c_void};
use std::ptr;

use iris_heap::World;
use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, Driver, Raw, Stream};
use iris_kernels::DType;
use rccl_sys::*;

use crate::case::CollectiveKind;
use crate::error::MeasureError;
use crate::meeting::together;

/// What NCCL asks whether it may use NVLink multicast.
const MULTICAST: &str = "NCCL_NVLS_ENABLE";

/// Has NCCL do without NVLink multicast, as we do. To be called before it is loaded.
///
/// # Safety
/// No other thread reads or writes the environment meanwhile: best at the start of `main`.
pub unsafe fn turn_multicast_off() {
    // SAFETY: by the caller's word.
    unsafe { env::set_var(MULTICAST, "0") };
}

/// Whether NCCL does without NVLink multicast, wherever it was told so.
pub fn multicast_is_off() -> bool {
    env::var_os(MULTICAST).is_some_and(|value| value == "0")
}

/// One rank's communicator.
///
/// Dropped, it is broken off, since other ranks may have failed; [`Communicator::finish`] ends it in order.
#[derive(Debug)]
pub struct Communicator {
    library: &'static Loaded,
    raw: ncclComm_t,
    rank: usize,
    device: Device<Cuda>,
}

fn pointer(address: Raw) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address as usize)
}

fn data_type(dtype: DType) -> ncclDataType_t {
    match dtype {
        DType::F32 => ncclFloat32,
        DType::F16 => ncclFloat16,
        DType::BF16 => ncclBfloat16,
    }
}

fn load() -> Result<&'static Loaded, MeasureError> {
    let library = Loaded::load_flavour(Flavour::Nccl)?;
    match library.flavour() {
        Flavour::Nccl => Ok(library),
        Flavour::Rccl => Err(MeasureError::NotNccl {
            library: library.origin().name().to_owned(),
        }),
    }
}

impl Communicator {
    /// The communicator of all ranks. Collective.
    ///
    /// # Errors
    /// [`MeasureError::MulticastOn`]; where the library is not there, or refuses.
    pub fn new(device: &Device<Cuda>, world: &World) -> Result<Self, MeasureError> {
        if !multicast_is_off() {
            return Err(MeasureError::MulticastOn);
        }
        let rank = world.rank();
        let library = together(world, "loading NCCL", load())?;
        let failed = |source| MeasureError::Nccl {
            rank,
            source,
            words: library.last_error(),
        };
        // Rank 0's; the others give nothing.
        let own = if rank == 0 {
            library.unique_id().map_err(failed)?.to_bytes().to_vec()
        } else {
            Vec::new()
        };
        let gathered = world.all_gather_bytes(&own)?;
        let mut id = [0; 128];
        // Rank 0 gives as many, or has failed, and then this exchange did.
        for (to, from) in id.iter_mut().zip(gathered.first().into_iter().flatten()) {
            *to = *from;
        }
        Cuda::load()?.bind(device.ordinal())?;
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is to a handle of this frame; the id is that of rank 0, and all ranks call this.
        let code = unsafe {
            (library.table().ncclCommInitRank)(
                &raw mut raw,
                world.size() as c_int,
                ncclUniqueId::from_bytes(id),
                rank as c_int,
            )
        };
        code.check("ncclCommInitRank").map_err(failed)?;
        Ok(Self {
            library,
            raw,
            rank,
            device: device.clone(),
        })
    }

    /// The library's version.
    ///
    /// # Errors
    /// Where it does not tell.
    pub fn version(&self) -> Result<Version, MeasureError> {
        self.library.version().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: NcclError) -> MeasureError {
        MeasureError::Nccl {
            rank: self.rank,
            source,
            words: self.library.last_error(),
        }
    }

    fn check(&self, call: &'static str, code: ncclResult_t) -> Result<(), MeasureError> {
        code.check(call).map_err(|source| self.failed(source))
    }

    /// Enqueues a collective of `count` elements, as [`CollectiveKind`] counts them. All ranks do, in the same order.
    ///
    /// # Safety
    /// At the addresses is memory of this device, as large as the collective and all ranks ask for, until it has run.
    ///
    /// # Errors
    /// Where the library refuses.
    pub unsafe fn enqueue(
        &self,
        kind: CollectiveKind,
        send: Raw,
        receive: Raw,
        count: usize,
        dtype: DType,
        stream: &Stream<Cuda>,
    ) -> Result<(), MeasureError> {
        Cuda::load()?.bind(self.device.ordinal())?;
        let (table, dtype) = (self.library.table(), data_type(dtype));
        let (send, receive) = (pointer(send).cast_const(), pointer(receive));
        let stream = pointer(stream.raw()).cast();
        // SAFETY: communicator and stream are alive; the rest is the caller's word.
        let (call, code) = unsafe {
            match kind {
                CollectiveKind::AllReduce => (
                    "ncclAllReduce",
                    (table.ncclAllReduce)(send, receive, count, dtype, ncclSum, self.raw, stream),
                ),
                CollectiveKind::ReduceScatter => (
                    "ncclReduceScatter",
                    (table.ncclReduceScatter)(
                        send, receive, count, dtype, ncclSum, self.raw, stream,
                    ),
                ),
                CollectiveKind::AllGather => (
                    "ncclAllGather",
                    (table.ncclAllGather)(send, receive, count, dtype, self.raw, stream),
                ),
            }
        };
        self.check(call, code)
    }

    /// Memory that is registered at all ranks as a symmetric window; none where the library is too old for it (2.27 has it), or
    /// has no use for it. Collective; all ask for as much.
    ///
    /// # Errors
    /// Where the library refuses.
    pub fn window(&self, bytes: usize) -> Result<Option<Window<'_>>, MeasureError> {
        let table = self.library.table();
        let (Some(allocate), Some(free), Some(register), Some(deregister)) = (
            table.ncclMemAlloc,
            table.ncclMemFree,
            table.ncclCommWindowRegister,
            table.ncclCommWindowDeregister,
        ) else {
            return Ok(None);
        };
        let bytes = bytes
            .max(1)
            .next_multiple_of(NCCL_WIN_REQUIRED_ALIGNMENT as usize);
        Cuda::load()?.bind(self.device.ordinal())?;
        let mut memory = ptr::null_mut();
        // SAFETY: the pointer is to one of this frame.
        let code = unsafe { allocate(&raw mut memory, bytes) };
        self.check("ncclMemAlloc", code)?;
        let mut window = Window {
            communicator: self,
            memory,
            raw: ptr::null_mut(),
            free,
            deregister,
        };
        // SAFETY: the memory is that large, and all ranks register theirs.
        let code = unsafe {
            register(
                self.raw,
                memory,
                bytes,
                &raw mut window.raw,
                NCCL_WIN_COLL_SYMMETRIC,
            )
        };
        self.check("ncclCommWindowRegister", code)?;
        // Where it cannot use windows, the library registers none, and says so by giving none.
        Ok((!window.raw.is_null()).then_some(window))
    }

    /// Ends it in order. All ranks do.
    ///
    /// # Errors
    /// Where the library says that something went wrong.
    pub fn finish(mut self) -> Result<(), MeasureError> {
        self.device.synchronize()?;
        let raw = std::mem::replace(&mut self.raw, ptr::null_mut());
        // SAFETY: made in `new`; nothing uses it any more, and it is not broken off when this is dropped.
        let code = unsafe { (self.library.table().ncclCommDestroy)(raw) };
        self.check("ncclCommDestroy", code)
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: made in `new`, and not destroyed before; breaking it off waits for nobody.
            let _ = unsafe { (self.library.table().ncclCommAbort)(self.raw) };
        }
    }
}

/// Memory that is registered at all ranks.
#[derive(Debug)]
pub struct Window<'a> {
    communicator: &'a Communicator,
    memory: *mut c_void,
    raw: ncclWindow_t,
    free: unsafe extern "C" fn(*mut c_void) -> ncclResult_t,
    deregister: unsafe extern "C" fn(ncclComm_t, ncclWindow_t) -> ncclResult_t,
}

impl Window<'_> {
    /// Where it begins.
    pub fn address(&self) -> Raw {
        self.memory.expose_provenance() as Raw
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        // What is enqueued may still use it; that the other ranks are through with it is the caller's affair.
        let idle = self.communicator.device.synchronize().is_ok();
        if !idle {
            return;
        }
        if !self.raw.is_null() {
            // SAFETY: registered with this communicator, which is alive, and not deregistered before.
            let _ = unsafe { (self.deregister)(self.communicator.raw, self.raw) };
        }
        // SAFETY: allocated by `ncclMemAlloc`, and not freed before.
        let _ = unsafe { (self.free)(self.memory) };
    }
}

//! The runtimes that the tests run over, and the kernel that they run on each.

use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, DeviceError, Driver, Module};
use iris_heap::hip::Hip;
use std::ffi::CString;
use std::ptr;

/// A runtime with a kernel `relay` of one block of 32 threads, which takes a [`Relay`].
pub(crate) trait Backend: Driver {
    /// The module of the tests over it.
    const MODULE: &'static str;
    /// What its architectures begin with.
    const ARCHITECTURE: &'static str;
    /// The library that is looked for.
    const LIBRARY: &'static str;
    /// The kernel's image for a device.
    fn relay(device: &Device<Self>) -> Vec<u8>;
}

/// What `relay` does: it awaits 1 at `awaited` with acquire order, unless that is 0; stores to 32 words at `to` those at `from` plus 1;
/// and stores 1 at `flag` with release order. Both orders are of system scope.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Relay {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) flag: u64,
    pub(crate) awaited: u64,
}

const PTX: &str = "
.version 7.0
.target sm_70
.address_size 64
.visible .entry relay(.param .align 8 .b8 args[32])
{
    .reg .pred %p<4>;
    .reg .b32 %r<8>;
    .reg .b64 %rd<12>;
    ld.param.u64 %rd1, [args];
    ld.param.u64 %rd2, [args+8];
    ld.param.u64 %rd3, [args+16];
    ld.param.u64 %rd4, [args+24];
    setp.eq.u64 %p1, %rd4, 0;
    @%p1 bra GO;
WAIT:
    ld.acquire.sys.global.u32 %r1, [%rd4];
    setp.eq.u32 %p2, %r1, 0;
    @%p2 bra WAIT;
GO:
    mov.u32 %r2, %tid.x;
    mul.wide.u32 %rd5, %r2, 4;
    add.u64 %rd6, %rd1, %rd5;
    add.u64 %rd7, %rd2, %rd5;
    ld.global.u32 %r3, [%rd6];
    add.u32 %r3, %r3, 1;
    st.global.u32 [%rd7], %r3;
    bar.sync 0;
    setp.ne.u32 %p3, %r2, 0;
    @%p3 ret;
    fence.acq_rel.sys;
    mov.u32 %r4, 1;
    st.release.sys.global.u32 [%rd3], %r4;
    ret;
}
\0";

const HIP: &str = r#"
struct Relay { const unsigned *from; unsigned *to; unsigned *flag; unsigned *awaited; };
extern "C" __global__ void relay(Relay args) {
    while (args.awaited && !__hip_atomic_load(args.awaited, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_SYSTEM)) {
    }
    args.to[threadIdx.x] = args.from[threadIdx.x] + 1;
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");
    __syncthreads();
    if (threadIdx.x == 0) __hip_atomic_store(args.flag, 1u, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_SYSTEM);
}
"#;

impl Backend for Cuda {
    const MODULE: &'static str = "cuda";
    const ARCHITECTURE: &'static str = "sm_";
    const LIBRARY: &'static str = "libcuda.so.1";
    fn relay(_: &Device<Self>) -> Vec<u8> {
        PTX.into()
    }
}

impl Backend for Hip {
    const MODULE: &'static str = "hip";
    const ARCHITECTURE: &'static str = "gfx";
    const LIBRARY: &'static str = "libamdhip64.so";
    fn relay(device: &Device<Self>) -> Vec<u8> {
        if crate::stand_in::is_loaded() {
            return b"stand-in".into();
        }
        compile(&device.info().architecture).unwrap()
    }
}

/// The kernel, compiled for an AMD GPU; or why not.
fn compile(architecture: &str) -> Result<Vec<u8>, String> {
    let hiprtc = hip_sys::LoadedHiprtc::load().map_err(|error| error.to_string())?;
    let (table, mut program, source) =
        (hiprtc.table(), ptr::null_mut(), CString::new(HIP).unwrap());
    let option = CString::new(format!("--offload-arch={architecture}")).unwrap();
    // SAFETY: all texts have their ends, and live as long as the calls; the results are valid; the program is alive until destroyed.
    unsafe {
        let (name, none) = (c"relay.hip".as_ptr(), ptr::null());
        let create = table.hiprtcCreateProgram;
        let code = create(&raw mut program, source.as_ptr(), name, 0, none, none);
        code.check("creating").unwrap();
        let compiled = (table.hiprtcCompileProgram)(program, 1, &option.as_ptr());
        let mut bytes = 0;
        let code = (table.hiprtcGetProgramLogSize)(program, &raw mut bytes);
        code.check("the log's size").unwrap();
        let mut log = vec![0u8; bytes];
        let code = (table.hiprtcGetProgramLog)(program, log.as_mut_ptr().cast());
        code.check("the log").unwrap();
        compiled
            .check("compiling")
            .unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&log)));
        let code = (table.hiprtcGetCodeSize)(program, &raw mut bytes);
        code.check("the code's size").unwrap();
        let mut image = vec![0u8; bytes];
        let code = (table.hiprtcGetCode)(program, image.as_mut_ptr().cast());
        code.check("the code").unwrap();
        (table.hiprtcDestroyProgram)(&raw mut program)
            .check("destroying")
            .unwrap();
        Ok(image)
    }
}

#[test]
fn the_kernel_compiles_without_an_amd_gpu() {
    match compile("gfx90a") {
        Ok(image) => assert_eq!(&image[..4], b"\x7fELF"),
        Err(why) => crate::skipped("the_kernel_compiles", why),
    }
}

/// The kernel's module on a device.
pub(crate) fn relay<D: Backend>(device: &Device<D>) -> Module<D> {
    Module::load(device, &D::relay(device)).unwrap()
}

/// All devices, or none, said, where there are none.
pub(crate) fn devices<D: Backend>(test: &str) -> Vec<Device<D>> {
    let why = match Device::<D>::count() {
        Ok(0) => "no device".to_owned(),
        Ok(count) => return (0..count).map(|at| Device::open(at).unwrap()).collect(),
        Err(error @ (DeviceError::NotThere { .. } | DeviceError::TooOld { .. })) => {
            error.to_string()
        }
        Err(error) => panic!("{error}"),
    };
    crate::skipped(&format!("{}::{test}", D::MODULE), why);
    Vec::new()
}

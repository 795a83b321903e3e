//! This crate's own kernels, compiled for a device and a type of elements.

use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, Function, Module};
use iris_kernels::DType;
use iris_kernels::device::nvrtc::Nvrtc;
use iris_kernels::device::sources;

use crate::error::MeasureError;

const SOURCE: &str = include_str!("../hip/measure.hip");
/// Threads of a block, as the source has it.
const THREADS: u32 = 512;

/// The kernels of hip/measure.hip on one device.
#[derive(Debug)]
pub(crate) struct Kernels {
    /// Draws a random matrix.
    pub(crate) fill: Function<Cuda>,
    /// Reads memory.
    pub(crate) read: Function<Cuda>,
}

/// The source in one text, our headers included.
pub(crate) fn source() -> String {
    sources::amalgamate("measure.hip", SOURCE)
}

impl Kernels {
    /// Compiles and loads them.
    pub(crate) fn new(device: &Device<Cuda>, dtype: DType) -> Result<Self, MeasureError> {
        let definition = format!("IRIS_DTYPE={dtype}");
        let architecture = &device.info().architecture;
        let image =
            Nvrtc::load()?.compile("measure.hip", &source(), architecture, &[&definition])?;
        let module = Module::load(device, &image)?;
        Ok(Self {
            fill: module.function("iris_fill", THREADS, 0)?,
            read: module.function("iris_read", THREADS, 0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where there is a compiler: it needs no device.
    #[test]
    fn the_source_compiles_for_all_types() {
        let nvrtc = match Nvrtc::load() {
            Ok(nvrtc) => nvrtc,
            Err(error) => return eprintln!("SKIPPED: {error}"),
        };
        for dtype in DType::ALL {
            for architecture in ["sm_80", "sm_90a"] {
                let definition = format!("IRIS_DTYPE={dtype}");
                let image = nvrtc.compile("measure.hip", &source(), architecture, &[&definition]);
                assert!(image.is_ok_and(|image| !image.is_empty()));
            }
        }
    }
}

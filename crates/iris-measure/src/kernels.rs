//! This crate's own kernels, compiled for a device and a type of elements.

use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, Function, Module};
use iris_kernels::DType;
use iris_kernels::device::compile::{self, Architecture, Request, Source};

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

/// What to compile.
fn request(architecture: Architecture, dtype: DType) -> Request {
    Request::new(Source::user("measure.hip", SOURCE), architecture).define("IRIS_DTYPE", dtype)
}

impl Kernels {
    /// Compiles and loads them.
    pub(crate) fn new(device: &Device<Cuda>, dtype: DType) -> Result<Self, MeasureError> {
        let architecture: Architecture = device.info().architecture.parse()?;
        let image = compile::compile(&request(compile::target(&architecture)?, dtype))?;
        let module = Module::load(device, image.bytes())?;
        Ok(Self {
            fill: module.function("iris_fill", THREADS, 0)?,
            read: module.function("iris_read", THREADS, 0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By whatever compilers there are: they need no device.
    #[test]
    fn the_source_compiles_for_all_types_and_architectures() {
        for name in ["sm_80", "sm_90a", "gfx90a", "gfx942", "gfx950"] {
            let architecture: Architecture = name.parse().unwrap();
            let compiler = match compile::find(&architecture) {
                Ok(compiler) => compiler,
                Err(error) => {
                    iris_testkit::skipped(&format!("the kernels for {name}"), error);
                    continue;
                }
            };
            for dtype in DType::ALL {
                let request = request(architecture.clone(), dtype);
                let compiled = compiler.compile(&request, &compiler.options(&request));
                let output = compiled.unwrap_or_else(|error| panic!("{name} {dtype}: {error}"));
                assert!(!output.bytes.is_empty());
            }
        }
    }
}

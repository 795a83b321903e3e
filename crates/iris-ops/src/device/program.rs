//! The kernels of an operation, compiled and loaded, and how many blocks each is launched with.

use crate::config::{FusedConfig, Variant};
use crate::error::OpError;
use crate::plan::{Blueprint, Kind, Target, variant_of};
use iris_heap::World;
use iris_heap::device::{Device, Driver, Function, Module, Tensor};
use iris_kernels::device::compile::{self, Architecture, Request};
use iris_kernels::device::fast::{Boxes, Build, FastArgs, TensorMap};
use iris_kernels::device::{Args, CompileError, MAX_RANKS, TILE};
use iris_kernels::host::{Needs, Program, Shape};
use iris_kernels::{DType, Element, Tile};
use iris_sync::{Layout, Rules};

/// What a tile that is asked for must be made of.
const STEP: Tile = Tile { m: 32, n: 128 };
const MOST: Tile = Tile { m: 128, n: 128 };

/// Threads of a block.
const THREADS: u32 = 256;

/// How kernels lay out an operation's memory. Fast kernels have tiles of their own; a tile that is asked for is one for portable
/// kernels.
pub(super) fn target<T: Element, D: Driver>(world: &World<D>, config: &FusedConfig) -> Target {
    let portable = Target {
        words,
        tile: |_, _, _, _| TILE,
        tiles: Some((STEP, MOST)),
        slot,
    };
    let adds = matches!(config.variant, Variant::Atomic | Variant::Spinlock);
    if adds || config.tile.is_some() || !builds::<T, D>(world) {
        return portable;
    }
    let [least, .., most] = Build::ALL.map(|build| build.tile);
    Target {
        tile: |kind, m, _, world| {
            // The rows that a rank multiplies.
            let rows = match kind {
                Kind::MatmulAllGather => m.div_ceil(world),
                _ => m,
            };
            Build::for_rows(rows).tile
        },
        tiles: Some((least, most)),
        ..portable
    }
}

/// Whether there are fast kernels for this device.
fn builds<T: Element, D: Driver>(world: &World<D>) -> bool {
    let architecture = world.device().info().architecture.parse();
    // Where there is no compiler, loading says so.
    architecture
        .map_err(CompileError::from)
        .and_then(|device: Architecture| compile::target(&device))
        .is_ok_and(|architecture| Build::serves(T::DTYPE, &architecture))
}

/// The bytes of the cells, of which a device has one more than the host: how many blocks have arrived.
pub(super) fn cells(layout: Layout) -> usize {
    (8 * (layout.cells() + 1)).next_multiple_of(256)
}

fn words(layout: Layout) -> usize {
    cells(layout) + 4 * layout.words()
}

fn slot(program: Program, needs: Needs, tile: Tile, element: usize) -> Option<usize> {
    match program {
        // Pieces of A: rows of whole chunks of 16 bytes.
        Program::AllGatherMatmul(_) => (needs.slot_elements / tile.m)
            .checked_mul(element)?
            .checked_next_multiple_of(16)?
            .checked_mul(tile.m),
        _ => needs.slot_elements.checked_mul(element),
    }
}

/// One kernel of an operation.
#[derive(Debug)]
pub struct Loaded<D: Driver> {
    /// The program it is.
    pub program: Program,
    /// The kernel.
    pub function: Function<D>,
    /// The blocks that are resident at once on this rank's part of the device.
    pub most_blocks: u32,
    /// The kernel that is faster with operands that it takes.
    pub fast: Option<Fast<D>>,
}

/// A kernel that is faster with operands that it takes.
#[derive(Debug)]
pub struct Fast<D: Driver> {
    build: Build,
    function: Function<D>,
    most_blocks: u32,
}

impl<D: Driver> Fast<D> {
    /// The kernel and what it is given for a call, if it takes the call's operands.
    pub(super) fn arguments(
        &self,
        device: &Device<D>,
        program: Program,
        dtype: DType,
        args: &Args,
    ) -> Result<Option<(&Function<D>, FastArgs)>, OpError> {
        let encode = |boxes: &Boxes| {
            let dimensions = boxes.dimensions;
            device
                .encode(&Tensor {
                    bf16: boxes.dtype == DType::BF16,
                    address: boxes.address,
                    sizes: &boxes.sizes[..dimensions],
                    strides: &boxes.strides[..dimensions - 1],
                    boxes: &boxes.boxes[..dimensions],
                })
                .map(|map| map.map(TensorMap))
        };
        let args = Args {
            blocks: args.blocks.min(u64::from(self.most_blocks)),
            ..*args
        };
        let arguments = self.build.arguments(program.into(), dtype, &args, encode)?;
        Ok(arguments.map(|arguments| (&self.function, arguments)))
    }
}

/// Compiles and loads an operation's kernels.
pub(super) fn load<T: Element, D: Driver>(
    world: &World<D>,
    kind: Kind,
    blueprint: &Blueprint,
    config: &FusedConfig,
) -> Result<Vec<Loaded<D>>, OpError> {
    let operation = kind.operation();
    if world.size() > MAX_RANKS {
        return Err(OpError::TooManyRanks {
            operation,
            ranks: world.size(),
            most: MAX_RANKS,
        });
    }
    if config.probe.is_some() {
        return Err(OpError::Probe { operation });
    }
    let device = world.device();
    let ranks_here = world.heap().ranks_here();
    let architecture: Architecture = (device.info().architecture)
        .parse()
        .map_err(CompileError::from)?;
    let architecture = compile::target(&architecture)?;
    let mut loaded = Vec::new();
    for &(_, program) in &blueprint.programs {
        if matches!(program, Program::Atomic | Program::Spinlock) {
            check_atomics(world, operation, program)?;
        }
        let tile = blueprint.shape.tile;
        let build = Build::with_tile(tile);
        let make = |request: Request, threads, shared| {
            let mut request = request;
            if config.rules != Rules::ALL {
                request = request.define("IRIS_CONTROLS", 1);
            }
            if config.stall.is_some() {
                request = request.define("IRIS_STALLS", 1);
            }
            let image = compile::compile(&request)?;
            let module = Module::load(device, image.bytes())?;
            let (_, kernel) = program.kernel();
            let function = module.function(kernel, threads, shared)?;
            let most = function.shape().most_blocks;
            let most_blocks = most / u32::try_from(ranks_here).unwrap_or(u32::MAX);
            if most_blocks == 0 {
                return Err(OpError::NoRoomForBlocks {
                    operation,
                    kernel,
                    rank: world.rank(),
                    most,
                    ranks_here,
                });
            }
            Ok((function, most_blocks))
        };
        let architecture = || architecture.clone();
        let ((function, most_blocks), fast) = match build {
            Some(build) => {
                let request = build.fast(program.into(), T::DTYPE, architecture());
                let (function, most_blocks) = make(request, build.threads(), build.shared())?;
                let fast = Fast {
                    build,
                    function,
                    most_blocks,
                };
                let request = build.portable(program.into(), T::DTYPE, architecture());
                (make(request, build.portable_threads(), 0)?, Some(fast))
            }
            None => {
                let request = Request::program(program, T::DTYPE, tile, architecture());
                (make(request, THREADS, 0)?, None)
            }
        };
        loaded.push(Loaded {
            program,
            function,
            most_blocks,
            fast,
        });
    }
    Ok(loaded)
}

fn check_atomics<D: Driver>(
    world: &World<D>,
    operation: &'static str,
    program: Program,
) -> Result<(), OpError> {
    for peer in 0..world.size() {
        let why = match world.heap().atomics(peer) {
            Some(true) => continue,
            Some(false) => "and there are none between the two devices",
            None => {
                "and the runtime cannot tell, since that device is hidden from this process (CUDA_VISIBLE_DEVICES)"
            }
        };
        return Err(OpError::NoAtomics {
            operation,
            variant: variant_of(program),
            rank: world.rank(),
            peer,
            why,
        });
    }
    Ok(())
}

/// How many pieces of work a call has for the blocks of one rank: more blocks than that would only wait for each other.
pub(super) fn work(program: Program, m: usize, shape: Shape, world: usize) -> usize {
    let Shape { n, tile, .. } = shape;
    let tiles = |rows: usize, cols: usize| rows.div_ceil(tile.m) * cols.div_ceil(tile.n);
    let share = m.div_ceil(world);
    let work = match program {
        Program::OneShot | Program::TwoShot => tiles(m, n),
        // The sums are read in chunks of 16 bytes a thread, by all blocks.
        Program::Atomic | Program::Spinlock => tiles(m, n).max((m * n).div_ceil(1 << 12)),
        Program::ReduceScatter => world * tiles(share, n),
        Program::AllGatherMatmul(_) => {
            let cols = n.div_ceil(world);
            (world * tiles(share, cols)).max(world * m.div_ceil(tile.m))
        }
        Program::MatmulAllGather => tiles(share, n),
    };
    work.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iris_kernels::host::GatherDim;

    #[test]
    fn a_slot_of_pieces_has_rows_of_whole_chunks() {
        let gather = Program::AllGatherMatmul(GatherDim::Rows);
        let needs = Needs {
            slot_elements: 128 * 33,
            ..Needs::default()
        };
        assert_eq!(slot(gather, needs, TILE, 2), Some(128 * 80));
        assert_eq!(slot(Program::TwoShot, needs, TILE, 2), Some(128 * 66));
        assert_eq!(
            slot(
                gather,
                Needs {
                    slot_elements: usize::MAX,
                    ..needs
                },
                TILE,
                256
            ),
            None
        );
    }

    #[test]
    fn there_is_always_something_to_do() {
        let shape = Shape {
            n: 1,
            k: 1,
            tile: TILE,
        };
        for program in [Program::OneShot, Program::Atomic, Program::MatmulAllGather] {
            assert_eq!(work(program, 1, shape, 8), 1);
        }
    }
}

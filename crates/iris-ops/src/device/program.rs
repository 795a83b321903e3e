//! The kernels of an operation, compiled and loaded, and how many blocks each is launched with.

use super::fast::{pairs, product_of, streams};
use super::product;
use crate::config::FusedConfig;
use crate::error::{OpError, which_tiles};
use crate::plan::{Blueprint, Kind, Step, Target, variant_of};
use iris_heap::World;
use iris_heap::device::{Device, DeviceError, Driver, Function, Module, Stream};
use iris_kernels::device::compile::{self, Architecture, Request};
use iris_kernels::device::fast::{
    Crews, FastArgs, LARGEST, MOST_HIGH, is_fast, partial_bytes, waves_n,
};
use iris_kernels::device::{Args, CompileError, MAX_RANKS, TILE, needs, slot_bytes};
use iris_kernels::host::{Program, Shape};
use iris_kernels::{DType, Element, Tile};
use iris_sync::{Layout, Rules};
use std::fmt;
use std::panic::resume_unwind;

/// What a tile that is asked for must be made of.
const STEP: Tile = Tile { m: 32, n: 128 };

/// Those of the fast kernels: see [`Crews::of`].
const CREWS: [Tile; 8] = [
    Tile { m: 64, n: 64 },
    Tile { m: 64, n: 128 },
    Tile { m: 64, n: 192 },
    Tile { m: 64, n: 256 },
    Tile { m: 128, n: 64 },
    Tile { m: 128, n: 128 },
    Tile { m: 128, n: 192 },
    Tile { m: 128, n: 256 },
];

/// The fastest one where rows of A come in packets.
const UNPACKS: Tile = Tile { m: 64, n: 64 };

/// How kernels lay out an operation's memory on a device, for elements of so many bytes.
pub(super) fn target_of<D: Driver>(device: &Device<D>, element: usize) -> Target {
    target(&device.info().architecture, &compiler(device), element)
}

/// The same on an architecture, as a compiler compiles for it.
fn target(architecture: &str, compiler: &str, element: usize) -> Target {
    let hopper = architecture.starts_with("sm_90");
    // Slabs of wider tiles of f32 do not fit what every device gives a block.
    let most = match element {
        4 => TILE,
        _ => LARGEST,
    };
    Target {
        words,
        tile: if hopper {
            hopper_tile
        } else {
            |_, _, _, _, _| TILE
        },
        tiles: Some((STEP, most)),
        also: match hopper && element == 2 {
            true => &CREWS,
            false => &[],
        },
        needs,
        slot: slot_bytes,
        packets: Some(match wide_packets(architecture, compiler) {
            true => 24,
            false => 32,
        }),
        unpacks: (hopper && element == 2).then_some(UNPACKS),
        partials: match hopper && element == 2 {
            true => partials,
            false => |_, _, _| 0,
        },
    }
}

/// The tiles that kernels have, which an operation may be asked for. As text, which they are: `whose sides must be multiples of` and so on.
#[derive(Debug, Clone, Copy)]
pub struct Tiles(Target);

impl Tiles {
    /// Those on an architecture, such as `sm_90a`, for elements of a type.
    pub fn of(architecture: &str, dtype: DType) -> Self {
        Self(target(architecture, "", dtype.bytes()))
    }

    /// Whether a tile is one of them.
    pub fn has(&self, tile: Tile) -> bool {
        self.0.has(tile)
    }
}

impl fmt::Display for Tiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.tiles {
            Some((step, most)) => f.write_str(&which_tiles(&step, &most, self.0.also)),
            None => f.write_str("of any sides"),
        }
    }
}

/// What the fast kernels leave of tiles to each other, in calls of a step of `fewest` rows at least: nothing where none will be streamed.
fn partials(step: &Step, fewest: usize, world: usize) -> usize {
    let Shape { n, tile, .. } = step.shape;
    let cols = n.div_ceil(world) as u64;
    // Of calls, how many tiles their rows take counts, and those that can be streamed have few; and that they have no more rows than the step.
    let most = step.rows.div_ceil(tile.m).min(MOST_HIGH);
    let mut heights = fewest.div_ceil(tile.m)..=most;
    let streams = |height: usize| {
        let rows = (height * tile.m).min(step.rows);
        streams(step, rows as u64, cols, RESIDENT)
    };
    match step.program {
        Program::AllGatherMatmul(_) | Program::AllGatherMatmulPackets
            if !pairs(step, world) && heights.any(streams) =>
        {
            partial_bytes(tile)
        }
        _ => 0,
    }
}

/// Whether kernels have packets of 16 bytes: the twin of `WIDE_PACKETS` in `hip/iris/packets.h`. `compiler` ends with its version. Where there
/// is none, nothing will be compiled, and what is to be said of that is not that this rank's packets are others than its peers'.
fn wide_packets(architecture: &str, compiler: &str) -> bool {
    let version = compiler.rsplit(' ').next().unwrap_or_default();
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    architecture.starts_with("sm_")
        && (compiler.is_empty()
            || matches!(version, (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (12, 4)))
}

/// Blocks that a device of this kind runs at once, one a multiprocessor: 132 on an H100 and an H200.
pub(super) const RESIDENT: u64 = 132;
/// About as many, to be filled by tiles.
const BLOCKS: usize = 128;

/// The tile for so many rows and columns on Hopper, no higher than the rows that tiles are cut from. The widest, if it gives nearly every
/// multiprocessor two, so that the first is taken away beside the second. The narrowest, if all of these are made at once. Else one of 128 columns:
/// of two narrower ones that a multiprocessor makes one after the other, each takes nearly as long as it, since as much of A has to be brought.
fn hopper_tile(kind: Kind, [_, rows]: [usize; 2], n: usize, world: usize, element: usize) -> Tile {
    if element != 2 {
        return TILE;
    }
    let grids = kind.grids(rows, n, world);
    let m = if grids.rows <= 64 { 64 } else { 128 };
    let tiles = |n| grids.tiles(Tile { m, n });
    let n = if tiles(256) >= 2 * BLOCKS {
        256
    } else if tiles(64) <= RESIDENT as usize {
        64
    } else {
        128
    };
    Tile { m, n }
}

/// The bytes of the cells, of which a device has one more than the host: how many blocks have arrived.
pub(super) fn cells(layout: Layout) -> usize {
    (8 * (layout.cells() + 1)).next_multiple_of(256)
}

fn words(layout: Layout) -> usize {
    cells(layout) + 4 * layout.words()
}

/// What kernels are compiled by for a device; nothing where nothing is found, which creating an operation then says.
pub(super) fn compiler<D: Driver>(device: &Device<D>) -> String {
    let architecture = device.info().architecture.parse::<Architecture>().ok();
    let identity = architecture.and_then(|architecture| {
        let target = compile::target(&architecture).ok()?;
        Some(compile::find(&target).ok()?.identity())
    });
    identity.map_or_else(String::new, |it| format!("{} {}", it.kind, it.version))
}

/// One kernel of an operation.
#[derive(Debug)]
pub struct Loaded<D: Driver> {
    /// The program it is; none where it is the product alone.
    pub program: Option<Program>,
    /// The kernel for every architecture and all operands.
    pub portable: Kernel<D>,
    /// The one for Hopper and operands that can be mapped.
    pub fast: Option<Kernel<D>>,
    /// The product that goes before it, where the step is not fused.
    pub before: Option<Box<Loaded<D>>>,
}

/// A kernel, loaded.
#[derive(Debug)]
pub struct Kernel<D: Driver> {
    /// The kernel.
    pub function: Function<D>,
    /// The blocks that are resident at once on this rank's part of the device: an even number if they go in pairs.
    pub most_blocks: u32,
    /// The crews that a block consists of, if it does.
    pub crews: Option<Crews>,
}

/// A kernel to be compiled and loaded.
pub(super) struct Wanted {
    /// Threads of a block, and its dynamic shared memory in bytes.
    threads: u32,
    shared: u32,
    crews: Option<Crews>,
    request: Request,
}

impl Wanted {
    /// The one for every architecture.
    pub(super) fn portable(tile: Tile, request: Request) -> Self {
        Self {
            threads: 64 * waves_n(tile) as u32,
            shared: 0,
            crews: None,
            request: request.portable(tile),
        }
    }

    /// The one whose blocks consist of these crews.
    pub(super) fn of_crews(crews: &Crews, request: Request) -> Self {
        Self {
            threads: crews.threads(),
            shared: crews.shared(),
            crews: Some(*crews),
            request: crews.request(request),
        }
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
    let architecture: Architecture = (device.info().architecture)
        .parse()
        .map_err(CompileError::from)?;
    let architecture = compile::target(&architecture)?;
    for step in &blueprint.steps {
        if matches!(step.program, Program::Atomic | Program::Spinlock) {
            check_atomics(world, operation, step.program)?;
        }
    }
    let fast =
        !config.portable && device.has_tensor_maps() && is_fast(architecture.name(), T::DTYPE);
    let request = |step: &Step| {
        let tile = step.shape.tile;
        let mut request = Request::program(step.program, T::DTYPE, tile, architecture.clone());
        if config.rules != Rules::ALL {
            request = request.define("IRIS_CONTROLS", 1);
        }
        if config.stall.is_some() {
            request = request.define("IRIS_STALLS", 1);
        }
        request
    };
    // Of each step the portable kernel and, where there is one, the fast one: threads and dynamic shared memory of a block, and what
    // to compile.
    let mut wanted = Vec::new();
    for step in &blueprint.steps {
        let tile = step.shape.tile;
        wanted.push(Some(Wanted::portable(tile, request(step))));
        let accumulates = matches!(step.program, Program::Atomic | Program::Spinlock);
        let crews = Crews::of_program(step.program, tile).filter(|_| fast && !accumulates);
        let crews = crews.map(|crews| match pairs(step, world.size()) {
            true => crews.paired(),
            false => crews,
        });
        wanted.push(crews.map(|crews| Wanted::of_crews(&crews, request(step))));
    }
    let load = |step: &Step, wanted: &Wanted| {
        let (_, kernel) = step.program.kernel();
        load_kernel(world, operation, kernel, wanted)
    };
    // Compilers take their time, and several of them no longer than one.
    let mut kernels = std::thread::scope(|scope| {
        let threads: Vec<_> = wanted
            .iter()
            .enumerate()
            .map(|(at, wanted)| {
                let step = &blueprint.steps[at / 2];
                let wanted = wanted.as_ref();
                wanted.map(|wanted| scope.spawn(move || load(step, wanted)))
            })
            .collect();
        let ended = threads.into_iter().map(|thread| {
            thread.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        ended.map(Option::transpose).collect::<Result<Vec<_>, _>>()
    })?
    .into_iter();
    let mut loaded = Vec::new();
    while let (Some(Some(portable)), Some(fast)) = (kernels.next(), kernels.next()) {
        let step = &blueprint.steps[loaded.len()];
        let (tile, portable_only) = (step.shape.tile, config.portable);
        let before = match step.fused {
            true => None,
            false => Some(product::load::<T, D>(
                world,
                operation,
                product_of(step, world.size()),
                tile,
                portable_only,
            )?),
        };
        loaded.push(Loaded {
            program: Some(step.program),
            portable,
            fast,
            before: before.map(Box::new),
        });
    }
    Ok(loaded)
}

/// Compiles and loads a kernel.
pub(super) fn load_kernel<D: Driver>(
    world: &World<D>,
    operation: &'static str,
    kernel: &'static str,
    wanted: &Wanted,
) -> Result<Kernel<D>, OpError> {
    let image = compile::compile(&wanted.request)?;
    let module = Module::load(world.device(), image.bytes())?;
    let function = module.function(kernel, wanted.threads, wanted.shared)?;
    let most = function.shape().most_blocks;
    let most_blocks = match (world.most_blocks(&function), wanted.crews) {
        (most, Some(crews)) if crews.paired => most / 2 * 2,
        (most, _) => most,
    };
    if most_blocks == 0 {
        return Err(OpError::NoRoomForBlocks {
            operation,
            kernel,
            rank: world.rank(),
            most,
            ranks_here: world.heap().ranks_here(),
        });
    }
    Ok(Kernel {
        function,
        most_blocks,
        crews: wanted.crews,
    })
}

/// Launches every kernel once, of a world without ranks, which leaves at once: where all ranks have loaded theirs, and none has a call
/// under way that this one has yet to make.
///
/// A driver may load a kernel, and make room for it on the device, only at its first launch; and what it then does to a queue of the
/// device can wait for all that runs there, which may be the kernel of another rank that waits for this one. So ranks that share a
/// device do it in all their queues.
pub(super) fn warm_up<D: Driver>(world: &World<D>, loaded: &[Loaded<D>]) -> Result<(), OpError> {
    let heap = world.heap();
    let alone = heap.ranks_here() == 1;
    let streams = match alone {
        true => Vec::new(),
        false => heap.own_streams()?,
    };
    let streams = streams
        .iter()
        .map(|stream| &**stream)
        .chain([heap.transfers()]);
    for stream in streams {
        let products = loaded.iter().filter_map(|step| step.before.as_deref());
        for step in loaded.iter().chain(products) {
            step.portable.warm_up(stream, alone, &Args::default())?;
            if let Some(fast) = &step.fast {
                fast.warm_up(stream, alone, &FastArgs::default())?;
            }
        }
        stream.synchronize()?;
    }
    Ok(())
}

impl<D: Driver> Kernel<D> {
    /// Blocks for so many pieces of work: no more than there are pieces, but that none goes without its partner.
    pub(super) fn blocks(&self, work: u64) -> u64 {
        let paired = self.crews.is_some_and(|crews| crews.paired);
        let wanted = work.next_multiple_of(if paired { 2 } else { 1 });
        wanted.min(u64::from(self.most_blocks))
    }

    /// `nothing` is the argument of a call in a world without ranks.
    fn warm_up<A: Copy>(
        &self,
        stream: &Stream<D>,
        alone: bool,
        nothing: &A,
    ) -> Result<(), DeviceError> {
        // SAFETY: the kernel takes such an argument, and accesses nothing where the world in it has no ranks.
        unsafe {
            match alone {
                true => self.function.launch(stream, self.most_blocks, nothing),
                false => (self.function).launch_ordinary(stream, self.most_blocks, nothing),
            }
        }
    }
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
    match program {
        Program::OneShot
        | Program::OneShotPackets
        | Program::TwoShot
        | Program::TwoShotPackets
        | Program::ReduceScatterPackets => tiles(m, n),
        // The sums are read in chunks of 16 bytes a thread, by all blocks.
        Program::Atomic | Program::Spinlock => tiles(m, n).max((m * n).div_ceil(1 << 12)),
        Program::ReduceScatter => world * tiles(share, n),
        // Where there are few tiles, all blocks still send.
        Program::AllGatherMatmul(_) => {
            let pieces = needs(program, m, shape, world).words;
            tiles(m, n.div_ceil(world)).max(pieces)
        }
        // Every wave sends a part of a row.
        Program::AllGatherMatmulPackets => {
            tiles(m, n.div_ceil(world)).max((share * shape.k).div_ceil(1 << 10))
        }
        Program::MatmulAllGather => tiles(share, n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iris_kernels::host::{GatherDim, Staging};

    #[test]
    fn tiles_of_the_fast_kernels_can_be_asked_for_where_there_are_some() {
        for tile in CREWS {
            assert!(Crews::of(tile).is_some() && target("sm_90", "", 2).has(tile));
        }
        let narrow = Tile { m: 64, n: 64 };
        assert!(!target("sm_90", "", 4).has(narrow) && !target("sm_80", "", 2).has(narrow));
        assert!(target("gfx942", "", 2).has(LARGEST) && !target("gfx942", "", 4).has(LARGEST));
    }

    /// As measured on an H200, rows, columns and depth of an all-gather first on one rank: in tiles of 128 columns it takes 37 us for 38 in narrow
    /// ones, 56 for 61, 28 for 40, 45 for 64, 47 for 64, 28 for 36, 27 for 35; of 64 rows 45 for 58, 24 for 31. Where all narrow ones are made at
    /// once, 167 for 119.
    #[test]
    fn tiles_are_as_wide_as_is_faster() {
        let tile = |rows, cols| hopper_tile(Kind::AllReduce, [rows, rows], cols, 1, 2);
        for (rows, cols, _depth) in [
            (128, 14336, 4096),
            (128, 10240, 8192),
            (256, 7168, 4096),
            (256, 5120, 8192),
            (512, 2560, 8192),
            (512, 3072, 4096),
            (1024, 1536, 4096),
        ] {
            assert_eq!(tile(rows, cols), Tile { m: 128, n: 128 }, "{rows} {cols}");
        }
        for (rows, cols, _depth) in [(64, 10240, 8192), (64, 8704, 4096)] {
            assert_eq!(tile(rows, cols), Tile { m: 64, n: 128 }, "{rows} {cols}");
        }
        // All at once, by more multiprocessors than wider ones would have: the first of a depth of 28672.
        assert_eq!(tile(128, 8192), Tile { m: 128, n: 64 });
        assert_eq!(tile(256, 1536), Tile { m: 128, n: 64 });
        assert_eq!(tile(64, 132 * 64), Tile { m: 64, n: 64 });
        // Two each.
        assert_eq!(tile(2048, 8192), Tile { m: 128, n: 256 });
        assert_eq!(tile(2048, 4096), Tile { m: 128, n: 256 });
        assert_eq!(tile(2048, 3840), Tile { m: 128, n: 128 });
        assert_eq!(hopper_tile(Kind::AllReduce, [512, 512], 8192, 1, 4), TILE);
    }

    #[test]
    fn packets_are_as_large_as_the_compiler_can_make_them() {
        for (architecture, compiler, traffic) in [
            ("sm_90", "NVRTC 13.0", 24),
            ("sm_80", "NVRTC 12.4", 24),
            ("sm_80", "nvcc 12.10.1", 24),
            ("sm_90", "NVRTC 12.3", 32),
            ("sm_80", "NVRTC 11.8", 32),
            ("sm_80", "", 24),
            ("gfx942", "HIPRTC 13.0", 32),
            ("gfx942", "", 32),
        ] {
            let packets = target(architecture, compiler, 2).packets;
            assert_eq!(packets, Some(traffic), "{architecture} {compiler}");
        }
    }

    #[test]
    fn there_is_room_for_parts_of_tiles_only_where_some_call_streams_them() {
        let tile = LARGEST;
        let step = |program, rows, streamed| Step {
            rows,
            program,
            fused: true,
            streamed,
            shape: Shape {
                n: 18432,
                k: 16384,
                tile,
            },
            staging: Staging::default(),
            packets: Staging::default(),
        };
        let gather = Program::AllGatherMatmul(GatherDim::Rows);
        let of = |step: &Step, fewest| partials(step, fewest, 2);
        // On 2 ranks 4 x 36 tiles do not come out even.
        assert_eq!(of(&step(gather, 512, None), 385), partial_bytes(tile));
        assert_eq!(of(&step(gather, 4096, None), 1), partial_bytes(tile));
        // 1 x 132 do.
        let mut even = step(gather, 100, None);
        even.shape.n = 2 * 132 * tile.n;
        assert_eq!(of(&even, 1), 0);
        even.streamed = Some(true);
        assert_eq!(of(&even, 1), partial_bytes(tile));
        assert_eq!(of(&step(gather, 512, Some(false)), 385), 0);
        // Nor where blocks go in pairs, which otherwise would be streamed, unless a table says so.
        let high = |streamed| {
            let mut step = step(gather, 128, streamed);
            step.shape.tile = Tile { m: 128, n: 64 };
            step
        };
        assert_eq!(of(&high(None), 1), 0);
        let bytes = partial_bytes(high(None).shape.tile);
        assert_eq!(of(&high(Some(true)), 1), bytes);
        // Too many rows to be gone through together, whatever a table says.
        assert_eq!(of(&step(gather, 4096, Some(true)), 1025), 0);
        assert_eq!(of(&step(Program::TwoShot, 512, Some(true)), 385), 0);
        // Few rows in packets may be, and have less than a tile's rows.
        let few = |streamed| step(Program::AllGatherMatmulPackets, 16, streamed);
        assert_eq!(of(&few(Some(true)), 1), partial_bytes(tile));
        assert_eq!(of(&few(Some(false)), 1), 0);
    }

    #[test]
    fn there_are_no_more_blocks_than_there_is_to_do_for() {
        let shape = Shape {
            n: 1000,
            k: 4096,
            tile: TILE,
        };
        let work = |program, m| work(program, m, shape, 2);
        for program in Program::ALL {
            assert!(work(program, 1) > 0, "{program:?}");
        }
        // Of 128 x 128 of 300 x 1000, 3 x 8; of half of either, 2 x 8 and 3 x 4.
        assert_eq!(work(Program::TwoShot, 300), 24);
        assert_eq!(work(Program::OneShotPackets, 300), 24);
        assert_eq!(work(Program::ReduceScatter, 300), 2 * 16);
        assert_eq!(work(Program::ReduceScatterPackets, 300), 24);
        assert_eq!(work(Program::MatmulAllGather, 300), 16);
        // All elements in parts of 4096.
        assert_eq!(work(Program::Atomic, 300), 74);
        // A rank's 150 rows in pieces of 8, each in parts of its depth: up to 128 of them.
        assert_eq!(work(Program::AllGatherMatmul(GatherDim::Rows), 300), 128);
        // Where rows are few, as many blocks as have a part of a row for each of four waves.
        let few = Program::AllGatherMatmulPackets;
        assert_eq!((work(few, 1), work(few, 16)), (4, 32));
        // Its 2000 rows in pieces of 8, which are more than 32 x 4 tiles.
        assert_eq!(work(Program::AllGatherMatmul(GatherDim::Rows), 4000), 250);
    }
}

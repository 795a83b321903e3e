//! The kernels for Hopper, whose blocks consist of crews: what they are compiled with, and what they are given.
//!
//! A [`Build`] is a tile with what goes with it. For each there are two kernels that agree on all that ranks see of each other,
//! so that each rank may choose anew for each call: the fast one, for operands that the copy engine takes, and the portable one, for
//! all others. [`Build::arguments`] tells which.

use super::compile::{Architecture, Request, Source};
use super::{Args, sources};
use crate::host::{GatherDim, Program};
use crate::{DType, Tile};

/// What a kernel hands to the copy engine: `CUtensorMap`.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TensorMap(pub [u64; 16]);

/// The argument of a fast kernel: the twin of `FastArgs` in `hip/iris/sm90/async.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FastArgs {
    /// What every kernel gets.
    pub args: Args,
    /// Whether A's depth lies side by side.
    pub a_deep: u64,
    /// Whether B's does.
    pub b_deep: u64,
    /// Bytes of a slab of A.
    pub a_bytes: u64,
    /// Whether `c` is C.
    pub c_mapped: u64,
    /// A.
    pub a: TensorMap,
    /// B.
    pub b: TensorMap,
    /// C, where it is aligned.
    pub c: TensorMap,
    /// The staged pieces of A: those of a whole shard's depth, and of the last one's.
    pub pieces: [TensorMap; 2],
}

const _: () = assert!(size_of::<FastArgs>() == 512 + 5 * size_of::<TensorMap>());

/// A matrix, or several of one size, as a copy engine takes it: in boxes. What to encode a [`TensorMap`] of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boxes {
    /// Its elements' type, of 16 bits.
    pub dtype: DType,
    /// Where it begins.
    pub address: u64,
    /// How many dimensions of the following are meant: 2 or 3.
    pub dimensions: usize,
    /// Elements along each, the first one that which lies side by side.
    pub sizes: [u64; 3],
    /// Bytes from one element to the next, along each but the first.
    pub strides: [u64; 2],
    /// Elements of a box.
    pub boxes: [u32; 3],
}

/// What a kernel does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// A fused operation.
    Program(Program),
    /// The product by itself, of this rank's A and B into its C: `m`, `n` and `k` are its sizes, whatever the world.
    Product,
}

impl From<Program> for Kernel {
    fn from(program: Program) -> Self {
        Self::Program(program)
    }
}

impl Kernel {
    /// The source, and the kernel's name.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Program(program) => program.kernel(),
            Self::Product => ("matmul.hip", "iris_matmul"),
        }
    }
}

/// A tile, and what its kernels are compiled and launched with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    /// The tile.
    pub tile: Tile,
    /// Slabs of 64 depths of both operands that a block has room for.
    stages: usize,
    /// How the portable kernel's waves share a tile.
    waves: (usize, usize),
}

/// Rows of a tile that a warpgroup multiplies, and depths of a slab: 128 bytes.
const PANEL: usize = 64;
/// Bytes of an element.
const ELEMENT: usize = 2;

impl Build {
    /// All of them, from the lowest tile to the highest.
    pub const ALL: [Self; 3] = [
        Self {
            tile: Tile { m: 64, n: 64 },
            stages: 8,
            waves: (2, 4),
        },
        Self {
            tile: Tile { m: 128, n: 64 },
            stages: 8,
            waves: (4, 2),
        },
        Self {
            tile: Tile { m: 128, n: 256 },
            stages: 3,
            waves: (2, 8),
        },
    ];

    /// Whether there are such kernels for an architecture: for 16-bit types on Hopper. They carry out all programs but those that
    /// add.
    pub fn serves(dtype: DType, architecture: &Architecture) -> bool {
        dtype != DType::F32 && architecture.to_string() == "sm_90a"
    }

    /// The one for a rank that multiplies so many rows at most: with few, the tile is a low one, which is bound by the bandwidth
    /// of B.
    pub fn for_rows(rows: usize) -> Self {
        let fits = |build: &Self| rows <= build.tile.m;
        let highest = Self::ALL[Self::ALL.len() - 1];
        Self::ALL.into_iter().find(fits).unwrap_or(highest)
    }

    /// The one of a tile.
    pub fn with_tile(tile: Tile) -> Option<Self> {
        Self::ALL.into_iter().find(|build| build.tile == tile)
    }

    fn groups(self) -> usize {
        self.tile.m / PANEL
    }

    /// Threads of a block of the fast kernel: warpgroups that multiply, and one of other crews.
    pub fn threads(self) -> u32 {
        (self.groups() as u32 + 1) * 128
    }

    /// Bytes of dynamic shared memory of a block of the fast kernel: `Ring::BYTES`, aligned to 1024.
    pub fn shared(self) -> u32 {
        let Tile { m, n } = self.tile;
        let slabs = self.stages * (m + n) * PANEL * ELEMENT;
        let barriers = (self.stages + self.groups()) * 16;
        (slabs + m * n * ELEMENT + barriers + 1024) as u32
    }

    /// Threads of a block of the portable kernel.
    pub fn portable_threads(self) -> u32 {
        (self.waves.0 * self.waves.1 * 32) as u32
    }

    /// The fast kernel.
    pub fn fast(self, kernel: Kernel, dtype: DType, architecture: Architecture) -> Request {
        self.request(kernel, dtype, architecture)
            .define("IRIS_SM90", 1)
            .define("IRIS_STAGES", self.stages)
            .define("IRIS_WARPGROUPS", self.groups())
    }

    /// The portable kernel that agrees with it.
    pub fn portable(self, kernel: Kernel, dtype: DType, architecture: Architecture) -> Request {
        self.request(kernel, dtype, architecture)
            .define("IRIS_WAVES_M", self.waves.0)
            .define("IRIS_WAVES_N", self.waves.1)
    }

    fn request(self, kernel: Kernel, dtype: DType, architecture: Architecture) -> Request {
        let (name, _) = kernel.names();
        // Embedded: see the test.
        let source = Source::user(name, sources::file(name).unwrap_or_default());
        Request::new(source, architecture)
            .define("IRIS_DTYPE", dtype)
            .define("IRIS_TILE_M", self.tile.m)
            .define("IRIS_TILE_N", self.tile.n)
            .define("IRIS_RASTER", 16)
    }

    /// What the fast kernel is given for a call, or `None` where only the portable one can carry it out. `encode` makes tensor maps,
    /// or `None` where there are none.
    ///
    /// # Errors
    /// Those of `encode`.
    pub fn arguments<E>(
        self,
        kernel: Kernel,
        dtype: DType,
        args: &Args,
        mut encode: impl FnMut(&Boxes) -> Result<Option<TensorMap>, E>,
    ) -> Result<Option<FastArgs>, E> {
        let Some(call) = Operands::new(self.tile, kernel, dtype, args) else {
            return Ok(None);
        };
        let [whole, last] = call.pieces;
        let mut maps = [TensorMap::default(); 5];
        for (boxes, map) in [call.a.boxes, call.b.boxes, call.c, whole, last]
            .iter()
            .zip(&mut maps)
        {
            // What there is nothing of is not copied.
            let Some(boxes) = boxes else { continue };
            match encode(boxes)? {
                Some(made) => *map = made,
                None => return Ok(None),
            }
        }
        let [a, b, c, whole, last] = maps;
        Ok(Some(FastArgs {
            args: *args,
            a_deep: call.a.deep.into(),
            b_deep: call.b.deep.into(),
            a_bytes: call.a.slab_bytes(self.tile.m),
            c_mapped: call.c.is_some().into(),
            a,
            b,
            c,
            pieces: [whole, last],
        }))
    }
}

/// A or B: its lines are rows of A, or columns of B.
struct Lines {
    deep: bool,
    /// Nothing where it is empty.
    boxes: Option<Boxes>,
}

/// What a call's maps are made of.
struct Operands {
    a: Lines,
    b: Lines,
    c: Option<Boxes>,
    pieces: [Option<Boxes>; 2],
}

/// The part of `total` that falls to `rank`.
fn shard(total: u64, world: u64, rank: u64) -> u64 {
    let size = total.div_ceil(world);
    total.min((rank + 1) * size) - total.min(rank * size)
}

impl Operands {
    /// `None` where the copy engine does not take what the call has.
    fn new(tile: Tile, kernel: Kernel, dtype: DType, args: &Args) -> Option<Self> {
        let &Args {
            world,
            rank,
            m,
            n,
            k,
            ..
        } = args;
        let mine = |total| shard(total, world, rank);
        // Rows and depth of A, columns of B, whether C is stored to, and whether A is sent.
        let (rows, depth, cols, own, sends) = match kernel {
            Kernel::Product => (m, k, n, true, false),
            Kernel::Program(
                Program::OneShot
                | Program::OneShotPackets
                | Program::TwoShot
                | Program::ReduceScatter,
            ) => (m, mine(k), n, false, false),
            Kernel::Program(Program::AllGatherMatmul(GatherDim::Rows)) => {
                (mine(m), k, mine(n), true, true)
            }
            Kernel::Program(Program::AllGatherMatmul(GatherDim::Columns)) => {
                (m, mine(k), mine(n), true, true)
            }
            Kernel::Program(Program::MatmulAllGather) => (mine(m), k, n, false, false),
            Kernel::Program(Program::Atomic | Program::Spinlock) => return None,
        };
        if args.given != 0 || dtype == DType::F32 {
            return None;
        }
        // An A of few rows is copied in boxes of no more.
        let few = (rows.next_multiple_of(8) as usize).clamp(8, tile.m);
        let a = Lines::new(dtype, args.a, [args.a_row, args.a_col], [rows, depth], few)?;
        let b = Lines::new(
            dtype,
            args.b,
            [args.b_col, args.b_row],
            [cols, depth],
            tile.n,
        )?;
        // Along what lies side by side, the engine wants boxes to begin at multiples of 16 bytes.
        let alone = world == 1;
        match kernel {
            Kernel::Program(Program::ReduceScatter)
                if !a.deep && !alone && !m.div_ceil(world).is_multiple_of(8) =>
            {
                return None;
            }
            // Pieces are deep; and a slab must not reach into the next source's depth.
            Kernel::Program(Program::AllGatherMatmul(dim)) => {
                let shards = k.div_ceil(world);
                let whole = dim == GatherDim::Rows || alone || shards.is_multiple_of(PANEL as u64);
                if !a.deep || !whole {
                    return None;
                }
            }
            _ => (),
        }
        let c = (own && rows_of_c(kernel, args) != 0)
            .then(|| Boxes {
                dtype,
                address: args.c,
                dimensions: 2,
                sizes: [cols, rows_of_c(kernel, args), 1],
                strides: [args.c_row * ELEMENT as u64, 0],
                boxes: [PANEL as u32, PANEL as u32, 1],
            })
            .filter(Boxes::aligned);
        let pieces = match kernel {
            Kernel::Program(Program::AllGatherMatmul(dim)) if sends => {
                let depths = match dim {
                    GatherDim::Rows => [k, k],
                    GatherDim::Columns => {
                        let shards = k.div_ceil(world);
                        [shards, k - (k.div_ceil(shards) - 1) * shards]
                    }
                };
                depths.map(|depth| Some(pieces(tile, dtype, args, depth)).filter(Boxes::aligned))
            }
            _ => [None, None],
        };
        if sends && !alone && pieces.contains(&None) {
            return None;
        }
        Some(Self { a, b, c, pieces })
    }
}

/// Rows of the C that a kernel stores to.
fn rows_of_c(kernel: Kernel, args: &Args) -> u64 {
    match kernel {
        Kernel::Program(Program::AllGatherMatmul(_)) | Kernel::Product => args.m,
        Kernel::Program(_) => 0,
    }
}

/// All slots of pieces of A that are `depth` deep.
fn pieces(tile: Tile, dtype: DType, args: &Args, depth: u64) -> Boxes {
    Boxes {
        dtype,
        address: args.heap[args.rank as usize] + args.staging,
        dimensions: 3,
        sizes: [depth, tile.m as u64, 2 * args.world * args.slots],
        strides: [depth.next_multiple_of(8) * ELEMENT as u64, args.slot_bytes],
        boxes: [PANEL as u32, tile.m as u32, 1],
    }
}

impl Boxes {
    /// Whether a copy engine takes it.
    fn aligned(&self) -> bool {
        let fits = |stride: u64| stride.is_multiple_of(16) && stride < 1 << 40;
        self.address.is_multiple_of(16)
            && self.sizes.iter().all(|&size| 0 < size && size <= 1 << 31)
            && self.strides[..self.dimensions - 1]
                .iter()
                .all(|&stride| stride != 0 && fits(stride))
    }
}

impl Lines {
    /// Lines of some depth; `strides` are elements from one line, and one depth, to the next, and a deep box has `lines_of_box`
    /// lines. `None` where it lies in no way that the engine takes.
    fn new(
        dtype: DType,
        address: u64,
        strides: [u64; 2],
        sizes: [u64; 2],
        lines_of_box: usize,
    ) -> Option<Self> {
        let ([line, step], [lines, depth]) = (strides, sizes);
        if lines == 0 || depth == 0 {
            return Some(Self {
                deep: true,
                boxes: None,
            });
        }
        let matrix = |inner: u64, outer: u64, stride: u64, rows_of_box: usize| {
            // Of a single row, the stride means nothing.
            let stride = if outer == 1 {
                inner.next_multiple_of(8)
            } else {
                stride
            };
            Boxes {
                dtype,
                address,
                dimensions: 2,
                sizes: [inner, outer, 1],
                strides: [stride * ELEMENT as u64, 0],
                boxes: [PANEL as u32, rows_of_box as u32, 1],
            }
        };
        let deep = (step == 1 || depth == 1).then(|| matrix(depth, lines, line, lines_of_box));
        let wide = (line == 1 || lines == 1).then(|| matrix(lines, depth, step, PANEL));
        let deep = deep.filter(Boxes::aligned);
        Some(Self {
            deep: deep.is_some(),
            boxes: Some(deep.or(wide.filter(Boxes::aligned))?),
        })
    }

    /// Bytes of a slab of it, of up to `lines` lines.
    fn slab_bytes(&self, lines: usize) -> u64 {
        let lines = match &self.boxes {
            Some(boxes) if self.deep => boxes.boxes[1] as usize,
            _ => lines,
        };
        (lines * PANEL * ELEMENT) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 1 << 20;

    fn args() -> Args {
        Args {
            world: 2,
            m: 300,
            n: 520,
            k: 256,
            a: BASE,
            a_row: 128,
            a_col: 1,
            b: BASE,
            b_row: 520,
            b_col: 1,
            c: BASE,
            c_row: 520,
            slots: 3,
            slot_bytes: 128 * 128 * 2,
            staging: 1024,
            ..Args::default()
        }
    }

    fn build() -> Build {
        Build::with_tile(Tile { m: 128, n: 256 }).unwrap()
    }

    /// The arguments, with each map's address in it.
    fn taken(kernel: impl Into<Kernel>, args: &Args) -> Option<FastArgs> {
        let encode = |boxes: &Boxes| {
            assert!(boxes.aligned(), "{boxes:?}");
            let mut map = TensorMap::default();
            map.0[0] = boxes.address;
            map.0[1] = boxes.sizes[0];
            map.0[2] = boxes.boxes[1].into();
            Ok::<_, std::convert::Infallible>(Some(map))
        };
        let Ok(taken) = build().arguments(kernel.into(), DType::BF16, args, encode);
        taken
    }

    const ROWS: Program = Program::AllGatherMatmul(GatherDim::Rows);
    const COLUMNS: Program = Program::AllGatherMatmul(GatherDim::Columns);

    #[test]
    fn operands_are_taken_as_they_lie() {
        let fast = taken(Program::TwoShot, &args()).unwrap();
        assert_eq!((fast.a_deep, fast.b_deep, fast.c_mapped), (1, 0, 0));
        assert_eq!(fast.a.0[..3], [BASE, 128, 128]);
        assert_eq!(fast.b.0[..3], [BASE, 520, 64]);
        assert_eq!(fast.a_bytes, 128 * 128);

        let wide = Args {
            a_row: 1,
            a_col: 304,
            b_row: 1,
            b_col: 128,
            ..args()
        };
        let fast = taken(Program::TwoShot, &wide).unwrap();
        assert_eq!((fast.a_deep, fast.b_deep), (0, 1));
        assert_eq!(fast.a.0[..3], [BASE, 300, 64]);
        assert_eq!(fast.b.0[..3], [BASE, 128, 256]);
        assert_eq!(fast.a_bytes, 128 * 128);
    }

    #[test]
    fn few_rows_are_copied_in_low_boxes() {
        let fast = taken(
            Kernel::Product,
            &Args {
                m: 3,
                k: 128,
                ..args()
            },
        )
        .unwrap();
        assert_eq!((fast.a.0[2], fast.a_bytes), (8, 8 * 128));
        assert_eq!(fast.c_mapped, 1);
    }

    #[test]
    fn what_is_not_aligned_is_left_to_the_portable_kernel() {
        let two_shot = |args| taken(Program::TwoShot, &args).is_some();
        assert!(two_shot(args()));
        assert!(!two_shot(Args {
            a: BASE + 2,
            ..args()
        }));
        assert!(!two_shot(Args {
            a_row: 129,
            ..args()
        }));
        assert!(!two_shot(Args {
            a_row: 256,
            a_col: 2,
            ..args()
        }));
        assert!(!two_shot(Args {
            b_row: 521,
            ..args()
        }));
        assert!(!two_shot(Args { given: 1, ..args() }));
        // C is stored in another way then.
        let fast = taken(
            Kernel::Product,
            &Args {
                c: BASE + 2,
                k: 128,
                ..args()
            },
        )
        .unwrap();
        assert_eq!(fast.c_mapped, 0);
        // One row may lie anywhere.
        assert!(two_shot(Args {
            m: 1,
            a_row: 3,
            ..args()
        }));
        // The engine refuses.
        let none = |_: &Boxes| Ok::<_, std::convert::Infallible>(None);
        let Ok(fast) = build().arguments(Program::TwoShot.into(), DType::F16, &args(), none);
        assert!(fast.is_none());
    }

    /// Along what lies side by side, boxes begin at multiples of 16 bytes; and no slab of a gathered A reaches into another
    /// rank's depth.
    #[test]
    fn shards_begin_where_a_box_may() {
        let wide = Args {
            a_row: 1,
            a_col: 304,
            ..args()
        };
        assert!(taken(Program::ReduceScatter, &Args { m: 300, ..wide }).is_none());
        assert!(taken(Program::ReduceScatter, &Args { m: 288, ..wide }).is_some());
        assert!(taken(Program::ReduceScatter, &args()).is_some());
        assert!(taken(COLUMNS, &args()).is_some());
        assert!(taken(COLUMNS, &Args { k: 250, ..args() }).is_none());
        assert!(
            taken(
                ROWS,
                &Args {
                    k: 250,
                    a_row: 256,
                    ..args()
                }
            )
            .is_some()
        );
        assert!(taken(ROWS, &wide).is_none());
    }

    #[test]
    fn pieces_are_as_deep_as_their_shards() {
        let fast = taken(
            COLUMNS,
            &Args {
                k: 200,
                world: 4,
                slots: 3,
                a_row: 64,
                ..args()
            },
        );
        assert!(fast.is_none());
        let fast = taken(
            COLUMNS,
            &Args {
                k: 320,
                a_row: 192,
                ..args()
            },
        );
        assert!(fast.is_none());
        let args = Args {
            k: 510,
            world: 4,
            a_row: 128,
            ..args()
        };
        let fast = taken(COLUMNS, &args).unwrap();
        assert_eq!(fast.pieces.map(|map| map.0[1]), [128, 126]);
        assert_eq!(fast.pieces[0].0[0], 1024);
        // A rank without depth.
        let last = Args {
            rank: 3,
            k: 3,
            ..args
        };
        let fast = taken(Program::TwoShot, &last).unwrap();
        assert_eq!(fast.a, TensorMap::default());
    }

    #[test]
    fn builds_serve_16_bit_types_on_hopper() {
        let serves = |dtype, name: &str| Build::serves(dtype, &name.parse().unwrap());
        assert!(serves(DType::BF16, "sm_90a") && serves(DType::F16, "sm_90a"));
        assert!(!serves(DType::F32, "sm_90a"));
        for other in ["sm_80", "sm_90", "sm_100a", "gfx942"] {
            assert!(!serves(DType::BF16, other), "{other}");
        }
        assert!(taken(Program::Atomic, &args()).is_none());
    }

    #[test]
    fn few_rows_make_low_tiles() {
        let tile = |rows| Build::for_rows(rows).tile;
        assert_eq!([tile(1), tile(64)], [Tile { m: 64, n: 64 }; 2]);
        assert_eq!([tile(65), tile(128)], [Tile { m: 128, n: 64 }; 2]);
        assert_eq!([tile(129), tile(8192)], [Tile { m: 128, n: 256 }; 2]);
    }

    #[test]
    fn what_is_compiled_is_whole() {
        for kernel in Program::ALL
            .map(Kernel::Program)
            .into_iter()
            .chain([Kernel::Product])
        {
            for build in Build::ALL {
                let request = build.fast(kernel, DType::BF16, "sm_90a".parse().unwrap());
                assert!(
                    request.source().text().contains(kernel.names().1),
                    "{kernel:?}"
                );
                assert_eq!(request.source().outside(), [""; 0]);
                assert!(build.shared() < 226 * 1024 && build.threads() <= 384);
            }
        }
    }
}

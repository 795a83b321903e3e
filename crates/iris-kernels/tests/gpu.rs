//! Every program on the GPUs of this host, one rank each, on one thread a rank: calls are enqueued back to back, with no
//! synchronisation between them, and checked against exact references: sums of small integers are exact in every order.
//!
//! Where the host has no GPU or no compiler library, each test says that it was skipped.

mod common;

use common::PROGRAMS;
use half::{bf16, f16};
use iris_heap::cuda::Cuda;
use iris_heap::device::{
    Device, DeviceError, Function, Memory, Module, PinnedMemory, SharedMemory, Stream,
};
use iris_kernels::device::{Args, FaultRecord, nvrtc::Nvrtc, sources};
use iris_kernels::host::{Program, Shape};
use iris_kernels::{DType, Element, Tile};
use iris_sync::Layout;
use rand::{RngExt, SeedableRng};
use std::ops::Range;
use std::sync::Barrier;

/// The kernels' tile, where nothing else is defined.
const TILE: Tile = Tile { m: 128, n: 128 };
/// Threads of a block on NVIDIA.
const THREADS: u32 = 256;

fn devices(test: &str) -> Vec<Device<Cuda>> {
    match (Device::<Cuda>::count(), Nvrtc::load()) {
        (Ok(count @ 1..), Ok(_)) => (0..count).map(|at| Device::open(at).unwrap()).collect(),
        (count, compiler) => {
            eprintln!("{test} SKIPPED: devices {count:?}, compiler {compiler:?}");
            Vec::new()
        }
    }
}

fn compile(device: &Device<Cuda>, program: Program, dtype: DType) -> Function<Cuda> {
    let (source, kernel) = program.kernel();
    let text = sources::amalgamate(source, sources::file(source).unwrap());
    let definition = format!("IRIS_DTYPE={dtype}");
    let image = Nvrtc::load()
        .unwrap()
        .compile(source, &text, &device.info().architecture, &[&definition])
        .unwrap();
    let module = Module::load(device, &image).unwrap();
    module.function(kernel, THREADS, 0).unwrap()
}

/// The calls of a case.
#[derive(Clone)]
struct Case {
    program: Program,
    /// The rows of each call.
    calls: Vec<usize>,
    n: usize,
    k: usize,
    first: i64,
    /// How often the calls are made, one round after the other; all rounds but the last are only there to be in the way.
    rounds: usize,
}

/// Where everything of a rank's shared memory lies.
struct Plan {
    layout: Layout,
    words: usize,
    staging: usize,
    slots: usize,
    slot_bytes: usize,
    accumulators: usize,
    elements: usize,
    outputs: Vec<usize>,
    bytes: usize,
}

impl Plan {
    fn new(case: &Case, world: usize, element: usize) -> Self {
        let m = case.calls.iter().copied().max().unwrap();
        let shape = Shape {
            n: case.n,
            k: case.k,
            tile: TILE,
        };
        let needs = case.program.needs(m, shape, world);
        let layout = Layout::new(world, needs.slots, needs.locks);
        let mut end = 0usize;
        let mut take = |bytes: usize| {
            let start = end.next_multiple_of(256);
            end = start + bytes;
            start
        };
        // One cell more than on the host: the blocks' arrivals.
        take(8 * (layout.cells() + 1));
        let words = take(4 * layout.words());
        let slot_bytes = match case.program {
            // Pieces of A: rows of whole chunks.
            Program::AllGatherMatmul(_) => {
                TILE.m * (needs.slot_elements / TILE.m * element).next_multiple_of(16)
            }
            _ => needs.slot_elements * element,
        };
        let staging = take(2 * world * needs.slots * slot_bytes);
        let accumulators = take(8 * needs.accumulators);
        let outputs = case
            .calls
            .iter()
            .map(|m| take(m * case.n * element))
            .collect();
        Self {
            layout,
            words,
            staging,
            slots: needs.slots,
            slot_bytes,
            accumulators,
            elements: needs.accumulators,
            outputs,
            bytes: end.next_multiple_of(256),
        }
    }
}

struct Whole {
    a: Vec<f32>,
    b: Vec<f32>,
    bias: Vec<f32>,
}

impl Whole {
    fn new(case: &Case, call: usize) -> Self {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(call as u64 + 1000 * case.k as u64);
        let mut draw = |len| {
            (0..len)
                .map(|_| f32::from(random.random_range(-1i8..=1)))
                .collect()
        };
        Self {
            a: draw(case.calls[call] * case.k),
            b: draw(case.k * case.n),
            bias: draw(case.n),
        }
    }

    fn cut<T: Element>(
        from: &[f32],
        width: usize,
        rows: &Range<usize>,
        cols: &Range<usize>,
    ) -> Vec<T> {
        rows.clone()
            .flat_map(|row| from[row * width + cols.start..row * width + cols.end].iter())
            .map(|value| T::from_f32(*value))
            .collect()
    }
}

/// One rank's calls. Returns the errors found.
#[allow(clippy::too_many_arguments)] // one call site
fn rank<T: Element>(
    case: &Case,
    plan: &Plan,
    function: &Function<Cuda>,
    device: &Device<Cuda>,
    heap: &[u64],
    own: &SharedMemory<Cuda>,
    me: usize,
    met: &Barrier,
) -> Result<(), DeviceError> {
    let world = heap.len();
    let stream = Stream::new(device)?;
    let host = PinnedMemory::new(device, 4096)?;
    let shape = Shape {
        n: case.n,
        k: case.k,
        tile: TILE,
    };
    let stored = case.program.stores_to_peers();
    let upload = |values: &[T]| {
        let memory = Memory::new(device, size_of_val(values).max(16))?;
        stream.write(&memory, 0, bytemuck::cast_slice(values))?;
        Ok::<_, DeviceError>(memory)
    };
    let mut calls = Vec::new();
    for (call, &m) in case.calls.iter().enumerate() {
        let whole = Whole::new(case, call);
        let parts = case.program.parts(m, shape, world, me);
        let a = upload(&Whole::cut(&whole.a, case.k, &parts.a.0, &parts.a.1))?;
        let b = upload(&Whole::cut(&whole.b, case.n, &parts.b.0, &parts.b.1))?;
        let bias = upload(&Whole::cut(&whole.bias, case.n, &(0..1), &parts.c.1))?;
        let len = parts.c.0.len() * parts.c.1.len();
        let c = upload(&vec![T::NAN; len])?;
        if stored {
            stream.write(
                own,
                plan.outputs[call],
                bytemuck::cast_slice(&vec![T::NAN; len]),
            )?;
        }
        let mut args = Args {
            world: world as u64,
            rank: me as u64,
            blocks: u64::from(function.shape().most_blocks),
            m: m as u64,
            n: case.n as u64,
            k: case.k as u64,
            a: a.address(),
            a_row: parts.a.1.len() as u64,
            a_col: 1,
            b: b.address(),
            b_row: parts.b.1.len() as u64,
            b_col: 1,
            bias: bias.address(),
            c: c.address(),
            c_row: parts.c.1.len() as u64,
            output: plan.outputs[call] as u64,
            output_row: case.n as u64,
            words: plan.words as u64,
            tiles: plan.layout.tiles() as u64,
            locks: plan.layout.locks() as u64,
            staging: plan.staging as u64,
            slots: plan.slots as u64,
            slot_bytes: plan.slot_bytes as u64,
            accumulators: plan.accumulators as u64,
            accumulator_elements: plan.elements as u64,
            first: case.first as u64,
            budget_ns: 5_000_000_000,
            abort: host.address() + 1024,
            fault: host.address(),
            ..Args::default()
        };
        args.heap[..world].copy_from_slice(heap);
        calls.push((args, [a, b, bias, c], parts, whole));
    }
    met.wait();
    for _ in 0..case.rounds {
        for (args, ..) in &calls {
            // SAFETY: the kernel takes such a block; all memory it names lives until the stream has been synchronised.
            unsafe { function.launch(&stream, args.blocks as u32, args) }?;
        }
    }
    stream.synchronize()?;
    // SAFETY: pinned memory of this size, which the kernels have left.
    let fault = unsafe { host.host().cast::<FaultRecord>().read() };
    assert_eq!(fault, FaultRecord::default(), "{:?}", case.program);
    for (call, (_, [.., c], parts, whole)) in calls.iter().enumerate() {
        let mut got = vec![T::NAN; parts.c.0.len() * parts.c.1.len()];
        if stored {
            stream.read(own, plan.outputs[call], bytemuck::cast_slice_mut(&mut got))?;
        } else {
            stream.read(c, 0, bytemuck::cast_slice_mut(&mut got))?;
        }
        let mut sums = vec![0.0f32; parts.c.1.len()];
        for (at, row) in parts.c.0.clone().enumerate() {
            sums.copy_from_slice(&whole.bias[parts.c.1.clone()]);
            for depth in 0..case.k {
                let a = whole.a[row * case.k + depth];
                let b = &whole.b[depth * case.n..][parts.c.1.clone()];
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum += a * b;
                }
            }
            let width = sums.len();
            for (col, (sum, got)) in sums.iter().zip(&got[at * width..]).enumerate() {
                assert!(
                    *sum == got.to_f32(),
                    "{:?} {} call {call} m={} n={} k={} rank {me} row {row} col {col}: {sum}, not {got:?}",
                    case.program,
                    T::DTYPE,
                    case.calls[call],
                    case.n,
                    case.k
                );
            }
        }
    }
    Ok(())
}

fn run<T: Element>(devices: &[Device<Cuda>], functions: &[Function<Cuda>], case: &Case) {
    let world = devices.len();
    let plan = Plan::new(case, world, size_of::<T>());
    let own: Vec<_> = devices
        .iter()
        .map(|device| SharedMemory::new(device, plan.bytes).unwrap())
        .collect();
    let mapped: Vec<Vec<_>> = devices
        .iter()
        .map(|device| {
            let import = |memory: &SharedMemory<Cuda>| {
                SharedMemory::import(device, memory.export().unwrap(), memory.len()).unwrap()
            };
            own.iter().map(import).collect()
        })
        .collect();
    let met = Barrier::new(world);
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..world)
            .map(|me| {
                let (plan, own, met, mapped) = (&plan, &own, &met, &mapped);
                scope.spawn(move || {
                    let heap: Vec<_> = (0..world)
                        .map(|peer| {
                            if peer == me {
                                own[me].address()
                            } else {
                                mapped[me][peer].address()
                            }
                        })
                        .collect();
                    rank::<T>(
                        case,
                        plan,
                        &functions[me],
                        &devices[me],
                        &heap,
                        &own[me],
                        me,
                        met,
                    )
                    .unwrap();
                })
            })
            .collect();
        for rank in ranks {
            rank.join().unwrap();
        }
    });
}

fn each_program(test: &str, worlds: &[usize], cases: impl Fn(Program) -> Vec<Case>) {
    let all = devices(test);
    for &world in worlds {
        let Some(devices) = all.get(..world) else {
            continue;
        };
        for program in PROGRAMS {
            for dtype in DType::ALL {
                let functions: Vec<_> = devices
                    .iter()
                    .map(|device| compile(device, program, dtype))
                    .collect();
                for case in cases(program) {
                    match dtype {
                        DType::F32 => run::<f32>(devices, &functions, &case),
                        DType::F16 => run::<f16>(devices, &functions, &case),
                        DType::BF16 => run::<bf16>(devices, &functions, &case),
                    }
                }
            }
            println!("{program:?} on {world}");
        }
    }
}

#[test]
fn every_program_is_right_on_ragged_shapes() {
    each_program("ragged", &[1, 2, 4, 8], |program| {
        [(1, 1), (7, 2), (129, 40), (300, 17), (64, 1)]
            .into_iter()
            .map(|(n, k)| Case {
                program,
                calls: vec![1, 200, 3, 130, 2, 128, 200, 1, 65],
                n,
                k,
                first: i64::from(i32::MAX) - 3,
                rounds: 1,
            })
            .collect()
    });
}

#[test]
fn every_program_is_right_on_larger_shapes() {
    each_program("larger", &[1, 2, 4, 8], |program| {
        vec![Case {
            program,
            calls: vec![333, 16, 512],
            n: 777,
            k: 129,
            first: 1,
            rounds: 3,
        }]
    });
}

#[test]
fn ten_thousand_calls_back_to_back() {
    each_program("back to back", &[2, 4, 8], |program| {
        vec![Case {
            program,
            calls: vec![40, 1, 300, 129, 2, 300, 128, 7, 64, 1],
            n: 200,
            k: 33,
            first: i64::from(i32::MAX) - 3,
            rounds: 1000,
        }]
    });
}

/// A kernel of the user's own that does not compile is shown by its own file and line.
#[test]
fn a_source_that_does_not_compile_is_shown_by_file_and_line() {
    if devices("does not compile").is_empty() {
        return;
    }
    let user = "#include \"iris/operation.h\"\n\nint wrong = no_such_thing;\n";
    let text = sources::amalgamate("user.hip", user);
    let error = Nvrtc::load()
        .unwrap()
        .compile("user.hip", &text, "sm_90", &["IRIS_DTYPE=f32"])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("user.hip(3)") && error.contains("no_such_thing"),
        "{error}"
    );
}

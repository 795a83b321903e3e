//! What cannot be done is an error that says which and why, before anything is enqueued.

use crate::rig::sizes;
use crate::support::{HEAP, config, threads};
use iris_heap::cuda::Cuda;
use iris_heap::device::{DeviceConfig, DeviceError, MemoryKind, PinnedMemory, RankStream};
use iris_heap::{Buffer, World, WorldError};
use iris_ops::{
    AllGatherMatmul, FusedConfig, MatmulAllGather, MatmulAllReduce, MatmulReduceScatter, MatrixMut,
    MatrixRef, OpError, Tile, Variant, shard,
};
use iris_testkit::Failure;
use iris_testkit::device::Gpus;
use std::sync::Mutex;

/// What each of `ranks` threads says of a world on GPUs that must not be.
fn refused(ranks: usize, config_of: impl Fn(usize) -> DeviceConfig + Sync) -> Vec<WorldError> {
    let results = World::threads(ranks, &config(), |world| {
        world.on::<Cuda>(&config_of(world.rank())).map(drop)
    });
    let results = results.unwrap().into_iter();
    results.map(Result::unwrap_err).collect()
}

#[test]
fn ranks_beyond_the_gpus_are_refused_and_counted() {
    let Some(gpus) = Gpus::take("bad_input::fewer", 1) else {
        return;
    };
    let count = gpus.devices().len();
    // A rank that sees one GPU takes that: which is then seen to be shared.
    let ranks = count + 1;
    let errors = refused(ranks, |_| DeviceConfig {
        heap_bytes: HEAP,
        ..DeviceConfig::default()
    });
    for (rank, error) in errors.iter().enumerate() {
        let text = error.to_string();
        match error {
            WorldError::TooFewDevices {
                rank: of,
                size,
                count: there,
            } => assert_eq!((*of, *size, *there), (rank, ranks, count), "{text}"),
            WorldError::RankFailed { rank: of, .. } => assert_eq!(*of, count, "{text}"),
            WorldError::SharedDevice {
                rank: 0, other: 1, ..
            } => assert_eq!(count, 1, "{text}"),
            _ => panic!("{text}"),
        }
    }
}

#[test]
fn a_gpu_is_shared_only_where_that_is_allowed() {
    let Some(_gpus) = Gpus::take("bad_input::shared", 1) else {
        return;
    };
    let errors = refused(2, |_| DeviceConfig {
        device: Some(0),
        heap_bytes: HEAP,
        ..DeviceConfig::default()
    });
    for error in errors {
        let both = matches!(
            error,
            WorldError::SharedDevice {
                rank: 0,
                other: 1,
                ..
            }
        );
        assert!(both, "{error}");
    }
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let Some(gpus) = Gpus::take("bad_input::no_device", 1) else {
        return;
    };
    let errors = refused(gpus.devices().len(), |rank| DeviceConfig {
        device: Some(if rank == 0 { 99 } else { rank }),
        heap_bytes: HEAP,
        ..DeviceConfig::default()
    });
    for error in errors {
        assert!(error.to_string().contains("no device 99"), "{error}");
    }
}

#[test]
fn a_heap_and_buffers_that_do_not_fit_tell_their_size() {
    let Some(gpus) = Gpus::take("bad_input::memory", 1) else {
        return;
    };
    const HUGE: usize = 1 << 45;
    for error in refused(gpus.devices().len(), |_| DeviceConfig {
        heap_bytes: HUGE,
        ..DeviceConfig::default()
    }) {
        let out = matches!(
            error,
            WorldError::Device(DeviceError::OutOfMemory { bytes: HUGE, .. })
        );
        assert!(out, "{error}");
    }
    threads(gpus.devices().len(), &gpus, |world| {
        let error = world.plain_buffer::<f32>(HUGE / 4).unwrap_err();
        let out = matches!(
            error,
            WorldError::Device(DeviceError::OutOfMemory { bytes: HUGE, device }) if device == world.device_ordinal()
        );
        assert!(out, "{error}");
        // A workspace says how much it needs, and how much there is.
        let large = FusedConfig::new(1 << 14, 1 << 13, 64).variant(Variant::OneShot);
        let error = MatmulAllReduce::<f32, i32, Cuda>::new(world, large).unwrap_err();
        match &error {
            OpError::World(WorldError::HeapFull {
                needed, free, heap, ..
            }) => {
                let bytes = 4 * (1usize << 27) * world.size();
                assert!(
                    *needed > bytes && *free == *heap && *heap >= HEAP,
                    "{error}"
                );
                assert!(error.to_string().contains(&needed.to_string()), "{error}");
            }
            _ => panic!("{error}"),
        }
        // Nothing is left of either.
        assert_eq!(world.free_bytes(), world.heap_bytes());
        Ok(())
    });
}

/// An operation's operands, of `world`'s rank.
struct Operands {
    a: Buffer<f32, Cuda>,
    b: Buffer<f32, Cuda>,
    plain: Buffer<f32, Cuda>,
    c: Buffer<f32, Cuda>,
}

const M: usize = 8;
const N: usize = 16;
const K: usize = 8;

impl Operands {
    fn new(world: &World<Cuda>) -> Result<Self, Failure> {
        Ok(Self {
            a: world.plain_buffer(M * K)?,
            b: world.plain_buffer(K * N)?,
            plain: world.plain_buffer(M * N * world.size())?,
            c: world.symmetric_buffer(M * N)?,
        })
    }

    fn inputs(&self) -> (MatrixRef<'_, f32, Cuda>, MatrixRef<'_, f32, Cuda>) {
        let b = MatrixRef::new(&self.b, K, N);
        (MatrixRef::new(&self.a, M, K), b)
    }
}

fn parameters(world: &World<Cuda>) -> FusedConfig {
    FusedConfig::new(M, N, K * world.size())
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let Some(gpus) = Gpus::take("bad_input::operands", 1) else {
        return;
    };
    threads(gpus.devices().len(), &gpus, |world| {
        let two_shot = parameters(world).variant(Variant::TwoShot);
        let mut op = MatmulAllReduce::<f32, i32, Cuda>::new(world, two_shot)?;
        let stream = RankStream::new(world)?;
        let operands = Operands::new(world)?;
        let (a, b) = operands.inputs();
        let mut bound = op.bind(&stream)?;
        let mut refused = |m, a, b, c| bound.call(m, a, b, None, c).unwrap_err();
        let c = || MatrixMut::new(&operands.c, M, N);
        let error = refused(M, a, b, MatrixMut::new(&operands.plain, M, N));
        assert!(matches!(error, OpError::PlainOutput { .. }), "{error}");
        let error = refused(M + 1, a, b, c());
        assert!(
            matches!(
                error,
                OpError::Rows {
                    m: 9,
                    largest: M,
                    ..
                }
            ),
            "{error}"
        );
        let error = refused(M, a, MatrixRef::new(&operands.c, K, N), c());
        assert!(
            matches!(error, OpError::Aliased { tensor: "b", .. }),
            "{error}"
        );
        let error = refused(M, MatrixRef::new(&operands.a, K + 1, M), b, c());
        assert!(
            matches!(
                error,
                OpError::Shape {
                    tensor: "a",
                    rows: 9,
                    ..
                }
            ),
            "{error}"
        );
        let beyond = MatrixRef::strided(&operands.a, 1, M, K, K, 1);
        let error = refused(M, beyond, b, c());
        let told = matches!(
            error,
            OpError::OutOfBuffer {
                tensor: "a",
                needed: 65,
                len: 64,
                ..
            }
        );
        assert!(told, "{error}");
        drop(bound);
        // Nothing was enqueued.
        stream.synchronize()?;
        assert_eq!(op.workspace().index()?, 0);

        // The other operation into whose outputs peers store.
        let gather = FusedConfig::new(M, N, K);
        let mut op = MatmulAllGather::<f32, i32, Cuda>::new(world, gather)?;
        let rows = shard(M, world.size(), world.rank()).len();
        let error = op.bind(&stream)?.call(
            M,
            MatrixRef::new(&operands.a, rows, K),
            b,
            None,
            MatrixMut::new(&operands.plain, M, N),
        );
        let error = error.unwrap_err();
        assert!(matches!(error, OpError::PlainOutput { .. }), "{error}");

        // No whole steps; wider than f32 has room for.
        for (m, n) in [(100, 128), (128, 256)] {
            let odd = parameters(world).tile(Tile { m, n });
            let error = MatmulAllGather::<f32, i32, Cuda>::new(world, odd).unwrap_err();
            assert!(matches!(error, OpError::Tile { .. }), "{error}");
        }
        let probed = iris_testkit::ChosenStall {
            ranks: vec![],
            calls: vec![],
            phases: vec![],
            tiles: vec![],
            duration: std::time::Duration::ZERO,
        };
        let probed = parameters(world).probe(std::sync::Arc::new(probed));
        let error = AllGatherMatmul::<f32, i32, Cuda>::new(world, probed).unwrap_err();
        assert!(matches!(error, OpError::Probe { .. }), "{error}");
        Ok(())
    });
}

/// Memory of another library that cannot be what it is given as.
#[test]
fn foreign_memory_that_does_not_fit_is_refused() {
    let Some(gpus) = Gpus::take("bad_input::foreign_memory", 1) else {
        return;
    };
    let of_rank_0 = Mutex::new(0);
    threads(gpus.devices().len(), &gpus, |world| {
        let device = world.device_ordinal();
        let ours = world.plain_buffer::<f32>(2 << 20)?;
        let (address, bytes) = (ours.address(), 8 << 20);
        // SAFETY: what is refused is not used.
        let foreign = |address, len| unsafe { world.foreign_buffer::<f32>(address, len) };
        let refused = |address, len| match foreign(address, len).map(drop) {
            Err(WorldError::Device(error)) => error,
            other => panic!("{other:?}"),
        };
        let error = refused(address + 2, 1);
        assert!(
            matches!(error, DeviceError::Misaligned { align: 4, .. }),
            "{error}"
        );
        let error = refused(address, 1 << 40);
        let told = matches!(error, DeviceError::TooSmall { asked, found, .. } if asked == 1 << 42 && found >= bytes);
        assert!(told, "{error}");
        let error = refused(8, 1);
        assert!(
            matches!(error, DeviceError::UnknownMemory { address: 8, .. }),
            "{error}"
        );
        let host = PinnedMemory::new(world.device(), 4096)?;
        let error = refused(host.address(), 1);
        let told = matches!(error, DeviceError::NotDeviceMemory { kind: MemoryKind::Host, device: of, .. } if of == device);
        assert!(told, "{error}");
        if world.rank() == 0 {
            *of_rank_0.lock().unwrap() = address;
        }
        world.barrier()?;
        if world.rank() != 0 {
            let error = refused(*of_rank_0.lock().unwrap(), 1);
            let told = matches!(error, DeviceError::WrongDevice { found: 0, device: of, .. } if of == device);
            assert!(told, "{error}");
        }
        world.barrier()?;
        Ok(())
    });
}

/// Two views of one piece of somebody else's memory overlap although they are two buffers.
#[test]
fn views_that_overlap_are_refused() {
    let Some(gpus) = Gpus::take("bad_input::overlap", 1) else {
        return;
    };
    threads(gpus.devices().len(), &gpus, |world| {
        let own = shard(M, world.size(), world.rank()).len();
        let ours = world.plain_buffer::<f32>(own * N + K * N)?;
        let address = ours.address();
        // SAFETY: the memory is `ours`, which outlives both.
        let (low, high) = unsafe {
            (
                world.foreign_buffer::<f32>(address, own * N)?,
                world.foreign_buffer::<f32>(address + 4 * (own * N) as u64 - 4, K * N)?,
            )
        };
        let operands = Operands::new(world)?;
        let mut op = MatmulReduceScatter::<f32, i32, Cuda>::new(world, parameters(world))?;
        let stream = RankStream::new(world)?;
        let (a, _) = operands.inputs();
        let (b, c) = (MatrixRef::new(&high, K, N), MatrixMut::new(&low, own, N));
        let error = op.bind(&stream)?.call(M, a, b, None, c).unwrap_err();
        assert!(
            matches!(error, OpError::Aliased { tensor: "b", .. }),
            "{error}"
        );
        op.free()?;
        Ok(())
    });
}

/// Buffers of another rank's device or heap, and its streams, which threads of one process could hand each other.
#[test]
fn buffers_and_streams_of_another_rank_are_refused() {
    let Some(gpus) = Gpus::take("bad_input::another_rank", 2) else {
        return;
    };
    let shared = Mutex::new(None);
    threads(2, &gpus, |world| {
        let mut op = MatmulAllReduce::<f32, i32, Cuda>::new(world, parameters(world))?;
        let stream = RankStream::new(world)?;
        let operands = Operands::new(world)?;
        if world.rank() == 0 {
            let stream = RankStream::new(world)?;
            *shared.lock().unwrap() = Some((operands.a.clone(), operands.c.clone(), stream));
        }
        world.barrier()?;
        if world.rank() == 1 {
            let shared = shared.lock().unwrap();
            let (a, c, foreign) = shared.as_ref().unwrap();
            let error = op.bind(foreign).map(drop).unwrap_err();
            let told = matches!(
                error,
                OpError::ForeignStream {
                    rank: 1,
                    stream: 0,
                    ..
                }
            );
            assert!(told, "{error}");
            let (own_a, b) = operands.inputs();
            let mut bound = op.bind(&stream)?;
            let theirs = MatrixRef::new(a, M, K);
            let error = bound.call(M, theirs, b, None, MatrixMut::new(&operands.c, M, N));
            let error = error.unwrap_err();
            let told = matches!(
                error,
                OpError::WrongDevice {
                    tensor: "a",
                    rank: 1,
                    device: 1,
                    found: 0,
                    ..
                }
            );
            assert!(told, "{error}");
            let error = bound.call(M, own_a, b, None, MatrixMut::new(c, M, N));
            let error = error.unwrap_err();
            assert!(
                matches!(error, OpError::WrongDevice { tensor: "c", .. }),
                "{error}"
            );
        }
        world.barrier()?;
        *shared.lock().unwrap() = None;
        Ok(())
    });
}

/// A rank with other parameters than the rest is named, with the field.
#[test]
fn parameters_that_differ_are_named() {
    let Some(gpus) = Gpus::take("bad_input::parameters", 2) else {
        return;
    };
    let said = threads(gpus.devices().len(), &gpus, |world| {
        let last = world.rank() + 1 == world.size();
        let variant = if last {
            Variant::OneShot
        } else {
            Variant::TwoShot
        };
        let made = MatmulAllReduce::<f32, i32, Cuda>::new(world, sizes().variant(variant));
        Ok(made.map(drop).unwrap_err().to_string())
    });
    let last = gpus.devices().len() - 1;
    for text in said {
        let named = text.contains(&format!("rank {last}")) && text.contains("variant");
        assert!(named, "{text}");
    }
}

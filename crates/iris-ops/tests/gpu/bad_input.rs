//! What cannot be done is an error before anything is enqueued.

use crate::support::{config, gpus, threads};
use iris_heap::cuda::Cuda;
use iris_heap::device::{DeviceConfig, DeviceError, RankStream};
use iris_heap::{World, WorldError};
use iris_ops::{
    FusedConfig, MatmulAllGather, MatmulAllReduce, MatrixMut, MatrixRef, OpError, Tile, Variant,
};

#[test]
fn a_gpu_is_shared_only_where_that_is_allowed() {
    let gpus = gpus("sharing");
    if gpus == 0 {
        return;
    }
    let ranks = gpus + 1;
    let results = World::threads(ranks, &config(), |world| {
        world.on::<Cuda>(&DeviceConfig::default()).map(drop)
    });
    for result in results.unwrap() {
        let error = result.unwrap_err().to_string();
        let says = error.contains("devices") || error.contains("share device");
        assert!(says, "{error}");
    }
    let named = DeviceConfig {
        device: Some(0),
        heap_bytes: 4 << 20,
        ..DeviceConfig::default()
    };
    let results = World::threads(2, &config(), |world| world.on::<Cuda>(&named).map(drop));
    for result in results.unwrap() {
        let error = result.unwrap_err();
        assert!(
            matches!(
                error,
                WorldError::SharedDevice {
                    rank: 0,
                    other: 1,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_device_that_is_not_there_and_a_heap_that_does_not_fit_are_errors() {
    let gpus = gpus("not there");
    if gpus == 0 {
        return;
    }
    let on = |config_of: &(dyn Fn(usize) -> DeviceConfig + Sync)| {
        let ranks = World::threads(gpus, &config(), |world| {
            world.on::<Cuda>(&config_of(world.rank())).map(drop)
        });
        let errors: Vec<_> = ranks.unwrap().into_iter().map(Result::unwrap_err).collect();
        errors
    };
    let missing = on(&|rank| DeviceConfig {
        device: Some(if rank == 0 { 99 } else { rank }),
        heap_bytes: 4 << 20,
        ..DeviceConfig::default()
    });
    assert!(
        missing[0].to_string().contains("no device 99"),
        "{}",
        missing[0]
    );
    let huge = on(&|_| DeviceConfig {
        heap_bytes: 1 << 45,
        ..DeviceConfig::default()
    });
    let out = matches!(huge[0], WorldError::Device(DeviceError::OutOfMemory { .. }));
    assert!(out, "{}", huge[0]);
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let gpus = gpus("operands");
    if gpus == 0 {
        return;
    }
    let results = threads(gpus, gpus, 64 << 20, |world| {
        let (m, n, k) = (8, 16, 8);
        let config = || FusedConfig::new(m, n, k * world.size());
        let mut op =
            MatmulAllReduce::<f32, i32, Cuda>::new(world, config().variant(Variant::TwoShot))?;
        let stream = RankStream::new(world)?;
        let a = world.plain_buffer::<f32>(m * k)?;
        let b = world.plain_buffer::<f32>(k * n)?;
        let plain = world.plain_buffer::<f32>(m * n)?;
        let c = world.symmetric_buffer::<f32>(m * n)?;
        let (a, b) = (MatrixRef::new(&a, m, k), MatrixRef::new(&b, k, n));
        {
            let mut bound = op.bind(&stream)?;
            let error = bound
                .call(m, a, b, None, MatrixMut::new(&plain, m, n))
                .unwrap_err();
            assert!(matches!(error, OpError::PlainOutput { .. }), "{error}");
            let error = bound
                .call(m + 1, a, b, None, MatrixMut::new(&c, m, n))
                .unwrap_err();
            assert!(matches!(error, OpError::Rows { .. }), "{error}");
            let same = MatrixRef::new(&c, k, n);
            let error = bound
                .call(m, a, same, None, MatrixMut::new(&c, m, n))
                .unwrap_err();
            assert!(
                matches!(error, OpError::Aliased { tensor: "b", .. }),
                "{error}"
            );
        }
        // Two views of one piece of somebody else's memory overlap although they are two buffers.
        let ours = world.plain_buffer::<f32>(m * n + k * n)?;
        // SAFETY: the memory is `ours`, which outlives both.
        let (low, high) = unsafe {
            let address = iris_heap::Buffer::address(&ours);
            (
                world.foreign_buffer::<f32>(address, m * n)?,
                world.foreign_buffer::<f32>(address + 4 * (m * n) as u64 - 4, k * n)?,
            )
        };
        let mut scatter = iris_ops::MatmulReduceScatter::<f32, i32, Cuda>::new(world, config())?;
        let own = iris_ops::shard(m, world.size(), world.rank()).len();
        if own == m {
            let error = scatter
                .bind(&stream)?
                .call(
                    m,
                    a,
                    MatrixRef::new(&high, k, n),
                    None,
                    MatrixMut::new(&low, own, n),
                )
                .unwrap_err();
            assert!(
                matches!(error, OpError::Aliased { tensor: "b", .. }),
                "{error}"
            );
        }
        // SAFETY: refused before anything is done with them.
        let refused = unsafe {
            [
                world.foreign_buffer::<f32>(iris_heap::Buffer::address(&ours) + 2, 1),
                world.foreign_buffer::<f32>(8, 1),
                world.foreign_buffer::<f32>(iris_heap::Buffer::address(&ours), 1 << 40),
            ]
        };
        for refused in refused {
            println!("{}", refused.unwrap_err());
        }
        let odd = config().tile(Tile { m: 100, n: 128 });
        let error = MatmulAllGather::<f32, i32, Cuda>::new(world, odd).unwrap_err();
        assert!(matches!(error, OpError::Tile { .. }), "{error}");
        Ok(())
    });
    for result in results {
        result.unwrap();
    }
}

/// Buffers of another rank's device or heap, which threads of one process could hand each other.
#[test]
fn buffers_of_another_rank_are_refused() {
    let gpus = gpus("another rank's");
    if gpus < 2 {
        return;
    }
    let shared = std::sync::Mutex::new(None);
    let results = threads(2, gpus, 64 << 20, |world| {
        let mut op = MatmulAllReduce::<f32, i32, Cuda>::new(world, FusedConfig::new(8, 8, 16))?;
        let stream = RankStream::new(world)?;
        let a = world.plain_buffer::<f32>(64)?;
        let c = world.symmetric_buffer::<f32>(64)?;
        if world.rank() == 0 {
            *shared.lock().unwrap() = Some((a.clone(), c.clone()));
        }
        world.barrier()?;
        if world.rank() == 1 {
            let (theirs, _) = shared.lock().unwrap().clone().unwrap();
            let mut bound = op.bind(&stream)?;
            let error = bound
                .call(
                    8,
                    MatrixRef::new(&theirs, 8, 8),
                    MatrixRef::new(&a, 8, 8),
                    None,
                    MatrixMut::new(&c, 8, 8),
                )
                .unwrap_err();
            assert!(
                matches!(error, OpError::WrongDevice { tensor: "a", .. }),
                "{error}"
            );
        }
        world.barrier()?;
        *shared.lock().unwrap() = None;
        Ok(())
    });
    for result in results {
        result.unwrap();
    }
}

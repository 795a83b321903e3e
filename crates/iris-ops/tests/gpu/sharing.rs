//! Ranks that are threads and share a GPU, and so its context: whatever one does, the other's kernels may be waiting for it.

use crate::rig::{M, Rig, sizes};
use crate::support::{HEAP, budget, config};
use iris_heap::World;
use iris_heap::cuda::Cuda;
use iris_heap::device::{DeviceConfig, RankStream};
use iris_testkit::Failure;
use iris_testkit::device::Gpus;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Rank 1 has memory, streams and operations come and go while rank 0's kernel waits for it on the same GPU.
#[test]
fn memory_and_operations_come_and_go_while_a_peer_on_the_same_gpu_waits() {
    let Some(_gpus) = Gpus::take("sharing::come_and_go", 1) else {
        return;
    };
    let one = DeviceConfig {
        heap_bytes: HEAP,
        device: Some(0),
        share_devices: true,
    };
    let results = World::threads(2, &config(), |world| {
        let world = world.on::<Cuda>(&one)?;
        let mut rig = Rig::new(&world, sizes().budget(budget()))?;
        let other = Rig::new(&world, sizes().budget(budget()))?;
        let stream = RankStream::new(&world)?;
        let since = Instant::now();
        let step = |what: &str| println!("  {what}: {:?}", since.elapsed());
        if world.rank() == 0 {
            rig.calls(&stream, &[M, 1, M])?;
            sleep(Duration::from_millis(100));
            assert!(!stream.is_idle()?, "it waits for rank 1");
            drop(other.op);
        } else {
            sleep(Duration::from_millis(100));
            for len in [1000, 1 << 20, 1 << 24] {
                let buffer = world.plain_buffer::<f32>(len)?;
                step("memory");
                buffer.upload(0, &[7.0; 1000])?;
                let mut back = [0.0; 1000];
                buffer.download_into(0, &mut back)?;
                assert_eq!(back, [7.0; 1000]);
                step("copies");
                drop(buffer);
                step("memory dropped");
            }
            drop(RankStream::new(&world)?);
            step("a stream came and went");
            drop(other.op);
            step("an operation dropped");
            rig.calls(&stream, &[M, 1, M])?;
        }
        stream.synchronize()?;
        step("calls ended");
        rig.right(&world)?;
        world.free_buffer(other.operands.c)?;
        rig.free(&world)?;
        // Here it is given back.
        let region = world.symmetric_buffer::<f32>(1)?;
        Ok::<_, Failure>(world.free_buffer(region)?)
    });
    for (rank, result) in results.unwrap().into_iter().enumerate() {
        result.unwrap_or_else(|error| panic!("rank {rank}: {error}"));
    }
}

//! Worlds on devices: symmetric heaps that the kernels of all ranks reach.

use crate::backend::{Backend, Relay, devices, relay};
use iris_heap::device::{DeviceConfig, Stream};
use iris_heap::{World, WorldConfig, WorldError};

/// Each rank's kernel reads every rank's heap, and writes what it read to its own.
pub(crate) fn the_heaps_of_all_ranks_are_seen_by_each<D: Backend>() {
    let count = devices::<D>("the_heaps_of_all_ranks").len();
    if count == 0 {
        return;
    }
    let ranks = count.clamp(3, 8);
    let config = WorldConfig {
        heap_bytes: 1 << 16,
        ..WorldConfig::default()
    };
    let on = DeviceConfig {
        heap_bytes: 1 << 16,
        share_devices: ranks > count,
        ..DeviceConfig::default()
    };
    let word = |rank: usize, i: usize| (rank * 1000 + i * i) as u32;
    let seen = World::threads(ranks, &config, |world| {
        let world = world.on::<D>(&on)?;
        let (heaps, rank) = (world.heap(), world.rank());
        let stream = Stream::new(heaps.device())?;
        let own: Vec<u32> = (0..32).map(|i| word(rank, i)).collect();
        stream.write(heaps.own(), 0, bytemuck::cast_slice(&own))?;
        let function = relay(heaps.device()).function("relay", 32, 0)?;
        world.barrier()?;
        for peer in 0..ranks {
            let arguments = Relay {
                from: heaps.base(peer),
                to: heaps.base(rank) + 128 * (1 + peer as u64),
                flag: heaps.base(rank) + 8192,
                awaited: 0,
            };
            // SAFETY: the kernel takes such a block, and the heaps are there until all ranks have met again below.
            unsafe { function.launch(&stream, 1, &arguments) }?;
        }
        let mut back = vec![0u32; 32 * ranks];
        stream.read(heaps.own(), 128, bytemuck::cast_slice_mut(&mut back))?;
        world.barrier()?;
        Ok::<_, WorldError>(back)
    });
    for (rank, back) in seen.unwrap().into_iter().enumerate() {
        let right: Vec<u32> = (0..ranks)
            .flat_map(|peer| (0..32).map(move |i| word(peer, i) + 1))
            .collect();
        assert_eq!(back.unwrap(), right, "rank {rank}");
    }
}

/// Where ranks must share devices and are not allowed to, all are told.
pub(crate) fn ranks_do_not_share_devices_unasked<D: Backend>() {
    let count = devices::<D>("ranks_do_not_share_devices").len();
    if count == 0 {
        return;
    }
    let config = WorldConfig {
        heap_bytes: 1 << 16,
        ..WorldConfig::default()
    };
    let on = DeviceConfig {
        heap_bytes: 1 << 16,
        ..DeviceConfig::default()
    };
    let ends = World::threads(count + 1, &config, |world| world.on::<D>(&on).map(drop));
    let ends = ends.unwrap();
    assert!(ends.iter().all(Result::is_err), "{ends:?}");
}

//! Worlds on devices: symmetric heaps that the kernels of all ranks reach.

use crate::backend::{Backend, Relay, devices, relay};
use iris_heap::device::{DeviceConfig, DeviceError, RankStream};
use iris_heap::{StreamError, World, WorldConfig, WorldError};

/// Each rank's kernel reads every rank's heap, and writes what it read to its own. Where ranks share a device, each has a part of it.
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
        let own_stream = RankStream::new(&world).unwrap();
        let stream = own_stream.stream();
        let own: Vec<u32> = (0..32).map(|i| word(rank, i)).collect();
        stream.write(heaps.own(), 0, bytemuck::cast_slice(&own))?;
        let function = relay(heaps.device()).function("relay", 32, 0)?;
        assert_eq!(world.bases().len(), ranks);
        let (all, most) = (function.shape().most_blocks, world.most_blocks(&function));
        match heaps.ranks_here() as u32 {
            1 => assert_eq!(most, all),
            here => assert_eq!(most, all / (2 * here)),
        }
        world.barrier()?;
        for peer in 0..ranks {
            let arguments = Relay {
                from: world.bases()[peer],
                to: heaps.base(rank) + 128 * (1 + peer as u64),
                flag: heaps.base(rank) + 8192,
                awaited: 0,
            };
            // SAFETY: refused before anything is launched.
            let refused = unsafe { own_stream.launch(&function, most + 1, &arguments) };
            assert!(matches!(
                refused,
                Err(StreamError::Device(DeviceError::TooManyBlocks { most: said, .. })) if said == most
            ));
            // SAFETY: the kernel takes such a block, and the heaps are there until all ranks have met again below.
            unsafe { own_stream.launch(&function, 1, &arguments) }.unwrap();
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

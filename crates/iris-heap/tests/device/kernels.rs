//! Kernels: launched on several devices, and waiting for each other.

use crate::backend::{Backend, Relay, devices, relay};
use iris_heap::device::{DeviceError, Memory, PinnedMemory, SharedMemory, Stream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Data goes around all devices: each waits for its flag, reads from its own memory, and writes to the next one's, which it sees
/// by an imported descriptor.
pub(crate) fn a_ring_of_devices_hands_data_on_by_flags_in_shared_memory<D: Backend>() {
    let devices = devices::<D>("a_ring_of_devices");
    if devices.is_empty() {
        return;
    }
    let world = devices.len();
    let own: Vec<_> = devices
        .iter()
        .map(|device| SharedMemory::new(device, 1000).unwrap())
        .collect();
    assert!(
        own.iter()
            .all(|memory| memory.len() >= 1000 && memory.len() % 4096 == 0)
    );
    let next: Vec<_> = (0..world)
        .map(|rank| {
            let peer = (rank + 1) % world;
            assert!(devices[rank].reaches(&devices[peer]).unwrap().access);
            let fd = own[peer].export().unwrap();
            SharedMemory::import(&devices[rank], fd, own[peer].len()).unwrap()
        })
        .collect();
    const FLAG: u64 = 512;
    let streams: Vec<_> = devices
        .iter()
        .map(|device| Stream::new(device).unwrap())
        .collect();
    // Zeroed before it could be shared.
    let mut words = [1u32; 250];
    streams[0]
        .read(&own[0], 0, bytemuck::cast_slice_mut(&mut words))
        .unwrap();
    assert_eq!(words, [0; 250]);

    let start: Vec<u32> = (0..32).map(|i| i * i).collect();
    streams[0]
        .write(&own[0], 0, bytemuck::cast_slice(&start))
        .unwrap();
    let modules: Vec<_> = devices.iter().map(relay).collect();
    // The last first: each waits for the one before it. The first, which waits for nobody, closes the ring elsewhere.
    for rank in (0..world).rev() {
        let last = rank == world - 1;
        let arguments = Relay {
            from: own[rank].address(),
            to: next[rank].address() + if last { 256 } else { 0 },
            flag: next[rank].address() + FLAG + if last { 8 } else { 0 },
            awaited: if rank == 0 {
                0
            } else {
                own[rank].address() + FLAG
            },
        };
        let function = modules[rank].function("relay", 32, 0).unwrap();
        assert!(matches!(
            // SAFETY: refused before anything is launched.
            unsafe {
                function.launch(&streams[rank], function.shape().most_blocks + 1, &arguments)
            },
            Err(DeviceError::TooManyBlocks { .. })
        ));
        // SAFETY: the kernel takes such a block, and all addresses are of memory that lives until the end of the test.
        unsafe { function.launch(&streams[rank], 1, &arguments) }.unwrap();
    }
    for stream in &streams {
        stream.synchronize().unwrap();
    }
    let mut back = [0u32; 32];
    streams[0]
        .read(&own[0], 256, bytemuck::cast_slice_mut(&mut back))
        .unwrap();
    let right: Vec<u32> = start.iter().map(|word| word + world as u32).collect();
    assert_eq!(back.as_slice(), right);
}

/// A kernel that was never launched is, while another waits for what it does: nothing of it is left to be loaded, which would
/// wait for the other to end.
pub(crate) fn no_kernel_is_loaded_while_another_waits<D: Backend>() {
    for device in devices::<D>("no_kernel_is_loaded_while_another_waits") {
        let memory = Memory::new(&device, 1024).unwrap();
        let flags = PinnedMemory::new(&device, 64).unwrap();
        let (first, second) = (Stream::new(&device).unwrap(), Stream::new(&device).unwrap());
        let load = || relay(&device);
        let waits = load().function("relay", 32, 0).unwrap();
        let signals = load().function("relay", 32, 0).unwrap();
        let at = |offset| memory.address() + offset;
        let waiting = Relay {
            from: at(0),
            to: at(128),
            flag: at(256),
            awaited: flags.address(),
        };
        let signalling = Relay {
            from: at(512),
            to: at(640),
            flag: flags.address(),
            awaited: 0,
        };
        // SAFETY: the kernels take such blocks, and all addresses are of memory that lives until both have run.
        unsafe {
            waits.launch(&first, 1, &waiting).unwrap();
            signals.launch(&second, 1, &signalling).unwrap();
        }
        let begin = Instant::now();
        while !first.is_idle().unwrap() && begin.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        let ended = first.is_idle().unwrap();
        // Whatever came of it, no kernel is left behind.
        // SAFETY: a word of that memory, which kernels access as an atomic one too.
        unsafe { (*flags.host().cast::<AtomicU32>()).store(1, Ordering::Release) };
        first.synchronize().unwrap();
        second.synchronize().unwrap();
        assert!(ended, "the second kernel was not launched");
    }
}

pub(crate) fn what_does_not_fit_or_is_not_there_is_refused<D: Backend>() {
    for device in devices::<D>("what_does_not_fit") {
        let module = relay(&device);
        for name in ["nothing", "rel\0ay", ""] {
            assert!(module.function(name, 32, 0).is_err(), "{name:?}");
        }
        assert!(module.function("relay", 32, 1 << 30).is_err());
        let shape = module.function("relay", 32, 1024).unwrap().shape();
        assert_eq!((shape.threads, shape.shared), (32, 1024));
        assert!(shape.most_blocks >= device.info().multiprocessors);
    }
}

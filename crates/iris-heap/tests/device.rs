//! The device runtime on whatever GPUs the host has: memory shared between devices, kernels that signal each other, graphs.
//!
//! Where the host has no driver or no GPU, each test says that it was skipped.

use iris_heap::cuda::Cuda;
use iris_heap::device::{
    Device, DeviceError, Driver, Event, ForeignMemory, Memory, Module, PinnedMemory, SharedMemory,
    Stream,
};
use std::time::{Duration, Instant};

/// One block of 32 threads. Argument block: the address of 32 words to read, where to write them plus 1, the address of a flag
/// to store 1 to afterwards with release order, the address of a flag to await first with acquire order, or 0.
const PTX: &str = "
.version 7.0
.target sm_70
.address_size 64
.visible .entry relay(.param .align 8 .b8 args[32])
{
    .reg .pred %p<4>;
    .reg .b32 %r<8>;
    .reg .b64 %rd<12>;
    ld.param.u64 %rd1, [args];
    ld.param.u64 %rd2, [args+8];
    ld.param.u64 %rd3, [args+16];
    ld.param.u64 %rd4, [args+24];
    setp.eq.u64 %p1, %rd4, 0;
    @%p1 bra GO;
WAIT:
    ld.acquire.sys.global.u32 %r1, [%rd4];
    setp.eq.u32 %p2, %r1, 0;
    @%p2 bra WAIT;
GO:
    mov.u32 %r2, %tid.x;
    mul.wide.u32 %rd5, %r2, 4;
    add.u64 %rd6, %rd1, %rd5;
    add.u64 %rd7, %rd2, %rd5;
    ld.global.u32 %r3, [%rd6];
    add.u32 %r3, %r3, 1;
    st.global.u32 [%rd7], %r3;
    bar.sync 0;
    setp.ne.u32 %p3, %r2, 0;
    @%p3 ret;
    fence.acq_rel.sys;
    mov.u32 %r4, 1;
    st.release.sys.global.u32 [%rd3], %r4;
    ret;
}
\0";

#[derive(Clone, Copy)]
#[repr(C)]
struct Relay {
    from: u64,
    to: u64,
    flag: u64,
    awaited: u64,
}

/// All devices, or `None`, said, where there are none.
fn devices<D: Driver>(test: &str) -> Option<Vec<Device<D>>> {
    match Device::<D>::count() {
        Ok(0) => eprintln!("{test} SKIPPED: {} has no device", D::NAME),
        Err(DeviceError::NotThere { .. }) => eprintln!("{test} SKIPPED: {} is not there", D::NAME),
        Err(error @ DeviceError::TooOld { .. }) => eprintln!("{test} SKIPPED: {error}"),
        Ok(count) => return Some((0..count).map(|at| Device::open(at).unwrap()).collect()),
        Err(error) => panic!("{error}"),
    }
    None
}

fn bytes(words: &[u32]) -> &[u8] {
    bytemuck::cast_slice(words)
}

#[test]
fn what_is_written_is_read_back() {
    for device in devices::<Cuda>("what_is_written_is_read_back")
        .into_iter()
        .flatten()
    {
        let stream = Stream::new(&device).unwrap();
        let memory = Memory::new(&device, 4096).unwrap();
        let pattern: Vec<u8> = (0..4096).map(|i| (i * 7) as u8).collect();
        stream.write(&memory, 0, &pattern).unwrap();
        stream.fill(&memory, 100, 50, 9).unwrap();
        let mut back = vec![0; 4096];
        stream.read(&memory, 0, &mut back).unwrap();
        assert!(back.iter().enumerate().all(|(i, &byte)| {
            byte == if (100..150).contains(&i) {
                9
            } else {
                pattern[i]
            }
        }));
        assert!(matches!(
            stream.read(&memory, 4000, &mut [0; 97]),
            Err(DeviceError::Range {
                at: 4000,
                end: 4097,
                len: 4096
            })
        ));
        let pinned = PinnedMemory::new(&device, 64).unwrap();
        // SAFETY: 64 bytes, which nothing else accesses.
        let host = unsafe { std::slice::from_raw_parts(pinned.host(), 64) };
        assert!(host.iter().all(|&byte| byte == 0));
        assert!(device.info().architecture.starts_with("sm_"));
        let most = usize::try_from(device.info().memory).unwrap();
        assert!(matches!(
            Memory::new(&device, most * 2),
            Err(DeviceError::OutOfMemory { bytes, .. }) if bytes == most * 2
        ));
    }
    if let Ok(count) = Device::<Cuda>::count() {
        assert!(matches!(
            Device::<Cuda>::open(count + 3),
            Err(DeviceError::NoSuchDevice { .. })
        ));
    }
}

/// Data goes around all devices: each waits for its flag, reads from its own memory, and writes to the next one's, which it sees
/// by an imported descriptor.
#[test]
fn a_ring_of_devices_hands_data_on_by_flags_in_shared_memory() {
    let Some(devices) = devices::<Cuda>("a_ring_of_devices") else {
        return;
    };
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
    streams[0].write(&own[0], 0, bytes(&start)).unwrap();
    let modules: Vec<_> = devices
        .iter()
        .map(|device| Module::load(device, PTX.as_bytes()).unwrap())
        .collect();
    // The last first: each waits for the one before it. The first, which waits for nobody, closes the ring elsewhere.
    for rank in (0..world).rev() {
        let last = rank == world - 1;
        let relay = Relay {
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
            unsafe { function.launch(&streams[rank], function.shape().most_blocks + 1, &relay) },
            Err(DeviceError::TooManyBlocks { .. })
        ));
        // SAFETY: the kernel takes such a block, and all addresses are of memory that lives until the end of the test.
        unsafe { function.launch(&streams[rank], 1, &relay) }.unwrap();
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

#[test]
fn a_graph_runs_as_often_as_it_is_launched() {
    for device in devices::<Cuda>("a_graph").into_iter().flatten() {
        let stream = Stream::new(&device).unwrap();
        let memory = Memory::new(&device, 256).unwrap();
        stream.write(&memory, 0, &[0; 256]).unwrap();
        let module = Module::load(&device, PTX.as_bytes()).unwrap();
        let function = module.function("relay", 32, 0).unwrap();
        let relay = Relay {
            from: memory.address(),
            to: memory.address(),
            flag: memory.address() + 128,
            awaited: 0,
        };
        let graph = stream
            .capture(|| {
                for _ in 0..3 {
                    // SAFETY: as above; the memory outlives the graph's launches.
                    unsafe { function.launch(&stream, 1, &relay) }?;
                }
                Ok::<_, DeviceError>(())
            })
            .unwrap();
        let (begin, end) = (Event::new(&device).unwrap(), Event::new(&device).unwrap());
        stream.record(&begin).unwrap();
        for _ in 0..100 {
            // SAFETY: memory and module are alive until the stream has been synchronised below.
            unsafe { graph.launch(&stream) }.unwrap();
        }
        stream.record(&end).unwrap();
        end.synchronize().unwrap();
        assert!(end.since_ms(&begin).unwrap() > 0.0);
        let mut words = [0u32; 32];
        stream
            .read(&memory, 0, bytemuck::cast_slice_mut(&mut words))
            .unwrap();
        assert_eq!(words, [300; 32]);
    }
}

#[test]
fn devices_are_told_apart_and_say_what_is_free() {
    let Some(devices) = devices::<Cuda>("devices_are_told_apart") else {
        return;
    };
    for (at, device) in devices.iter().enumerate() {
        let uuid = device.info().uuid;
        assert_eq!(uuid.to_string().len(), 36);
        assert_eq!(Device::<Cuda>::open(at).unwrap().info().uuid, uuid);
        assert!(devices[..at].iter().all(|other| other.info().uuid != uuid));

        // Other tests use the device at the same time, and use little.
        let (most, bytes) = (device.info().memory, 1 << 30);
        let before = device.free_memory().unwrap();
        assert!(before > bytes && before <= most);
        let memory = Memory::new(device, bytes as usize).unwrap();
        let after = device.free_memory().unwrap();
        assert!(after + bytes / 2 < before, "{before} before, {after} after");
        drop(memory);
        assert!(device.free_memory().unwrap() > after + bytes / 2);
    }
}

#[test]
fn memory_of_others_is_used_where_it_is_what_it_is_said_to_be() {
    let Some(devices) = devices::<Cuda>("memory_of_others") else {
        return;
    };
    for (at, device) in devices.iter().enumerate() {
        let memory = Memory::new(device, 4096).unwrap();
        let address = memory.address();
        let foreign = |address, bytes, align| {
            // SAFETY: what is taken lives until the end of the test, and nothing but the streams here accesses it.
            unsafe { ForeignMemory::new(device, address, bytes, align) }
        };
        let stream = Stream::new(device).unwrap();
        stream.write(&memory, 0, &[7; 4096]).unwrap();
        let borrowed = foreign(address + 16, 4080, 16).unwrap();
        assert_eq!((borrowed.address(), borrowed.len()), (address + 16, 4080));
        stream.fill(&borrowed, 4, 4, 9).unwrap();
        let mut back = [0; 12];
        stream.read(&borrowed, 0, &mut back).unwrap();
        assert_eq!(back, [7, 7, 7, 7, 9, 9, 9, 9, 7, 7, 7, 7]);
        assert!(matches!(
            stream.read(&borrowed, 4080, &mut [0]),
            Err(DeviceError::Range { .. })
        ));

        assert!(matches!(
            foreign(address + 2, 4, 4),
            Err(DeviceError::Misaligned { .. })
        ));
        assert!(matches!(
            foreign(64, 4, 4),
            Err(DeviceError::UnknownMemory { address: 64, .. })
        ));
        let large = 1 << 40;
        assert!(matches!(
            foreign(address, large, 4),
            Err(DeviceError::TooSmall { asked, found, .. })
                if asked == large as u64 && (4096..asked).contains(&found)
        ));
        let pinned = PinnedMemory::new(device, 4096).unwrap();
        assert!(matches!(
            foreign(pinned.address(), 4, 4),
            Err(DeviceError::NotDeviceMemory { .. })
        ));
        // Memory that can be shared is a device's like any other.
        let shared = SharedMemory::new(device, 1000).unwrap();
        assert!(foreign(shared.address(), shared.len(), 4096).is_ok());
        assert!(foreign(shared.address(), large, 4096).is_err());
        for other in devices.iter().skip(at + 1) {
            let theirs = Memory::new(other, 64).unwrap();
            let error = foreign(theirs.address(), 64, 1).unwrap_err();
            assert!(
                matches!(error, DeviceError::WrongDevice { found, device, .. }
                    if found == other.ordinal() && device == at),
                "{error}"
            );
        }
    }
}

#[test]
fn streams_of_others_are_used_where_they_are_of_the_device() {
    let Some(devices) = devices::<Cuda>("streams_of_others") else {
        return;
    };
    for (at, device) in devices.iter().enumerate() {
        let owner = Stream::new(device).unwrap();
        let memory = Memory::new(device, 16).unwrap();
        for raw in [owner.raw(), 0] {
            // SAFETY: the first lives longer than what is made of it, the default stream always.
            let stream = unsafe { Stream::foreign(device, raw) }.unwrap();
            stream.write(&memory, 0, &[3; 16]).unwrap();
            stream.fill(&memory, 8, 8, 4).unwrap();
            drop(stream);
        }
        // What was enqueued by it is there for its owner.
        let mut back = [0; 16];
        owner.read(&memory, 0, &mut back).unwrap();
        assert_eq!(back[..8], [3; 8]);
        assert!(owner.is_idle().unwrap());
        for other in devices.iter().skip(at + 1) {
            // SAFETY: as above.
            let refused = unsafe { Stream::foreign(other, owner.raw()) };
            assert!(matches!(refused, Err(DeviceError::WrongStream { .. })));
        }
    }
}

/// A kernel that was never launched is, while another waits for what it does: nothing of it is left to be loaded, which would
/// wait for the other to end.
#[test]
fn no_kernel_is_loaded_while_another_waits() {
    for device in devices::<Cuda>("no_kernel_is_loaded_while_another_waits")
        .into_iter()
        .flatten()
    {
        let memory = Memory::new(&device, 1024).unwrap();
        let flags = PinnedMemory::new(&device, 64).unwrap();
        let (first, second) = (Stream::new(&device).unwrap(), Stream::new(&device).unwrap());
        let load = || Module::load(&device, PTX.as_bytes()).unwrap();
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
        unsafe {
            (*flags.host().cast::<std::sync::atomic::AtomicU32>())
                .store(1, std::sync::atomic::Ordering::Release)
        };
        first.synchronize().unwrap();
        second.synchronize().unwrap();
        assert!(ended, "the second kernel was not launched");
    }
}

/// The library's name can be given, and what was tried is told.
#[test]
fn a_driver_that_is_not_there_is_an_error_that_says_what_was_tried() {
    match Device::<Cuda>::count() {
        Err(error @ DeviceError::NotThere { .. }) => {
            assert!(error.to_string().contains("libcuda.so.1"), "{error}");
        }
        other => eprintln!("not there SKIPPED: the driver is there ({other:?})"),
    }
}

//! Streams, events and graphs.

use crate::backend::{Backend, Relay, devices, relay};
use iris_heap::device::{
    Device, DeviceConfig, DeviceError, Event, Memory, PinnedMemory, RankEvent, RankStream, Stream,
};
use iris_heap::{Point, Queue, StreamError, World, WorldConfig};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) fn streams_of_others_are_used_where_they_are_of_the_device<D: Backend>() {
    let devices = devices::<D>("streams_of_others");
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

pub(crate) fn a_graph_runs_as_often_as_it_is_launched<D: Backend>() {
    for device in devices::<D>("a_graph") {
        let stream = Stream::new(&device).unwrap();
        let memory = Memory::new(&device, 256).unwrap();
        stream.write(&memory, 0, &[0; 256]).unwrap();
        let module = relay(&device);
        let function = module.function("relay", 32, 0).unwrap();
        let arguments = Relay {
            from: memory.address(),
            to: memory.address(),
            flag: memory.address() + 128,
            awaited: 0,
        };
        let graph = stream
            .capture(|| {
                for _ in 0..3 {
                    // SAFETY: as above; the memory outlives the graph's launches.
                    unsafe { function.launch(&stream, 1, &arguments) }?;
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

pub(crate) fn a_panic_in_a_capture_ends_it<D: Backend>() {
    for device in devices::<D>("a_panic_in_a_capture") {
        let stream = Stream::new(&device).unwrap();
        let memory = Memory::new(&device, 16).unwrap();
        stream.write(&memory, 0, &[1; 16]).unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| {
            stream.capture(|| -> Result<(), DeviceError> {
                stream.fill(&memory, 0, 16, 2)?;
                panic!("on purpose");
            })
        }));
        assert!(panic.is_err());
        // The stream can be waited for again, and what was captured has not run.
        let mut back = [0; 16];
        stream.read(&memory, 0, &mut back).unwrap();
        assert_eq!(back, [1; 16]);
        let graph = stream.capture(|| stream.fill(&memory, 0, 16, 3)).unwrap();
        // SAFETY: the memory is alive until the stream has been synchronised below.
        unsafe { graph.launch(&stream) }.unwrap();
        stream.read(&memory, 0, &mut back).unwrap();
        assert_eq!(back, [3; 16]);
    }
}

/// What was put off until its end is made up for, and nothing is put off any more.
pub(crate) fn a_panic_in_a_ranks_capture_ends_it<D: Backend>() {
    if devices::<D>("a_panic_in_a_ranks_capture").is_empty() {
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
    World::threads(1, &config, |world| {
        let world = world.on::<D>(&on).unwrap();
        let device = world.heap().device();
        let flags = PinnedMemory::new(device, 64).unwrap();
        let stream = RankStream::new(&world).unwrap();
        let event = RankEvent::of(world.heap()).unwrap();
        let module = relay(device);
        let function = module.function("relay", 32, 0).unwrap();
        let flag = |at: usize| {
            // SAFETY: a word of that memory, which lives to the end and which kernels access as an atomic one too.
            unsafe { &*flags.host().cast::<AtomicU32>().add(at) }
        };
        let (go, gone) = (flag(0), flag(8));
        let waiting = Relay {
            from: world.heap().base(0),
            to: world.heap().base(0) + 128,
            flag: flags.address() + 32,
            awaited: flags.address(),
        };
        // Whether `event`, recorded by `record` behind a kernel that takes its time, is reached after that.
        let is_recorded_by = |record: &dyn Fn()| {
            go.store(0, Ordering::SeqCst);
            gone.store(0, Ordering::SeqCst);
            // SAFETY: the kernel takes such a block, and all addresses are of memory that lives until it has run.
            unsafe { stream.launch(&function, 1, &waiting) }.unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(300));
                    go.store(1, Ordering::SeqCst);
                });
                record();
                event.synchronize().unwrap();
                gone.load(Ordering::SeqCst) == 1
            })
        };
        let in_a_capture = || {
            let panic = catch_unwind(AssertUnwindSafe(|| {
                stream.capture(|| -> Result<(), StreamError> {
                    stream.record(&event)?;
                    panic!("on purpose");
                })
            }));
            assert!(panic.is_err() && !stream.is_capturing());
        };
        assert!(is_recorded_by(&in_a_capture));
        assert!(is_recorded_by(&|| stream.record(&event).unwrap()));
        let own = world.heap().own();
        let graph = stream
            .capture(|| {
                stream
                    .stream()
                    .fill(own, 0, 16, 7)
                    .map_err(StreamError::from)
            })
            .unwrap();
        // SAFETY: the heap is alive, and nothing else uses it.
        unsafe { graph.launch_unchecked(&stream) }.unwrap();
        let mut back = [0; 16];
        stream.stream().read(own, 0, &mut back).unwrap();
        assert_eq!(back, [7; 16]);
    })
    .unwrap();
}

/// The library's name can be given, and what was tried is told.
pub(crate) fn a_driver_that_is_not_there_is_an_error_that_says_what_was_tried<D: Backend>() {
    match Device::<D>::count() {
        Err(error @ DeviceError::NotThere { .. }) => {
            assert!(error.to_string().contains(D::LIBRARY), "{error}");
        }
        other => crate::skipped("not there", format!("the driver is there ({other:?})")),
    }
}

//! Streams, events and graphs.

use crate::backend::{Backend, Relay, devices, relay};
use iris_heap::device::{Device, DeviceError, Event, Memory, Stream};

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

/// The library's name can be given, and what was tried is told.
pub(crate) fn a_driver_that_is_not_there_is_an_error_that_says_what_was_tried<D: Backend>() {
    match Device::<D>::count() {
        Err(error @ DeviceError::NotThere { .. }) => {
            assert!(error.to_string().contains(D::LIBRARY), "{error}");
        }
        other => crate::skipped("not there", format!("the driver is there ({other:?})")),
    }
}

//! Launches that may begin before the one before them on their stream has ended.

use crate::backend::devices;
use iris_heap::cuda::Cuda;
use iris_heap::device::{DeviceError, Function, Memory, Module, Stream};

/// `late` lets the launch after it begin, stands still for 20 ms, and stores 1. `waits` awaits the end of the launch before it and copies
/// what that has stored; `hurries` copies without.
const PTX: &str = "
.version 7.8
.target sm_90
.address_size 64
.visible .entry late(.param .align 8 .b8 args[16])
{
    .reg .pred %p<2>;
    .reg .b32 %r<2>;
    .reg .b64 %rd<6>;
    griddepcontrol.launch_dependents;
    ld.param.u64 %rd1, [args];
    mov.u64 %rd2, %globaltimer;
    add.u64 %rd2, %rd2, 20000000;
AGAIN:
    mov.u64 %rd3, %globaltimer;
    setp.lt.u64 %p1, %rd3, %rd2;
    @%p1 bra AGAIN;
    mov.u32 %r1, 1;
    st.global.u32 [%rd1], %r1;
    ret;
}
.visible .entry waits(.param .align 8 .b8 args[16])
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<3>;
    griddepcontrol.wait;
    ld.param.u64 %rd1, [args];
    ld.param.u64 %rd2, [args+8];
    ld.volatile.global.u32 %r1, [%rd1];
    st.global.u32 [%rd2], %r1;
    ret;
}
.visible .entry hurries(.param .align 8 .b8 args[16])
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [args];
    ld.param.u64 %rd2, [args+8];
    ld.volatile.global.u32 %r1, [%rd1];
    st.global.u32 [%rd2], %r1;
    ret;
}
\0";

/// What a launch after `late` has seen of it: behind it on the stream, and behind it in a graph. Cooperative launches begin early in graphs
/// alone, as drivers of CUDA 13.0 have it.
fn seen(stream: &Stream<Cuda>, memory: &Memory<Cuda>, functions: [&Function<Cuda>; 2]) -> [u32; 2] {
    let [late, after] = functions;
    [false, true].map(|captured| {
        stream.fill(memory, 0, 8, 0).unwrap();
        stream.synchronize().unwrap();
        let arguments = [memory.address(), memory.address() + 4];
        // SAFETY: the kernels take two addresses, of memory that lives until the stream has been synchronised below.
        let both = || unsafe {
            late.launch_programmatic(stream, 1, &arguments)?;
            after.launch_programmatic(stream, 1, &arguments)
        };
        if captured {
            let graph = stream.capture(both).unwrap();
            // SAFETY: as above; the graph is dropped after that.
            unsafe { graph.launch(stream) }.unwrap();
            stream.synchronize().unwrap();
        } else {
            both().unwrap();
            stream.synchronize().unwrap();
        }
        let mut words = [0u32; 2];
        stream
            .read(memory, 0, bytemuck::cast_slice_mut(&mut words))
            .unwrap();
        assert_eq!(words[0], 1);
        words[1]
    })
}

/// One that waits sees what the launch before has stored; one that does not has begun before, and does not see it.
#[test]
fn a_launch_that_begins_early_waits_for_the_one_before() {
    for device in devices::<Cuda>("a_launch_that_begins_early") {
        if !device.info().programmatic {
            crate::skipped(
                "a_launch_that_begins_early",
                "the device, or its driver, has no such launches",
            );
            continue;
        }
        let module = Module::load(&device, PTX.as_bytes()).unwrap();
        let function = |name| module.function(name, 1, 0);
        let stream = Stream::new(&device).unwrap();
        let memory = Memory::new(&device, 8).unwrap();
        let run = |after| -> Result<_, DeviceError> {
            Ok(seen(
                &stream,
                &memory,
                [&function("late")?, &function(after)?],
            ))
        };
        assert_eq!(run("waits").unwrap(), [1, 1]);
        let [_, in_a_graph] = run("hurries").unwrap();
        assert_eq!(in_a_graph, 0);
    }
}

//! Enqueueing work on a stream allocates nothing on the thread that does it.

use iris_heap::{
    Access, Event, Kernel, KernelArgs, KernelLaunch, STREAM_CAPACITY, Stream, StreamError, World,
    WorldConfig,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts what each thread allocates.
struct Counting;

// SAFETY: everything is passed on to the system's allocator; counting touches a plain thread-local word only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more, and needs none.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

struct Nothing;

impl Kernel for Nothing {
    fn run(&self, _: &KernelArgs) -> Result<(), StreamError> {
        Ok(())
    }
    fn name(&self) -> &str {
        "nothing"
    }
}

#[test]
fn enqueueing_allocates_nothing() {
    let world = World::of_threads(1, &WorldConfig::default())
        .unwrap()
        .remove(0);
    let (stream, other) = (Stream::new(&world).unwrap(), Stream::new(&world).unwrap());
    let kernel: Arc<dyn Kernel> = Arc::new(Nothing);
    let (a, b) = (world.buffer::<f32>(10), world.buffer::<f32>(10));
    let event = Event::new();
    let before = allocations();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(allocations(), before + 1, "the counter counts");
    let before = allocations();
    for _ in 0..2 * STREAM_CAPACITY {
        let mut args = KernelArgs::default();
        args.buffers[0] = Some((a.any(), Access::Read));
        args.buffers[1] = Some((b.any(), Access::Write));
        stream.launch(KernelLaunch {
            kernel: Arc::clone(&kernel),
            args,
        });
        stream.record(&event);
        other.wait(&event);
    }
    stream.synchronize().unwrap();
    other.synchronize().unwrap();
    assert_eq!(allocations(), before);
}

//! A call allocates nothing on the thread that makes it.

use iris_heap::{Stream, World, WorldConfig};
use iris_ops::{FusedConfig, MatmulAllReduce, MatrixMut, MatrixRef, OpError, Variant};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts what each thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more, and is not one that makes calls.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, handed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn calls_allocate_nothing_where_they_are_made() {
    let counts = World::threads(2, &WorldConfig::default(), |world| {
        let (m, n, k) = (6, 5, 4);
        let config = FusedConfig::new(m, n, k).variant(Variant::TwoShot);
        let mut op = MatmulAllReduce::<f32>::new(&world, config)?;
        let (a, b) = (world.buffer::<f32>(m * 2), world.buffer::<f32>(2 * n));
        let c = world.symmetric_buffer::<f32>(m * n)?;
        let stream = Stream::new(&world)?;
        let mut bound = op.bind(&stream)?;
        let before = ALLOCATIONS.get();
        for call in 0..3000 {
            let m = 1 + call % m;
            let (a, b) = (MatrixRef::new(&a, m, 2), MatrixRef::new(&b, 2, n));
            bound.call(m, a, b, None, MatrixMut::new(&c, m, n))?;
        }
        let calls = ALLOCATIONS.get() - before;
        drop(bound);
        stream.synchronize()?;
        // That the counter counts is seen here.
        let before = ALLOCATIONS.get();
        drop(std::hint::black_box(Box::new(world.rank())));
        Ok::<_, OpError>((calls, ALLOCATIONS.get() - before))
    })
    .unwrap();
    for result in counts {
        assert_eq!(result.unwrap(), (0, 1));
    }
}

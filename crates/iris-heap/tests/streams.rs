//! Streams and events.

use iris_heap::{
    Access, Buffer, Event, Kernel, KernelArgs, KernelLaunch, STREAM_CAPACITY, Stream, StreamError,
    World, WorldConfig,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

fn world() -> World {
    let config = WorldConfig {
        heap_bytes: 1 << 16,
        ..WorldConfig::default()
    };
    World::of_threads(1, &config).unwrap().remove(0)
}

/// A kernel that is a closure.
struct Closure<F>(F);

impl<F: Fn(&KernelArgs) -> Result<(), StreamError> + Send + Sync> Kernel for Closure<F> {
    fn run(&self, args: &KernelArgs) -> Result<(), StreamError> {
        (self.0)(args)
    }
    fn name(&self) -> &str {
        "closure"
    }
}

fn kernel(
    body: impl Fn(&KernelArgs) -> Result<(), StreamError> + Send + Sync + 'static,
) -> Arc<dyn Kernel> {
    Arc::new(Closure(body))
}

fn launch(kernel: &Arc<dyn Kernel>, args: KernelArgs) -> KernelLaunch {
    KernelLaunch {
        kernel: Arc::clone(kernel),
        args,
    }
}

fn with_buffers<T: bytemuck::Pod>(buffers: &[(&Buffer<T>, Access)]) -> KernelArgs {
    let mut args = KernelArgs::default();
    for (slot, (buffer, access)) in args.buffers.iter_mut().zip(buffers) {
        *slot = Some((buffer.any(), *access));
    }
    args
}

#[test]
fn kernels_run_in_order_with_their_arguments() {
    let stream = Stream::new(&world()).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = {
        let seen = Arc::clone(&seen);
        kernel(move |args| {
            seen.lock().unwrap().push(args.scalars[0]);
            Ok(())
        })
    };
    // Far more than the queue holds: enqueueing waits for room.
    let count = 3 * STREAM_CAPACITY as i64;
    for i in 0..count {
        let mut args = KernelArgs::default();
        args.scalars[0] = i;
        stream.launch(launch(&note, args));
    }
    stream.synchronize().unwrap();
    assert!(stream.is_idle());
    assert!(seen.lock().unwrap().iter().copied().eq(0..count));
}

#[test]
fn a_full_queue_makes_its_filler_wait() {
    let stream = Stream::new(&world()).unwrap();
    let (go, gate) = mpsc::channel::<()>();
    stream.host_fn(move || gate.recv().unwrap());
    let enqueued = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..STREAM_CAPACITY + 10 {
                stream.host_fn(|| {});
                enqueued.fetch_add(1, Ordering::SeqCst);
            }
        });
        while enqueued.load(Ordering::SeqCst) < STREAM_CAPACITY {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(50));
        // The gate has been taken from the queue, so exactly its capacity fits behind.
        assert_eq!(enqueued.load(Ordering::SeqCst), STREAM_CAPACITY);
        go.send(()).unwrap();
    });
    stream.synchronize().unwrap();
    assert_eq!(enqueued.load(Ordering::SeqCst), STREAM_CAPACITY + 10);
}

#[test]
fn the_first_error_is_kept_until_it_is_fetched_and_the_rest_is_run() {
    let stream = Stream::new(&world()).unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let fail = {
        let runs = Arc::clone(&runs);
        kernel(move |args| {
            runs.fetch_add(1, Ordering::SeqCst);
            let message = format!("number {}", args.scalars[0]);
            Err(StreamError::kernel("fail", std::io::Error::other(message)))
        })
    };
    for i in 1..=3 {
        let mut args = KernelArgs::default();
        args.scalars[0] = i;
        stream.launch(launch(&fail, args));
    }
    let error = stream.synchronize().unwrap_err();
    assert_eq!(error.to_string(), "fail: number 1");
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    stream.synchronize().unwrap();
}

#[test]
fn panics_become_errors_and_the_stream_goes_on() {
    let stream = Stream::new(&world()).unwrap();
    let buffer = world().buffer::<u32>(1);
    let bad = kernel(|_| panic!("bad kernel"));
    stream.launch(launch(&bad, with_buffers(&[(&buffer, Access::Write)])));
    let error = stream.synchronize().unwrap_err();
    assert_eq!(error.to_string(), "closure panicked: bad kernel");
    buffer.fill(3); // the kernel's lock is given back
    stream.host_fn(|| panic!("bad {}", "function"));
    let error = stream.synchronize().unwrap_err();
    assert_eq!(error.to_string(), "a host function panicked: bad function");
    stream.host_fn(|| {});
    stream.synchronize().unwrap();
}

#[test]
fn a_stream_is_drained_when_it_is_dropped() {
    let done = Arc::new(AtomicUsize::new(0));
    let stream = Stream::new(&world()).unwrap();
    for _ in 0..100 {
        let done = Arc::clone(&done);
        stream.host_fn(move || {
            thread::sleep(Duration::from_micros(100));
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    drop(stream);
    assert_eq!(done.load(Ordering::SeqCst), 100);
}

#[test]
fn a_stream_may_be_used_and_dropped_by_what_it_runs() {
    let stream = Arc::new(Stream::new(&world()).unwrap());
    let (result, results) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let own = Arc::clone(&stream);
    stream.host_fn(move || {
        gate.recv().unwrap();
        result.send(own.synchronize()).unwrap();
        let again = result.clone();
        // More than the queue holds: the worker cannot wait for itself to make room.
        for _ in 0..2 * STREAM_CAPACITY {
            own.host_fn(|| {});
        }
        own.host_fn(move || again.send(Ok(())).unwrap());
        drop(own); // the last owner
    });
    drop(stream);
    go.send(()).unwrap();
    let wait = Duration::from_secs(10);
    let own = results.recv_timeout(wait).unwrap();
    assert!(matches!(own, Err(StreamError::OwnWorker)));
    results.recv_timeout(wait).unwrap().unwrap();
}

#[test]
fn reading_a_buffer_waits_for_the_kernel_that_writes_it() {
    let world = world();
    let stream = Stream::new(&world).unwrap();
    let buffer = world.buffer::<u64>(1000);
    let count = kernel(|args| {
        let (buffer, _) = args.buffers[0].as_ref().unwrap();
        assert_eq!(buffer.bytes(), 8000);
        for i in 0..1000 {
            // SAFETY: the buffer has 1000 elements, and this kernel has it for writing.
            unsafe { buffer.ptr().cast::<u64>().add(i).write(i as u64) };
            if i == 500 {
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    });
    let event = Event::new();
    let running = Arc::new(AtomicBool::new(false));
    let started = Arc::clone(&running);
    stream.host_fn(move || started.store(true, Ordering::SeqCst));
    // The same buffer twice, for reading and for writing: one lock, and no waiting for oneself.
    let args = with_buffers(&[(&buffer, Access::Write), (&buffer, Access::Read)]);
    stream.launch(launch(&count, args));
    stream.record(&event);
    while !running.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(10));
    let all = buffer.read();
    assert!(
        all.iter().copied().eq(0..1000) || all == [0; 1000],
        "half written"
    );
    event.synchronize();
    assert!(buffer.read().iter().copied().eq(0..1000));
}

#[test]
fn kernels_with_buffers_in_common_never_wait_in_a_circle() {
    let world = world();
    let (a, b) = (world.buffer::<u64>(1), world.buffer::<u64>(1));
    let add = kernel(|args| {
        for (buffer, _) in args.buffers.iter().flatten() {
            let at = buffer.ptr().cast::<u64>();
            // SAFETY: the buffer has an element, and this kernel has it for writing.
            unsafe { at.write(at.read() + 1) };
        }
        Ok(())
    });
    thread::scope(|scope| {
        for order in [[&a, &b], [&b, &a]] {
            let (world, add) = (&world, &add);
            scope.spawn(move || {
                let stream = Stream::new(world).unwrap();
                for _ in 0..5000 {
                    let buffers = order.map(|buffer| (buffer, Access::Write));
                    stream.launch(launch(add, with_buffers(&buffers)));
                }
                stream.synchronize().unwrap();
            });
        }
    });
    assert_eq!((a.read(), b.read()), (vec![10_000], vec![10_000]));
}

#[test]
fn kernels_that_only_read_a_buffer_run_at_once() {
    let world = world();
    let buffer = world.buffer::<u8>(1);
    let meet = Arc::new(std::sync::Barrier::new(2));
    let read = kernel(move |_| {
        meet.wait();
        Ok(())
    });
    let streams = [Stream::new(&world).unwrap(), Stream::new(&world).unwrap()];
    for stream in &streams {
        stream.launch(launch(&read, with_buffers(&[(&buffer, Access::Read)])));
    }
    for stream in &streams {
        stream.synchronize().unwrap();
    }
}

#[test]
fn a_stream_waits_for_an_event_of_another() {
    let world = world();
    let (first, second) = (Stream::new(&world).unwrap(), Stream::new(&world).unwrap());
    let (event, unrecorded) = (Event::new(), Event::new());
    let order = Arc::new(Mutex::new(Vec::new()));
    let (go, gate) = mpsc::channel::<()>();
    let note = |what: &'static str| {
        let order = Arc::clone(&order);
        move || order.lock().unwrap().push(what)
    };
    first.host_fn(move || gate.recv().unwrap());
    first.host_fn(note("first"));
    first.record(&event);
    second.wait(&unrecorded);
    second.host_fn(note("before"));
    second.wait(&event);
    second.host_fn(note("second"));
    thread::sleep(Duration::from_millis(30));
    assert!(!event.is_reached() && !second.is_idle());
    assert_eq!(*order.lock().unwrap(), ["before"]);
    go.send(()).unwrap();
    second.synchronize().unwrap();
    assert!(event.is_reached());
    assert_eq!(*order.lock().unwrap(), ["before", "first", "second"]);
}

//! Operations among the work of another library: on a stream that it made, and on memory that it allocated.

use crate::support::{GpuWorld, budget, threads};
use iris_heap::cuda::Cuda;
use iris_heap::device::{Driver, RankStream, Raw};
use iris_heap::{Queue, World};
use iris_ops::{FusedConfig, MatmulReduceScatter, MatrixMut, MatrixRef, shard};
use iris_testkit::Failure;
use iris_testkit::device::Gpus;

const M: usize = 37;
const N: usize = 130;
const K: usize = 24;

/// What another library has on a rank's device: everything by direct calls to the driver.
struct Library {
    driver: &'static Cuda,
    device: usize,
    stream: Raw,
    memory: Vec<Raw>,
}

impl Library {
    fn new(device: usize) -> Result<Self, Failure> {
        let driver = Cuda::load()?;
        driver.retain(device)?;
        driver.bind(device)?;
        // SAFETY: destroyed once, when this is dropped.
        let stream = unsafe { driver.create_stream() }?;
        Ok(Self {
            driver,
            device,
            stream,
            memory: Vec::new(),
        })
    }

    /// `len` floats, none of which is a number.
    fn floats(&mut self, len: usize) -> Result<Raw, Failure> {
        self.driver.bind(self.device)?;
        // SAFETY: freed once, when this is dropped, after all work on the stream.
        let address = unsafe { self.driver.allocate(4 * len) }?;
        self.memory.push(address);
        // SAFETY: just allocated, of this size.
        unsafe { self.driver.fill(address, 0xff, 4 * len, self.stream) }?;
        Ok(address)
    }

    /// Enqueues a copy; the driver is done with `from` when this returns.
    fn upload(&self, to: Raw, from: &[f32]) -> Result<(), Failure> {
        self.driver.bind(self.device)?;
        // SAFETY: `to` has as many floats, by the callers below.
        Ok(unsafe {
            self.driver
                .upload(to, from.as_ptr().cast(), size_of_val(from), self.stream)
        }?)
    }

    /// Enqueues a copy back, and waits for it and all before it.
    fn download(&self, from: Raw, len: usize) -> Result<Vec<f32>, Failure> {
        let mut to = vec![0.0f32; len];
        self.driver.bind(self.device)?;
        // SAFETY: `from` has as many floats, by the callers below; `to` lives until the stream has been synchronised.
        unsafe {
            self.driver
                .download(to.as_mut_ptr().cast(), from, 4 * len, self.stream)?;
            self.driver.synchronize_stream(self.stream)?;
        }
        Ok(to)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: made above, given back once; nothing runs there any more.
        unsafe {
            let _ = self.driver.bind(self.device);
            let _ = self.driver.synchronize_stream(self.stream);
            self.memory
                .iter()
                .for_each(|&address| self.driver.free(address));
            self.driver.destroy_stream(self.stream);
            self.driver.release(self.device);
        }
    }
}

fn value(round: usize, rank: usize, row: usize) -> f32 {
    (round + 2 * rank + row) as f32
}

/// Rounds of: inputs copied in, a call, the result copied out; all on the library's stream, where nothing but its order keeps them
/// apart.
fn among_others(world: &GpuWorld) -> Result<(), Failure> {
    let (size, rank) = (world.size(), world.rank());
    let depth = shard(K, size, rank).len();
    let own = shard(M, size, rank);
    let mut op = MatmulReduceScatter::<f32, i32, Cuda>::new(
        world,
        FusedConfig::new(M, N, K).budget(budget()),
    )?;
    let mut library = Library::new(world.device_ordinal())?;
    let (a, b) = (library.floats(M * depth)?, library.floats(depth * N)?);
    let c = library.floats(own.len() * N)?;
    {
        // SAFETY: memory and stream are the library's, which outlives this block and all that is enqueued in it.
        let (stream, a_buffer, b_buffer, c_buffer) = unsafe {
            (
                RankStream::foreign(world, library.stream)?,
                world.foreign_buffer::<f32>(a, M * depth)?,
                world.foreign_buffer::<f32>(b, depth * N)?,
                world.foreign_buffer::<f32>(c, own.len() * N)?,
            )
        };
        world.barrier()?;
        let ones = vec![1.0; depth * N];
        for round in 0..20 {
            let rows = (0..M * depth).map(|at| value(round, rank, at / depth.max(1)));
            library.upload(a, &rows.collect::<Vec<_>>())?;
            library.upload(b, &ones)?;
            op.bind(&stream)?.call(
                M,
                MatrixRef::new(&a_buffer, M, depth),
                MatrixRef::new(&b_buffer, depth, N),
                None,
                MatrixMut::new(&c_buffer, own.len(), N),
            )?;
            let result = library.download(c, own.len() * N)?;
            for (at, &found) in result.iter().enumerate() {
                let row = own.start + at / N;
                let sum = |rank| value(round, rank, row) * shard(K, size, rank).len() as f32;
                let expected: f32 = (0..size).map(sum).sum();
                if found != expected {
                    return Err(
                        format!("round {round}, element {at}: {found}, not {expected}").into(),
                    );
                }
            }
            // No fault goes unnoticed by whoever asks.
            stream.synchronize()?;
        }
        // A last call, on a stream that is left at once: freeing the operation waits for it.
        op.bind(&stream)?.call(
            M,
            MatrixRef::new(&a_buffer, M, depth),
            MatrixRef::new(&b_buffer, depth, N),
            None,
            MatrixMut::new(&c_buffer, own.len(), N),
        )?;
        assert_eq!(Queue::<Cuda>::rank(&stream), rank);
    }
    op.free()?;
    Ok(())
}

#[test]
fn calls_run_on_streams_and_memory_of_another_library() {
    let Some(gpus) = Gpus::take("foreign::streams", 1) else {
        return;
    };
    threads(gpus.devices().len(), &gpus, among_others);
}

/// The other way round: another library's work on our stream and in our memory, symmetric and plain.
#[test]
fn another_library_works_on_our_streams_and_memory() {
    let Some(gpus) = Gpus::take("foreign::ours", 1) else {
        return;
    };
    threads(gpus.devices().len(), &gpus, |world| {
        let library = Library::new(world.device_ordinal())?;
        let stream = RankStream::new(world)?;
        let symmetric = world.symmetric_buffer::<f32>(1000)?;
        let plain = world.plain_buffer::<f32>(1000)?;
        // SAFETY: both have 4000 bytes, and outlive what is enqueued, since the stream is waited for.
        unsafe {
            let raw = stream.stream().raw();
            library.driver.bind(library.device)?;
            library.driver.fill(symmetric.address(), 0x40, 4000, raw)?;
            library
                .driver
                .copy(plain.address(), symmetric.address(), 4000, raw)?;
        }
        let filled = f32::from_bits(0x4040_4040);
        assert!(plain.download()?.iter().all(|&value| value == filled));
        Ok(world.free_buffer(symmetric)?)
    });
}

/// A stream of another context, or device, is not taken for one of ours.
#[test]
fn a_stream_of_another_device_is_refused() {
    let Some(gpus) = Gpus::take("foreign::other_device", 2) else {
        return;
    };
    let world = |world: &World<Cuda>| {
        let other = (world.device_ordinal() + 1) % world.size();
        let library = Library::new(other)?;
        // SAFETY: it is a stream, alive as long as the library.
        let refused = unsafe { RankStream::foreign(world, library.stream) };
        let error = refused.map(drop).unwrap_err().to_string();
        let device = format!("primary context of device {}", world.device_ordinal());
        assert!(error.contains(&device), "{error}");
        Ok(())
    };
    threads(2, &gpus, world);
}

//! Streams: queues of work that run in order, beside the thread that fills them.

use super::event::Event;
use super::kernel::{KernelLaunch, Locked};
use crate::World;
use crate::device::DeviceError;
use crate::fault::Verdict;
use std::any::Any;
use std::collections::VecDeque;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};

/// How much a stream can hold that has not begun. Whoever enqueues more waits, as with a device's driver.
pub const CAPACITY: usize = 1024;

/// What went wrong in a stream.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A call faulted, and the ranks have found the one to blame.
    #[error("{0}")]
    Fault(Arc<Verdict>),
    /// A kernel failed.
    #[error("{kernel}: {source}")]
    Kernel {
        /// Its name.
        kernel: String,
        /// What it says.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A kernel or host function panicked.
    #[error("{what} panicked: {message}")]
    Panicked {
        /// What did.
        what: String,
        /// The panic's message.
        message: String,
    },
    /// A device refused something.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A capture was begun on a stream that is being captured.
    #[error("a stream that is being captured cannot be captured again")]
    Capturing,
    /// The stream's worker could not be started.
    #[error("starting a stream's worker: {0}")]
    Worker(Arc<std::io::Error>),
    /// The stream was to be synchronised by what runs in it, which would wait for itself.
    #[error("a stream cannot be synchronised by what it runs")]
    OwnWorker,
}

impl StreamError {
    /// The error of a kernel.
    pub fn kernel(name: &str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Kernel {
            kernel: name.to_owned(),
            source: Arc::new(source),
        }
    }
}

#[allow(clippy::large_enum_variant)] // launches are the common case, and boxing them would be an allocation each
enum Command {
    Kernel(KernelLaunch),
    Host(Box<dyn FnOnce() + Send>),
    /// Reach this recording of the event.
    Record(Event, u64),
    /// Wait for this recording of the event.
    Wait(Event, u64),
}

/// A queue of work of one rank that runs in order on a worker thread.
///
/// Enqueueing allocates nothing (but for [`Stream::host_fn`], whose closure is boxed by the caller) and waits only while
/// the queue is full. Dropping the stream waits until all that is queued has run.
#[derive(Debug)]
pub struct Stream {
    queue: Arc<Queue>,
    worker: Option<JoinHandle<()>>,
    id: ThreadId,
    rank: usize,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    /// Something was enqueued, or the stream is closed.
    filled: Condvar,
    /// Something was taken from a full queue.
    room: Condvar,
    /// Something has run that a thread waits for.
    done: Condvar,
}

struct State {
    commands: VecDeque<Command>,
    enqueued: u64,
    finished: u64,
    /// Threads that wait for `done`.
    waiting: usize,
    closed: bool,
    error: Option<StreamError>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("enqueued", &self.enqueued)
            .field("finished", &self.finished)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl Stream {
    /// A stream of this rank, with a worker thread of its own.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub fn new(world: &World) -> Result<Self, StreamError> {
        let queue = Arc::new(Queue {
            state: Mutex::new(State {
                commands: VecDeque::with_capacity(CAPACITY),
                enqueued: 0,
                finished: 0,
                waiting: 0,
                closed: false,
                error: None,
            }),
            filled: Condvar::new(),
            room: Condvar::new(),
            done: Condvar::new(),
        });
        let shared = Arc::clone(&queue);
        let worker = thread::Builder::new()
            .name(format!("iris-stream-{}", world.rank()))
            .spawn(move || shared.work())
            .map_err(|error| StreamError::Worker(Arc::new(error)))?;
        Ok(Self {
            queue,
            id: worker.thread().id(),
            worker: Some(worker),
            rank: world.rank(),
        })
    }

    /// The rank whose stream it is.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Enqueues a kernel.
    pub fn launch(&self, launch: KernelLaunch) {
        self.enqueue(Command::Kernel(launch));
    }

    /// Enqueues a function of the host. It must not wait for the stream that it runs in.
    pub fn host_fn(&self, function: impl FnOnce() + Send + 'static) {
        self.enqueue(Command::Host(Box::new(function)));
    }

    /// Moves `event` to the end of the queue.
    pub fn record(&self, event: &Event) {
        self.enqueue(Command::Record(event.clone(), event.record()));
    }

    /// Has what is enqueued from now on wait until the stream in which `event` was last recorded has come there.
    pub fn wait(&self, event: &Event) {
        self.enqueue(Command::Wait(event.clone(), event.latest()));
    }

    /// Waits until all that has been enqueued has run.
    ///
    /// # Errors
    /// The first error of anything that ran since this function last returned one.
    pub fn synchronize(&self) -> Result<(), StreamError> {
        if thread::current().id() == self.id {
            return Err(StreamError::OwnWorker);
        }
        let mut state = self.queue.state();
        let target = state.enqueued;
        state.waiting += 1;
        while state.finished < target {
            state = wait(&self.queue.done, state);
        }
        state.waiting -= 1;
        state.error.take().map_or(Ok(()), Err)
    }

    /// Whether all that has been enqueued has run.
    pub fn is_idle(&self) -> bool {
        let state = self.queue.state();
        state.finished == state.enqueued
    }

    fn enqueue(&self, command: Command) {
        let mut state = self.queue.state();
        // The worker itself never waits for room: it is the one that makes it. It may then grow the queue.
        while state.commands.len() >= CAPACITY && thread::current().id() != self.id {
            state = wait(&self.queue.room, state);
        }
        state.commands.push_back(command);
        state.enqueued += 1;
        drop(state);
        self.queue.filled.notify_one();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.queue.state().closed = true;
        self.queue.filled.notify_one();
        // Where the last owner is a function that runs in the stream, the worker ends by itself once it has returned.
        if let Some(worker) = self.worker.take()
            && thread::current().id() != self.id
        {
            let _ = worker.join();
        }
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.state();
            let command = loop {
                match state.commands.pop_front() {
                    Some(command) => break command,
                    None if state.closed => return,
                    None => state = wait(&self.filled, state),
                }
            };
            let was_full = state.commands.len() + 1 >= CAPACITY;
            drop(state);
            if was_full {
                self.room.notify_all();
            }
            let result = run(command);
            let mut state = self.state();
            state.finished += 1;
            if let Err(error) = result {
                state.error.get_or_insert(error);
            }
            if state.waiting > 0 {
                self.done.notify_all();
            }
        }
    }
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition
        .wait(state)
        .unwrap_or_else(PoisonError::into_inner)
}

/// Runs a command and drops it. Foreign code runs in here, and in here its panics end.
fn run(command: Command) -> Result<(), StreamError> {
    match command {
        Command::Kernel(KernelLaunch { kernel, args }) => {
            let result = guarded(|| {
                let _locked = Locked::new(&args);
                kernel.run(&args)
            });
            let result = result.unwrap_or_else(|message| {
                Err(StreamError::Panicked {
                    what: guarded(|| kernel.name().to_owned()).unwrap_or_default(),
                    message,
                })
            });
            let dropped = guarded(move || drop((kernel, args)));
            result.and(dropped.map_err(|message| StreamError::Panicked {
                what: "dropping a kernel".into(),
                message,
            }))
        }
        Command::Host(function) => guarded(function).map_err(|message| StreamError::Panicked {
            what: "a host function".into(),
            message,
        }),
        Command::Record(event, recording) => {
            event.reach(recording);
            Ok(())
        }
        Command::Wait(event, recording) => {
            event.wait_for(recording);
            Ok(())
        }
    }
}

/// Runs foreign code; the error is the message of its panic.
fn guarded<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    // Whatever the code was in the midst of is its own: nothing of the stream's is touched meanwhile.
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".into())
}

//! Worlds, and one rank's handle on its world.

mod collective;
mod heap;

use crate::allocator::Allocator;
use crate::backend::{Backend, Heap};
use crate::error::WorldError;
use crate::fault::{Report, Verdict, WatchId, Watched};
use crate::host::memory::{Memory, whole_pages};
use crate::host::{Heaps, Host};
use crate::hub::Hub;
use crate::hub::client::Client;
use crate::hub::server::Server;
use crate::hub::watches::Watches;
use crate::launch::Launch;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub use heap::Region;
pub(crate) use heap::{Kept, bytes_of};

/// The most ranks a world can have.
pub const MAX_RANKS: usize = 256;

/// How a world is set up. All ranks must give the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorldConfig {
    /// Bytes of symmetric heap per rank, rounded up to whole pages. 256 MiB by default; memory that is never allocated
    /// from the heap costs address space only.
    pub heap_bytes: usize,
    /// How long the rendezvous and every set-up collective wait for the other ranks; [`Duration::MAX`] is for ever. 30 s by
    /// default.
    pub timeout: Duration,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            heap_bytes: 256 << 20,
            timeout: Duration::from_secs(30),
        }
    }
}

/// One rank's handle on its world. Clones are the same rank.
///
/// Collectives (this type says which of its functions are) must be called by all ranks in the same order; one rank's
/// threads that share a handle must agree on that order among themselves.
///
/// When the last clone is dropped the rank leaves the world: what is in flight goes on, and later collectives of the
/// others fail. A clone that is dropped while its thread panics makes the rank dead, which aborts everything in flight.
///
/// `B` says where the symmetric heap lies and kernels run: on the host, or, once [`World::on`] has moved the world there, on
/// devices. Handles on both are one rank of one world.
#[derive(Debug)]
pub struct World<B: Backend = Host> {
    member: Arc<Member>,
    space: Arc<Space<B>>,
}

impl<B: Backend> Clone for World<B> {
    fn clone(&self) -> Self {
        Self {
            member: Arc::clone(&self.member),
            space: Arc::clone(&self.space),
        }
    }
}

/// One rank's part in the rendezvous.
#[derive(Debug)]
struct Member {
    rank: usize,
    size: usize,
    timeout: Duration,
    /// The number of the next collective. Held while one is under way: a rank takes part in one at a time.
    turn: Mutex<u64>,
    /// The number of the next watched operation.
    next_watch: AtomicU64,
    watches: Arc<Watches>,
    port: Port,
}

/// One rank's symmetric heap.
#[derive(Debug)]
struct Space<B: Backend> {
    heap: Arc<B::Heap>,
    allocator: Mutex<Allocator>,
    /// Tells this handle's regions from those of other worlds, and of other ranks of this process.
    identity: u64,
}

impl<B: Backend> Space<B> {
    fn new(heap: B::Heap) -> Arc<Self> {
        static IDENTITY: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            allocator: Mutex::new(Allocator::new(heap.bytes())),
            heap: Arc::new(heap),
            identity: IDENTITY.fetch_add(1, Ordering::Relaxed),
        })
    }
}

/// How a rank reaches the hub.
#[derive(Debug)]
enum Port {
    /// The hub is in this process, and so is its door if other ranks are processes.
    Local(Arc<Hub>, #[allow(dead_code)] Option<Server>), // the door is only kept open, and closed by dropping it
    Remote(Arc<Client>),
}

impl World {
    /// Runs `body` as `ranks` ranks, on a thread each.
    ///
    /// Returns what the ranks return, by rank. A rank that panics is dead to the others; once all have ended, the panic
    /// of the lowest such rank is resumed.
    ///
    /// # Errors
    /// Where there can be no such world.
    pub fn threads<T, F>(ranks: usize, config: &WorldConfig, body: F) -> Result<Vec<T>, WorldError>
    where
        T: Send,
        F: Fn(World) -> T + Sync,
    {
        let worlds = Self::of_threads(ranks, config)?;
        let body = &body;
        thread::scope(|scope| {
            let mut threads = Vec::with_capacity(ranks);
            let mut failed = None;
            for world in worlds {
                let rank = world.rank();
                if failed.is_some() {
                    world.declare_dead();
                    continue;
                }
                let handle = Arc::clone(&world.member);
                let run = move || {
                    catch_unwind(AssertUnwindSafe(|| body(world))).inspect_err(|_| handle.die())
                };
                let name = format!("iris-rank-{rank}");
                match thread::Builder::new().name(name).spawn_scoped(scope, run) {
                    Ok(thread) => threads.push(thread),
                    Err(source) => {
                        failed = Some(WorldError::Os {
                            what: "starting a rank's thread",
                            source,
                        });
                    }
                }
            }
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            if let Some(error) = failed {
                return Err(error);
            }
            ended
                .into_iter()
                .map(|result| match result {
                    Ok(Ok(value)) => Ok(value),
                    Ok(Err(panic)) | Err(panic) => resume_unwind(panic),
                })
                .collect()
        })
    }

    /// The handles of `ranks` ranks of this process, by rank, to be moved into threads.
    ///
    /// # Errors
    /// Where there can be no such world.
    pub fn of_threads(ranks: usize, config: &WorldConfig) -> Result<Vec<World>, WorldError> {
        check_size(ranks)?;
        let heap_bytes = pages(ranks, config)?;
        let memory = Arc::new(Memory::create(ranks, heap_bytes)?);
        let hub = Arc::new(Hub::new(ranks));
        let worlds = (0..ranks).map(|rank| {
            let watches = Arc::new(Watches::default());
            hub.join_local(rank, Arc::clone(&watches));
            let port = Port::Local(Arc::clone(&hub), None);
            Self::new(rank, ranks, config, Arc::clone(&memory), watches, port)
        });
        Ok(worlds.collect())
    }

    /// Joins, as one rank of a world whose ranks are processes, and waits for the others.
    ///
    /// Rank 0's process holds the rendezvous: a socket that belongs to no file system, and that only processes of the
    /// same user may connect to. All ranks must give the same configuration.
    ///
    /// # Errors
    /// [`WorldError::Timeout`] with the ranks that did not come; [`WorldError::Refused`] with rank 0's reason;
    /// [`WorldError::OtherUser`]; [`WorldError::Disagreement`] where configurations differ.
    pub fn join(launch: &Launch, config: &WorldConfig) -> Result<World, WorldError> {
        let (rank, size) = (launch.rank(), launch.size());
        check_size(size)?;
        if rank >= size {
            return Err(WorldError::NoSuchRank { rank, size });
        }
        let heap_bytes = pages(size, config)?;
        let name = launch.socket_name();
        let watches = Arc::new(Watches::default());
        let (memory, port) = if rank == 0 {
            let memory = Arc::new(Memory::create(size, heap_bytes)?);
            let hub = Arc::new(Hub::new(size));
            hub.join_local(rank, Arc::clone(&watches));
            let server = match size {
                1 => None,
                _ => Some(Server::start(&name, &hub, &memory, config.timeout)?),
            };
            (memory, Port::Local(hub, server))
        } else {
            let watches = Arc::clone(&watches);
            let (client, memory) = Client::join(&name, rank, size, config.timeout, watches)?;
            (Arc::new(memory), Port::Remote(client))
        };
        let world = Self::new(rank, size, config, memory, watches, port);
        // The first collective is the rendezvous: it is complete when all ranks have joined.
        world.rendezvous(heap_bytes)?;
        Ok(world)
    }

    fn new(
        rank: usize,
        size: usize,
        config: &WorldConfig,
        memory: Arc<Memory>,
        watches: Arc<Watches>,
        port: Port,
    ) -> Self {
        Self {
            member: Arc::new(Member {
                rank,
                size,
                timeout: config.timeout,
                turn: Mutex::new(0),
                next_watch: AtomicU64::new(0),
                watches,
                port,
            }),
            space: Space::new(Heaps { memory, rank }),
        }
    }

    /// Makes this rank dead to the others, as if its process had been killed.
    fn declare_dead(&self) {
        self.member.die();
    }
}

impl<B: Backend> World<B> {
    /// The same rank with another heap.
    pub(crate) fn with_heap<C: Backend>(&self, heap: C::Heap) -> World<C> {
        World {
            member: Arc::clone(&self.member),
            space: Space::new(heap),
        }
    }

    /// The symmetric heaps of all ranks, as this rank sees them.
    pub fn heap(&self) -> &Arc<B::Heap> {
        &self.space.heap
    }

    /// This rank's number, from 0.
    pub fn rank(&self) -> usize {
        self.member.rank
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.member.size
    }

    /// How long set-up collectives wait for the other ranks.
    pub fn timeout(&self) -> Duration {
        self.member.timeout
    }

    /// Has `operation` told to stop when a rank dies, and asked what it is doing when one faults. Collective.
    ///
    /// The world keeps `operation` until [`World::unwatch`]. If it holds a clone of the world, neither is dropped before.
    ///
    /// # Errors
    /// Those of [`World::agree`]: all ranks must watch operations of one name.
    pub fn watch(&self, name: &str, operation: Arc<dyn Watched>) -> Result<WatchId, WorldError> {
        let id = self.member.next_watch.fetch_add(1, Ordering::Relaxed);
        // Watched before it is agreed upon: a rank that dies just after may already be awaited.
        self.member.watches.insert(id, operation);
        let fields = [("operation", name.to_owned()), ("number", id.to_string())];
        self.agree("watch", &fields)
            .inspect_err(|_| self.member.watches.remove(id))?;
        Ok(WatchId(id))
    }

    /// Watches the operation no longer. Not collective. Once it has returned, neither an inquiry nor a rank's death aborts
    /// this rank's operation any more, and what the operation would write to may be freed.
    pub fn unwatch(&self, id: WatchId) {
        self.member.watches.remove(id.0);
    }

    /// The verdict on the fault number `epoch` of an operation, of which this rank has `own` to report.
    ///
    /// The first report starts an inquiry: every rank's operation is aborted and asked what it is doing, and the waits
    /// are followed to the rank at fault. Everybody who asks for the same operation and epoch, then or later, gets the
    /// same verdict, until it is cleared or a newer epoch is asked for. Blocks for less than 1.5 s, whatever has died.
    pub fn verdict(&self, id: WatchId, epoch: u64, own: Report) -> Verdict {
        match &self.member.port {
            Port::Local(hub, _) => hub.verdict(self.member.rank, id.0, epoch, own),
            Port::Remote(client) => client.verdict(id.0, epoch, own),
        }
    }

    /// Forgets the verdict on an operation. Not collective: every rank calls it between the two barriers of a reset,
    /// before it clears what [`Watched::abort`] sets. Once it has returned, no inquiry into an earlier fault aborts this
    /// rank's operation any more.
    pub fn clear_verdict(&self, id: WatchId) {
        self.member.watches.reset(id.0);
        match &self.member.port {
            Port::Local(hub, _) => hub.clear_verdict(id.0),
            Port::Remote(client) => client.clear_verdict(id.0),
        }
    }
}

impl Member {
    fn die(&self) {
        match &self.port {
            Port::Local(hub, _) => hub.died(self.rank),
            Port::Remote(client) => client.die(),
        }
    }
}

impl<B: Backend> Drop for World<B> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.member.die();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        match &self.port {
            Port::Local(hub, _) => hub.left(self.rank),
            Port::Remote(client) => client.leave(),
        }
    }
}

fn check_size(ranks: usize) -> Result<(), WorldError> {
    match ranks {
        0 => Err(WorldError::NoRanks),
        1..=MAX_RANKS => Ok(()),
        _ => Err(WorldError::TooManyRanks {
            ranks,
            max: MAX_RANKS,
        }),
    }
}

fn pages(size: usize, config: &WorldConfig) -> Result<usize, WorldError> {
    whole_pages(config.heap_bytes).ok_or(WorldError::HeapTooLarge {
        size,
        heap_bytes: config.heap_bytes,
    })
}

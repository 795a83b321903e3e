//! The symmetric heap on devices: each rank's lies in its device's memory, and all are mapped for each device.

use super::{Device, DeviceError, Driver, Event, Function, Raw, Reach, SharedMemory, Stream};
use crate::backend::Heap;
use crate::error::WorldError;
use crate::host::Host;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How a world is set up on devices. All ranks must give the same heap and sharing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Bytes of symmetric heap per rank, rounded up to what the device can share. Taken at once, whether allocated from or not.
    /// 1 GiB by default.
    pub heap_bytes: usize,
    /// This rank's device, as the runtime counts those visible. By default rank r takes device r; a rank that sees one device
    /// only takes that.
    pub device: Option<usize>,
    /// Whether several ranks may use one device. Each then gets an equal part of half its blocks, since blocks that wait for each
    /// other must all be resident at once. For tests: it is slower than one rank alone.
    ///
    /// Ranks that are threads share the device's context, too, and some of what the runtime does waits for all kernels of a context:
    /// also for one that waits for the rank that asked. So:
    /// - What gives memory or modules back - plain buffers and operations that are dropped - is put off until the next collective
    ///   allocation, where no rank has a call under way that another has still to make. It needs the ranks to make calls and
    ///   collectives in the same order.
    /// - Whoever makes calls directly to the runtime sees to that himself: `cuMemFree`, `cuMemFreeHost`, `cuModuleUnload`,
    ///   `cuCtxSynchronize` and their like only where no other rank's call waits.
    /// - Each stream needs a queue of the device for itself, or a kernel may be kept from running by one that waits for it:
    ///   `CUDA_DEVICE_MAX_CONNECTIONS` is to be set to the number of streams, at most 32. Each rank has one stream for the host's
    ///   copies beside its own.
    ///
    /// Whatever is done wrong here ends with the budget of the calls, and not in a process that hangs. Ranks that are processes have
    /// contexts of their own, between which the device switches in slices of time.
    pub share_devices: bool,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            heap_bytes: 1 << 30,
            device: None,
            share_devices: false,
        }
    }
}

/// The symmetric heaps of all ranks, as one rank's device sees them.
///
/// Invariant: `bases[r]` is the address, for kernels of `device`, of rank r's heap, whose mapping lives as long as this.
#[derive(Debug)]
pub struct Heaps<D: Driver> {
    /// What is given back when all ranks have met.
    retired: Mutex<Vec<Box<dyn Retired>>>,
    /// Whether anything needs to be retired.
    shared: bool,
    bases: Vec<Raw>,
    /// Whether kernels here can update memory of each rank atomically; `None` where the runtime cannot tell, since the other device
    /// is not visible to this process.
    atomics: Vec<Option<bool>>,
    ranks_here: usize,
    rank: usize,
    /// This rank's streams, those of operations and the user's.
    streams: Mutex<Vec<Weak<Stream<D>>>>,
    /// Where this rank's work ends on streams of others that it uses no more.
    left: Mutex<Vec<Event<D>>>,
    /// For copies of the host's.
    transfers: Stream<D>,
    own: SharedMemory<D>,
    _peers: Vec<Option<SharedMemory<D>>>,
    device: Device<D>,
}

/// What can wait to be dropped.
trait Retired: Debug + Send {}

impl<T: Debug + Send> Retired for T {}

/// What ranks tell each other of their heaps; the descriptor goes with it.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    name: String,
    uuid: String,
    bytes: usize,
}

impl<D: Driver> Heaps<D> {
    /// Where kernels of this rank's device see the heap of `rank`.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn base(&self, rank: usize) -> Raw {
        self.bases[rank]
    }

    /// The same for all ranks, in their order.
    pub fn bases(&self) -> &[Raw] {
        &self.bases
    }

    /// This rank's device.
    pub fn device(&self) -> &Device<D> {
        &self.device
    }

    /// This rank's heap.
    pub fn own(&self) -> &SharedMemory<D> {
        &self.own
    }

    /// How many ranks use this rank's device.
    pub fn ranks_here(&self) -> usize {
        self.ranks_here
    }

    /// Of `most` blocks that fit the device at once, how many a grid of this rank may have whose blocks wait for each other or for
    /// those of other ranks.
    ///
    /// A rank alone may fill its device. Ranks that share one take half of it together, so that all their grids are resident at once
    /// beside whatever else a peer must run before it signals.
    pub(super) fn part(&self, most: u32) -> u32 {
        match u32::try_from(self.ranks_here) {
            Ok(1) => most,
            ranks => most / ranks.unwrap_or(u32::MAX).saturating_mul(2),
        }
    }

    /// Whether kernels here can update memory of `peer` atomically; `None` where the runtime cannot tell, since the other device is
    /// not visible to this process.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn atomics(&self, peer: usize) -> Option<bool> {
        self.atomics[peer]
    }

    /// The rank they are seen by.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Has `stream` waited for by [`Heaps::synchronize`] as long as it lives.
    pub(super) fn watch(&self, stream: &Arc<Stream<D>>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|known| known.strong_count() > 0);
        streams.push(Arc::downgrade(stream));
    }

    /// This rank's own streams, and one that is nobody's yet and will be the next that is asked for.
    ///
    /// # Errors
    /// Where the runtime makes none.
    pub fn own_streams(&self) -> Result<Vec<Arc<Stream<D>>>, DeviceError> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = streams.iter().filter_map(Weak::upgrade);
        let mut own: Vec<_> = alive.filter(|stream| stream.is_owned()).collect();
        own.push(Arc::new(Stream::new(&self.device)?));
        Ok(own)
    }

    /// Has what this rank has enqueued so far on another's stream waited for by [`Heaps::synchronize`], which will not know the stream
    /// any more.
    pub(super) fn leave(&self, stream: &Stream<D>) {
        let event = Event::new(&self.device).and_then(|event| {
            stream.record(&event)?;
            Ok(event)
        });
        // A device that refuses has failed, and runs nothing.
        if let Ok(event) = event {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.push(event);
        }
    }

    /// Waits for everything on this rank's streams. Not for the whole device: another rank of it may be waiting for this one.
    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        let streams: Vec<_> = {
            let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.iter().filter_map(Weak::upgrade).collect()
        };
        let left = left.iter().map(Event::synchronize);
        let ended = left.chain(streams.iter().map(|stream| stream.synchronize()));
        // All are waited for, whatever the first has to say.
        ended.fold(Ok(()), Result::and)
    }

    /// Drops `what`, which nothing uses that will yet be enqueued: at once when everything on this rank's streams has run, or, where
    /// ranks share devices, when all have met (see [`DeviceConfig::share_devices`]).
    pub fn retire(&self, what: impl Debug + Send + 'static) {
        // Waited for here, and not in the runtime's own free, which may hold locks that other ranks' launches need. Where the device
        // has failed, nothing runs.
        let _ = self.synchronize();
        if self.shared {
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            retired.push(Box::new(what));
        }
    }

    /// The stream of the host's own copies, on which nothing ever waits for a peer.
    pub fn transfers(&self) -> &Stream<D> {
        &self.transfers
    }
}

impl<D: Driver> Heap for Heaps<D> {
    fn bytes(&self) -> usize {
        self.own.len()
    }

    fn device_ordinal(&self) -> usize {
        self.device.ordinal()
    }

    unsafe fn zero(&self, offset: usize, bytes: usize) -> Result<(), WorldError> {
        self.transfers.fill(&self.own, offset, bytes, 0)?;
        Ok(self.transfers.synchronize()?)
    }

    fn all_are_here(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let retired = std::mem::take(&mut *retired);
        drop(retired); // after the lock is given back
    }
}

/// The device of `rank` among `count`.
fn choose<D: Driver>(rank: usize, size: usize, config: &DeviceConfig) -> Result<usize, WorldError> {
    let count = Device::<D>::count()?;
    match config.device {
        Some(ordinal) => Ok(ordinal),
        None if rank < count || count == 1 => Ok(rank.min(count - 1)),
        None if config.share_devices && count > 0 => Ok(rank % count),
        None => Err(WorldError::TooFewDevices { rank, size, count }),
    }
}

impl World<Host> {
    /// The same world with its symmetric heap on devices, one for each rank, where kernels of all ranks reach all heaps. Collective.
    ///
    /// # Errors
    /// On all ranks or none: where a rank has no device, or no device of its own ([`WorldError::SharedDevice`]); where a device
    /// lacks memory or cannot share it; where two devices cannot reach each other ([`WorldError::Unreachable`]);
    /// [`WorldError::Disagreement`] where ranks give different configurations; those of [`World::barrier`].
    pub fn on<D: Driver>(&self, config: &DeviceConfig) -> Result<World<D>, WorldError> {
        let (rank, size) = (self.rank(), self.size());
        let opened = choose::<D>(rank, size, config).and_then(|ordinal| {
            let device = Device::<D>::open(ordinal)?;
            let own = SharedMemory::new(&device, config.heap_bytes)?;
            let file = own.export()?;
            Ok((device, own, file))
        });
        let (device, own, file) = self.all_succeed("opening devices", opened)?;
        self.agree(
            "the world on devices",
            &[
                ("runtime", D::NAME.to_owned()),
                ("heap_bytes", own.len().to_string()),
                ("share_devices", config.share_devices.to_string()),
            ],
        )?;
        let info = device.info();
        let told = Told {
            name: format!("{} ({})", info.name, info.pci_bus_id),
            uuid: info.uuid.to_string(),
            bytes: own.len(),
        };
        let told = serde_json::to_vec(&told).map_err(malformed)?;
        let gathered = self.exchange_files("heaps of devices", &told, Some(file.as_fd()))?;
        drop(file);
        let mut told = Vec::with_capacity(size);
        let mut files = Vec::with_capacity(size);
        for (bytes, file) in gathered {
            told.push(serde_json::from_slice::<Told>(&bytes).map_err(malformed)?);
            files.push(file);
        }
        if !config.share_devices {
            for (other, its) in told.iter().enumerate() {
                let first = told.iter().position(|first| first.uuid == its.uuid);
                if let Some(rank) = first.filter(|&first| first < other) {
                    return Err(WorldError::SharedDevice {
                        rank,
                        other,
                        device: its.name.clone(),
                    });
                }
            }
        }
        let mapped = Self::map(rank, &told, &files, device, own);
        let mut heaps = self.all_succeed("mapping the heaps of peers", mapped)?;
        heaps.shared = config.share_devices;
        let mine = &told[rank].uuid;
        heaps.ranks_here = told.iter().filter(|its| its.uuid == *mine).count();
        Ok(self.with_heap(heaps))
    }

    fn map<D: Driver>(
        rank: usize,
        told: &[Told],
        files: &[Option<impl AsFd>],
        device: Device<D>,
        own: SharedMemory<D>,
    ) -> Result<Heaps<D>, WorldError> {
        let mut heaps = Heaps {
            retired: Mutex::default(),
            shared: false,
            bases: Vec::new(),
            atomics: Vec::new(),
            ranks_here: 1,
            rank,
            streams: Mutex::default(),
            left: Mutex::default(),
            transfers: Stream::new(&device)?,
            own,
            _peers: Vec::new(),
            device,
        };
        for (peer, (its, file)) in told.iter().zip(files).enumerate() {
            let unreachable = || WorldError::Unreachable {
                rank,
                device: told[rank].name.clone(),
                peer,
                peer_device: its.name.clone(),
            };
            let reach = reach(&heaps.device, &its.uuid)?;
            if reach.is_some_and(|reach| !reach.access) {
                return Err(unreachable());
            }
            heaps.atomics.push(reach.map(|reach| reach.atomics));
            let imported = match file {
                _ if peer == rank => None,
                // A device that is not visible here says only now whether it can be reached.
                Some(file) => Some(
                    SharedMemory::import(&heaps.device, file, its.bytes).map_err(|error| {
                        match error {
                            DeviceError::OutOfMemory { .. } => error.into(),
                            _ if reach.is_none() => unreachable(),
                            error => WorldError::from(error),
                        }
                    })?,
                ),
                None => return Err(unreachable()),
            };
            let base = imported.as_ref().unwrap_or(&heaps.own).address();
            heaps.bases.push(base);
            heaps._peers.push(imported);
        }
        Ok(heaps)
    }
}

/// How far kernels on `device` reach into memory of the device that `uuid` names; `None` where this process does not see it.
fn reach<D: Driver>(device: &Device<D>, uuid: &str) -> Result<Option<Reach>, DeviceError> {
    let driver = device.driver();
    for ordinal in 0..driver.count()? {
        if driver.info(ordinal)?.uuid.to_string() == uuid {
            let reach = match ordinal == device.ordinal() {
                true => Reach {
                    access: true,
                    atomics: true,
                },
                false => driver.reach(device.ordinal(), ordinal)?,
            };
            return Ok(Some(reach));
        }
    }
    Ok(None)
}

fn malformed(error: serde_json::Error) -> WorldError {
    WorldError::Protocol {
        detail: format!("what a rank told of its device's heap is malformed: {error}"),
    }
}

impl<D: Driver> World<D> {
    /// This rank's device.
    pub fn device(&self) -> &Device<D> {
        self.heap().device()
    }

    /// Where kernels of this rank's device see `rank`'s heap. An address on one rank translates to another by `base + offset`.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn base(&self, rank: usize) -> Raw {
        self.heap().base(rank)
    }

    /// Where this rank's device sees the heaps of all ranks, in their order: what a kernel needs to reach them.
    pub fn bases(&self) -> &[Raw] {
        self.heap().bases()
    }

    /// The most blocks that this rank can launch of a kernel whose blocks wait for each other, or for those of other ranks:
    /// [`RankStream::launch`](super::RankStream::launch) refuses more. Where ranks share a device each has a part of it; 0 where a part
    /// is less than a block.
    pub fn most_blocks(&self, function: &Function<D>) -> u32 {
        self.heap().part(function.shape().most_blocks)
    }
}

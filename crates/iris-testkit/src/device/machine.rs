//! The GPUs of this host: one test at a time, and ranks placed on them.

use super::Gpu;
use crate::skipped;
use iris_heap::device::Device;
use iris_kernels::device::nvrtc::Nvrtc;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The worlds that tests go through, restricted: `IRIS_TEST_WORLDS=1,2`.
const WORLDS: &str = "IRIS_TEST_WORLDS";
/// The least time that a wait of a kernel has where nothing is to fail, in milliseconds: under a tool that slows kernels down.
const BUDGET: &str = "IRIS_TEST_BUDGET_MS";
/// What it is otherwise.
const DEFAULT_BUDGET: Duration = Duration::from_secs(10);
/// The largest world that tests go through.
const LARGEST: usize = 8;

/// All GPUs of this host, for one test alone: grids that wait for each other fill them. Kept from test to test: opening takes long.
#[derive(Debug)]
pub struct Gpus {
    test: &'static str,
    devices: &'static [Device<Gpu>],
    since: Instant,
    _alone: MutexGuard<'static, ()>,
}

impl Gpus {
    /// The GPUs, or `None`, said in a line that begins with `SKIPPED`, where the host has fewer than `least` or no compiler.
    ///
    /// # Panics
    /// Where there are GPUs that cannot be opened: that is no reason to skip a test.
    pub fn take(test: &'static str, least: usize) -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        static DEVICES: OnceLock<Vec<Device<Gpu>>> = OnceLock::new();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match Device::<Gpu>::count() {
            Ok(0) => return skip(test, "there is no GPU"),
            Ok(count) => count,
            Err(error) => return skip(test, &error.to_string()),
        };
        if let Err(error) = Nvrtc::load() {
            return skip(test, &error.to_string());
        }
        if count < least {
            return skip(test, &format!("it needs {least} GPUs, there are {count}"));
        }
        let devices = DEVICES.get_or_init(|| {
            (0..count)
                .map(|at| match Device::open(at) {
                    Ok(device) => device,
                    Err(error) => panic!("GPU {at} cannot be opened: {error}"),
                })
                .collect()
        });
        Some(Self {
            test,
            devices,
            since: Instant::now(),
            _alone: alone,
        })
    }

    /// The GPUs.
    pub fn devices(&self) -> &'static [Device<Gpu>] {
        self.devices
    }

    /// What kernels are compiled for.
    pub fn architecture(&self) -> &'static str {
        &self.devices[0].info().architecture
    }

    /// Worlds of 1, 2, 4 and 8 ranks with a GPU each, as many as there are; then those of 4 and 8 ranks that share GPUs.
    pub fn worlds(&self) -> Vec<Placement> {
        let own = [1, 2, 4, LARGEST]
            .into_iter()
            .filter(|&world| world <= self.devices.len());
        let shared = [4, LARGEST]
            .into_iter()
            .filter(|&world| world > self.devices.len());
        own.chain(shared)
            .filter(|world| wanted(*world))
            .map(|world| self.place(world))
            .collect()
    }

    /// `world` ranks, with a GPU each as far as there are any, the next one's around where there are not.
    pub fn place(&self, world: usize) -> Placement {
        let count = self.devices.len();
        Placement {
            devices: (0..world)
                .map(|rank| self.devices[rank % count].clone())
                .collect(),
            each: world.div_ceil(count),
        }
    }

    /// The largest world of ranks with a GPU each, of 1, 2, 4, and 8, and at least 2: on a host of one GPU they share it.
    pub fn usual(&self) -> Placement {
        let largest = [LARGEST, 4, 2]
            .into_iter()
            .find(|&world| world <= self.devices.len());
        self.place(largest.unwrap_or(2))
    }
}

impl Drop for Gpus {
    fn drop(&mut self) {
        println!("{}: {:.1} s", self.test, self.since.elapsed().as_secs_f64());
    }
}

fn skip<T>(test: &str, why: &str) -> Option<T> {
    skipped(test, why);
    None
}

/// Whether tests are to go through the world of so many ranks: `IRIS_TEST_WORLDS` may leave it out.
pub fn wanted(world: usize) -> bool {
    std::env::var(WORLDS).map_or(true, |worlds| {
        worlds.split(',').any(|one| one.trim() == world.to_string())
    })
}

/// How long a wait of a kernel may last where nothing is to fail.
pub fn budget() -> Duration {
    budget_or(DEFAULT_BUDGET)
}

/// The same, `default` unless `IRIS_TEST_BUDGET_MS` says another.
pub fn budget_or(default: Duration) -> Duration {
    std::env::var(BUDGET)
        .ok()
        .and_then(|budget| budget.parse().ok())
        .map_or(default, Duration::from_millis)
}

/// Which GPU each rank has.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Each rank's.
    pub devices: Vec<Device<Gpu>>,
    /// The most ranks that one GPU has. Their grids must fit it together.
    pub each: usize,
}

impl Placement {
    /// Ranks.
    pub fn world(&self) -> usize {
        self.devices.len()
    }

    /// Whether some GPU has several ranks.
    pub fn is_shared(&self) -> bool {
        self.each > 1
    }

    /// The most blocks of a grid that waits for its peers, where `most` fit a GPU at once. Where ranks share a GPU half of it stays
    /// free: a peer that is waited for may have to run another kernel first.
    pub fn blocks(&self, most: u32) -> u32 {
        match self.each as u32 {
            1 => most,
            each => (most / (2 * each)).max(1),
        }
    }
}

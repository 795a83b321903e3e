//! Where the ranks are: threads of this process, processes that it starts, or processes that a launcher has started.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use iris::heap::launch::{self, Launch, Launcher};
use iris::heap::{MAX_RANKS, World, WorldConfig, WorldError};
use iris::ops::OpError;

use crate::cli::args::WorldArguments;
use crate::cli::error::{self, Unusable};

/// How many ranks there are where nobody says.
const DEFAULT_RANKS: usize = 2;
/// How long the other ranks have to end by themselves once one has failed.
const GRACE: Duration = Duration::from_secs(5);
/// How much longer for each rank that has a GPU, of which one host has so many at most: a driver takes GPUs back from one process after
/// the other. On 2 H200 the last of 4 processes ended 1.9 s after the first had been killed, for 1.8 of which they waited for a lock in the driver.
const TAKEN_BACK: Duration = Duration::from_millis(1500);
const MOST_GPUS: usize = 8;
/// How often the ranks' processes are looked after.
const POLL: Duration = Duration::from_millis(10);

/// Where the ranks of a world are.
#[derive(Debug)]
pub(crate) enum Place {
    /// Threads of this process.
    Threads {
        /// How many.
        ranks: usize,
    },
    /// Processes that this one is to start.
    Parent {
        /// How many.
        ranks: usize,
    },
    /// This process is one of them.
    Rank(Launch),
}

impl Place {
    /// What the launcher's environment says, or else the arguments.
    pub(crate) fn find(arguments: &WorldArguments) -> Result<Self, Unusable> {
        Self::choose(arguments, own_place()?)
    }

    fn choose(arguments: &WorldArguments, launch: Option<Launch>) -> Result<Self, Unusable> {
        if let Some(launch) = launch {
            return match arguments.ranks {
                Some(given) if given != launch.size() => Err(Unusable::RanksDiffer {
                    given,
                    world: launch.size(),
                }),
                _ => Ok(Self::Rank(launch)),
            };
        }
        let ranks = arguments.ranks.unwrap_or(DEFAULT_RANKS);
        if !(1..=MAX_RANKS).contains(&ranks) {
            return Err(Unusable::Ranks {
                given: ranks,
                max: MAX_RANKS,
            });
        }
        Ok(if arguments.processes {
            Self::Parent { ranks }
        } else {
            Self::Threads { ranks }
        })
    }

    /// How many ranks there are.
    pub(crate) fn ranks(&self) -> usize {
        match self {
            Self::Threads { ranks } | Self::Parent { ranks } => *ranks,
            Self::Rank(launch) => launch.size(),
        }
    }

    /// How many processes they are in.
    pub(crate) fn processes(&self) -> usize {
        match self {
            Self::Threads { .. } => 1,
            Self::Parent { ranks } => *ranks,
            Self::Rank(launch) => launch.size(),
        }
    }

    /// In words.
    pub(crate) fn how(&self) -> &'static str {
        match self {
            Self::Threads { .. } => "threads",
            Self::Parent { .. } => "processes",
            Self::Rank(launch) => started_by(launch.launcher()),
        }
    }

    /// Runs `body` as each of the ranks that are in this process. Returns what rank 0 does, or the only rank here.
    pub(crate) fn run<R: Send>(
        &self,
        config: &WorldConfig,
        body: impl Fn(&World) -> anyhow::Result<R> + Sync,
    ) -> anyhow::Result<R> {
        match self {
            Self::Rank(launch) => body(&World::join(launch, config)?),
            Self::Threads { ranks } | Self::Parent { ranks } => {
                let results = World::threads(*ranks, config, |world| body(&world))?;
                first_cause(results)
            }
        }
    }
}

/// The result of rank 0 where no rank failed; else the error that is most likely the cause of the others, which is one that
/// does not merely say that another rank has left.
fn first_cause<R>(results: Vec<anyhow::Result<R>>) -> anyhow::Result<R> {
    let mut first = None;
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(value) => first = first.or(Some(value)),
            Err(error) => errors.push(error),
        }
    }
    let cause = errors
        .iter()
        .position(|error| !is_consequence(error))
        .unwrap_or(0);
    if errors.is_empty() {
        first.context("a world without ranks")
    } else {
        Err(errors.swap_remove(cause))
    }
}

fn is_consequence(error: &anyhow::Error) -> bool {
    let gone = |error: &WorldError| {
        matches!(
            error,
            WorldError::RankLeft { .. } | WorldError::RankDied { .. }
        )
    };
    error.chain().any(|cause| {
        cause.downcast_ref::<WorldError>().is_some_and(gone)
            || matches!(cause.downcast_ref::<OpError>(), Some(OpError::World(error)) if gone(error))
    })
}

/// This process's place in a world that a launcher has started.
fn own_place() -> Result<Option<Launch>, Unusable> {
    Launch::from_env().map_err(|error| Unusable::Launcher(error.to_string()))
}

/// This process's rank, where a launcher has given it one.
pub(crate) fn own_rank() -> Option<usize> {
    own_place().ok().flatten().map(|launch| launch.rank())
}

/// What this process's environment says of a launcher, in words.
pub(crate) fn describe() -> anyhow::Result<Option<String>> {
    Ok(own_place()?.map(|launch| {
        format!(
            "{}: rank {} of {}",
            started_by(launch.launcher()),
            launch.rank(),
            launch.size()
        )
    }))
}

fn started_by(launcher: Launcher) -> &'static str {
    match launcher {
        Launcher::Iris => "processes",
        Launcher::Torchrun => "processes of torchrun",
        Launcher::OpenMpi => "processes of mpirun",
        Launcher::Srun => "processes of srun",
        _ => "processes of a launcher",
    }
}

/// Whether an environment variable is one by which a launcher tells a process its place.
pub(crate) fn is_launchers(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "IRIS_RANK",
        "IRIS_WORLD_SIZE",
        "IRIS_RENDEZVOUS",
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "GROUP_RANK",
    ];
    const PREFIXES: [&str; 5] = ["TORCHELASTIC_", "OMPI_", "PMIX_", "PMI_", "SLURM_"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Starts this program once for each rank, with the arguments that it was started with itself, and waits for all. Returns the
/// exit status: 0 where all succeeded.
///
/// Once a rank has failed the others notice by themselves; those that have not ended when the grace is over are killed. It is longer where
/// they may be `on_gpus`.
pub(crate) fn processes(ranks: usize, on_gpus: bool) -> anyhow::Result<u8> {
    let program = env::current_exe().context("finding this program")?;
    let mut processes = launch::spawn(ranks, |_| {
        let mut command = Command::new(&program);
        command.args(env::args_os().skip(1)).stdin(Stdio::null());
        command
    })?;
    let mut ended = vec![None; ranks];
    let gpus = if on_gpus { ranks.min(MOST_GPUS) } else { 0 };
    let grace = GRACE + TAKEN_BACK * gpus as u32;
    let mut last_call = None;
    while ended.iter().any(Option::is_none) {
        for (child, ended) in processes.children().iter_mut().zip(&mut ended) {
            if ended.is_none() {
                *ended = child.try_wait().context("waiting for the ranks")?;
            }
        }
        if ended.iter().flatten().any(|status| !status.success()) {
            let last_call = *last_call.get_or_insert_with(|| Instant::now() + grace);
            if Instant::now() > last_call {
                break;
            }
        }
        thread::sleep(POLL);
    }
    drop(processes);
    for (rank, status) in ended.iter().enumerate() {
        match status {
            Some(status) => report_signal(rank, *status),
            None => error::say(&format!(
                "rank {rank} did not end after another rank had failed, and was killed"
            )),
        }
    }
    Ok(common_status(&ended))
}

fn report_signal(rank: usize, status: ExitStatus) {
    if let Some(signal) = status.signal() {
        error::say(&format!("rank {rank} was ended by signal {signal}"));
    }
}

/// 0 where all succeeded; 2 where some rank found its arguments unusable; else 1.
fn common_status(ended: &[Option<ExitStatus>]) -> u8 {
    let codes = || {
        ended
            .iter()
            .map(|status| status.and_then(|status| status.code()))
    };
    if codes().all(|code| code == Some(0)) {
        0
    } else if codes().any(|code| code == Some(2)) {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Backend;

    fn arguments(ranks: Option<usize>, processes: bool) -> WorldArguments {
        WorldArguments {
            ranks,
            processes,
            backend: Backend::Auto,
            share_devices: false,
            heap: None,
        }
    }

    #[test]
    fn without_a_launcher_the_arguments_say_where_ranks_are() {
        let choose = |ranks, processes| Place::choose(&arguments(ranks, processes), None);
        assert!(matches!(
            choose(None, false),
            Ok(Place::Threads { ranks: 2 })
        ));
        assert!(matches!(
            choose(Some(5), true),
            Ok(Place::Parent { ranks: 5 })
        ));
        assert!(matches!(
            choose(Some(0), false),
            Err(Unusable::Ranks { given: 0, .. })
        ));
        assert!(matches!(
            choose(Some(MAX_RANKS + 1), true),
            Err(Unusable::Ranks { .. })
        ));
    }

    #[test]
    fn a_launcher_has_the_last_word() {
        let launch = Launch::new(1, 3, "somewhere").unwrap();
        let choose =
            |ranks, processes| Place::choose(&arguments(ranks, processes), Some(launch.clone()));
        for place in [choose(None, false), choose(Some(3), true)] {
            let place = place.unwrap();
            assert_eq!((place.ranks(), place.processes()), (3, 3));
            assert!(matches!(place, Place::Rank(_)));
        }
        assert!(matches!(
            choose(Some(2), false),
            Err(Unusable::RanksDiffer { given: 2, world: 3 })
        ));
    }

    #[test]
    fn the_cause_comes_before_its_consequences() {
        let left = || {
            anyhow::Error::from(WorldError::RankLeft {
                rank: 1,
                during: "barrier".into(),
            })
        };
        let cause = first_cause::<()>(vec![
            Err(left()),
            Err(anyhow::anyhow!("cause")),
            Err(left()),
        ]);
        assert_eq!(cause.unwrap_err().to_string(), "cause");
        assert!(first_cause::<()>(vec![Ok(()), Err(left())]).is_err());
        assert_eq!(first_cause(vec![Ok(3), Ok(4)]).unwrap(), 3);
    }

    #[test]
    fn the_worst_exit_status_counts() {
        let exits = |codes: &[i32]| {
            let statuses: Vec<_> = codes
                .iter()
                .map(|code| Some(ExitStatus::from_raw(code << 8)))
                .collect();
            common_status(&statuses)
        };
        assert_eq!(exits(&[0, 0]), 0);
        assert_eq!(exits(&[0, 1]), 1);
        assert_eq!(exits(&[1, 2, 0]), 2);
        assert_eq!(
            common_status(&[Some(ExitStatus::from_raw(9)), Some(ExitStatus::from_raw(0))]),
            1
        );
        assert_eq!(common_status(&[Some(ExitStatus::from_raw(0)), None]), 1);
    }

    #[test]
    fn launchers_variables_are_known() {
        for name in [
            "RANK",
            "IRIS_WORLD_SIZE",
            "OMPI_COMM_WORLD_RANK",
            "SLURM_PROCID",
        ] {
            assert!(is_launchers(name), "{name}");
        }
        for name in ["PATH", "RANKING", "IRIS_CUDA_LIBRARY", "IRIS_CACHE_DIR"] {
            assert!(!is_launchers(name), "{name}");
        }
    }
}

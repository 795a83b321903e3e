//! Starting the processes of a world.

use super::{LaunchError, environment};
use crate::MAX_RANKS;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};

/// The processes of a world's ranks. Those that still run when it is dropped are killed.
#[derive(Debug)]
pub struct Processes {
    children: Vec<Child>,
}

/// Starts a process for each of `ranks` ranks, with what [`Launch::from_env`](crate::Launch::from_env) reads in its
/// environment. `command` makes the command of a rank.
///
/// The processes are killed when the thread that called this ends, however it ends.
///
/// ```no_run
/// use std::process::Command;
///
/// let program = std::env::current_exe()?;
/// let ranks = iris_heap::launch::spawn(4, |_rank| Command::new(&program))?;
/// assert!(ranks.wait()?.iter().all(|status| status.success()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Where there can be no such world, or a process cannot be started; those that were are killed.
pub fn spawn(
    ranks: usize,
    mut command: impl FnMut(usize) -> Command,
) -> Result<Processes, LaunchError> {
    if !(1..=MAX_RANKS).contains(&ranks) {
        return Err(LaunchError::Size { ranks });
    }
    let rendezvous = fresh_name();
    let parent = getpid();
    let mut processes = Processes {
        children: Vec::with_capacity(ranks),
    };
    for rank in 0..ranks {
        let mut command = command(rank);
        command
            .env(environment::IRIS_RANK, rank.to_string())
            .env(environment::IRIS_WORLD_SIZE, ranks.to_string())
            .env(environment::IRIS_RENDEZVOUS, &rendezvous);
        // SAFETY: between fork and exec only two system calls are made, neither of which allocates or takes a lock.
        unsafe { command.pre_exec(move || die_with(parent)) };
        let child = command.spawn().map_err(|source| LaunchError::Spawn {
            rank,
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        processes.children.push(child);
    }
    Ok(processes)
}

/// Has the calling process killed when `parent` ends.
fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Had the parent ended before that, nobody would ever send the signal.
    if getppid() == Some(parent) {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::NotFound))
    }
}

/// A name that nothing else has: 128 random bits.
fn fresh_name() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}

impl Processes {
    /// Waits for all ranks' processes; how each ended, by rank.
    ///
    /// # Errors
    /// Where the system cannot tell.
    pub fn wait(mut self) -> io::Result<Vec<ExitStatus>> {
        self.children.iter_mut().map(Child::wait).collect()
    }

    /// The ranks' processes, by rank.
    pub fn children(&mut self) -> &mut [Child] {
        &mut self.children
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // All first, so that none has time to complain of another's death. One that has ended is not an error here.
        for child in &mut self.children {
            let _ = child.kill();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

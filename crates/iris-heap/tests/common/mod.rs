//! Worlds of real processes for tests: the test binary runs itself again, once per rank, with the test's name.
#![allow(dead_code)] // each test binary uses its part
#![allow(unreachable_pub)] // there is no crate for it to be public in

use iris_heap::launch::{Processes, spawn};
use iris_heap::{Launch, World, WorldConfig};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Set in the processes that a test starts.
const CHILD: &str = "IRIS_HEAP_TEST_CHILD";
/// What a rank has to say begins with this, since the test harness prints as well.
const SAYS: &str = "@@";

pub fn config() -> WorldConfig {
    WorldConfig {
        heap_bytes: 1 << 20,
        timeout: Duration::from_secs(20),
    }
}

/// Says something to the test that started this process.
pub fn say(what: impl std::fmt::Display) {
    println!("\n{SAYS}{what}");
}

/// The command that runs `test` again, in which [`child`] is not `None`.
pub fn again(test: &str, argument: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, argument)
        .stdout(Stdio::piped());
    command
}

/// The argument that this process was started with by [`again`], if it was.
pub fn child() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// Joins the world that this process was started for.
pub fn join() -> World {
    World::join(&Launch::from_env().unwrap().unwrap(), &config()).unwrap()
}

/// Starts `ranks` processes that run `test` again.
pub fn start(test: &str, argument: &str, ranks: usize) -> Processes {
    spawn(ranks, |_| again(test, argument)).unwrap()
}

/// How a rank ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub success: bool,
    pub signal: Option<i32>,
    pub said: Vec<String>,
}

/// Waits for all ranks to end, and gives what they said.
pub fn finish(mut processes: Processes) -> Vec<Ended> {
    let children = processes.children().iter_mut();
    children
        .map(|child| {
            let mut output = String::new();
            let mut stdout = child.stdout.take().unwrap();
            stdout.read_to_string(&mut output).unwrap();
            let status = child.wait().unwrap();
            let said = output.lines().filter_map(|line| line.strip_prefix(SAYS));
            Ended {
                success: status.success(),
                signal: status.signal(),
                said: said.map(str::to_owned).collect(),
            }
        })
        .collect()
}

/// Runs `body` as `ranks` processes and checks that all succeed.
pub fn run(test: &str, ranks: usize, body: impl FnOnce(World)) -> Option<Vec<Ended>> {
    if child().is_some() {
        body(join());
        return None;
    }
    let ended = finish(start(test, "", ranks));
    assert!(ended.iter().all(|rank| rank.success), "{ended:?}");
    Some(ended)
}

/// Kills the calling process as `kill -9` would.
pub fn kill_myself() -> ! {
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
    loop {
        std::thread::park();
    }
}

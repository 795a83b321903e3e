//! Worlds for tests: of threads, and of processes that run the test binary again.

use crate::exercise::Failure;
use iris_heap::{Launch, World, WorldConfig, launch};
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};

/// Set in the processes that a test starts: the test that they are to run.
const ROLE: &str = "IRIS_TESTKIT_TEST";
/// What a rank has to say begins with this, since the test runner prints as well.
const SAYS: &str = "@@iris ";

/// Runs `body` on `ranks` threads, and returns what each says.
///
/// # Errors
/// What the first rank that failed says.
pub fn threads(
    ranks: usize,
    config: &WorldConfig,
    body: impl Fn(&World) -> Result<String, Failure> + Sync,
) -> Result<Vec<String>, Failure> {
    World::threads(ranks, config, |world| body(&world))?
        .into_iter()
        .enumerate()
        .map(|(rank, said)| said.map_err(|error| format!("rank {rank}: {error}").into()))
        .collect()
}

/// How the process of a rank ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What `body` returned, or the error it did.
    pub said: Result<String, String>,
}

/// Runs `body` on `ranks` processes, each of which runs this test binary again for the test named `test` alone, and returns
/// how each ended.
///
/// `test` is the full name of the calling test, which does nothing before it calls this: in the ranks' processes the call
/// runs `body`, says its result, and ends the process.
///
/// # Errors
/// Where the processes cannot be started.
pub fn processes_ended(
    test: &str,
    ranks: usize,
    config: &WorldConfig,
    body: impl FnOnce(&World) -> Result<String, Failure>,
) -> Result<Vec<Ended>, Failure> {
    processes_with(test, ranks, config, |_, _| (), body)
}

/// Whether this process is one of the ranks that the test named `test` has started.
pub fn is_rank(test: &str) -> bool {
    std::env::var_os(ROLE).is_some_and(|role| role == test)
}

/// As [`processes_ended`], where `prepare` may change each rank's command: its environment, above all.
///
/// # Errors
/// Where the processes cannot be started.
pub fn processes_with(
    test: &str,
    ranks: usize,
    config: &WorldConfig,
    mut prepare: impl FnMut(usize, &mut Command),
    body: impl FnOnce(&World) -> Result<String, Failure>,
) -> Result<Vec<Ended>, Failure> {
    if is_rank(test) {
        let result = Launch::from_env()
            .map_err(Failure::from)
            .and_then(|launch| launch.ok_or_else(|| "no launch".into()))
            .and_then(|launch| Ok(World::join(&launch, config)?))
            .and_then(|world| body(&world));
        let failed = result.is_err();
        match result {
            Ok(said) => println!("\n{SAYS}ok {said}"),
            Err(error) => println!("\n{SAYS}error {}", error.to_string().replace('\n', "; ")),
        }
        std::process::exit(i32::from(failed));
    }
    let program = std::env::current_exe()?;
    let mut ranks = launch::spawn(ranks, |rank| {
        let mut command = Command::new(&program);
        command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, test)
            .stdout(Stdio::piped());
        prepare(rank, &mut command);
        command
    })?;
    ranks
        .children()
        .iter_mut()
        .map(|child| {
            let mut output = String::new();
            if let Some(mut stdout) = child.stdout.take() {
                stdout.read_to_string(&mut output)?;
            }
            let said = output
                .lines()
                .find_map(|line| line.strip_prefix(SAYS))
                .unwrap_or("error it said nothing");
            let said = match said.split_once(' ') {
                Some(("ok", said)) => Ok(said.to_owned()),
                _ => Err(said.trim_start_matches("error ").to_owned()),
            };
            Ok(Ended {
                status: child.wait()?,
                said,
            })
        })
        .collect()
}

/// As [`processes_ended`], where all ranks are to end well; returns what each says.
///
/// # Errors
/// What the first rank that failed says.
pub fn processes(
    test: &str,
    ranks: usize,
    config: &WorldConfig,
    body: impl FnOnce(&World) -> Result<String, Failure>,
) -> Result<Vec<String>, Failure> {
    processes_ended(test, ranks, config, body)?
        .into_iter()
        .enumerate()
        .map(|(rank, ended)| match ended.said {
            Ok(said) if ended.status.success() => Ok(said),
            Ok(_) => Err(format!("rank {rank}: {}", ended.status).into()),
            Err(error) => Err(format!("rank {rank}: {error}").into()),
        })
        .collect()
}

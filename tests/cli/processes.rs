//! Ranks that a launcher has started, and ranks that die or stop.

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Files, Ran, iris, read_c, refused, run, split};

/// Starts a process for each rank as a launcher would, and waits for all.
fn launched(
    arguments: &str,
    ranks: usize,
    environment: impl Fn(usize) -> Vec<(&'static str, String)>,
) -> Vec<Ran> {
    let children: Vec<Child> = (0..ranks)
        .map(|rank| {
            iris(&split(arguments))
                .envs(environment(rank))
                .spawn()
                .unwrap()
        })
        .collect();
    children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap().into())
        .collect()
}

/// A number that no other run of the tests has at the time.
fn unique() -> String {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    u64::from_le_bytes(bytes).to_string()
}

fn torchrun(rank: usize, ranks: usize, run: &str) -> Vec<(&'static str, String)> {
    let (rank, ranks) = (rank.to_string(), ranks.to_string());
    vec![
        ("RANK", rank.clone()),
        ("WORLD_SIZE", ranks.clone()),
        ("LOCAL_RANK", rank),
        ("LOCAL_WORLD_SIZE", ranks),
        ("MASTER_ADDR", "127.0.0.1".into()),
        ("MASTER_PORT", "29500".into()),
        ("TORCHELASTIC_RUN_ID", run.into()),
    ]
}

fn openmpi(rank: usize, ranks: usize, run: &str) -> Vec<(&'static str, String)> {
    vec![
        ("OMPI_COMM_WORLD_RANK", rank.to_string()),
        ("OMPI_COMM_WORLD_SIZE", ranks.to_string()),
        ("OMPI_COMM_WORLD_LOCAL_RANK", rank.to_string()),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", ranks.to_string()),
        ("PMIX_NAMESPACE", run.into()),
    ]
}

fn srun(rank: usize, ranks: usize, run: &str) -> Vec<(&'static str, String)> {
    vec![
        ("SLURM_PROCID", rank.to_string()),
        ("SLURM_NTASKS", ranks.to_string()),
        ("SLURM_LOCALID", rank.to_string()),
        ("SLURM_NNODES", "1".into()),
        ("SLURM_JOB_ID", run.into()),
        ("SLURM_STEP_ID", "0".into()),
    ]
}

#[test]
fn under_a_launcher_each_process_is_a_rank_and_rank_0_prints_and_writes() {
    for environment in [torchrun, openmpi, srun] {
        let (files, id) = (Files::new(), unique());
        let out = files.path("y.safetensors");
        let arguments = format!(
            "run matmul-all-reduce --m 9 --n 8 --k 7 --calls 3 --json --out {}",
            out.display()
        );
        let ran = launched(&arguments, 3, |rank| environment(rank, 3, &id));
        for (rank, ran) in ran.iter().enumerate() {
            assert_eq!(
                (ran.status, ran.stderr.as_str()),
                (Some(0), ""),
                "rank {rank}: {ran:?}"
            );
            assert!(rank == 0 || ran.stdout.is_empty(), "rank {rank}: {ran:?}");
        }
        let json = ran[0].json();
        assert_eq!(
            (&json["ranks"], &json["verified"]),
            (&3.into(), &true.into())
        );
        assert_eq!(read_c(&out).1, [9, 8]);
        assert_eq!(files.names(), ["y.safetensors"]);
    }
}

#[test]
fn a_launchers_environment_must_make_sense() {
    let half = iris(&split("run matmul-all-reduce"))
        .env("OMPI_COMM_WORLD_RANK", "0")
        .output()
        .unwrap();
    let half = Ran::from(half);
    assert_eq!(half.status, Some(2), "{half:?}");
    assert!(half.stderr.contains("OMPI_COMM_WORLD_SIZE"), "{half:?}");
    let other = iris(&split("run matmul-all-reduce --ranks 2"))
        .envs(srun(0, 3, &unique()))
        .output()
        .unwrap();
    let other = Ran::from(other);
    assert_eq!(other.status, Some(2), "{other:?}");
    assert!(
        other
            .stderr
            .contains("--ranks is 2, and the launcher started 3 ranks"),
        "{other:?}"
    );
}

#[test]
fn ranks_that_were_given_other_arguments_say_which_differ() {
    let id = unique();
    let children: Vec<Child> = ["2", "3"]
        .iter()
        .enumerate()
        .map(|(rank, budget)| {
            let arguments = format!("run matmul-all-reduce --m 4 --n 4 --k 4 --budget {budget}");
            iris(&split(&arguments))
                .envs(torchrun(rank, 2, &id))
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(
            ran.stderr
                .contains("field `budget` is 3s on rank 1, and 2s on rank 0"),
            "{ran:?}"
        );
    }
}

/// A long run in processes, of which one can be hit while it is in calls.
struct Victim {
    parent: Child,
    ranks: Vec<Pid>,
}

impl Victim {
    fn start(more: &str) -> Self {
        let arguments = format!(
            "run matmul-all-reduce --ranks 3 --processes --m 64 --n 64 --k 64 --calls 1000000 --json {more}"
        );
        let parent = iris(&split(&arguments)).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let ranks = loop {
            let ranks = children(parent.id());
            if ranks.len() == 3 && ranks.iter().all(|rank| has_started(*rank)) {
                break ranks;
            }
            assert!(
                Instant::now() < deadline,
                "the ranks did not start: {ranks:?}"
            );
            thread::sleep(Duration::from_millis(5));
        };
        // Into the calls.
        thread::sleep(Duration::from_millis(300));
        Self { parent, ranks }
    }

    fn hit(&self, rank: usize, signal: Signal) {
        kill_process(self.ranks[rank], signal).unwrap();
    }

    /// Waits for the end; all ranks' processes have ended then.
    fn end(self) -> Ran {
        let ran = Ran::from(self.parent.wait_with_output().unwrap());
        for rank in self.ranks {
            assert!(
                !fs::exists(format!("/proc/{}", rank.as_raw_nonzero())).unwrap(),
                "{rank:?} is left"
            );
        }
        ran
    }
}

/// The processes that a process has started, in the order of their start.
fn children(parent: u32) -> Vec<Pid> {
    let text =
        fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().unwrap()))
        .collect()
}

/// Whether a rank's stream is at work, which is a thread of its own.
fn has_started(rank: Pid) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", rank.as_raw_nonzero())) else {
        return false;
    };
    tasks.flatten().any(|task| {
        fs::read_to_string(task.path().join("comm"))
            .is_ok_and(|name| name.starts_with("iris-stream"))
    })
}

#[test]
fn a_killed_rank_ends_the_run_within_two_seconds_and_is_named() {
    for victim in [2, 0] {
        let run = Victim::start("--budget 600");
        let start = Instant::now();
        run.hit(victim, Signal::KILL);
        let ran = run.end();
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(
            ran.stderr
                .contains(&format!("rank {victim} was ended by signal 9")),
            "{ran:?}"
        );
        let survivors: Vec<&str> = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("iris: rank") && !line.contains("was ended"))
            .collect();
        assert_eq!(survivors.len(), 2, "{ran:?}");
        for line in survivors {
            assert!(line.contains(&format!("rank {victim} died")), "{line}");
        }
    }
}

#[test]
fn a_rank_that_stops_is_named_when_the_budget_ends() {
    let run = Victim::start("--budget 0.5");
    let start = Instant::now();
    run.hit(1, Signal::STOP);
    let ran = run.end();
    // It stops in a call, whose budget is 0.5 s, or between calls, where 5 s are allowed; it is killed 5 s later.
    assert!(
        start.elapsed() < Duration::from_secs(14),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("rank 1"), "{ran:?}");
    assert!(
        ran.stderr
            .contains("rank 1 did not end after another rank had failed, and was killed"),
        "{ran:?}"
    );
}

#[test]
fn a_rank_that_makes_fewer_calls_is_named_with_what_was_expected_and_seen() {
    let id = unique();
    let start = Instant::now();
    let children: Vec<Child> = [6, 5]
        .iter()
        .enumerate()
        .map(|(rank, calls)| {
            let arguments = format!("run matmul-all-reduce --m 4 --n 4 --k 4 --budget 0.5 --first-call 7 --calls {calls}");
            iris(&split(&arguments)).envs(torchrun(rank, 2, &id)).spawn().unwrap()
        })
        .collect();
    let ran: Vec<Ran> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap().into())
        .collect();
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    assert!(
        ran.iter()
            .all(|ran| ran.status == Some(1) && ran.stdout.is_empty()),
        "{ran:?}"
    );
    for part in ["matmul_all_reduce", "rank 1", "expected 12, seen 11"] {
        assert!(ran[0].stderr.contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn nothing_outlives_a_killed_parent() {
    let run = Victim::start("");
    let parent = Pid::from_child(&run.parent);
    kill_process(parent, Signal::KILL).unwrap();
    let Victim { mut parent, ranks } = run;
    parent.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    for rank in ranks {
        // A zombie that nobody has waited for yet has ended, too.
        let running = || {
            fs::read_to_string(format!("/proc/{}/stat", rank.as_raw_nonzero()))
                .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
        };
        while running() {
            assert!(Instant::now() < deadline, "{rank:?} outlives its parent");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_heap_that_is_too_small_tells_what_is_needed() {
    refused(
        &split("run matmul-all-reduce --ranks 2 --m 256 --n 256 --heap 64KiB"),
        "bytes are needed",
    );
    let enough = run(&split(
        "run matmul-all-reduce --ranks 2 --m 64 --n 64 --k 8 --heap 64MiB --json",
    ));
    assert_eq!(enough.status, Some(0), "{enough:?}");
}

#[test]
fn closing_stdout_early_is_a_failure_and_no_panic() {
    let mut child: Child = {
        let mut command: Command = iris(&["doctor", "--json"]);
        command.spawn().unwrap()
    };
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
}

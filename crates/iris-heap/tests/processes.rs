//! Worlds of real processes.

mod common;

use common::{Ended, again, child, finish, join, kill_myself, run, say, start};
use iris_heap::{Activity, Watched, WorldError};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[test]
fn processes_meet_and_share_a_heap() {
    run("processes_meet_and_share_a_heap", 4, |world| {
        let (rank, size) = (world.rank(), world.size());
        let next = (rank + 1) % size;
        assert_eq!(world.all_gather(rank as u64).unwrap(), [0, 1, 2, 3]);
        assert_eq!(world.broadcast(2, rank as u8).unwrap(), 2);
        let large = vec![rank as u8; 1 << 20];
        let all = world.all_gather_bytes(&large).unwrap();
        assert!((0..size).all(|from| all[from] == vec![from as u8; 1 << 20]));

        let window = world.window::<u64>(8).unwrap();
        window.put(next, 3, &[rank as u64 + 100, 7]).unwrap();
        for _ in 0..1000 {
            window.fetch_add(0, 0, 1, Ordering::Relaxed).unwrap();
        }
        world.barrier().unwrap();
        let mut mine = [0; 8];
        window.get(rank, 0, &mut mine).unwrap();
        let before = ((rank + size - 1) % size) as u64;
        assert_eq!(mine[3..], [before + 100, 7, 0, 0, 0]);
        let total = window.load(0, 0, Ordering::Relaxed).unwrap();
        assert_eq!(total, 4000);

        let region = world.allocate(8, 8).unwrap();
        let word = |of: usize| world.base(of).wrapping_add(region.offset()).cast::<u64>();
        // SAFETY: each rank writes its right neighbour's word, and reads its own after a barrier.
        unsafe { word(next).write(rank as u64) };
        world.barrier().unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { word(rank).read() }, before);
        world.free(region).unwrap();
        world.free_window(window).unwrap();
        assert_eq!(world.free_bytes(), world.heap_bytes());
    });
}

/// Those of the rank that holds the hub do not come to it over a socket, and those of the others do.
#[test]
fn bytes_that_are_too_many_on_one_rank_are_an_error_on_all_that_names_it() {
    let name = "bytes_that_are_too_many_on_one_rank_are_an_error_on_all_that_names_it";
    run(name, 3, |world| {
        let mine = world.rank();
        for large in 0..3 {
            let bytes = vec![9; (1 << 20) + usize::from(mine == large)];
            let error = world.all_gather_bytes(&bytes).unwrap_err();
            assert!(
                matches!(
                    error,
                    WorldError::PayloadTooLarge {
                        rank,
                        bytes: 1_048_577,
                        limit: 1_048_576,
                        ..
                    } if rank == large
                ),
                "{error}"
            );
            assert_eq!(world.all_gather(mine as u8).unwrap(), [0, 1, 2]);
        }
    });
}

#[test]
fn ranks_that_return_at_once_leave_the_others_their_result() {
    // Rank 0, which holds the hub, ends as soon as it has its own result.
    let name = "ranks_that_return_at_once_leave_the_others_their_result";
    if child().is_none() {
        for _ in 0..5 {
            run(name, 4, |_| {});
        }
    } else {
        run(name, 4, |world| {
            for round in 0..20u32 {
                assert_eq!(world.all_gather(round).unwrap(), [round; 4]);
            }
        });
    }
}

/// An operation that only notes by whom it was aborted.
#[derive(Default)]
struct Aborted(AtomicUsize);

impl Watched for Aborted {
    fn abort(&self, by: usize) {
        self.0.store(by + 1, Ordering::SeqCst);
    }
    fn activity(&self) -> Activity {
        Activity::Idle { calls: 0 }
    }
}

/// Kills rank `victim` of 4 while the others wait for it in a barrier.
fn killed(test: &str, victim: usize) {
    if child().is_some() {
        let world = join();
        let operation = Arc::new(Aborted::default());
        world.watch("operation", operation.clone()).unwrap();
        world.barrier().unwrap();
        if world.rank() == victim {
            std::thread::sleep(Duration::from_millis(300));
            kill_myself();
        }
        let begun = Instant::now();
        for _ in 0..2 {
            let error = world.barrier().unwrap_err();
            assert!(
                matches!(&error, WorldError::RankDied { rank, during } if *rank == victim && during == "barrier"),
                "{error}"
            );
        }
        // The barrier may have failed a moment before the operation is told.
        while operation.0.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(operation.0.load(Ordering::SeqCst), victim + 1);
        assert!(begun.elapsed() < Duration::from_millis(300 + 2000));
        return;
    }
    for (rank, ended) in finish(start(test, "", 4)).into_iter().enumerate() {
        if rank == victim {
            assert_eq!(ended.signal, Some(9));
        } else {
            assert!(ended.success, "rank {rank}: {ended:?}");
        }
    }
}

#[test]
fn a_killed_rank_is_named_by_all_others() {
    killed("a_killed_rank_is_named_by_all_others", 2);
}

#[test]
fn the_killed_rank_0_is_named_by_all_others() {
    killed("the_killed_rank_0_is_named_by_all_others", 0);
}

#[test]
fn a_rank_whose_main_thread_panics_is_dead() {
    if child().is_some() {
        let world = join();
        if world.rank() == 1 {
            panic!("on purpose");
        }
        let error = world.barrier().unwrap_err();
        assert!(
            matches!(error, WorldError::RankDied { rank: 1, .. }),
            "{error}"
        );
        return;
    }
    let ended = finish(start("a_rank_whose_main_thread_panics_is_dead", "", 3));
    let success: Vec<bool> = ended.iter().map(|rank| rank.success).collect();
    assert_eq!(success, [true, false, true], "{ended:?}");
}

#[test]
fn a_rank_that_has_left_is_missed_and_aborts_nothing() {
    for leaver in [0, 2] {
        let name = "a_rank_that_has_left_is_missed_and_aborts_nothing";
        let Some(argument) = child() else {
            let ended = finish(start(name, &leaver.to_string(), 3));
            assert!(ended.iter().all(|rank| rank.success), "{ended:?}");
            continue;
        };
        let leaver: usize = argument.parse().unwrap();
        let world = join();
        let operation = Arc::new(Aborted::default());
        world.watch("operation", operation.clone()).unwrap();
        world.barrier().unwrap();
        if world.rank() != leaver {
            let error = world.barrier().unwrap_err();
            assert!(
                matches!(error, WorldError::RankLeft { rank, .. } if rank == leaver),
                "{error}"
            );
            assert_eq!(operation.0.load(Ordering::SeqCst), 0);
        }
        return;
    }
}

#[test]
fn nothing_is_left_in_the_file_system_after_a_kill() {
    let name = "nothing_is_left_in_the_file_system_after_a_kill";
    if child().is_some() {
        let world = join();
        let _window = world.window::<u64>(8).unwrap();
        say("ready");
        loop {
            std::thread::park();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let mut rendezvous = None;
    let mut processes = iris_heap::launch::spawn(3, |_| {
        let mut command = again(name, "");
        command
            .current_dir(&directory)
            .env("TMPDIR", directory.path());
        command
    })
    .unwrap();
    let mut pids = Vec::new();
    for child in processes.children() {
        use std::io::{BufRead, BufReader};
        let stdout = BufReader::new(child.stdout.as_mut().unwrap());
        assert!(stdout.lines().any(|line| line.unwrap().contains("ready")));
        let environment = std::fs::read(format!("/proc/{}/environ", child.id())).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut variables = environment.split('\0');
        rendezvous = variables
            .find_map(|variable| Some(variable.strip_prefix("IRIS_RENDEZVOUS=")?.to_owned()));
        pids.push(child.id());
    }
    let rendezvous = rendezvous.unwrap();
    let sockets = || std::fs::read_to_string("/proc/net/unix").unwrap();
    assert!(sockets().contains(&rendezvous));
    drop(processes);
    assert!(!sockets().contains(&rendezvous));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}

/// Whether the process has ended, be it that nobody has asked how.
fn ended(pid: &str) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('Z')),
        Err(_) => true,
    }
}

#[test]
fn ranks_die_with_the_process_that_started_them() {
    let name = "ranks_die_with_the_process_that_started_them";
    match child().as_deref() {
        Some("parent") => {
            let mut ranks = iris_heap::launch::spawn(3, |_| {
                let mut command = again(name, "rank");
                command.stdout(Stdio::null());
                command
            })
            .unwrap();
            for rank in ranks.children() {
                say(rank.id());
            }
            kill_myself();
        }
        Some(_) => {
            let _world = join();
            std::thread::sleep(Duration::from_secs(60));
        }
        None => {
            let output = again(name, "parent").output().unwrap();
            let output = String::from_utf8(output.stdout).unwrap();
            let pids: Vec<&str> = output
                .lines()
                .filter_map(|line| line.strip_prefix("@@"))
                .collect();
            assert_eq!(pids.len(), 3, "{output}");
            let deadline = Instant::now() + Duration::from_secs(10);
            while !pids.iter().all(|pid| ended(pid)) {
                assert!(Instant::now() < deadline, "{pids:?} still run");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn worlds_that_cannot_be_and_programs_that_are_not_there_are_errors() {
    let none = iris_heap::launch::spawn(0, |_| again("x", "")).unwrap_err();
    assert!(
        none.to_string().starts_with("0 ranks were asked for"),
        "{none}"
    );
    let program = "/nonexistent/program";
    let error = iris_heap::launch::spawn(2, |_| std::process::Command::new(program)).unwrap_err();
    assert!(error.to_string().contains(program), "{error}");
}

#[test]
fn ranks_say_different_things_and_the_harness_hears_them() {
    let name = "ranks_say_different_things_and_the_harness_hears_them";
    if let Some(ended) = run(name, 2, |world| say(world.rank())) {
        let said: Vec<&Ended> = ended.iter().collect();
        assert_eq!((&said[0].said[0][..], &said[1].said[0][..]), ("0", "1"));
    }
}

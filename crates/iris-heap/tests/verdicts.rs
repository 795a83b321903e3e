//! Verdicts: whichever way ranks wait for each other, all that ask are told the same culprit, and soon.

mod common;

use common::{child, config, finish, join, kill_myself, say, start};
use iris_heap::{Activity, Reason, Report, Verdict, WatchId, Watched, World};
use iris_sync::{Cause, Wait, WordKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const SCENARIOS: [&str; 8] = [
    "idle", "busy", "late", "circle", "dead", "left", "silent", "mismatch",
];

fn report(rank: usize, peer: usize, cause: Cause) -> Report {
    Report {
        operation: "matmul_all_reduce".into(),
        index: 17,
        value: 18,
        rank,
        wait: Some(Wait {
            word: WordKind::Ready,
            peer,
            tile: Some(3),
            expected: 18,
            seen: 16,
        }),
        cause,
    }
}

/// An operation whose kernel does what the test says, before it is aborted and after.
struct Scripted {
    before: Mutex<Activity>,
    /// What it does some time after it was aborted.
    after: Option<Activity>,
    aborted: Mutex<Option<Instant>>,
    by: AtomicUsize,
    /// `activity` hangs.
    silent: bool,
}

impl Watched for Scripted {
    fn abort(&self, by: usize) {
        self.by.store(by + 1, Ordering::SeqCst);
        self.aborted
            .lock()
            .unwrap()
            .get_or_insert_with(Instant::now);
    }

    fn activity(&self) -> Activity {
        if self.silent {
            thread::sleep(Duration::from_secs(3));
        }
        let aborted = *self.aborted.lock().unwrap();
        match (&self.after, aborted) {
            (Some(after), Some(at)) if at.elapsed() > Duration::from_millis(100) => after.clone(),
            _ => self.before.lock().unwrap().clone(),
        }
    }
}

fn scripted(before: Activity) -> Scripted {
    Scripted {
        before: Mutex::new(before),
        after: None,
        aborted: Mutex::new(None),
        by: AtomicUsize::new(0),
        silent: false,
    }
}

/// What each of 4 ranks does in a scenario: what its operation says, and what the rank itself reports, if it asks.
fn script(scenario: &str, rank: usize) -> (Scripted, Option<Report>) {
    let budget = Cause::BudgetEnded { budget_ms: 500 };
    // Ranks 0, 1 and 3 fault; whom each waits for.
    let peers = match scenario {
        "idle" => [2, 0, 2, 0],
        "circle" => [1, 3, 0, 1],
        "mismatch" => [1, 0, 0, 2],
        _ => [1, 2, 0, 0],
    };
    if rank == 2 && scenario != "mismatch" {
        let activity = match scenario {
            "busy" => Activity::Busy { index: 17 },
            _ => Activity::Idle { calls: 17 },
        };
        let silent = scenario == "silent";
        let operation = Scripted {
            silent,
            ..scripted(activity)
        };
        return (operation, None);
    }
    let cause = match (scenario, rank) {
        ("mismatch", 3) => Cause::Mismatch { ours: 5, theirs: 7 },
        _ => budget,
    };
    let own = report(rank, peers[rank], cause);
    if scenario == "late" && rank == 1 {
        // It waits for rank 3 when it is told to stop, goes on, and leaves while it waits for rank 2.
        let waiting = Activity::Waiting(report(1, 3, budget));
        let left = report(1, 2, Cause::Aborted { by: 0 });
        let operation = Scripted {
            after: Some(Activity::Faulted(left)),
            ..scripted(waiting)
        };
        return (operation, None);
    }
    (scripted(Activity::Faulted(own.clone())), Some(own))
}

/// Plays one rank of a scenario. `die` is how a rank of this kind of world dies.
fn play(world: &World, scenario: &str, die: impl FnOnce()) -> Option<Verdict> {
    let rank = world.rank();
    let (operation, own) = script(scenario, rank);
    let operation = Arc::new(operation);
    let id = world.watch("matmul_all_reduce", operation.clone()).unwrap();
    world.barrier().unwrap();
    if rank == 2 {
        match scenario {
            "dead" => die(),
            "left" => return None,
            _ => {}
        }
    }
    if scenario == "dead" || scenario == "left" {
        world.barrier().unwrap_err(); // it is gone now
    }
    let verdict = own.map(|own| ask(world, id, 1, own));
    if scenario != "dead" && scenario != "left" {
        if scenario != "silent" {
            // Whoever does not ask stays until all others have their verdict.
            world.barrier().unwrap();
            assert_ne!(
                operation.by.load(Ordering::SeqCst),
                0,
                "rank {rank} was not told to stop"
            );
        } else if rank == 2 {
            thread::sleep(Duration::from_secs(2));
        }
    }
    verdict
}

fn ask(world: &World, id: WatchId, epoch: u64, own: Report) -> Verdict {
    let begun = Instant::now();
    let verdict = world.verdict(id, epoch, own.clone());
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert_eq!(world.verdict(id, epoch, own), verdict, "asked again");
    verdict
}

/// Checks what the ranks that asked were told.
fn check(scenario: &str, verdicts: &[Verdict]) {
    assert!(!verdicts.is_empty());
    for verdict in verdicts {
        assert_eq!(verdict, &verdicts[0], "{scenario}");
    }
    let verdict = &verdicts[0];
    let expected = match scenario {
        "idle" | "late" => Reason::NotCalling { calls: 17 },
        "busy" => Reason::Busy { index: 17 },
        "circle" => Reason::Cycle,
        "dead" => Reason::Died,
        "left" => Reason::Left,
        "silent" => Reason::NoAnswer,
        _ => Reason::Mismatch {
            rank: 3,
            peer: 2,
            ours: 5,
            theirs: 7,
        },
    };
    assert_eq!(verdict.reason, expected, "{scenario}");
    if scenario == "circle" {
        // 0 and 1 and 3: the circle is 1 -> 3 -> 1, and where it is entered depends on who reports first.
        assert!([1, 3].contains(&verdict.culprit), "{verdict}");
    } else {
        assert_eq!(verdict.culprit, 2, "{scenario}: {verdict}");
    }
    if scenario == "busy" {
        assert_eq!(
            verdict.to_string(),
            "rank 2 is still at work in call 17: rank 1 waited 500 ms in matmul_all_reduce, call 17 (value 18), for `ready` of rank 2 for tile 3: expected 18, seen 16"
        );
    }
}

#[test]
fn threads_are_told_the_same() {
    for scenario in SCENARIOS.into_iter().filter(|&name| name != "dead") {
        let verdicts = World::threads(4, &config(), |world| play(&world, scenario, || {}));
        let verdicts: Vec<_> = verdicts.unwrap().into_iter().flatten().collect();
        check(scenario, &verdicts);
    }
}

#[test]
fn threads_are_told_of_one_that_panicked() {
    let verdicts = Mutex::new(Vec::new());
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        World::threads(4, &config(), |world| {
            let verdict = play(&world, "dead", || panic!("on purpose"));
            verdicts.lock().unwrap().extend(verdict);
        })
    }));
    assert!(result.is_err());
    check("dead", &verdicts.lock().unwrap());
}

#[test]
fn processes_are_told_the_same() {
    let name = "processes_are_told_the_same";
    if let Some(scenario) = child() {
        let world = join();
        if let Some(verdict) = play(&world, &scenario, || kill_myself()) {
            say(serde_json::to_string(&verdict).unwrap());
        }
        return;
    }
    for scenario in SCENARIOS {
        let ended = finish(start(name, scenario, 4));
        let said = ended.iter().flat_map(|rank| &rank.said);
        let verdicts: Vec<Verdict> = said
            .map(|said| serde_json::from_str(said).unwrap())
            .collect();
        let askers = 3 - usize::from(scenario == "late") + usize::from(scenario == "mismatch");
        assert_eq!(verdicts.len(), askers, "{scenario}: {ended:?}");
        check(scenario, &verdicts);
    }
}

/// A process that is stopped (by a debugger, say) is not dead, and does not answer.
#[test]
fn a_stopped_process_does_not_answer() {
    let name = "a_stopped_process_does_not_answer";
    if child().is_some() {
        let world = join();
        let (operation, own) = script("idle", world.rank());
        let id = world
            .watch("matmul_all_reduce", Arc::new(operation))
            .unwrap();
        world.barrier().unwrap();
        if world.rank() == 2 {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::STOP).unwrap();
        }
        thread::sleep(Duration::from_millis(100));
        if let Some(own) = own {
            say(serde_json::to_string(&ask(&world, id, 1, own)).unwrap());
        }
        // Rank 2 never wakes: the test kills it once the others have spoken.
        return;
    }
    let mut processes = start(name, "", 4);
    let mut verdicts = Vec::new();
    for rank in [0, 1, 3] {
        let child = &mut processes.children()[rank];
        let mut output = String::new();
        let mut stdout = child.stdout.take().unwrap();
        std::io::Read::read_to_string(&mut stdout, &mut output).unwrap();
        let said = output.lines().find_map(|line| line.strip_prefix("@@"));
        verdicts.push(serde_json::from_str(said.expect(&output)).unwrap());
    }
    check("silent", &verdicts);
}

/// Rank 0's process holds the hub; the others must do without.
#[test]
fn the_death_of_rank_0_is_a_verdict_too() {
    let name = "the_death_of_rank_0_is_a_verdict_too";
    if child().is_some() {
        let world = join();
        let own = report(world.rank(), 2, Cause::BudgetEnded { budget_ms: 500 });
        let id = world
            .watch("op", Arc::new(scripted(Activity::Faulted(own.clone()))))
            .unwrap();
        world.barrier().unwrap();
        if world.rank() == 0 {
            kill_myself();
        }
        if world.rank() == 1 {
            thread::sleep(Duration::from_millis(200));
        }
        let verdict = ask(&world, id, 1, own);
        assert_eq!((verdict.culprit, verdict.reason), (0, Reason::Died));
        return;
    }
    let ended = finish(start(name, "", 3));
    assert!(ended[1].success && ended[2].success, "{ended:?}");
}

/// The hub ends with rank 0's process; who asks after that has been told before.
#[test]
fn a_verdict_and_a_death_are_known_after_rank_0_has_gone() {
    let name = "a_verdict_and_a_death_are_known_after_rank_0_has_gone";
    let Some(death) = child() else {
        for death in ["", "death"] {
            let ended = finish(start(name, death, 4));
            for rank in [0, 1, 3] {
                assert!(ended[rank].success, "{ended:?}");
            }
        }
        return;
    };
    let world = join();
    let rank = world.rank();
    let (operation, own) = script("idle", rank);
    let id = world.watch("op", Arc::new(operation)).unwrap();
    world.barrier().unwrap();
    if rank == 2 && death == "death" {
        kill_myself();
    }
    if rank == 0 {
        if death == "death" {
            world.barrier().unwrap_err();
        } else {
            ask(&world, id, 1, own.unwrap());
        }
        return;
    }
    thread::sleep(Duration::from_millis(1000)); // until rank 0's process has ended
    if death == "death" {
        let error = world.barrier().unwrap_err();
        assert!(
            matches!(error, iris_heap::WorldError::RankDied { rank: 2, .. }),
            "{error}"
        );
        assert_eq!(ask(&world, id, 1, own.unwrap()).culprit, 2);
    } else if let Some(own) = own {
        let verdict = ask(&world, id, 1, own);
        assert_eq!(verdict.reason, Reason::NotCalling { calls: 17 });
        assert_eq!((verdict.culprit, verdict.report.rank), (2, 0));
    }
}

#[test]
fn a_verdict_stands_until_it_is_cleared_or_a_newer_fault_is_judged() {
    World::threads(2, &config(), |world| {
        let operation = Arc::new(scripted(Activity::Idle { calls: 3 }));
        let id = world.watch("op", operation.clone()).unwrap();
        let other = world
            .watch("other", Arc::new(scripted(Activity::Busy { index: 1 })))
            .unwrap();
        world.barrier().unwrap();
        if world.rank() == 0 {
            let own = || report(0, 1, Cause::Poisoned);
            let first = world.verdict(id, 1, own());
            assert_eq!(first.reason, Reason::NotCalling { calls: 3 });
            world.barrier().unwrap();
            world.barrier().unwrap(); // rank 1 has gone on
            assert_eq!(world.verdict(id, 1, own()), first);
            assert_eq!(
                world.verdict(other, 1, own()).reason,
                Reason::Busy { index: 1 }
            );
            let newer = world.verdict(id, 2, own());
            assert_eq!(newer.reason, Reason::NotCalling { calls: 4 });
            assert_eq!(
                world.verdict(id, 1, own()),
                newer,
                "an old fault is part of the newer"
            );
            world.clear_verdict(id);
            assert_eq!(
                world.verdict(id, 2, own()),
                newer,
                "asked anew, with the same result"
            );
        } else {
            world.barrier().unwrap();
            *operation.before.lock().unwrap() = Activity::Idle { calls: 4 };
            world.barrier().unwrap();
        }
        world.barrier().unwrap();
        world.unwatch(id);
        world.barrier().unwrap();
        if world.rank() == 0 {
            let own = report(0, 1, Cause::Poisoned);
            assert_eq!(world.verdict(id, 3, own).reason, Reason::Dropped);
        }
        world.barrier().unwrap();
    })
    .unwrap();
}

#[test]
fn ranks_that_watch_different_operations_are_told() {
    World::threads(2, &config(), |world| {
        let name = ["all_gather_matmul", "matmul_all_gather"][world.rank()];
        let operation = Arc::new(scripted(Activity::Idle { calls: 0 }));
        let error = world.watch(name, operation).unwrap_err();
        assert_eq!(
            error.to_string(),
            "watch: field `operation` is matmul_all_gather on rank 1, and all_gather_matmul on rank 0"
        );
    })
    .unwrap();
}

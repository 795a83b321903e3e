//! Files that ranks give to each other.

mod common;

use common::{child, config, finish, join, kill_myself, start};
use iris_heap::{Launch, World, WorldConfig, WorldError};
use rustix::io::FdFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io::{PipeReader, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A file in memory with something in it that is `rank`'s and `round`'s own.
fn memory(rank: usize, round: u64) -> (File, Vec<u8>) {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("test", flags).unwrap());
    let contents = contents(rank, round);
    file.write_all(&contents).unwrap();
    (file, contents)
}

fn contents(rank: usize, round: u64) -> Vec<u8> {
    let mut state = (rank as u64 + 1) << 32 | round;
    let mut bytes = Vec::new();
    for _ in 0..50 + rank {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        bytes.push((state >> 56) as u8);
    }
    bytes
}

fn read_all(file: &OwnedFd) -> Vec<u8> {
    // At a place of its own: the position is everybody's.
    let mut bytes = vec![0; 4096];
    let len = rustix::io::pread(file, &mut bytes, 0).unwrap();
    bytes.truncate(len);
    bytes
}

/// The descriptors that are open in this process.
fn open() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// All ranks but each third give a file, and get those of all.
fn exchange(world: &World, round: u64) {
    let (rank, size) = (world.rank(), world.size());
    let gives = |rank: usize| !(rank as u64 + round).is_multiple_of(3);
    let (file, _) = memory(rank, round);
    let bytes = vec![rank as u8; rank + round as usize % 5];
    let file = gives(rank).then(|| file.as_fd());
    let all = world.exchange_files("tests", &bytes, file).unwrap();
    assert_eq!(all.len(), size);
    for (from, (bytes, file)) in all.iter().enumerate() {
        assert_eq!(*bytes, vec![from as u8; from + round as usize % 5]);
        assert_eq!(file.is_some(), gives(from), "rank {from}, round {round}");
        if let Some(file) = file {
            assert_eq!(read_all(file), contents(from, round), "of rank {from}");
            let flags = rustix::io::fcntl_getfd(file).unwrap();
            assert!(flags.contains(FdFlags::CLOEXEC));
        }
    }
}

#[test]
fn threads_get_each_others_files() {
    World::threads(7, &config(), |world| {
        for round in 0..20 {
            exchange(&world, round);
        }
        world.barrier().unwrap();
    })
    .unwrap();
}

#[test]
fn processes_get_each_others_files() {
    common::run("processes_get_each_others_files", 5, |world| {
        for round in 0..20 {
            exchange(&world, round);
            // Other collectives in between carry no file, and large ones many reads.
            let large = vec![round as u8; 1 << 18];
            let all = world.all_gather_bytes(&large).unwrap();
            assert!(all.iter().all(|bytes| *bytes == large));
        }
    });
}

/// What is got is the very file: what one rank writes into it all others read, and a mapping is shared.
#[test]
fn processes_share_what_they_got() {
    common::run("processes_share_what_they_got", 3, |world| {
        let (file, _) = memory(world.rank(), 0);
        let all = world.exchange_files("x", &[], Some(file.as_fd())).unwrap();
        let next = (world.rank() + 1) % 3;
        let theirs = all[next].1.as_ref().unwrap();
        rustix::io::pwrite(theirs, b"from your left", 7).unwrap();
        world.barrier().unwrap();
        let mut file = file;
        file.seek(std::io::SeekFrom::Start(7)).unwrap();
        let mut bytes = [0; 14];
        file.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"from your left");
    });
}

fn limit_files(limit: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(limit);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// 1000 exchanges, some of which fail. A process that is more than one rank counts in one only.
fn leaks(world: &World, counts: bool) {
    exchange(world, 0);
    world.barrier().unwrap();
    let before = if counts { open() } else { 0 };
    world.barrier().unwrap();
    for round in 0..1000 {
        if round % 10 == 9 {
            let (file, _) = memory(world.rank(), round);
            let what = if world.rank() == 1 { "this" } else { "that" };
            let error = world.exchange_files(what, &[], Some(file.as_fd()));
            let error = error.unwrap_err();
            assert!(
                matches!(error, WorldError::CollectiveMismatch { .. }),
                "{error}"
            );
        } else {
            exchange(world, round);
        }
    }
    world.barrier().unwrap();
    if counts {
        assert_eq!(open(), before);
    }
    world.barrier().unwrap();
}

#[test]
fn processes_leak_no_descriptor() {
    common::run("processes_leak_no_descriptor", 3, |world| {
        leaks(&world, true);
    });
}

#[test]
fn threads_leak_no_descriptor() {
    let name = "threads_leak_no_descriptor";
    if child().is_none() {
        // In a process of its own: other tests open files too.
        let ended = common::again(name, "").output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        return;
    }
    World::threads(3, &config(), |world| leaks(&world, world.rank() == 0)).unwrap();
}

#[test]
fn a_rank_that_calls_something_else_is_told_apart_and_nothing_is_kept() {
    World::threads(3, &config(), |world| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let error = if world.rank() == 1 {
            world.barrier().unwrap_err()
        } else {
            let given = Some(writer.as_fd());
            world.exchange_files("heap", &[1], given).unwrap_err()
        };
        let WorldError::CollectiveMismatch { theirs, ours, .. } = error else {
            panic!("{error}");
        };
        let mut called = [&*theirs, &*ours];
        called.sort_unstable();
        assert_eq!(called, ["barrier", "exchange_files of heap"]);
        drop(writer);
        world.barrier().unwrap();
        assert_ends(&mut reader);
        exchange(&world, 0);
    })
    .unwrap();
}

/// The writing end of the pipe is open nowhere.
fn assert_ends(reader: &mut PipeReader) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let mut polled = [PollFd::new(reader, PollFlags::IN)];
    assert_eq!(poll(&mut polled, Some(&timeout)).unwrap(), 1, "still open");
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn processes_that_call_something_else_are_told_apart() {
    let name = "processes_that_call_something_else_are_told_apart";
    common::run(name, 3, |world| {
        for odd in [0, 2] {
            let (file, _) = memory(world.rank(), 0);
            let error = if world.rank() == odd {
                world.all_gather(1u8).unwrap_err()
            } else {
                let given = Some(file.as_fd());
                world.exchange_files("heap", &[], given).unwrap_err()
            };
            assert!(
                matches!(error, WorldError::CollectiveMismatch { .. }),
                "{error}"
            );
            exchange(&world, 1);
        }
    });
}

#[test]
fn a_rank_killed_before_it_gives_its_file_is_named_by_all_others() {
    let name = "a_rank_killed_before_it_gives_its_file_is_named_by_all_others";
    let Some(victim) = child() else {
        for victim in [0, 2] {
            let ended = finish(start(name, &victim.to_string(), 4));
            for (rank, ended) in ended.iter().enumerate() {
                assert_eq!(ended.success, rank != victim, "rank {rank}: {ended:?}");
            }
        }
        return;
    };
    let victim: usize = victim.parse().unwrap();
    let world = join();
    exchange(&world, 0);
    if world.rank() == victim {
        std::thread::sleep(Duration::from_millis(200));
        kill_myself();
    }
    let before = open();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let given = Some(writer.as_fd());
    let error = world.exchange_files("heap", &[], given).unwrap_err();
    assert!(
        matches!(&error, WorldError::RankDied { rank, during } if *rank == victim && during == "exchange_files of heap"),
        "{error}"
    );
    drop(writer);
    assert_ends(&mut reader);
    drop(reader);
    assert!(open() <= before, "{} of {before}", open());
}

#[test]
fn files_given_to_an_exchange_that_ends_in_a_timeout_are_closed_before_the_last_has_come() {
    let config = WorldConfig {
        timeout: Duration::from_millis(200),
        ..config()
    };
    let closed = AtomicUsize::new(0);
    let worlds = World::threads(3, &config, |world| {
        if world.rank() == 1 {
            let deadline = Instant::now() + Duration::from_secs(15);
            while closed.load(Ordering::SeqCst) < 2 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let (mut reader, writer) = std::io::pipe().unwrap();
        let given = Some(writer.as_fd());
        let error = world.exchange_files("heap", &[], given).unwrap_err();
        assert!(
            matches!(&error, WorldError::Timeout { missing, .. } if missing == &[1]),
            "{error}"
        );
        drop(writer);
        assert_ends(&mut reader);
        closed.fetch_add(1, Ordering::SeqCst);
        world
    });
    drop(worlds.unwrap());
}

/// Takes all descriptors that the process may still have.
fn fill() -> Vec<File> {
    limit_files(64);
    let mut taken = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(24), "{error}"); // EMFILE
                return taken;
            }
        }
    }
}

/// A rank that may open `spare` more files than it has, in a world of 3 that all give one.
#[test]
fn a_process_with_too_many_files_is_named_by_all_and_may_try_again() {
    let name = "a_process_with_too_many_files_is_named_by_all_and_may_try_again";
    let Some(argument) = child() else {
        for (victim, spare) in [(1, 0), (1, 1), (1, 2), (0, 0), (0, 1), (0, 2)] {
            let ended = finish(start(name, &format!("{victim} {spare}"), 3));
            assert!(ended.iter().all(|rank| rank.success), "{ended:?}");
        }
        return;
    };
    let (victim, spare) = argument.split_once(' ').unwrap();
    let (victim, spare): (usize, usize) = (victim.parse().unwrap(), spare.parse().unwrap());
    let world = join();
    let (file, _) = memory(world.rank(), 0);
    exchange(&world, 0);
    let before = open();
    let taken = (world.rank() == victim).then(|| {
        let mut taken = fill();
        taken.truncate(taken.len() - spare);
        taken
    });
    world.barrier().unwrap();
    let given = Some(file.as_fd());
    let error = world.exchange_files("heap", &[], given).unwrap_err();
    drop(taken);
    match (victim, spare, &error) {
        // Its own file cannot be duplicated; or another's cannot come to the hub, in the process of rank 0.
        (_, 0, WorldError::FileNotGiven { rank, reason, .. }) => {
            // The hub's process may be asked to take another's file before it has tried its own.
            assert!(*rank == victim || victim == 0, "{error}");
            assert!(reason.contains("files") || reason.contains("duplicating"));
        }
        (0, _, WorldError::FileNotGiven { reason, .. }) => {
            assert!(
                reason.contains("may be open") || reason.contains("duplicating"),
                "{error}"
            );
        }
        // It needs three: its own and the others'.
        (
            1,
            _,
            WorldError::FilesNotReceived {
                rank: 1, reason, ..
            },
        ) => {
            let expected = format!(
                "the system let this process have {} of 2 files, and 64 at most may be open in it",
                spare - 1
            );
            assert_eq!(*reason, expected);
        }
        _ => panic!("{error}"),
    }
    let errors = world
        .all_gather_bytes(error.to_string().as_bytes())
        .unwrap();
    assert!(errors.iter().all(|other| *other == errors[0]), "{errors:?}");
    assert_eq!(open(), before, "what came is closed");
    world.barrier().unwrap();
    exchange(&world, 2);
}

/// Files under way between processes are limited as well. Here ranks are threads of another user, since root's are not.
#[test]
fn a_file_that_the_system_does_not_pass_is_an_error_of_all() {
    let name = "a_file_that_the_system_does_not_pass_is_an_error_of_all";
    let Some(argument) = child() else {
        for argument in ["0 stays", "1 stays", "0 passes", "1 passes"] {
            let ended = common::again(name, argument).output().unwrap();
            assert!(ended.status.success(), "{argument}: {ended:?}");
        }
        return;
    };
    let (giver, passes) = argument.split_once(' ').unwrap();
    let (giver, passes): (usize, bool) = (giver.parse().unwrap(), passes == "passes");
    let rendezvous = format!("{name}-{}", std::process::id());
    limit_files(256);
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let rendezvous = &rendezvous;
            scope.spawn(move || {
                become_nobody();
                let launch = Launch::new(rank, 2, &**rendezvous).unwrap();
                let world = World::join(&launch, &config()).unwrap();
                exchange(&world, 0);
                let under_way = (rank == 0).then(|| {
                    let (a, b) = UnixStream::pair().unwrap();
                    for _ in 0..2 {
                        pass(&a, &vec![a.as_fd(); 250]);
                    }
                    (a, b)
                });
                world.barrier().unwrap();
                let (file, contents) = memory(rank, 7);
                let given = (rank == giver).then(|| file.as_fd());
                if passes {
                    let later = scope.spawn(move || {
                        std::thread::sleep(Duration::from_millis(200));
                        drop(under_way);
                    });
                    let all = world.exchange_files("heap", &[], given).unwrap();
                    later.join().unwrap();
                    if rank == giver {
                        assert_eq!(read_all(all[rank].1.as_ref().unwrap()), contents);
                    }
                } else {
                    let error = world.exchange_files("heap", &[], given).unwrap_err();
                    let reason = match &error {
                        WorldError::FileNotGiven {
                            rank: 1, reason, ..
                        } if giver == 1 => reason,
                        WorldError::FilesNotReceived {
                            rank: 1, reason, ..
                        } if giver == 0 => reason,
                        _ => panic!("{error}"),
                    };
                    assert!(reason.contains("Too many references"), "{error}");
                    world.barrier().unwrap(); // all are done with it
                    drop(under_way);
                }
                world.barrier().unwrap();
                exchange(&world, 1);
            });
        }
    });
}

/// Passes files that nobody reads.
fn pass(to: &UnixStream, files: &[BorrowedFd<'_>]) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(files)));
    let bytes = [std::io::IoSlice::new(&[0])];
    rustix::net::sendmsg(to, &bytes, &mut ancillary, SendFlags::empty()).unwrap();
}

/// Makes this thread, if it is root's, and no other of the process, one of another user.
fn become_nobody() {
    if rustix::process::geteuid().is_root() {
        let nobody = rustix::thread::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
    }
}

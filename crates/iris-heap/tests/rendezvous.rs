//! Who may come in, and what is said to those who may not. Ranks of a world of processes need not be processes: here
//! they are threads that each join over the socket.

use iris_heap::{Launch, World, WorldConfig, WorldError};
use std::io::{IoSlice, PipeReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

/// The version of the protocol that is spoken.
const VERSION: u32 = 3;

fn config(timeout_ms: u64) -> WorldConfig {
    WorldConfig {
        heap_bytes: 1 << 16,
        timeout: Duration::from_millis(timeout_ms),
    }
}

/// A name that is this test's and this process's own.
fn name(test: &str) -> String {
    format!("{test}-{}", std::process::id())
}

fn address(rendezvous: &str) -> SocketAddr {
    let user = rustix::process::geteuid().as_raw();
    SocketAddr::from_abstract_name(format!("iris-{user}-{rendezvous}")).unwrap()
}

fn join(name: &str, rank: usize, size: usize) -> Result<World, WorldError> {
    World::join(&Launch::new(rank, size, name).unwrap(), &config(20_000))
}

/// Connects as soon as rank 0 listens.
fn connect(rendezvous: &str) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match UnixStream::connect_addr(&address(rendezvous)) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn frame(message: &str) -> Vec<u8> {
    let mut frame = (message.len() as u32).to_le_bytes().to_vec();
    frame.extend([0; 4]);
    frame.extend(message.as_bytes());
    frame
}

fn hello(magic: &str, version: u32, size: usize, rank: usize) -> Vec<u8> {
    frame(&format!(
        r#"{{"Hello":{{"magic":"{magic}","version":{version},"size":{size},"rank":{rank}}}}}"#
    ))
}

/// What rank 0 answers to `bytes`, once it has closed the connection.
fn answer(rendezvous: &str, bytes: &[u8], close: bool) -> String {
    let mut stream = connect(rendezvous);
    stream.write_all(bytes).unwrap();
    if close {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer); // a reset after the answer is no matter
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn strangers_are_refused_with_a_reason_and_harm_nobody() {
    let name = name("strangers");
    let zero = {
        let name = name.clone();
        thread::spawn(move || join(&name, 0, 2).unwrap())
    };
    let silent = connect(&name); // says nothing, and keeps nobody waiting
    let refused: [(Vec<u8>, bool, &str); 9] = [
        (vec![0xff; 64], false, "is larger than"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), false, "is larger than"),
        (frame("{\"Hello\":"), false, "not a message"),
        (
            hello("iris-world", VERSION, 2, 1)[..20].to_vec(),
            true,
            "closed within a frame",
        ),
        (vec![1, 0, 0], true, "closed within a frame"),
        (frame("\"Goodbye\""), false, "no handshake"),
        (hello("other", VERSION, 2, 1), false, "rank 0 speaks"),
        (hello("iris-world", 99, 2, 1), false, "version 99"),
        (
            hello("iris-world", VERSION, 2, 7),
            false,
            "rank 7 does not exist in a world of 2",
        ),
    ];
    for (bytes, close, reason) in refused {
        let answer = answer(&name, &bytes, close);
        assert!(
            answer.contains("Refused") && answer.contains(reason),
            "{answer}"
        );
    }
    drop(connect(&name)); // comes and goes
    let error = join(&name, 2, 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rank 0 refused this rank: rank 2 was started for a world of 3 ranks, and rank 0 for one of 2"
    );
    let one = join(&name, 1, 2).unwrap();
    let zero = zero.join().unwrap();
    let error = join(&name, 1, 2).unwrap_err();
    assert!(
        matches!(&error, WorldError::Refused { reason } if reason == "rank 1 has joined already"),
        "{error}"
    );
    thread::scope(|scope| {
        scope.spawn(|| zero.barrier().unwrap());
        one.barrier().unwrap();
    });
    drop(silent);
}

/// A member that sends nonsense is dead, and only that.
#[test]
fn a_member_that_breaks_the_protocol_is_dead() {
    let name = name("member");
    let zero = {
        let name = name.clone();
        thread::spawn(move || join(&name, 0, 3))
    };
    let mut stream = connect(&name);
    stream
        .write_all(&hello("iris-world", VERSION, 3, 1))
        .unwrap();
    stream.write_all(&[0xff; 100]).unwrap();
    let error = zero.join().unwrap().unwrap_err();
    assert!(
        matches!(&error, WorldError::RankDied { rank: 1, during } if during == "rendezvous"),
        "{error}"
    );
}

/// Writes `bytes`, and passes so many writing ends of a pipe with the first; whether they are all closed can be read.
fn write_with_files(stream: &UnixStream, bytes: &[u8], files: usize) -> PipeReader {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let (reader, writer) = std::io::pipe().unwrap();
    let files = vec![writer.as_fd(); files];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    let parts = [IoSlice::new(bytes)];
    let sent = rustix::net::sendmsg(stream, &parts, &mut ancillary, SendFlags::empty());
    assert_eq!(sent.unwrap(), bytes.len());
    reader
}

/// A member that passes other files than it says is dead, and what it has passed is closed.
#[test]
fn a_member_that_passes_files_that_should_not_be_is_dead_and_they_are_closed() {
    let exchange = |file: &str| {
        let message = r#"{"Exchange":{"seq":0,"collective":"rendezvous","file":"#;
        frame(&format!("{message}{file}}}}}"))
    };
    let clear = frame(r#"{"Clear":{"id":3}}"#);
    let withheld = r#"{"Withheld":{"File":{"reason":"x"}}}"#;
    for (at, (bytes, files)) in [
        (exchange(r#""Nothing""#), 1),
        (exchange(r#""Nothing""#), 253),
        (exchange(r#""File""#), 0),
        (exchange(r#""File""#), 2),
        (exchange(r#""File""#), 253),
        (exchange(withheld), 1),
        (clear, 1),
        (frame("{"), 1),
        (vec![0xff; 100], 1),
    ]
    .into_iter()
    .enumerate()
    {
        let name = name(&format!("files-{at}"));
        let zero = {
            let name = name.clone();
            thread::spawn(move || join(&name, 0, 3))
        };
        let mut stream = connect(&name);
        stream
            .write_all(&hello("iris-world", VERSION, 3, 1))
            .unwrap();
        let mut welcome = [0; 8 + 29];
        stream.read_exact(&mut welcome).unwrap(); // the hello has been read, and the heap's file is lost
        let mut reader = write_with_files(&stream, &bytes, files);
        let error = zero.join().unwrap().unwrap_err();
        assert!(
            matches!(&error, WorldError::RankDied { rank: 1, .. }),
            "{at}: {error}"
        );
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "{at}");
    }
}

#[test]
fn a_stranger_that_passes_files_is_refused_and_they_are_closed() {
    let name = name("stranger-files");
    let zero = {
        let name = name.clone();
        thread::spawn(move || join(&name, 0, 2).unwrap())
    };
    let mut stream = connect(&name);
    let hello = hello("iris-world", VERSION, 2, 1);
    let mut reader = write_with_files(&stream, &hello, 253);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer); // a reset after the answer is no matter
    assert!(answer.contains("files came with a frame"), "{answer}");
    let _one = join(&name, 1, 2).unwrap();
    zero.join().unwrap();
}

#[test]
fn whoever_comes_first_waits_for_rank_0() {
    let name = name("late");
    thread::scope(|scope| {
        for rank in [2, 1] {
            let name = &name;
            scope.spawn(move || join(name, rank, 3).unwrap().barrier().unwrap());
        }
        thread::sleep(Duration::from_millis(300));
        join(&name, 0, 3).unwrap().barrier().unwrap();
    });
}

/// Also for a name that is taken, which rank 0 waits for, and for one who does not answer, whom others do.
#[test]
fn either_end_may_wait_for_ever() {
    for patient in [0, 1] {
        let name = name(&format!("for-ever-{patient}"));
        let taken = UnixListener::bind_addr(&address(&name)).unwrap();
        thread::scope(|scope| {
            for rank in [0, 1] {
                let launch = Launch::new(rank, 2, &*name).unwrap();
                let mut config = config(5000);
                if rank == patient {
                    config.timeout = Duration::MAX;
                }
                scope.spawn(move || {
                    let world = World::join(&launch, &config).unwrap();
                    if rank != patient {
                        thread::sleep(Duration::from_millis(50)); // it is waited for
                    }
                    world.barrier().unwrap();
                });
            }
            thread::sleep(Duration::from_millis(100));
            drop(taken);
        });
    }
}

#[test]
fn a_rank_that_does_not_come_is_named_by_all_that_did() {
    let name = name("absent");
    let begun = Instant::now();
    thread::scope(|scope| {
        for rank in [0, 1, 3] {
            let launch = Launch::new(rank, 5, &*name).unwrap();
            scope.spawn(move || {
                let error = World::join(&launch, &config(500)).unwrap_err();
                assert!(
                    matches!(&error, WorldError::Timeout { missing, during, .. } if missing == &[2, 4] && during == "rendezvous"),
                    "{error}"
                );
            });
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn without_rank_0_it_is_rank_0_that_did_not_come() {
    let launch = Launch::new(1, 2, name("alone")).unwrap();
    let error = World::join(&launch, &config(200)).unwrap_err();
    assert!(
        matches!(&error, WorldError::Timeout { missing, .. } if missing == &[0]),
        "{error}"
    );
}

#[test]
fn a_server_that_never_answers_is_given_up_on() {
    let name = name("mute");
    let _listener = UnixListener::bind_addr(&address(&name)).unwrap();
    let launch = Launch::new(1, 2, &*name).unwrap();
    let error = World::join(&launch, &config(300)).unwrap_err();
    assert!(
        matches!(&error, WorldError::Timeout { missing, .. } if missing == &[0]),
        "{error}"
    );
}

#[test]
fn a_server_that_speaks_something_else_is_an_error() {
    let name = name("other");
    let listener = UnixListener::bind_addr(&address(&name)).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[0xee; 64]).unwrap();
        let _ = stream.read(&mut [0; 1000]);
    });
    let launch = Launch::new(1, 2, &*name).unwrap();
    let error = World::join(&launch, &config(5000)).unwrap_err();
    assert!(matches!(error, WorldError::Protocol { .. }), "{error}");
    server.join().unwrap();
}

#[test]
fn a_taken_name_is_waited_for_and_then_an_error() {
    let name = name("taken");
    let listener = UnixListener::bind_addr(&address(&name)).unwrap();
    let launch = Launch::new(0, 2, &*name).unwrap();
    let error = World::join(&launch, &config(200)).unwrap_err();
    assert!(matches!(error, WorldError::Os { .. }), "{error}");
    drop(listener);
    // The name is free again as soon as a world has ended.
    for _ in 0..3 {
        thread::scope(|scope| {
            scope.spawn(|| join(&name, 1, 2).unwrap());
            join(&name, 0, 2).unwrap();
        });
    }
}

#[test]
fn heaps_of_different_sizes_are_named() {
    let name = name("sizes");
    thread::scope(|scope| {
        for rank in 0..3 {
            let launch = Launch::new(rank, 3, &*name).unwrap();
            let mut config = config(20_000);
            config.heap_bytes = if rank == 2 { 1 << 17 } else { 1 << 16 };
            scope.spawn(move || {
                let error = World::join(&launch, &config).unwrap_err();
                assert_eq!(
                    error.to_string(),
                    "the world: field `heap_bytes` is 131072 on rank 2, and 65536 on rank 0"
                );
            });
        }
    });
}

#[test]
fn a_world_of_one_needs_nobody() {
    let world = join(&name("one"), 0, 1).unwrap();
    world.barrier().unwrap();
    assert_eq!(world.all_gather(3u8).unwrap(), [3]);
}

/// Needs the right to become another user, which only root has; the threads of a test process may differ in theirs.
#[test]
fn another_user_is_refused_at_both_ends() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let name = name("user");
    let zero = {
        let name = name.clone();
        thread::spawn(move || join(&name, 0, 2).unwrap())
    };
    drop(connect(&name));
    let socket = address(&name);
    let refused = thread::spawn(move || {
        become_nobody();
        let mut stream = UnixStream::connect_addr(&socket).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    let refused = refused.join().unwrap();
    assert!(
        refused.contains("belongs to user 0") && refused.contains("to user 65534"),
        "{refused}"
    );
    // A listener of another user at the very name that root's ranks look for.
    let other = format!("{name}-other");
    let socket = address(&other);
    let listener = thread::spawn(move || {
        become_nobody();
        UnixListener::bind_addr(&socket).unwrap()
    });
    let _listener = listener.join().unwrap();
    let error = join(&other, 1, 2).unwrap_err();
    assert!(
        matches!(
            error,
            WorldError::OtherUser {
                theirs: 65534,
                ours: 0
            }
        ),
        "{error}"
    );
    // The refusals have done the world no harm.
    let _one = join(&name, 1, 2).unwrap();
    zero.join().unwrap();
}

/// Makes this thread, and no other of the process, one of another user.
fn become_nobody() {
    let nobody = rustix::thread::Uid::from_raw(65534);
    rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
}

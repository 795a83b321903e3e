//! Ranks that do not call, call otherwise, stand still, die, or whose device fails: everybody returns in time and names the same
//! culprit, what is queued included, and no kernel is left behind.

use crate::rig::{M, N, Rig, all_say_the_same, sizes, verdict};
use crate::support::{GpuWorld, on_gpus, processes, threads};
use iris_heap::Reason;
use iris_heap::cuda::Cuda;
use iris_heap::device::{DeviceError, Memory, RankStream};
use iris_ops::device::Launch;
use iris_ops::{MatrixMut, MatrixRef, OpError, Stall, Variant};
use iris_sync::Phase;
use iris_testkit::Failure;
use iris_testkit::device::Gpus;
use iris_testkit::worlds::Ended;
use rustix::process::{Signal, getpid, kill_process};
use std::thread::sleep;
use std::time::{Duration, Instant};

const BUDGET: Duration = Duration::from_millis(700);
/// A budget that must not be what ends a wait.
const LONG: Duration = Duration::from_secs(60);
/// Within which all must have returned, once somebody has given up, failed or died.
const SOON: Duration = Duration::from_secs(2);
/// How long those live that are to die.
const LIFE: Duration = Duration::from_millis(300);

const VARIANTS: [Variant; 4] = [
    Variant::OneShot,
    Variant::TwoShot,
    Variant::Atomic,
    Variant::Spinlock,
];

fn in_time(since: Instant, within: Duration) -> Result<(), Failure> {
    let took = since.elapsed();
    match took < within {
        true => Ok(()),
        false => Err(format!("{took:?}, and {within:?} were to be enough").into()),
    }
}

/// That the device is free: nothing spins on the rank's stream, and another kernel of it runs.
fn nothing_spins(rig: &Rig, stream: &RankStream<Cuda>) -> Result<(), Failure> {
    let since = Instant::now();
    if !stream.is_idle()? {
        return Err("something still runs".into());
    }
    rig.operands.b.upload(0, &[1.0])?;
    in_time(since, SOON)
}

/// Rank 1 makes six calls, three of them in a graph, and stops; the others queue calls and replays. Then all is reset.
fn stops_calling(world: &GpuWorld, variant: Variant) -> Result<Option<String>, Failure> {
    let mut rig = Rig::new(world, sizes().variant(variant).budget(BUDGET))?;
    let stream = RankStream::new(world)?;
    let graph = rig.capture(&stream, &[M, 1, M])?;
    rig.calls(&stream, &[M, 1, M])?;
    graph.launch(&stream, &mut [&mut rig.op])?;
    stream.synchronize()?;
    rig.right(world)?;
    world.barrier()?;
    let mut said = None;
    if world.rank() != 1 {
        let since = Instant::now();
        rig.calls(&stream, &[M; 100])?;
        for _ in 0..20 {
            graph.launch(&stream, &mut [&mut rig.op])?;
        }
        rig.calls(&stream, &[M; 100])?;
        let verdict = verdict(stream.synchronize())?;
        in_time(since, BUDGET + SOON)?;
        nothing_spins(&rig, &stream)?;
        // Whatever is asked for next is refused with the same, also in the midst of a capture.
        let refused = [
            rig.calls(&stream, &[M]),
            graph.launch(&stream, &mut [&mut rig.op]),
            rig.capture(&stream, &[M]).map(drop),
        ];
        for refused in refused {
            match refused {
                Err(OpError::Fault(again)) if again == verdict => {}
                other => return Err(format!("{other:?}, not {verdict}").into()),
            }
        }
        said = Some(verdict.to_string());
    }
    world.barrier()?;
    rig.op.reset()?;
    assert_eq!(rig.op.workspace().index()?, 0);
    rig.spoil(world)?;
    rig.calls(&stream, &[M, 2])?;
    graph.launch(&stream, &mut [&mut rig.op])?;
    stream.synchronize()?;
    rig.right(world)
        .map_err(|error| format!("after the reset: {error}"))?;
    assert_eq!(rig.op.workspace().index()?, 5);
    drop(graph);
    rig.free(world)?;
    Ok(said)
}

#[test]
fn a_rank_that_stops_calling_is_named_by_all_and_a_reset_repairs_it() {
    let Some(gpus) = Gpus::take("faults::stops_calling", 1) else {
        return;
    };
    for variant in VARIANTS {
        let said = threads(gpus.devices().len().max(2), &gpus, |world| {
            stops_calling(world, variant)
        });
        let said: Vec<_> = said.into_iter().flatten().collect();
        let text = all_say_the_same(&said);
        println!("  {variant}: {text}");
        assert!(
            text.starts_with("rank 1 stopped calling after 6 calls: rank "),
            "{text}"
        );
        assert!(
            text.contains("matmul_all_reduce, call 6 (value 7)"),
            "{text}"
        );
    }
}

#[test]
fn different_rows_are_a_fault_that_names_the_field() {
    let Some(gpus) = Gpus::take("faults::different_rows", 1) else {
        return;
    };
    let said = threads(gpus.devices().len().max(2), &gpus, |world| {
        let config = sizes().variant(Variant::TwoShot).budget(BUDGET);
        let mut rig = Rig::new(world, config)?;
        let stream = RankStream::new(world)?;
        let m = if world.rank() == 1 { M - 1 } else { M };
        rig.calls(&stream, &[M, m])?;
        let verdict = verdict(stream.synchronize())?;
        let named = matches!(verdict.reason, Reason::Mismatch { .. });
        assert!(named, "{verdict}");
        world.barrier()?;
        Ok(verdict.to_string())
    });
    let text = all_say_the_same(&said);
    assert!(text.contains("field `m` differs"), "{text}");
    assert!(text.contains(&format!("{} on rank 1", M - 1)), "{text}");
}

#[test]
fn a_rank_that_stands_still_in_a_kernel_is_named_by_all() {
    const STALL: Duration = Duration::from_secs(3);
    let Some(gpus) = Gpus::take("faults::stands_still", 1) else {
        return;
    };
    for variant in [Variant::TwoShot, Variant::OneShot] {
        let said = threads(gpus.devices().len().max(2), &gpus, |world| {
            let stall = Stall {
                rank: 1,
                index: 1,
                phase: Phase::Begin,
                time: STALL,
            };
            let config = sizes().variant(variant).budget(BUDGET).stall(stall);
            let mut rig = Rig::new(world, config)?;
            let stream = RankStream::new(world)?;
            let since = Instant::now();
            rig.calls(&stream, &[M; 10])?;
            let verdict = verdict(stream.synchronize())?;
            let within = if world.rank() == 1 { STALL } else { BUDGET };
            in_time(since, within + SOON)?;
            nothing_spins(&rig, &stream)?;
            world.barrier()?;
            rig.free(world)?;
            Ok(verdict.to_string())
        });
        let text = all_say_the_same(&said);
        assert!(
            text.starts_with("rank 1 is still at work in call 1: rank "),
            "{text}"
        );
    }
}

/// The process of `victim` is killed in the midst of its kernel, while peers wait for it in theirs.
fn killed(test: &'static str, victim: usize) -> Option<Vec<Ended>> {
    let ranks = |gpus: usize| gpus.clamp(3, 8);
    let ended = processes(
        test,
        ranks,
        |_, _| (),
        |host| {
            let world = on_gpus(host)?;
            let stall = Stall {
                rank: victim,
                index: 5,
                phase: Phase::Ready,
                time: Duration::from_secs(30),
            };
            let config = sizes().variant(Variant::TwoShot).budget(LONG).stall(stall);
            let mut rig = Rig::new(&world, config)?;
            let stream = RankStream::new(&world)?;
            let graph = rig.capture(&stream, &[M; 3])?;
            world.barrier()?;
            if world.rank() == victim {
                std::thread::spawn(|| {
                    sleep(LIFE);
                    // No destructor runs, nothing is said.
                    let _ = kill_process(getpid(), Signal::KILL);
                });
            }
            let since = Instant::now();
            rig.calls(&stream, &[M; 20])?;
            for _ in 0..10 {
                graph.launch(&stream, &mut [&mut rig.op])?;
            }
            let verdict = verdict(stream.synchronize())?;
            in_time(since, LIFE + SOON)?;
            nothing_spins(&rig, &stream)?;
            let again = graph.launch(&stream, &mut [&mut rig.op]);
            assert!(matches!(again, Err(OpError::Fault(_))), "{again:?}");
            Ok(verdict.to_string())
        },
    )?;
    assert!(!ended[victim].status.success());
    Some(ended)
}

/// What the ranks but `victim` say.
fn others(ended: Vec<Ended>, victim: usize) -> Vec<String> {
    let others = ended.into_iter().enumerate();
    let others = others.filter(|&(rank, _)| rank != victim);
    others
        .map(|(rank, ended)| {
            ended
                .said
                .unwrap_or_else(|error| panic!("rank {rank}: {error}"))
        })
        .collect()
}

/// All GPUs are as they were: calls on them are right, and take no time.
fn gpus_are_free(test: &'static str) {
    let Some(gpus) = Gpus::take(test, 1) else {
        return;
    };
    threads(gpus.devices().len(), &gpus, |world| {
        let mut rig = Rig::new(world, sizes().budget(SOON))?;
        let stream = RankStream::new(world)?;
        let since = Instant::now();
        rig.calls(&stream, &[M; 5])?;
        stream.synchronize()?;
        in_time(since, SOON)?;
        rig.right(world)?;
        rig.free(world)
    });
}

#[test]
fn a_process_killed_in_a_call_is_named_by_all() {
    let test = "faults::a_process_killed_in_a_call_is_named_by_all";
    let Some(ended) = killed(test, 1) else {
        return;
    };
    let said = others(ended, 1);
    let text = all_say_the_same(&said);
    assert!(text.starts_with("rank 1 died: rank "), "{text}");
    println!("  {text}");
    gpus_are_free("faults::killed, afterwards");
}

/// With rank 0 ends what verdicts are agreed through: each rank tells what it waited for itself.
#[test]
fn so_is_the_process_of_rank_0() {
    let Some(ended) = killed("faults::so_is_the_process_of_rank_0", 0) else {
        return;
    };
    for text in others(ended, 0) {
        assert!(text.starts_with("rank 0 died: rank "), "{text}");
    }
    gpus_are_free("faults::killed rank 0, afterwards");
}

/// A rank's kernel touches memory that is not there: its context is lost, and with it whatever the rank could still have done.
#[test]
fn a_rank_whose_device_fails_says_so_and_is_named_by_the_others() {
    const VICTIM: usize = 1;
    let test = "faults::a_rank_whose_device_fails_says_so_and_is_named_by_the_others";
    let ranks = |gpus: usize| gpus.clamp(2, 8);
    let ended = processes(
        test,
        ranks,
        |_, _| (),
        |host| {
            let world = on_gpus(host)?;
            let config = sizes().variant(Variant::TwoShot).budget(LONG);
            let mut rig = Rig::new(&world, config)?;
            let stream = RankStream::new(&world)?;
            rig.calls(&stream, &[M; 3])?;
            stream.synchronize()?;
            world.barrier()?;
            let since = Instant::now();
            if world.rank() != VICTIM {
                rig.calls(&stream, &[M; 20])?;
                let verdict = verdict(stream.synchronize())?;
                in_time(since, SOON)?;
                nothing_spins(&rig, &stream)?;
                return Ok(verdict.to_string());
            }
            const BYTES: usize = 256 << 20;
            let memory = Memory::new(world.device(), BYTES)?;
            // SAFETY: none: it is freed before it is used, so that the device fails. The process does nothing with it afterwards.
            let gone = unsafe { world.foreign_buffer::<f32>(memory.address(), BYTES / 4) }?;
            drop(memory);
            let depth = rig.operands.a.len() / M;
            let a = MatrixRef::strided(&gone, BYTES / 8, M, depth, depth, 1);
            let b = MatrixRef::new(&rig.operands.b, depth, N);
            let c = MatrixMut::new(&rig.operands.c, M, N);
            rig.op.bind(&stream)?.call(M, a, b, None, c)?;
            let error = stream.synchronize().unwrap_err();
            let failed = matches!(
                error,
                iris_heap::StreamError::Device(DeviceError::Call { .. })
            );
            assert!(failed, "{error:?}");
            in_time(since, SOON)?;
            Ok(error.to_string())
        },
    );
    let Some(ended) = ended else {
        return;
    };
    let own = ended[VICTIM].said.clone();
    println!("  rank {VICTIM}: {own:?}");
    assert!(own.unwrap().contains("ILLEGAL_ADDRESS"));
    let said = others(ended, VICTIM);
    let text = all_say_the_same(&said);
    println!("  {text}");
    assert!(text.starts_with("the device of rank 1 failed: "), "{text}");
    gpus_are_free("faults::device_fails, afterwards");
}

/// Peers of a process that dies are dropping their operation, with its calls under way.
#[test]
fn an_operation_that_is_dropped_does_not_wait_for_the_dead() {
    let test = "faults::an_operation_that_is_dropped_does_not_wait_for_the_dead";
    let ended = processes(
        test,
        |gpus| gpus.clamp(2, 8),
        |_, _| (),
        |host| {
            let world = on_gpus(host)?;
            let mut rig = Rig::new(&world, sizes().budget(LONG))?;
            let stream = RankStream::new(&world)?;
            world.barrier()?;
            if world.rank() == 1 {
                sleep(LIFE);
                let _ = kill_process(getpid(), Signal::KILL);
            }
            let since = Instant::now();
            rig.calls(&stream, &[M; 20])?;
            drop(rig.op);
            in_time(since, LIFE + SOON)?;
            Ok(String::new())
        },
    );
    if let Some(ended) = ended {
        others(ended, 1);
    }
}

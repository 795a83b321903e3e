//! Worlds of threads: collectives, the symmetric heap, and what happens when a rank is gone.

use iris_heap::{MAX_RANKS, World, WorldConfig, WorldError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

fn config() -> WorldConfig {
    WorldConfig {
        heap_bytes: 1 << 20,
        timeout: Duration::from_secs(20),
    }
}

/// Unwraps what all ranks return.
fn all<T>(results: Result<Vec<Result<T, WorldError>>, WorldError>) -> Vec<T> {
    results
        .unwrap()
        .into_iter()
        .map(|result| result.unwrap())
        .collect()
}

#[test]
fn worlds_of_no_ranks_and_of_too_many_are_errors() {
    let none = World::of_threads(0, &config()).unwrap_err();
    assert!(matches!(none, WorldError::NoRanks));
    let many = World::of_threads(MAX_RANKS + 1, &config()).unwrap_err();
    assert_eq!(
        many.to_string(),
        "a world of 257 ranks was asked for, and can have 256 at most"
    );
    let huge = WorldConfig {
        heap_bytes: usize::MAX,
        ..config()
    };
    let huge = World::of_threads(2, &huge).unwrap_err();
    assert!(matches!(huge, WorldError::HeapTooLarge { .. }), "{huge}");
}

#[test]
fn the_largest_world_meets() {
    let sums = World::threads(MAX_RANKS, &config(), |world| {
        world.barrier()?;
        Ok(world.all_gather(world.rank() as u32)?.iter().sum::<u32>())
    });
    assert!(all(sums).iter().all(|&sum| sum == 255 * 128));
}

#[test]
fn eight_ranks_exchange_a_thousand_times() {
    let ranks = World::threads(8, &config(), |world| {
        for round in 0..1000u64 {
            let mine = round * 8 + world.rank() as u64;
            let all = world.all_gather(mine)?;
            assert!(all.iter().copied().eq(round * 8..round * 8 + 8));
        }
        Ok(world.rank())
    });
    assert_eq!(all(ranks), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn bytes_may_differ_in_length_and_values_come_from_their_root() {
    all(World::threads(3, &config(), |world| {
        let mine = vec![world.rank() as u8; world.rank()];
        assert_eq!(
            world.all_gather_bytes(&mine)?,
            [vec![], vec![1], vec![2, 2]]
        );
        assert_eq!(world.broadcast(2, world.rank() as i32 * 10)?, 20);
        let error = world.broadcast(3, 0u8).unwrap_err();
        assert!(matches!(error, WorldError::NoSuchRank { rank: 3, size: 3 }));
        let error = world.all_gather_bytes(&vec![0; 2 << 20]).unwrap_err();
        assert!(matches!(error, WorldError::PayloadTooLarge { .. }));
        world.barrier()
    }));
}

/// All fail together, and so all make the next collective together.
#[test]
fn bytes_that_are_too_many_on_one_rank_are_an_error_on_all_that_names_it() {
    all(World::threads(3, &config(), |world| {
        for large in 0..3 {
            let len = if world.rank() == large { 2 << 20 } else { 1 };
            let error = world.all_gather_bytes(&vec![9; len]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "all_gather_bytes: rank {large} gave 2097152 bytes, and 1048576 are the most that one may give"
                )
            );
            assert_eq!(world.all_gather(world.rank() as u8)?, [0, 1, 2]);
        }
        world.barrier()
    }));
}

#[test]
fn ranks_that_disagree_are_told_the_same() {
    let errors = all(World::threads(4, &config(), |world| {
        let n = if world.rank() >= 2 { 7 } else { 5 };
        let fields = [("m", "3".to_owned()), ("n", n.to_string())];
        Ok(world.agree("matmul", &fields).unwrap_err().to_string())
    }));
    for error in errors {
        assert_eq!(error, "matmul: field `n` is 7 on rank 2, and 5 on rank 0");
    }
}

#[test]
fn different_collectives_are_told_apart_and_the_next_one_works() {
    let errors = all(World::threads(3, &config(), |world| {
        let error = if world.rank() == 1 {
            world.all_gather(1u8).map(drop).unwrap_err()
        } else {
            world.barrier().unwrap_err()
        };
        world.barrier()?;
        Ok(error)
    }));
    for error in errors {
        let WorldError::CollectiveMismatch {
            rank,
            theirs,
            other_rank,
            ours,
        } = error
        else {
            panic!("{error}");
        };
        let of = |rank| {
            if rank == 1 {
                "all_gather of u8"
            } else {
                "barrier"
            }
        };
        assert_eq!((&*theirs, &*ours), (of(rank), of(other_rank)));
        assert_ne!(theirs, ours);
    }
}

#[test]
fn ranks_may_wait_for_ever() {
    let config = WorldConfig {
        timeout: Duration::MAX,
        ..config()
    };
    all(World::threads(3, &config, |world| {
        // So that the others do wait.
        std::thread::sleep(Duration::from_millis(50 * world.rank() as u64));
        world.barrier()?;
        assert_eq!(world.all_gather(world.rank() as u8)?, [0, 1, 2]);
        Ok(())
    }));
}

#[test]
fn a_timeout_names_who_did_not_come_and_who_comes_late_hears_of_it() {
    let config = WorldConfig {
        timeout: Duration::from_millis(200),
        ..config()
    };
    let worlds = World::threads(4, &config, |world| {
        if world.rank() % 2 == 1 {
            std::thread::sleep(Duration::from_millis(600));
        }
        let error = world.barrier().unwrap_err();
        assert!(
            matches!(&error, WorldError::Timeout { missing, .. } if missing == &[1, 3]),
            "{error}"
        );
        world
    });
    drop(worlds.unwrap());
}

#[test]
fn a_rank_that_panics_is_dead_to_the_others_and_its_panic_is_resumed() {
    let begun = Instant::now();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        World::threads(3, &config(), |world| {
            if world.rank() == 1 {
                panic!("rank 1 has had enough");
            }
            for _ in 0..2 {
                let error = world.barrier().unwrap_err();
                assert!(
                    matches!(error, WorldError::RankDied { rank: 1, .. }),
                    "{error}"
                );
            }
        })
    }));
    let message = *panic.unwrap_err().downcast::<&str>().unwrap();
    assert_eq!(message, "rank 1 has had enough");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_rank_that_has_left_is_missed_by_name() {
    all(World::threads(3, &config(), |world| {
        world.barrier()?;
        if world.rank() != 2 {
            let error = world.barrier().unwrap_err();
            assert_eq!(error.to_string(), "rank 2 has left the world (barrier)");
        }
        Ok(())
    }));
}

#[test]
fn regions_lie_at_the_same_offset_and_are_zero() {
    all(World::threads(3, &config(), |world| {
        let first = world.allocate(1000, 8)?;
        let second = world.allocate(100, 4096)?;
        assert_eq!(second.offset() % 4096, 0);
        let offsets = world.all_gather([first.offset() as u64, second.offset() as u64])?;
        assert!(offsets.iter().all(|&pair| pair == offsets[0]));
        let start = world.base(world.rank()).wrapping_add(first.offset());
        // SAFETY: the region is this rank's own, and no peer touches it before the barrier in `free`.
        unsafe { start.write_bytes(0xff, 1000) };
        let offset = first.offset();
        world.free(first)?;
        let again = world.allocate(1000, 8)?;
        assert_eq!(again.offset(), offset);
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts(start, 1000) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        world.barrier()
    }));
}

#[test]
fn a_full_heap_is_full_on_all_ranks_and_says_how_much_is_needed() {
    all(World::threads(2, &config(), |world| {
        let half = world.allocate(1 << 19, 1)?;
        for bytes in [1 << 20, usize::MAX / 2, usize::MAX] {
            let error = world.allocate(bytes, 1).unwrap_err();
            let WorldError::HeapFull {
                needed,
                free,
                largest,
                heap,
            } = error
            else {
                panic!("{error}");
            };
            assert!(needed >= bytes);
            assert_eq!((free, largest, heap), (1 << 19, 1 << 19, 1 << 20));
        }
        let error = world.symmetric_buffer::<u64>(usize::MAX).unwrap_err();
        assert!(matches!(error, WorldError::HeapFull { .. }), "{error}");
        let error = world.allocate(1, 3).unwrap_err();
        assert!(
            matches!(error, WorldError::Alignment { align: 3 }),
            "{error}"
        );
        world.free(half)?;
        world.allocate(1 << 20, 1).map(drop)
    }));
}

/// More elements than an address space has, more bytes than one object may have, and more than there are addresses for.
#[test]
fn plain_buffers_that_do_not_fit_tell_their_size() {
    all(World::threads(1, &config(), |world| {
        for (len, needed) in [
            (usize::MAX / 2, usize::MAX),
            (usize::MAX / 8, (usize::MAX / 8) * 4),
            (1 << 59, 1 << 61),
            (1 << 50, 1 << 52),
        ] {
            let error = world.plain_buffer::<f32>(len).unwrap_err();
            assert!(
                matches!(error, WorldError::OutOfMemory { rank: 0, bytes } if bytes == needed),
                "{error}"
            );
            let panic = catch_unwind(AssertUnwindSafe(|| world.buffer::<f32>(len))).unwrap_err();
            let said = panic.downcast::<String>().unwrap();
            let expected = format!("memory cannot hold {len} elements of 4 bytes");
            assert_eq!(*said, expected);
        }
        let fits = world.plain_buffer::<f32>(3)?;
        assert_eq!(fits.read(), [0.0; 3]);
        Ok(())
    }));
}

#[test]
fn different_requests_are_named_and_take_nothing() {
    all(World::threads(3, &config(), |world| {
        let bytes = if world.rank() == 1 { 2 << 20 } else { 64 };
        let error = world.allocate(bytes, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "allocation: field `bytes` is 2097152 on rank 1, and 64 on rank 0"
        );
        assert_eq!(world.free_bytes(), 1 << 20);
        let (one, two) = (world.allocate(1, 1)?, world.allocate(1, 1)?);
        let (mine, other) = if world.rank() == 2 {
            (two, one)
        } else {
            (one, two)
        };
        let error = world.free(mine).unwrap_err();
        assert!(
            matches!(error, WorldError::Disagreement { rank: 2, .. }),
            "{error}"
        );
        {
            let _dropped = other;
        }
        assert_eq!(
            world.free_bytes(),
            (1 << 20) - 512,
            "a dropped handle frees nothing"
        );
        Ok(())
    }));
}

#[test]
fn a_symmetric_buffer_is_freed_by_all_once_nobody_shares_it() {
    all(World::threads(2, &config(), |world| {
        let buffer = world.symmetric_buffer::<f32>(100)?;
        assert!(buffer.is_symmetric());
        buffer.fill(1.0);
        let clone = (world.rank() == 1).then(|| buffer.clone());
        let error = world.free_buffer(buffer).unwrap_err();
        assert!(
            matches!(error, WorldError::StillShared { rank: 1 }),
            "{error}"
        );
        drop(clone);
        let free = world.free_bytes();
        let buffer = world.symmetric_buffer::<f32>(100)?;
        assert_eq!(buffer.read(), [0.0; 100]);
        world.free_buffer(buffer)?;
        assert_eq!(world.free_bytes(), free);
        let error = world.free_buffer(world.buffer::<u8>(3)).unwrap_err();
        assert!(
            matches!(error, WorldError::NotSymmetric { rank: 0 }),
            "{error}"
        );
        Ok(())
    }));
}

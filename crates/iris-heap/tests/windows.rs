//! One-sided access: copies of any length, atomics under contention, and what is out of range.

use iris_heap::{RmaError, Window, World, WorldConfig, WorldError};
use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};

fn world<T: Send>(ranks: usize, body: impl Fn(World) -> T + Sync) -> Vec<T> {
    let config = WorldConfig {
        heap_bytes: 1 << 20,
        ..WorldConfig::default()
    };
    World::threads(ranks, &config, body).unwrap()
}

/// Puts and gets ranges of every start and length.
fn ranges<T: bytemuck::Pod + PartialEq + std::fmt::Debug>(
    world: &World,
    value: impl Fn(usize) -> T,
) {
    const LEN: usize = 19;
    let window: Window<T> = world.window(LEN).unwrap();
    let next = (world.rank() + 1) % world.size();
    let mut model = vec![T::zeroed(); LEN];
    for at in 0..=LEN {
        for count in 0..=LEN - at {
            let part: Vec<T> = (0..count).map(|i| value(31 * at + 7 * count + i)).collect();
            window.put(next, at, &part).unwrap();
            model[at..at + count].copy_from_slice(&part);
            let mut back = vec![value(0); count];
            window.get(next, at, &mut back).unwrap();
            assert_eq!(back, part);
        }
        let mut all = vec![value(0); LEN];
        window.get(next, 0, &mut all).unwrap();
        assert_eq!(all, model);
    }
    world.barrier().unwrap();
    world.free_window(window).unwrap();
}

#[test]
fn copies_of_every_length_and_place() {
    world(2, |world| {
        ranges(&world, |i| i as u8);
        ranges(&world, |i| [i as u8; 3]);
        ranges(&world, |i| i as i16);
        ranges(&world, |i| [i as u16; 3]);
        ranges(&world, |i| i as f32 + 0.5);
        ranges(&world, |i| [i as u32; 3]);
        ranges(&world, |i| i as f64 + 0.5);
        ranges(&world, |i| [i as u64; 2]);
    });
}

#[test]
fn additions_under_contention_are_all_counted() {
    const ROUNDS: u64 = 5000;
    world(4, |world| {
        let ints: Window<i32> = world.window(2).unwrap();
        let longs: Window<u64> = world.window(2).unwrap();
        let floats: Window<f32> = world.window(1).unwrap();
        let doubles: Window<f64> = world.window(1).unwrap();
        for i in 0..ROUNDS {
            let to = (i % 4) as usize;
            ints.fetch_add(to, 0, 2, Relaxed).unwrap();
            ints.fetch_sub(to, 1, 3, AcqRel).unwrap();
            longs.fetch_add(to, 1, 5, SeqCst).unwrap();
            longs
                .fetch_max(to, 0, i * 4 + world.rank() as u64, Relaxed)
                .unwrap();
            floats.fetch_add(to, 0, 1.0, Relaxed).unwrap();
            doubles.fetch_add(to, 0, 0.5, Relaxed).unwrap();
        }
        world.barrier().unwrap();
        let (rank, rounds) = (world.rank(), ROUNDS as i32);
        assert_eq!(ints.load(rank, 0, Acquire).unwrap(), 2 * rounds);
        assert_eq!(ints.load(rank, 1, Acquire).unwrap(), -3 * rounds);
        assert_eq!(longs.load(rank, 1, Acquire).unwrap(), 5 * ROUNDS);
        let last = (0..ROUNDS).rfind(|i| i % 4 == rank as u64).unwrap();
        assert_eq!(longs.load(rank, 0, Acquire).unwrap(), last * 4 + 3);
        assert_eq!(floats.load(rank, 0, Acquire).unwrap(), ROUNDS as f32);
        assert_eq!(doubles.load(rank, 0, Acquire).unwrap(), ROUNDS as f64 / 2.0);
    });
}

#[test]
fn a_lock_made_of_compare_exchange_excludes() {
    world(4, |world| {
        let lock: Window<i64> = world.window(1).unwrap();
        let data: Window<u64> = world.window(2).unwrap();
        for _ in 0..500 {
            let mine = world.rank() as i64 + 1;
            while lock
                .compare_exchange(2, 0, 0, mine, Acquire, Relaxed)
                .unwrap()
                .is_err()
            {
                std::thread::yield_now();
            }
            let mut pair = [0; 2];
            data.get(2, 0, &mut pair).unwrap();
            assert_eq!(pair[0], pair[1]);
            data.put(2, 0, &[pair[0] + 1; 2]).unwrap();
            assert_eq!(lock.exchange(2, 0, 0, Release).unwrap(), mine);
        }
        world.barrier().unwrap();
        assert_eq!(data.load(2, 0, Relaxed).unwrap(), 2000);
    });
}

#[test]
fn a_release_makes_a_copy_visible_to_the_acquire_that_sees_it() {
    world(2, |world| {
        let data: Window<[u32; 8]> = world.window(16).unwrap();
        let flag: Window<u32> = world.window(1).unwrap();
        let peer = 1 - world.rank();
        for round in 1..=500u32 {
            data.put(peer, 0, &[[round; 8]; 16]).unwrap();
            flag.store(peer, 0, round, Release).unwrap();
            while flag.load(world.rank(), 0, Acquire).unwrap() < round {
                std::thread::yield_now();
            }
            let mut got = [[0; 8]; 16];
            data.get(world.rank(), 0, &mut got).unwrap();
            assert!(got.iter().flatten().all(|&value| value == round));
            world.barrier().unwrap(); // before the next round overwrites it
        }
    });
}

#[test]
fn every_atomic_does_what_its_name_says() {
    world(1, |world| {
        macro_rules! check {
            ($($int:ty),*) => {$(
                let w: Window<$int> = world.window(3).unwrap();
                w.store(0, 1, 0b1100, Release).unwrap();
                assert_eq!(w.fetch_and(0, 1, 0b0110, SeqCst).unwrap(), 0b1100);
                assert_eq!(w.fetch_or(0, 1, 0b0011, AcqRel).unwrap(), 0b0100);
                assert_eq!(w.fetch_xor(0, 1, 0b0101, Acquire).unwrap(), 0b0111);
                assert_eq!(w.fetch_min(0, 1, 1, Relaxed).unwrap(), 0b0010);
                assert_eq!(w.fetch_max(0, 1, 9, Relaxed).unwrap(), 1);
                assert_eq!(w.fetch_add(0, 1, <$int>::MAX, Relaxed).unwrap(), 9);
                assert_eq!(w.fetch_sub(0, 1, <$int>::MAX, Relaxed).unwrap(), <$int>::MAX.wrapping_add(9));
                assert_eq!(w.compare_exchange(0, 1, 9, 4, SeqCst, SeqCst).unwrap(), Ok(9));
                assert_eq!(w.compare_exchange(0, 1, 9, 5, SeqCst, Relaxed).unwrap(), Err(4));
                assert_eq!(w.exchange(0, 1, 6, Relaxed).unwrap(), 4);
                let mut all = [0; 3];
                w.get(0, 0, &mut all).unwrap();
                assert_eq!(all, [0, 6, 0]);
            )*};
        }
        check!(i32, u32, i64, u64);
        let w: Window<i32> = world.window(1).unwrap();
        w.store(0, 0, -5, Relaxed).unwrap();
        assert_eq!(w.fetch_min(0, 0, 3, Relaxed).unwrap(), -5);
        assert_eq!(w.fetch_max(0, 0, -7, Relaxed).unwrap(), -5);
    });
}

#[test]
fn what_is_out_of_range_is_named() {
    world(2, |world| {
        let window: Window<u32> = world.window(10).unwrap();
        let error = window.put(1, 8, &[0; 3]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "3 elements from 8 on rank 1 do not lie in a window of 10"
        );
        assert!(window.get(1, usize::MAX, &mut [0; 2]).is_err());
        assert!(window.get(1, 10, &mut []).is_ok());
        let error = window.fetch_add(2, 0, 1, Relaxed).unwrap_err();
        assert_eq!(error, RmaError::NoSuchRank { peer: 2, size: 2 });
        let error = window.load(0, 10, Relaxed).unwrap_err();
        assert!(matches!(
            error,
            RmaError::Range {
                at: 10,
                count: 1,
                ..
            }
        ));
        let order = |error: RmaError| matches!(error, RmaError::Order { .. });
        let bad = |order: Ordering| {
            window
                .compare_exchange(0, 0, 0, 1, SeqCst, order)
                .unwrap_err()
        };
        assert!(order(window.load(0, 0, Release).unwrap_err()));
        assert!(order(window.store(0, 0, 1, AcqRel).unwrap_err()));
        assert!(order(bad(Release)) && order(bad(AcqRel)));
        assert_eq!(window.load(0, 0, SeqCst).unwrap(), 0);
    });
}

#[test]
fn windows_of_different_types_or_lengths_are_told_apart() {
    world(2, |world| {
        let error = if world.rank() == 0 {
            world.window::<u64>(4).map(drop).unwrap_err()
        } else {
            world.window::<[u32; 2]>(4).map(drop).unwrap_err()
        };
        assert!(
            matches!(&error, WorldError::Disagreement { field, .. } if field == "element"),
            "{error}"
        );
        let error = world.window::<u8>(world.rank()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "window: field `len` is 1 on rank 1, and 0 on rank 0"
        );
        let window: Window<u8> = world.window(0).unwrap();
        assert!(window.is_empty());
        let clone = window.clone();
        let error = world.free_window(window).unwrap_err();
        assert!(
            matches!(error, WorldError::StillShared { rank: 0 }),
            "{error}"
        );
        drop(clone);
    });
}

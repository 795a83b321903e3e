//! Many processes at one cache, some of which are killed while they write.

use crate::fake::{Fake, request};
use iris_kernels::device::compile::{Cache, CacheUse};
use rand::{RngExt, SeedableRng};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PLACE: &str = "IRIS_TEST_CACHE";
const SEED: &str = "IRIS_TEST_SEED";
/// Kernels, of which the limit leaves room for about half.
const KERNELS: usize = 12;
const LIMIT: u64 = KERNELS as u64 / 2 * 12_600;
const ROUNDS: usize = 150;

/// One process: takes kernels at random, each of which must be right. Where it is told to, it damages some of their files.
fn work(place: PathBuf, seed: u64, damage: bool) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let cache = Cache::at(&place, LIMIT);
    let fake = Fake::new();
    let mut replaced = 0;
    for _ in 0..ROUNDS {
        let number = rng.random_range(0..KERNELS);
        let image = cache.compile(&fake, &request(number)).unwrap();
        assert_eq!(image.bytes(), Fake::expected(&request(number)), "{number}");
        match &image.provenance().cache {
            CacheUse::Hit(path) | CacheUse::Stored(path) => {
                if damage && rng.random_range(0..10) == 0 {
                    // As a machine that lost power would leave it. Another process may have removed it.
                    let _ = fs::File::options()
                        .write(true)
                        .open(path)
                        .and_then(|file| file.set_len(rng.random_range(0..5000)));
                }
            }
            CacheUse::Replaced { .. } if damage => replaced += 1,
            // Without damage among it a file that is not whole: nothing of ours may leave one, wherever it is killed.
            other => panic!("{other:?}"),
        }
    }
    assert!(!damage || replaced > 0, "no damaged file was ever met");
}

fn start(test: &str, place: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(PLACE, place)
        .env(SEED, seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn share(test: &str, damage: bool) {
    if let Some(place) = std::env::var_os(PLACE) {
        let seed = std::env::var(SEED).unwrap().parse().unwrap();
        return work(place.into(), seed, damage);
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("kernels");
    let mut workers: Vec<_> = (0..4).map(|seed| start(test, &place, seed)).collect();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(99);
    let mut killed = 0;
    let begun = Instant::now();
    while workers
        .iter_mut()
        .any(|it| it.try_wait().unwrap().is_none())
    {
        assert!(begun.elapsed() < Duration::from_secs(120), "they hang");
        let mut victim = start(test, &place, 100 + killed);
        std::thread::sleep(Duration::from_micros(rng.random_range(3_000..40_000)));
        victim.kill().unwrap();
        victim.wait().unwrap();
        killed += 1;
    }
    for worker in &mut workers {
        assert!(worker.wait().unwrap().success());
    }
    assert!(killed > 0);
    // What is left is within the limit but for those that were written at once, and right.
    let cache = Cache::at(&place, LIMIT);
    let fake = Fake::new();
    let (mut bytes, mut files) = (0, 0);
    for entry in fs::read_dir(&place).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().unwrap().ends_with(".iris-image") {
            bytes += entry.metadata().unwrap().len();
            files += 1;
        }
    }
    assert!(
        files > 0 && bytes <= LIMIT + 4 * 20_200,
        "{files} files of {bytes} bytes"
    );
    for number in 0..KERNELS {
        let image = cache.compile(&fake, &request(number)).unwrap();
        assert_eq!(image.bytes(), Fake::expected(&request(number)), "{number}");
    }
}

#[test]
fn processes_share_a_cache_and_may_be_killed() {
    share(
        "processes::processes_share_a_cache_and_may_be_killed",
        false,
    );
}

#[test]
fn processes_share_a_cache_whose_files_are_damaged() {
    share(
        "processes::processes_share_a_cache_whose_files_are_damaged",
        true,
    );
}

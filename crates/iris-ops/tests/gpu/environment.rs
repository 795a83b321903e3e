//! Ranks whose processes find no driver, no compiler, or other GPUs than their peers.

use crate::rig::{M, Rig, sizes};
use crate::support::{HEAP, budget, processes};
use iris_heap::cuda::Cuda;
use iris_heap::device::{Device, DeviceConfig, Memory, RankStream};
use iris_ops::Variant;
use iris_testkit::Failure;

const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// What two ranks say of setting up an operation, where rank 1's process has a variable set.
fn with_variable(
    test: &'static str,
    variable: &'static str,
    value: &'static str,
) -> Option<Vec<String>> {
    let ended = processes(
        test,
        |_| 2,
        |rank, command| {
            if rank == 1 {
                command.env(variable, value);
            }
        },
        |host| {
            let config = DeviceConfig {
                heap_bytes: HEAP,
                device: None,
                share_devices: true,
            };
            let made = host
                .on::<Cuda>(&config)
                .map_err(Failure::from)
                .and_then(|world| Rig::new(&world, sizes()).map(drop));
            match made {
                Ok(()) => Err("an error was expected".into()),
                Err(error) => Ok(error.to_string()),
            }
        },
    )?;
    let said = ended.into_iter().map(|ended| ended.said.unwrap());
    Some(said.collect())
}

/// That rank 1 says all of `parts`, and rank 0 that rank 1 does.
fn assert_rank_1_said(said: &[String], parts: &[&str]) {
    for part in parts {
        assert!(said[1].contains(part), "no `{part}` in: {}", said[1]);
        assert!(said[0].contains(part), "no `{part}` in: {}", said[0]);
    }
    assert!(said[0].contains(": rank 1 failed: "), "{}", said[0]);
}

#[test]
fn a_rank_without_a_driver_is_named_by_all() {
    let test = "environment::a_rank_without_a_driver_is_named_by_all";
    let library = "/nowhere/libcuda.so.1";
    if let Some(said) = with_variable(test, "IRIS_CUDA_LIBRARY", library) {
        assert_rank_1_said(&said, &["CUDA driver is not there", library]);
    }
}

#[test]
fn a_rank_without_a_compiler_is_named_by_all() {
    let test = "environment::a_rank_without_a_compiler_is_named_by_all";
    let library = "/nowhere/libnvrtc.so";
    if let Some(said) = with_variable(test, "IRIS_NVRTC_LIBRARY", library) {
        assert_rank_1_said(&said, &["no compiler for sm_", library]);
    }
}

#[test]
fn a_rank_that_sees_no_gpu_is_named_by_all() {
    let test = "environment::a_rank_that_sees_no_gpu_is_named_by_all";
    // What CUDA makes of a device that does not exist: it and all that follow are hidden.
    if let Some(said) = with_variable(test, VISIBLE, "-1") {
        assert_rank_1_said(&said, &["rank 1 of 2 finds 0 devices"]);
    }
}

/// Each process sees one GPU, another one, as its device 0, the way launchers hand GPUs out.
#[test]
fn processes_that_see_one_gpu_each_work() {
    let test = "environment::processes_that_see_one_gpu_each_work";
    let ended = processes(
        test,
        |gpus| gpus.min(8),
        |rank, command| {
            command.env(VISIBLE, rank.to_string());
        },
        |host| {
            assert_eq!(Device::<Cuda>::count()?, 1);
            let config = DeviceConfig {
                heap_bytes: HEAP,
                ..DeviceConfig::default()
            };
            let world = host.on::<Cuda>(&config)?;
            for variant in [Variant::OneShot, Variant::TwoShot] {
                let mut rig = Rig::new(&world, sizes().variant(variant).budget(budget()))?;
                let stream = RankStream::new(&world)?;
                rig.calls(&stream, &[M, 1, M])?;
                stream.synchronize()?;
                rig.right(&world)?;
                rig.free(&world)?;
            }
            // Whether a GPU that is hidden is updated atomically cannot be found out: that is an error, which names both.
            let atomic = sizes().variant(Variant::Atomic).budget(budget());
            match (world.size(), Rig::new(&world, atomic)) {
                (1, Ok(_)) => Ok(String::new()),
                (_, Err(error)) => Ok(error.to_string()),
                (_, Ok(_)) => Err("atomics of a hidden GPU were taken for granted".into()),
            }
        },
    );
    for (rank, ended) in ended.unwrap_or_default().into_iter().enumerate() {
        let said = ended
            .said
            .unwrap_or_else(|error| panic!("rank {rank}: {error}"));
        println!("  rank {rank}: {said}");
        let named = said.contains("CUDA_VISIBLE_DEVICES") && said.contains("atomic");
        assert!(said.is_empty() || named, "{said}");
    }
}

/// Each process sees one GPU as its device 0, and it is the same one.
#[test]
fn processes_that_see_the_same_gpu_are_refused_and_named() {
    let test = "environment::processes_that_see_the_same_gpu_are_refused_and_named";
    let alone = |_, command: &mut std::process::Command| {
        command.env(VISIBLE, "0");
    };
    let ended = processes(
        test,
        |_| 2,
        alone,
        |host| {
            let config = DeviceConfig {
                heap_bytes: HEAP,
                ..DeviceConfig::default()
            };
            let refused = host.on::<Cuda>(&config).map(drop);
            Ok(refused.unwrap_err().to_string())
        },
    );
    for ended in ended.unwrap_or_default() {
        let said = ended.said.unwrap();
        assert!(said.contains("ranks 0 and 1 "), "{said}");
    }
}

/// A rank whose GPU has less room than its heap needs, since something else has taken it.
#[test]
fn a_rank_whose_gpu_is_full_is_named_by_all() {
    let test = "environment::a_rank_whose_gpu_is_full_is_named_by_all";
    let ended = processes(
        test,
        |gpus| gpus.min(8),
        |_, _| (),
        |host| {
            let config = DeviceConfig::default();
            let last = host.rank() + 1 == host.size();
            let device = Device::<Cuda>::open(host.rank())?;
            let rest = usize::try_from(device.free_memory()?)? - config.heap_bytes / 2;
            let _taken = last.then(|| Memory::new(&device, rest)).transpose()?;
            host.barrier()?;
            let refused = host.on::<Cuda>(&config).map(drop);
            Ok(refused.unwrap_err().to_string())
        },
    );
    let ended = ended.unwrap_or_default();
    let last = ended.len().saturating_sub(1);
    for (rank, ended) in ended.into_iter().enumerate() {
        let said = ended.said.unwrap();
        let full = format!("has no room for {} bytes", 1 << 30);
        assert!(said.contains(&full), "{said}");
        let named = rank == last || said.contains(&format!(": rank {last} failed: "));
        assert!(named, "{said}");
    }
}

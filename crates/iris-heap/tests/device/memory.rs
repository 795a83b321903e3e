//! Memory: one device's, shared with other devices and processes, others'.

use crate::backend::{Backend, devices};
use iris_heap::device::{
    Device, DeviceError, ForeignMemory, Memory, PinnedMemory, SharedMemory, Stream,
};
use std::env;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::Command;

pub(crate) fn what_is_written_is_read_back<D: Backend>() {
    for device in devices::<D>("what_is_written_is_read_back") {
        let stream = Stream::new(&device).unwrap();
        let memory = Memory::new(&device, 4096).unwrap();
        let pattern: Vec<u8> = (0..4096).map(|i| (i * 7) as u8).collect();
        stream.write(&memory, 0, &pattern).unwrap();
        stream.fill(&memory, 100, 50, 9).unwrap();
        let mut back = vec![0; 4096];
        stream.read(&memory, 0, &mut back).unwrap();
        assert!(back.iter().enumerate().all(|(i, &byte)| {
            byte == if (100..150).contains(&i) {
                9
            } else {
                pattern[i]
            }
        }));
        assert!(matches!(
            stream.read(&memory, 4000, &mut [0; 97]),
            Err(DeviceError::Range {
                at: 4000,
                end: 4097,
                len: 4096
            })
        ));
        let pinned = PinnedMemory::new(&device, 64).unwrap();
        // SAFETY: 64 bytes, which nothing else accesses.
        let host = unsafe { std::slice::from_raw_parts(pinned.host(), 64) };
        assert!(host.iter().all(|&byte| byte == 0));
        assert!(device.info().architecture.starts_with(D::ARCHITECTURE));
        let most = usize::try_from(device.info().memory).unwrap();
        assert!(matches!(
            Memory::new(&device, most * 2),
            Err(DeviceError::OutOfMemory { bytes, .. }) if bytes == most * 2
        ));
    }
    if let Ok(count) = Device::<D>::count() {
        assert!(matches!(
            Device::<D>::open(count + 3),
            Err(DeviceError::NoSuchDevice { .. })
        ));
    }
}

pub(crate) fn devices_are_told_apart_and_say_what_is_free<D: Backend>() {
    let devices = devices::<D>("devices_are_told_apart");
    for (at, device) in devices.iter().enumerate() {
        let uuid = device.info().uuid;
        assert_eq!(uuid.to_string().len(), 36);
        assert_eq!(Device::<D>::open(at).unwrap().info().uuid, uuid);
        assert!(devices[..at].iter().all(|other| other.info().uuid != uuid));

        // Other tests use the device at the same time, and use little.
        let (most, bytes) = (device.info().memory, device.info().memory / 16);
        let before = device.free_memory().unwrap();
        assert!(before > bytes && before <= most);
        let memory = Memory::new(device, bytes as usize).unwrap();
        let after = device.free_memory().unwrap();
        assert!(after + bytes / 2 < before, "{before} before, {after} after");
        drop(memory);
        assert!(device.free_memory().unwrap() > after + bytes / 2);
    }
}

pub(crate) fn memory_of_others_is_used_where_it_is_what_it_is_said_to_be<D: Backend>() {
    let devices = devices::<D>("memory_of_others");
    for (at, device) in devices.iter().enumerate() {
        let memory = Memory::new(device, 4096).unwrap();
        let address = memory.address();
        let foreign = |address, bytes, align| {
            // SAFETY: what is taken lives until the end of the test, and nothing but the streams here accesses it.
            unsafe { ForeignMemory::new(device, address, bytes, align) }
        };
        let stream = Stream::new(device).unwrap();
        stream.write(&memory, 0, &[7; 4096]).unwrap();
        let borrowed = foreign(address + 16, 4080, 16).unwrap();
        assert_eq!((borrowed.address(), borrowed.len()), (address + 16, 4080));
        stream.fill(&borrowed, 4, 4, 9).unwrap();
        let mut back = [0; 12];
        stream.read(&borrowed, 0, &mut back).unwrap();
        assert_eq!(back, [7, 7, 7, 7, 9, 9, 9, 9, 7, 7, 7, 7]);
        assert!(matches!(
            stream.read(&borrowed, 4080, &mut [0]),
            Err(DeviceError::Range { .. })
        ));

        assert!(matches!(
            foreign(address + 2, 4, 4),
            Err(DeviceError::Misaligned { .. })
        ));
        assert!(matches!(
            foreign(64, 4, 4),
            Err(DeviceError::UnknownMemory { address: 64, .. })
        ));
        let large = 1 << 40;
        assert!(matches!(
            foreign(address, large, 4),
            Err(DeviceError::TooSmall { asked, found, .. })
                if asked == large as u64 && (4096..asked).contains(&found)
        ));
        let pinned = PinnedMemory::new(device, 4096).unwrap();
        assert!(matches!(
            foreign(pinned.address(), 4, 4),
            Err(DeviceError::NotDeviceMemory { .. })
        ));
        // Memory that can be shared is a device's like any other.
        let shared = SharedMemory::new(device, 1000).unwrap();
        assert!(foreign(shared.address(), shared.len(), 4096).is_ok());
        assert!(foreign(shared.address(), large, 4096).is_err());
        for other in devices.iter().skip(at + 1) {
            let theirs = Memory::new(other, 64).unwrap();
            let error = foreign(theirs.address(), 64, 1).unwrap_err();
            assert!(
                matches!(error, DeviceError::WrongDevice { found, device, .. }
                    if found == other.ordinal() && device == at),
                "{error}"
            );
        }
    }
}

const SHARED: &str = "IRIS_TEST_SHARED";
const DONE: &str = "the other process is through";

/// The owner's process writes and exports; another one imports, for the next device where there is one, reads, and writes.
pub(crate) fn another_process_maps_shared_memory<D: Backend>() {
    if let Ok(given) = env::var(SHARED) {
        return import_and_answer::<D>(&given);
    }
    let devices = devices::<D>("another_process_maps_shared_memory");
    for device in &devices {
        let memory = SharedMemory::new(device, 3 << 20).unwrap();
        let stream = Stream::new(device).unwrap();
        stream.write(&memory, 4096, &pattern(1)).unwrap();
        // Without the mark that closes it in a program that is started.
        let fd = rustix::io::dup(memory.export().unwrap()).unwrap();
        let next = (device.ordinal() + 1) % devices.len();
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg(format!("{}::another_process_maps_shared_memory", D::MODULE))
            .env(
                SHARED,
                format!("{} {next} {}", fd.as_raw_fd(), memory.len()),
            )
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains(DONE), "{said}");
        let mut back = pattern(0);
        stream.read(&memory, 1 << 20, &mut back).unwrap();
        assert!(back == pattern(2));
    }
}

fn import_and_answer<D: Backend>(given: &str) {
    let numbers: Vec<usize> = given
        .split(' ')
        .map(|number| number.parse().unwrap())
        .collect();
    let [fd, ordinal, bytes] = numbers[..] else {
        panic!("{given}");
    };
    // SAFETY: inherited, and closed by nobody.
    let fd = unsafe { BorrowedFd::borrow_raw(fd.try_into().unwrap()) };
    let device = Device::<D>::open(ordinal).unwrap();
    let memory = SharedMemory::import(&device, fd, bytes).unwrap();
    // Twice, as two ranks in one process would.
    let again = SharedMemory::import(&device, fd, bytes).unwrap();
    let stream = Stream::new(&device).unwrap();
    for seen in [&memory, &again] {
        let mut back = pattern(0);
        stream.read(seen, 4096, &mut back).unwrap();
        assert!(back == pattern(1));
    }
    drop(memory);
    stream.write(&again, 1 << 20, &pattern(2)).unwrap();
    assert!(SharedMemory::import(&device, fd, bytes + (1 << 30)).is_err());
    drop(again);
    eprintln!("{DONE}");
}

fn pattern(seed: u32) -> Vec<u8> {
    (0..100_000u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9).wrapping_add(seed * 77) >> 13) as u8)
        .collect()
}

pub(crate) fn a_descriptor_of_something_else_is_refused<D: Backend>() {
    for device in devices::<D>("a_descriptor_of_something_else") {
        let file = tempfile::tempfile().unwrap();
        assert!(SharedMemory::import(&device, file, 4096).is_err());
        let zero = std::fs::File::open("/dev/zero").unwrap();
        assert!(SharedMemory::import(&device, zero, 4096).is_err());
    }
}

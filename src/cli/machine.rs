//! What this machine has.

use std::fs;

/// Bytes of memory that this process may use at most: the machine's, or its control group's where that is less.
pub(crate) fn memory() -> usize {
    let info = rustix::system::sysinfo();
    // `totalram` is as wide as the platform's `long`.
    let machine = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    let group = group_limit("/sys/fs/cgroup/memory.max")
        .or_else(|| group_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    usize::try_from(group.unwrap_or(u64::MAX).min(machine)).unwrap_or(usize::MAX)
}

/// A control group's limit, where it has one.
fn group_limit(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Bytes of memory that are free or can be freed at once.
pub(crate) fn available() -> Option<usize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Processors that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_something() {
        assert!(memory() > 1 << 20);
        assert!(available().is_none_or(|bytes| bytes > 0));
        assert!(cores() >= 1);
        assert_eq!(group_limit("/nowhere"), None);
    }
}

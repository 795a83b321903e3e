//! Which architecture a device has, as the kernel driver tells it.
//!
//! The HIP runtime tells the name of an architecture in `hipDeviceProp_t` alone, whose layout differs between its
//! versions. The driver tells it, for each GPU, in a file of its own: `gfx_target_version` is 90402 for gfx942, and
//! `domain` and `location_id` are the GPU's PCI address.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the driver keeps what it knows.
const NODES: &str = "/sys/class/kfd/kfd/topology/nodes";

/// What makes the runtime take all devices for ones of another architecture: `9.4.2` for gfx942.
const OVERRIDE: &str = "HSA_OVERRIDE_GFX_VERSION";

/// Why the architecture of a device is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchitectureError {
    /// The PCI address is not one.
    #[error("`{pci_bus_id}` is not a PCI address such as 0000:c1:00.0")]
    Address {
        /// What was given.
        pci_bus_id: String,
    },
    /// The driver's files cannot be read.
    #[error("the kernel driver's `{}` cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The driver knows no GPU at this address.
    #[error("the kernel driver knows no GPU at {pci_bus_id} in `{}`", .path.display())]
    Unknown {
        /// What was given.
        pci_bus_id: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The environment says which it is to be taken for, and not in the form of a version.
    #[error("{OVERRIDE} is `{value}`, and not of the form 9.4.2")]
    Override {
        /// What it says.
        value: String,
    },
}

/// The architecture that the runtime takes the AMD GPU at a PCI address for: the one to compile for.
///
/// It is the hardware's, unless `HSA_OVERRIDE_GFX_VERSION` says otherwise.
///
/// # Errors
/// Those of [`architecture`], and where the variable is not of the form `9.4.2`.
pub fn effective_architecture(pci_bus_id: &str) -> Result<String, ArchitectureError> {
    match std::env::var_os(OVERRIDE) {
        Some(value) if !value.is_empty() => overridden(&value.to_string_lossy()),
        _ => architecture(pci_bus_id),
    }
}

/// `gfx90a` for `9.0.10`.
fn overridden(value: &str) -> Result<String, ArchitectureError> {
    let numbers: Option<Vec<u64>> = value.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[major, minor, stepping]) if major < 1000 && minor < 100 && stepping < 100 => {
            Ok(name(major * 10_000 + minor * 100 + stepping))
        }
        _ => Err(ArchitectureError::Override {
            value: value.to_owned(),
        }),
    }
}

/// The architecture of the AMD GPU at a PCI address, as in `gfx942`.
///
/// It is the hardware's: [`effective_architecture`] is what `HSA_OVERRIDE_GFX_VERSION` makes of it.
///
/// # Errors
/// Where the address is not one, and where the driver does not know the GPU.
pub fn architecture(pci_bus_id: &str) -> Result<String, ArchitectureError> {
    architecture_in(Path::new(NODES), pci_bus_id)
}

fn architecture_in(nodes: &Path, pci_bus_id: &str) -> Result<String, ArchitectureError> {
    let Some(wanted) = Address::parse(pci_bus_id) else {
        return Err(ArchitectureError::Address {
            pci_bus_id: pci_bus_id.to_owned(),
        });
    };
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| ArchitectureError::Unreadable { path, source }
    };
    for node in fs::read_dir(nodes).map_err(unreadable(nodes))? {
        let properties = node.map_err(unreadable(nodes))?.path().join("properties");
        // A container sees all nodes, and may read those of its own GPUs alone.
        let text = match fs::read_to_string(&properties) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
            text => text.map_err(unreadable(&properties))?,
        };
        let property = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| {
                line.strip_prefix(name)?
                    .strip_prefix(' ')?
                    .trim()
                    .parse()
                    .ok()
            })
        };
        let target = property("gfx_target_version").filter(|&target: &u64| target != 0);
        let address = Address::of(property("domain"), property("location_id"));
        if let Some(target) = target
            && address == Some(wanted)
        {
            return Ok(name(target));
        }
    }
    Err(ArchitectureError::Unknown {
        pci_bus_id: pci_bus_id.to_owned(),
        path: nodes.to_owned(),
    })
}

/// `gfx942` for 90402: the last two numbers are hexadecimal digits.
fn name(target: u64) -> String {
    let (major, minor, stepping) = (target / 10_000, target / 100 % 100, target % 100);
    format!("gfx{major}{minor:x}{stepping:x}")
}

/// A PCI address without its function, which partitions of one GPU use as their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    domain: u64,
    bus: u64,
    device: u64,
}

impl Address {
    /// From `domain:bus:device.function`, in hexadecimal.
    fn parse(text: &str) -> Option<Self> {
        let (text, function) = text.split_once('.')?;
        let mut parts = text.split(':').chain([function]);
        let mut part = || u64::from_str_radix(parts.next()?, 16).ok();
        let address = Self {
            domain: part()?,
            bus: part()?,
            device: part()?,
        };
        part()?;
        parts.next().is_none().then_some(address)
    }

    /// From the driver's numbers. A location is the bus in bits 8 to 15, the device in bits 3 to 7, the function below;
    /// above it, a partition's number.
    fn of(domain: Option<u64>, location: Option<u64>) -> Option<Self> {
        let location = location?;
        Some(Self {
            domain: domain?,
            bus: location >> 8 & 0xff,
            device: location >> 3 & 0x1f,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: &str = "cpu_cores_count 96\ngfx_target_version 0\nlocation_id 0\ndomain 0\n";

    /// A driver's directory with a node for each of `nodes`.
    fn driver(nodes: &[&str]) -> tempfile::TempDir {
        let driver = tempfile::tempdir().unwrap();
        for (i, properties) in nodes.iter().enumerate() {
            let node = driver.path().join(i.to_string());
            fs::create_dir(&node).unwrap();
            fs::write(node.join("properties"), properties).unwrap();
        }
        driver
    }

    fn gpu(target: u64, domain: u64, location: u64) -> String {
        format!(
            "cpu_cores_count 0\nsimd_count 304\ngfx_target_version {target}\nlocation_id {location}\ndomain {domain}\n"
        )
    }

    #[test]
    fn a_gpu_is_found_by_its_address() {
        let here = gpu(90_402, 0, 0xc100);
        let elsewhere = gpu(90_010, 1, 0xc100);
        let driver = driver(&[CPU, &elsewhere, &here]);
        let found = |address| architecture_in(driver.path(), address).unwrap();
        assert_eq!(found("0000:c1:00.0"), "gfx942");
        assert_eq!(found("0000:C1:00.0"), "gfx942");
        assert_eq!(found("0001:c1:00.0"), "gfx90a");
    }

    /// A partition has its number above the location, and in HIP in place of the function.
    #[test]
    fn a_partition_of_a_gpu_is_found() {
        let partition = gpu(90_402, 0, 0x3000_0000 | 0x0508);
        let driver = driver(&[CPU, &partition]);
        assert_eq!(
            architecture_in(driver.path(), "0000:05:01.3").unwrap(),
            "gfx942"
        );
    }

    #[test]
    fn names_have_hexadecimal_digits() {
        for (target, expected) in [
            (90_006, "gfx906"),
            (90_010, "gfx90a"),
            (90_402, "gfx942"),
            (90_500, "gfx950"),
            (100_300, "gfx1030"),
            (120_001, "gfx1201"),
        ] {
            assert_eq!(name(target), expected);
        }
    }

    #[test]
    fn an_override_is_a_version() {
        for (value, expected) in [
            ("9.4.2", "gfx942"),
            ("9.0.10", "gfx90a"),
            ("10.3.0", "gfx1030"),
        ] {
            assert_eq!(overridden(value).unwrap(), expected);
        }
        for value in ["gfx942", "9.4", "9.4.2.0", "9.4.x", "9.4.100", "-9.4.2"] {
            let error = overridden(value).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("HSA_OVERRIDE_GFX_VERSION is `{value}`, and not of the form 9.4.2")
            );
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let driver = driver(&[CPU]);
        let error = architecture_in(driver.path(), "0000:c1:00.0").unwrap_err();
        assert!(
            matches!(error, ArchitectureError::Unknown { .. }),
            "{error}"
        );
        // The host's node is at no address, least of all at the first.
        let error = architecture_in(driver.path(), "0000:00:00.0").unwrap_err();
        assert!(
            matches!(error, ArchitectureError::Unknown { .. }),
            "{error}"
        );
        let error = architecture_in(&driver.path().join("none"), "0000:c1:00.0").unwrap_err();
        assert!(
            matches!(error, ArchitectureError::Unreadable { .. }),
            "{error}"
        );
        for address in [
            "",
            "c1:00.0",
            "0000:c1:00",
            "0000:c1:00.0.1",
            "0000:0:c1:00.0",
            "0000:xx:00.0",
        ] {
            let error = architecture_in(driver.path(), address).unwrap_err();
            assert!(
                matches!(error, ArchitectureError::Address { .. }),
                "{address}: {error}"
            );
        }
    }
}

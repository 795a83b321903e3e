//! The GPUs of this machine: what each is, how far each reaches, and which of them this process sees.

use std::fmt;
use std::fs;
use std::path::Path;

use iris::heap::device::{Device, DeviceError, Driver, Reach};
use iris::kernels::device::compile::{self, Architecture};
use serde::Serialize;

use crate::cli::size::Bytes;

/// A vendor's GPUs, as its runtime shows them.
#[derive(Debug, Serialize)]
pub(super) struct Gpus {
    /// The backend that they are for: cuda or hip.
    pub(super) backend: &'static str,
    /// Those that the machine has, whether this process sees them or not; nothing where the system does not tell.
    pub(super) present: Option<usize>,
    pub(super) devices: Vec<Gpu>,
    /// What kernels on one may do to the memory of another.
    pub(super) links: Vec<Link>,
    /// The variables that are set and hide some from this process.
    pub(super) hidden_by: Vec<Hidden>,
    /// Why there are none.
    pub(super) error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Gpu {
    pub(super) ordinal: usize,
    pub(super) name: String,
    pub(super) architecture: String,
    pub(super) uuid: String,
    pub(super) pci_bus_id: String,
    pub(super) memory_bytes: u64,
    pub(super) memory_free_bytes: Option<u64>,
    pub(super) multiprocessors: u32,
    /// Whether it can do what ranks need: grids that are resident as a whole, memory that others can map.
    pub(super) cooperative: bool,
    pub(super) shareable: bool,
    /// What its kernels are compiled for; nothing where no compiler is found.
    pub(super) compiled_for: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Loads and stores.
    pub(super) access: bool,
    /// Atomics, carried out there.
    pub(super) atomics: bool,
    pub(super) error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Hidden {
    pub(super) variable: &'static str,
    pub(super) value: String,
}

/// What is looked at of a vendor besides its runtime.
pub(super) struct Vendor {
    /// The variables that hide GPUs.
    pub(super) hiding: &'static [&'static str],
    /// Files that are there where the machine has such GPUs.
    pub(super) nodes: &'static [&'static str],
    /// How many the machine has, as the system tells.
    pub(super) present: fn() -> Option<usize>,
}

pub(super) const NVIDIA: Vendor = Vendor {
    hiding: &["CUDA_VISIBLE_DEVICES"],
    nodes: &["/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"],
    present: || Some(fs::read_dir("/proc/driver/nvidia/gpus").ok()?.count()),
};

pub(super) const AMD: Vendor = Vendor {
    hiding: &[
        "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "CUDA_VISIBLE_DEVICES",
    ],
    nodes: &["/dev/kfd"],
    present: || {
        // Processors are nodes as well, and no GPUs.
        let is_gpu =
            |node: &Path| fs::read_to_string(node.join("gpu_id")).is_ok_and(|id| id.trim() != "0");
        let nodes = fs::read_dir("/sys/class/kfd/kfd/topology/nodes").ok()?;
        let nodes = nodes.filter_map(|node| Some(node.ok()?.path()));
        Some(nodes.filter(|node| is_gpu(node)).count())
    },
};

impl Vendor {
    /// A file of the system's that is there because the machine has such GPUs.
    pub(super) fn node(&self) -> Option<&'static str> {
        self.nodes
            .iter()
            .copied()
            .find(|node| Path::new(node).exists())
    }
}

impl Gpus {
    pub(super) fn find<D: Driver>(vendor: &Vendor) -> Self {
        let mut found = Self {
            backend: D::BACKEND,
            present: (vendor.present)(),
            devices: Vec::new(),
            links: Vec::new(),
            hidden_by: vendor
                .hiding
                .iter()
                .filter_map(|variable| {
                    let value = std::env::var(variable).ok()?;
                    Some(Hidden { variable, value })
                })
                .collect(),
            error: None,
        };
        match devices::<D>() {
            Ok(devices) => {
                found.links = links(&devices);
                found.devices = devices.iter().map(Gpu::of).collect();
            }
            Err(error) => found.error = Some(error.to_string()),
        }
        found
    }

    /// Whether every two reach each other.
    fn all_reach(&self) -> bool {
        self.links.iter().all(|link| link.access)
    }

    /// What keeps ranks from working on them, each with what to do.
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        if self.devices.is_empty() && !self.hidden_by.is_empty() && self.error.is_none() {
            let hidden: Vec<_> = self.hidden_by.iter().map(Hidden::to_string).collect();
            faults.push((
                "no GPU is visible".to_owned(),
                format!("{}: unset it, or name some", hidden.join(", ")),
            ));
        } else if let Some(error) = &self.error {
            faults.push((
                error.clone(),
                "in a container, let the GPUs and the driver's libraries in".to_owned(),
            ));
        }
        for gpu in &self.devices {
            if !gpu.cooperative || !gpu.shareable {
                let lacks = if gpu.cooperative {
                    "cannot share its memory by file descriptors"
                } else {
                    "cannot launch grids that are resident as a whole"
                };
                faults.push((
                    format!("GPU {} ({}) {lacks}", gpu.ordinal, gpu.name),
                    "leave it out of the visible devices".to_owned(),
                ));
            }
        }
        for link in self.links.iter().filter(|link| !link.access) {
            let reason = link.error.as_deref().unwrap_or("no peer access");
            faults.push((
                format!("GPU {} does not reach GPU {}: {reason}", link.from, link.to),
                "use GPUs that are linked, or see whether IOMMU or access control of PCIe is in the way"
                    .to_owned(),
            ));
        }
        faults
    }
}

fn devices<D: Driver>() -> Result<Vec<Device<D>>, DeviceError> {
    (0..Device::<D>::count()?).map(Device::open).collect()
}

fn links<D: Driver>(devices: &[Device<D>]) -> Vec<Link> {
    let mut links = Vec::new();
    for from in devices {
        for to in devices {
            if from.ordinal() == to.ordinal() {
                continue;
            }
            let (reach, error) = match from.reaches(to) {
                Ok(reach) => (reach, None),
                Err(error) => {
                    let none = Reach {
                        access: false,
                        atomics: false,
                    };
                    (none, Some(error.to_string()))
                }
            };
            links.push(Link {
                from: from.ordinal(),
                to: to.ordinal(),
                access: reach.access,
                atomics: reach.atomics,
                error,
            });
        }
    }
    links
}

impl Gpu {
    fn of<D: Driver>(device: &Device<D>) -> Self {
        let info = device.info();
        let architecture = info.architecture.parse::<Architecture>();
        let target = architecture
            .ok()
            .and_then(|architecture| compile::target(&architecture).ok());
        Self {
            ordinal: device.ordinal(),
            name: info.name.clone(),
            architecture: info.architecture.clone(),
            uuid: info.uuid.to_string(),
            pci_bus_id: info.pci_bus_id.clone(),
            memory_bytes: info.memory,
            memory_free_bytes: device.free_memory().ok(),
            multiprocessors: info.multiprocessors,
            cooperative: info.cooperative,
            shareable: info.shareable,
            compiled_for: target.map(|target| target.to_string()),
        }
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.variable, self.value)
    }
}

/// The table of devices and, where there are several, that of links.
impl fmt::Display for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |bytes: u64| {
            usize::try_from(bytes).map_or_else(|_| "?".into(), |it| Bytes(it).to_string())
        };
        for gpu in &self.devices {
            write!(
                f,
                "\n  {:>2}  {}, {}, {}, {} units, {}",
                gpu.ordinal,
                gpu.name,
                gpu.architecture,
                gpu.pci_bus_id,
                gpu.multiprocessors,
                bytes(gpu.memory_bytes)
            )?;
            if let Some(free) = gpu.memory_free_bytes {
                write!(f, ", {} of it free", bytes(free))?;
            }
        }
        if let Some(present) = self.present
            && (present > self.devices.len() || !self.hidden_by.is_empty())
        {
            let hidden: Vec<_> = self.hidden_by.iter().map(Hidden::to_string).collect();
            let by = if hidden.is_empty() {
                String::new()
            } else {
                format!(" ({})", hidden.join(", "))
            };
            write!(
                f,
                "\n      {} of {present} are visible{by}",
                self.devices.len()
            )?;
        }
        if self.devices.len() < 2 {
            return Ok(());
        }
        if self.all_reach() && self.links.iter().all(|link| link.atomics) {
            return write!(f, "\n      each reaches all others, with atomics");
        }
        write!(
            f,
            "\n      links, from row to column (a: loads, stores and atomics; l: loads and stores; -: none)"
        )?;
        write!(f, "\n        ")?;
        for to in &self.devices {
            write!(f, " {:>2}", to.ordinal)?;
        }
        for from in &self.devices {
            write!(f, "\n      {:>2}", from.ordinal)?;
            for to in &self.devices {
                let link = self
                    .links
                    .iter()
                    .find(|link| (link.from, link.to) == (from.ordinal, to.ordinal));
                let mark = match link {
                    None => ' ',
                    Some(Link {
                        atomics: true,
                        access: true,
                        ..
                    }) => 'a',
                    Some(Link { access: true, .. }) => 'l',
                    Some(_) => '-',
                };
                write!(f, " {mark:>2}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(ordinal: usize) -> Gpu {
        Gpu {
            ordinal,
            name: "Test".into(),
            architecture: "sm_90".into(),
            uuid: String::new(),
            pci_bus_id: format!("0000:0{ordinal}:00.0"),
            memory_bytes: 80 << 30,
            memory_free_bytes: Some(79 << 30),
            multiprocessors: 132,
            cooperative: true,
            shareable: true,
            compiled_for: None,
        }
    }

    fn gpus(count: usize) -> Gpus {
        let mut links = Vec::new();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                links.push(Link {
                    from,
                    to,
                    access: true,
                    atomics: true,
                    error: None,
                });
            }
        }
        Gpus {
            backend: "cuda",
            present: Some(count),
            devices: (0..count).map(gpu).collect(),
            links,
            hidden_by: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn gpus_that_are_well_are_told_in_a_line_each() {
        let two = gpus(2);
        assert_eq!(two.faults(), []);
        let text = two.to_string();
        assert!(
            text.contains("0  Test, sm_90, 0000:00:00.0, 132 units, 80.0 GiB, 79.0 GiB of it free"),
            "{text}"
        );
        assert!(
            text.ends_with("each reaches all others, with atomics"),
            "{text}"
        );
        assert!(!gpus(1).to_string().contains("reaches"));
    }

    #[test]
    fn a_link_that_is_missing_is_a_fault_and_shows_in_the_matrix() {
        let mut three = gpus(3);
        three.links[1].access = false;
        three.links[2].atomics = false;
        let faults = three.faults();
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].0.contains("GPU 0 does not reach GPU 2"),
            "{faults:?}"
        );
        let text = three.to_string();
        assert!(
            text.contains("\n       0     a  -\n       1  l     a\n"),
            "{text}"
        );
    }

    #[test]
    fn hidden_gpus_are_told_with_what_hides_them() {
        let mut one = gpus(1);
        one.present = Some(8);
        one.hidden_by = vec![Hidden {
            variable: "CUDA_VISIBLE_DEVICES",
            value: "3".into(),
        }];
        assert!(
            one.to_string()
                .contains("1 of 8 are visible (CUDA_VISIBLE_DEVICES=3)")
        );
        assert_eq!(one.faults(), []);
        one.devices.clear();
        let faults = one.faults();
        assert!(faults[0].1.contains("CUDA_VISIBLE_DEVICES=3"), "{faults:?}");
    }
}

//! What is measured of one point, as it stands in a line of JSON.

use serde::{Deserialize, Serialize};

use crate::cli::args::{self, Gather, How};
use crate::cli::bench::points::Point;
use crate::cli::operation::Operation;

/// One variant at one point: medians in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) op: String,
    pub(crate) backend: String,
    /// The variant that was carried out; `vendor` where nothing of ours was measured.
    pub(crate) variant: String,
    pub(crate) ranks: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) k_per_rank: usize,
    pub(crate) dtype: String,
    /// The fused operation.
    pub(crate) us: Option<f64>,
    /// The product alone; on GPUs the vendor's.
    pub(crate) us_product: f64,
    /// The collective alone; on GPUs the fastest of those measured.
    pub(crate) us_collective: f64,
    /// Both in sequence; on GPUs the vendor's product with the better of its collectives.
    pub(crate) us_unfused: f64,
    pub(crate) speedup: Option<f64>,
    pub(crate) over_limit: Option<f64>,
    /// The variant that was asked for, where another was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<String>,
    #[serde(flatten)]
    pub(crate) settings: Settings,
    /// What is measured on GPUs besides.
    #[serde(flatten)]
    pub(crate) gpu: Option<Gpu>,
}

/// What else was asked for that decides what is measured: of what is not said here, nothing was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// How A and B were split: `rows` or `columns` of A, where it is gathered first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gather: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tile: Option<String>,
    /// Whether tables of what was measured were left out.
    #[serde(default, skip_serializing_if = "is_not")]
    pub(crate) no_tuning: bool,
    /// Whether the vendor's f32 products might round their factors.
    #[serde(default, skip_serializing_if = "is_not")]
    pub(crate) tf32: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks so
fn is_not(set: &bool) -> bool {
    !set
}

impl Settings {
    pub(crate) fn of(arguments: &args::Bench, operation: Operation) -> Self {
        let How {
            gather,
            tile,
            no_tuning,
            ..
        } = arguments.how;
        let gathers = operation == Operation::AllGatherMatmul;
        let gather = gathers.then(|| match gather.unwrap_or(Gather::Rows) {
            Gather::Rows => "rows".to_owned(),
            Gather::Columns => "columns".to_owned(),
        });
        Self {
            gather,
            tile: tile.map(|tile| format!("{}x{}", tile.m, tile.n)),
            no_tuning,
            tf32: arguments.tf32,
        }
    }
}

/// What is measured on GPUs besides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gpu {
    /// The devices' name.
    pub(crate) device: String,
    /// Whether NVLink multicast was used, by anything that was measured: `off`.
    pub(crate) multicast: String,
    /// Our product alone.
    pub(crate) us_product_ours: Option<f64>,
    /// The vendor's collective alone, on plain memory.
    pub(crate) us_nccl: f64,
    /// The vendor's collective alone, on registered windows.
    pub(crate) us_nccl_window: Option<f64>,
    /// Our collective alone.
    pub(crate) us_collective_ours: Option<f64>,
    /// The vendor's product with the better of its collectives: the same as `us_unfused`.
    pub(crate) us_sequence: f64,
    /// How long it takes at least to read one rank's weights, at `read_gbps`.
    pub(crate) us_bandwidth_bound: f64,
    /// How fast a device reads its memory.
    pub(crate) read_gbps: f64,
    /// How far the fused operation's times lie apart, or the sequence's where there is none: half the distance of the quartiles over the
    /// median.
    pub(crate) spread: f64,
    /// The versions of cuBLASLt and NCCL.
    pub(crate) cublaslt: String,
    pub(crate) nccl: String,
}

/// What tells one row from another: what was measured, and on what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) op: String,
    pub(crate) backend: String,
    /// The variant that was asked for.
    pub(crate) variant: String,
    pub(crate) ranks: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) dtype: String,
    pub(crate) device: Option<String>,
    #[serde(flatten)]
    pub(crate) settings: Settings,
}

impl Key {
    /// Whether this is of that point.
    pub(crate) fn is_of(&self, point: &Point) -> bool {
        self.op == point.operation.name()
            && (self.m, self.n, self.k) == (point.size.m, point.size.n, point.size.k)
    }
}

impl Record {
    pub(crate) fn key(&self) -> Key {
        let gpu = self.gpu.as_ref();
        Key {
            op: self.op.clone(),
            backend: self.backend.clone(),
            variant: self.asked.as_ref().unwrap_or(&self.variant).clone(),
            ranks: self.ranks,
            m: self.m,
            n: self.n,
            k: self.k,
            dtype: self.dtype.clone(),
            device: gpu.map(|gpu| gpu.device.clone()),
            settings: self.settings.clone(),
        }
    }

    /// What a fused operation cannot be faster than.
    pub(crate) fn limit_us(&self) -> f64 {
        self.us_product.max(self.us_collective)
    }

    /// The most that fusing can give.
    pub(crate) fn most_speedup(&self) -> f64 {
        self.us_unfused / self.limit_us()
    }

    /// Rows, columns and depth of one rank's product, the largest.
    pub(crate) fn product_size(&self) -> [usize; 3] {
        let [mut m, mut n] = [self.m, self.n];
        match self.op.as_str() {
            "all_gather_matmul" => n = n.div_ceil(self.ranks.max(1)),
            "matmul_all_gather" => m = m.div_ceil(self.ranks.max(1)),
            _ => {}
        }
        [m, n, self.k_per_rank]
    }

    /// The floating-point operations of one rank's product.
    pub(crate) fn product_flop(&self) -> f64 {
        2.0 * self
            .product_size()
            .map(|size| size as f64)
            .iter()
            .product::<f64>()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn host() -> Record {
        Record {
            op: "matmul_all_reduce".into(),
            backend: "host".into(),
            variant: "two_shot".into(),
            ranks: 2,
            m: 16,
            n: 32,
            k: 64,
            k_per_rank: 32,
            dtype: "f32".into(),
            us: Some(10.0),
            us_product: 8.0,
            us_collective: 5.0,
            us_unfused: 13.0,
            speedup: Some(1.3),
            over_limit: Some(1.25),
            asked: None,
            settings: Settings::default(),
            gpu: None,
        }
    }

    pub(crate) fn gpu(op: &str, m: usize, us: Option<f64>) -> Record {
        Record {
            op: op.into(),
            backend: "cuda".into(),
            variant: if us.is_some() { "two_shot" } else { "vendor" }.into(),
            ranks: 4,
            m,
            n: 8192,
            k: 14336,
            dtype: "bf16".into(),
            us,
            us_product: 8.0,
            us_collective: 5.0,
            us_unfused: 13.0,
            speedup: us.map(|us| 13.0 / us),
            over_limit: us.map(|us| us / 8.0),
            asked: us.map(|_| "auto".into()),
            k_per_rank: 3584,
            settings: Settings::default(),
            gpu: Some(Gpu {
                device: "NVIDIA H100 80GB HBM3".into(),
                multicast: "off".into(),
                us_product_ours: us.map(|_| 8.5),
                us_nccl: 6.0,
                us_nccl_window: Some(5.0),
                us_collective_ours: us.map(|_| 5.5),
                us_sequence: 13.0,
                us_bandwidth_bound: 19.6,
                read_gbps: 3000.0,
                spread: 0.01,
                cublaslt: "13.0.2".into(),
                nccl: "2.28.9".into(),
            }),
        }
    }

    #[test]
    fn a_row_is_one_flat_object_and_comes_back_the_same() {
        for record in [
            host(),
            gpu("matmul_all_reduce", 16, None),
            gpu("all_gather_matmul", 16, Some(9.0)),
        ] {
            let line = serde_json::to_string(&record).unwrap();
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert!(
                value
                    .as_object()
                    .unwrap()
                    .values()
                    .all(|value| !value.is_object())
            );
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
        }
    }

    #[test]
    fn rows_have_the_keys_that_tools_know() {
        let keys = |record: &Record| -> Vec<String> {
            let value = serde_json::to_value(record).unwrap();
            value.as_object().unwrap().keys().cloned().collect()
        };
        let of_host = keys(&host());
        let of_gpu = keys(&gpu("matmul_all_reduce", 16, Some(9.0)));
        for key in [
            "op",
            "backend",
            "variant",
            "ranks",
            "m",
            "n",
            "k",
            "k_per_rank",
            "dtype",
            "us",
            "us_product",
            "us_collective",
            "us_unfused",
            "speedup",
            "over_limit",
        ] {
            assert!(of_host.iter().any(|known| known == key), "{key}");
            assert!(of_gpu.iter().any(|known| known == key), "{key}");
        }
        assert_eq!(of_host.len(), 15);
        for key in [
            "device",
            "multicast",
            "us_product_ours",
            "us_nccl",
            "us_nccl_window",
            "us_collective_ours",
            "us_sequence",
            "us_bandwidth_bound",
            "read_gbps",
            "spread",
        ] {
            assert!(of_gpu.iter().any(|known| known == key), "{key}");
        }
    }

    #[test]
    fn one_ranks_product_follows_from_the_whole() {
        assert_eq!(
            gpu("matmul_all_reduce", 16, None).product_size(),
            [16, 8192, 3584]
        );
        let mut gathered = gpu("all_gather_matmul", 16, None);
        gathered.k_per_rank = gathered.k;
        assert_eq!(gathered.product_size(), [16, 2048, 14336]);
    }
}

//! Architectures by their names, which tell whose they are.

use std::fmt;
use std::str::FromStr;

/// Whose devices have an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// NVIDIA: `sm_90a`.
    Nvidia,
    /// AMD: `gfx942`.
    Amd,
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nvidia => "NVIDIA",
            Self::Amd => "AMD",
        })
    }
}

/// What a kernel is compiled for, or what a device has: `sm_90a`, `gfx942`.
///
/// Invariant: the name is `sm_` with two or three digits and at most a letter, or `gfx` with three or four hexadecimal digits of
/// which the first is a decimal one, and for AMD any number of features (`gfx90a:xnack-`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Architecture {
    name: String,
    vendor: Vendor,
}

/// A text that is no architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no architecture; there are {}, and others of the same form", Architecture::KNOWN.join(", "))]
pub struct UnknownArchitecture {
    /// The text.
    pub given: String,
}

impl Architecture {
    /// Those that every kernel of ours is compiled for, and what comes out is checked.
    pub const KNOWN: [&'static str; 5] = ["gfx90a", "gfx942", "gfx950", "sm_80", "sm_90a"];

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose it is.
    pub fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// The name without an AMD device's features, which kernels need not be compiled for: without any, they run with each.
    pub fn processor(&self) -> &str {
        self.name
            .split_once(':')
            .map_or(self.name.as_str(), |(processor, _)| processor)
    }

    /// How files with code for it end: `cubin`, `hsaco`.
    pub fn extension(&self) -> &'static str {
        match self.vendor {
            Vendor::Nvidia => "cubin",
            Vendor::Amd => "hsaco",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(name: &str) -> Result<Self, UnknownArchitecture> {
        let vendor = if name.strip_prefix("sm_").is_some_and(is_sm) {
            Vendor::Nvidia
        } else if name.strip_prefix("gfx").is_some_and(is_gfx) {
            Vendor::Amd
        } else {
            return Err(UnknownArchitecture {
                given: name.to_owned(),
            });
        };
        Ok(Self {
            name: name.to_owned(),
            vendor,
        })
    }
}

/// `90a`: two or three digits, then a letter or nothing.
fn is_sm(rest: &str) -> bool {
    let digits = rest.trim_end_matches(|c: char| c.is_ascii_lowercase());
    matches!(digits.len(), 2 | 3)
        && digits.bytes().all(|b| b.is_ascii_digit())
        && rest.len() - digits.len() <= 1
}

/// `90a`, `1100`, `90a:sramecc+:xnack-`: a number and features, each on or off.
fn is_gfx(rest: &str) -> bool {
    let mut parts = rest.split(':');
    let number = parts.next().unwrap_or_default();
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    matches!(number.len(), 3 | 4)
        && number.as_bytes()[0].is_ascii_digit()
        && number.bytes().all(lower_hex)
        && parts.all(|feature| {
            feature.strip_suffix(['+', '-']).is_some_and(|name| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase())
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_vendor() {
        for (name, vendor) in [
            ("sm_80", Vendor::Nvidia),
            ("sm_90a", Vendor::Nvidia),
            ("sm_100f", Vendor::Nvidia),
            ("gfx90a", Vendor::Amd),
            ("gfx1100", Vendor::Amd),
            ("gfx90a:sramecc+:xnack-", Vendor::Amd),
        ] {
            let architecture: Architecture = name.parse().unwrap();
            assert_eq!(
                (architecture.vendor(), architecture.name()),
                (vendor, name),
                "{name}"
            );
        }
        let device: Architecture = "gfx90a:sramecc+:xnack-".parse().unwrap();
        assert_eq!(device.processor(), "gfx90a");
        for known in Architecture::KNOWN {
            assert!(known.parse::<Architecture>().is_ok(), "{known}");
        }
    }

    #[test]
    fn other_names_are_refused_and_known_ones_told() {
        for bad in [
            "",
            "h100",
            "sm_",
            "sm_9",
            "sm_90ab",
            "sm_9000",
            "sm_90 ",
            "SM_90",
            "compute_90",
            "gfx",
            "gfxa42",
            "gfx94",
            "gfx90A",
            "gfx90a:",
            "gfx90a:xnack",
            "gfx90a -O0",
            "sm_90a\n",
        ] {
            let error = bad.parse::<Architecture>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")), "{error}");
            assert!(
                error.contains("gfx950") && error.contains("sm_90a"),
                "{error}"
            );
        }
    }
}

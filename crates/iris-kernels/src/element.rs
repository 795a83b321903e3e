//! The element types of matrices.

use core::fmt;
use core::str::FromStr;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The type of a matrix's elements. Products are accumulated in f32 whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
}

impl DType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::BF16];

    /// Bytes an element takes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        })
    }
}

/// A name that is no dtype's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownDType(pub String);

impl fmt::Display for UnknownDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dtype `{}` is not one of f32, f16, bf16", self.0)
    }
}

impl core::error::Error for UnknownDType {}

impl FromStr for DType {
    type Err = UnknownDType;
    fn from_str(name: &str) -> Result<Self, UnknownDType> {
        match name.to_ascii_lowercase().as_str() {
            "f32" | "float32" => Ok(Self::F32),
            "f16" | "float16" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::BF16),
            _ => Err(UnknownDType(name.to_owned())),
        }
    }
}

/// An element of a matrix: f32, [`half::f16`] or [`half::bf16`].
pub trait Element: bytemuck::Pod + Send + Sync + PartialEq + fmt::Debug {
    /// Which type this is.
    const DTYPE: DType;
    /// Not a number: what outputs are poisoned with in tests.
    const NAN: Self;
    /// Exactly the same number.
    fn to_f32(self) -> f32;
    /// The nearest number, ties to even.
    fn from_f32(value: f32) -> Self;
    /// [`Element::to_f32`] of each element; the slices are of one length.
    ///
    /// # Panics
    /// If they are not.
    fn widen(from: &[Self], to: &mut [f32]);
    /// [`Element::from_f32`] of each element; the slices are of one length.
    ///
    /// # Panics
    /// If they are not.
    fn narrow(from: &[f32], to: &mut [Self]);
    /// Adds each element to its sum; the slices are of one length.
    fn add(from: &[Self], sum: &mut [f32]) {
        const CHUNK: usize = 1024; // stays in the first cache
        let mut wide = [0.0; CHUNK];
        for (from, sum) in from.chunks(CHUNK).zip(sum.chunks_mut(CHUNK)) {
            let wide = &mut wide[..from.len()];
            Self::widen(from, wide);
            for (sum, wide) in sum.iter_mut().zip(wide) {
                *sum += *wide;
            }
        }
    }
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    const NAN: Self = f32::NAN;
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(value: f32) -> Self {
        value
    }
    fn widen(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    fn narrow(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
    fn add(from: &[Self], sum: &mut [f32]) {
        for (sum, from) in sum.iter_mut().zip(from) {
            *sum += *from;
        }
    }
}

macro_rules! half_element {
    ($($half:ty, $dtype:expr);*) => {$(
        impl Element for $half {
            const DTYPE: DType = $dtype;
            const NAN: Self = <$half>::NAN;
            fn to_f32(self) -> f32 {
                <$half>::to_f32(self)
            }
            fn from_f32(value: f32) -> Self {
                <$half>::from_f32(value)
            }
            fn widen(from: &[Self], to: &mut [f32]) {
                from.convert_to_f32_slice(to);
            }
            fn narrow(from: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(from);
            }
        }
    )*};
}
half_element!(f16, DType::F16; bf16, DType::BF16);

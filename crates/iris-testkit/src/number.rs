//! The number formats that operations compute in, as an f64 reference sees them.

use core::fmt;

use half::{bf16, f16};

/// What a floating-point format rounds by, in f64.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Format {
    /// The format's name: `f32`, `f16`, `bf16`.
    pub name: &'static str,
    /// The unit roundoff `u`: rounding to nearest multiplies by `1 + d` with `|d| <= u` where nothing underflows.
    pub unit_roundoff: f64,
    /// The most that rounding to nearest adds where the result is subnormal: half the smallest subnormal.
    pub underflow: f64,
    /// The largest finite value.
    pub max: f64,
    /// From this magnitude on, rounding to nearest gives infinity: `max` and half a unit in its last place.
    pub overflow: f64,
}

impl Format {
    /// IEEE 754 binary32.
    pub const F32: Self = Self::new("f32", 24, 127);
    /// IEEE 754 binary16.
    pub const F16: Self = Self::new("f16", 11, 15);
    /// The upper half of binary32.
    pub const BF16: Self = Self::new("bf16", 8, 127);

    /// A binary format of `precision` significant bits whose largest exponent is `emax`.
    const fn new(name: &'static str, precision: i32, emax: i32) -> Self {
        let unit_roundoff = power_of_two(-precision);
        Self {
            name,
            unit_roundoff,
            underflow: power_of_two(1 - emax - precision),
            max: (2.0 - 2.0 * unit_roundoff) * power_of_two(emax),
            overflow: (2.0 - unit_roundoff) * power_of_two(emax),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// An element of a matrix: its format, and its conversions to and from f64.
pub trait Number: Copy + fmt::Debug + PartialEq + Send + Sync + 'static {
    /// The format's figures.
    const FORMAT: Format;
    /// A quiet NaN, which nothing that was computed equals.
    const NAN: Self;

    /// The value, exactly.
    fn to_f64(self) -> f64;
    /// The nearest value of the format (f16 by way of f32 where the processor converts so).
    fn from_f64(value: f64) -> Self;
}

impl Number for f32 {
    const FORMAT: Format = Format::F32;
    const NAN: Self = f32::NAN;

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Number for f16 {
    const FORMAT: Format = Format::F16;
    const NAN: Self = f16::NAN;

    fn to_f64(self) -> f64 {
        f16::to_f64(self)
    }
    fn from_f64(value: f64) -> Self {
        f16::from_f64(value)
    }
}

impl Number for bf16 {
    const FORMAT: Format = Format::BF16;
    const NAN: Self = bf16::NAN;

    fn to_f64(self) -> f64 {
        bf16::to_f64(self)
    }
    fn from_f64(value: f64) -> Self {
        bf16::from_f64(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures_match<T: Number>(smallest: f64, max: f64) {
        let format = T::FORMAT;
        assert_eq!(format.max, max);
        assert_eq!(2.0 * format.underflow, smallest);
        assert_eq!(T::from_f64(format.max).to_f64(), format.max);
        assert!(T::from_f64(format.overflow).to_f64().is_infinite());
        assert!(T::from_f64(format.overflow * 0.9999).to_f64().is_finite());
        assert_eq!(T::from_f64(smallest).to_f64(), smallest);
        // 1 + 2u is a number of the format, 1 + u is half way to it and goes to even.
        let u = format.unit_roundoff;
        assert_eq!(T::from_f64(1.0 + 2.0 * u).to_f64(), 1.0 + 2.0 * u);
        assert_eq!(T::from_f64(1.0 + u).to_f64(), 1.0);
        assert!(T::NAN.to_f64().is_nan());
    }

    #[test]
    fn the_figures_are_those_of_the_formats() {
        figures_match::<f32>(f64::from(f32::from_bits(1)), f64::from(f32::MAX));
        figures_match::<f16>(f16::from_bits(1).to_f64(), f16::MAX.to_f64());
        figures_match::<bf16>(bf16::from_bits(1).to_f64(), bf16::MAX.to_f64());
        assert_eq!(f16::FORMAT.unit_roundoff, 2f64.powi(-11));
        assert_eq!(bf16::FORMAT.unit_roundoff, 2f64.powi(-8));
    }
}

//! Handles, structs, enumerations and flags.

use std::ffi::{c_char, c_int, c_uint};
use std::ptr;

use crate::dynamic::codes::{codes, flags, handles};

handles! {
    /// A communicator: one rank's part in a world.
    ncclComm_t = *mut ncclComm;
    /// A window: memory that is registered at all ranks.
    ncclWindow_t = *mut ncclWindow_vidmem;
    /// A stream: CUDA's `CUstream` for NCCL, HIP's `hipStream_t` for RCCL.
    ncclStream_t = *mut ncclStream;
}

/// What ranks find each other by: made by one of them, and brought to all by other means.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ncclUniqueId {
    /// The library's own.
    pub internal: [c_char; 128],
}

impl ncclUniqueId {
    /// Its bytes, to be sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 128] {
        self.internal.map(|byte| byte as u8)
    }

    /// The one of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 128]) -> Self {
        let internal = bytes.map(|byte| byte as c_char);
        Self { internal }
    }
}

/// How a communicator is to be. [`ncclConfig_t::default`] leaves all to the library.
///
/// These are the fields of version 2.27. Later versions have more at the end, and older ones fewer; a library takes as
/// much as it and [`size`](Self::size) know.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ncclConfig_t {
    /// The bytes of this struct.
    pub size: usize,
    /// A number by which the library knows the struct.
    pub magic: c_uint,
    /// The version whose fields these are.
    pub version: c_uint,
    /// Whether calls return when what they do has ended (1), or at once (0).
    pub blocking: c_int,
    /// Blocks of a cluster.
    pub cgaClusterSize: c_int,
    /// The fewest blocks of a kernel.
    pub minCTAs: c_int,
    /// The most blocks of a kernel.
    pub maxCTAs: c_int,
    /// The network to be used, by its name.
    pub netName: *const c_char,
    /// Whether communicators that are split from this share its resources.
    pub splitShare: c_int,
    /// The class of its traffic.
    pub trafficClass: c_int,
    /// Its name, in logs.
    pub commName: *const c_char,
    /// Whether the network may reduce.
    pub collnetEnable: c_int,
    /// What to save: `NCCL_CTA_POLICY_...`.
    pub CTAPolicy: c_int,
    /// Whether communicators that are shrunk from this share its resources.
    pub shrinkShare: c_int,
    /// The blocks of a kernel that uses multicast.
    pub nvlsCTAs: c_int,
}

impl Default for ncclConfig_t {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: 22700,
            blocking: NCCL_CONFIG_UNDEF_INT,
            cgaClusterSize: NCCL_CONFIG_UNDEF_INT,
            minCTAs: NCCL_CONFIG_UNDEF_INT,
            maxCTAs: NCCL_CONFIG_UNDEF_INT,
            netName: ptr::null(),
            splitShare: NCCL_CONFIG_UNDEF_INT,
            trafficClass: NCCL_CONFIG_UNDEF_INT,
            commName: ptr::null(),
            collnetEnable: NCCL_CONFIG_UNDEF_INT,
            CTAPolicy: NCCL_CONFIG_UNDEF_INT,
            shrinkShare: NCCL_CONFIG_UNDEF_INT,
            nvlsCTAs: NCCL_CONFIG_UNDEF_INT,
        }
    }
}

codes! {
    /// A type of elements.
    pub struct ncclDataType_t(c_uint) {
        /// 8 bits with a sign.
        ncclInt8 = 0;
        /// 8 bits.
        ncclUint8 = 1;
        /// 32 bits with a sign.
        ncclInt32 = 2;
        /// 32 bits.
        ncclUint32 = 3;
        /// 64 bits with a sign.
        ncclInt64 = 4;
        /// 64 bits.
        ncclUint64 = 5;
        /// IEEE half precision.
        ncclFloat16 = 6;
        /// IEEE single precision.
        ncclFloat32 = 7;
        /// IEEE double precision.
        ncclFloat64 = 8;
        /// The upper half of single precision.
        ncclBfloat16 = 9;
        /// 8 bits, 4 of them exponent. RCCL has another name for it, and the same number.
        ncclFloat8e4m3 = 10;
        /// 8 bits, 5 of them exponent. RCCL has another name for it, and the same number.
        ncclFloat8e5m2 = 11;
    }
}

codes! {
    /// A reduction.
    pub struct ncclRedOp_t(c_uint) {
        /// The sum.
        ncclSum = 0;
        /// The product.
        ncclProd = 1;
        /// The greatest.
        ncclMax = 2;
        /// The least.
        ncclMin = 3;
        /// The sum, divided by the ranks.
        ncclAvg = 4;
    }
}

flags! {
    /// What a configuration does not say.
    NCCL_CONFIG_UNDEF_INT: c_int = c_int::MIN;
    /// A window like any other.
    NCCL_WIN_DEFAULT: c_int = 0x00;
    /// A window at the same offset of the same allocation at all ranks, which the library may use in kernels.
    NCCL_WIN_COLL_SYMMETRIC: c_int = 0x01;
    /// What the address and the bytes of a window are a multiple of.
    NCCL_WIN_REQUIRED_ALIGNMENT: c_int = 4096;
    /// The library chooses for speed.
    NCCL_CTA_POLICY_DEFAULT: c_int = 0x00;
    /// The library uses fewer blocks.
    NCCL_CTA_POLICY_EFFICIENCY: c_int = 0x01;
    /// The library uses no blocks where copy engines do.
    NCCL_CTA_POLICY_ZERO: c_int = 0x02;
}

const _: () = {
    assert!(size_of::<ncclUniqueId>() == 128);
    assert!(size_of::<ncclConfig_t>() == 72);
    assert!(size_of::<ncclDataType_t>() == 4);
    assert!(size_of::<ncclRedOp_t>() == 4);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_bytes() {
        let mut bytes = [0; 128];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = 255 - i as u8;
        }
        assert_eq!(ncclUniqueId::from_bytes(bytes).to_bytes(), bytes);
    }

    #[test]
    fn a_configuration_says_how_large_it_is_and_nothing_else() {
        let config = ncclConfig_t::default();
        assert_eq!(config.size, size_of::<ncclConfig_t>());
        assert_eq!(config.blocking, c_int::MIN);
        assert!(config.netName.is_null() && config.commName.is_null());
    }

    #[test]
    fn a_type_shows_its_name() {
        assert_eq!(ncclBfloat16.to_string(), "ncclBfloat16 (9)");
        assert_eq!(ncclRedOp_t(7).to_string(), "7");
    }
}

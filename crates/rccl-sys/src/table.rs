//! The functions that NCCL and RCCL share.

use std::ffi::{c_char, c_int, c_void};

use crate::dynamic::table::table;
use crate::result::ncclResult_t;
use crate::types::{
    ncclComm_t, ncclConfig_t, ncclDataType_t, ncclRedOp_t, ncclStream_t, ncclUniqueId, ncclWindow_t,
};

table! {
    /// The functions that NCCL and RCCL share, as they are in C.
    ///
    /// A function that all versions since 2.12 have is there. A younger one is an `Option`, which is empty where the
    /// loaded library does not have it. The functions may be called from any thread, those of one communicator by one
    /// thread at a time. Counts are in elements. What else each asks for is said in NVIDIA's reference of NCCL.
    pub struct Nccl {
        // The library.

        /// The version of the library.
        required fn ncclGetVersion(version: *mut c_int) -> ncclResult_t;
        /// What a code says.
        required fn ncclGetErrorString(result: ncclResult_t) -> *const c_char;
        /// The last error of this process in words; the communicator may be null.
        optional fn ncclGetLastError(comm: ncclComm_t) -> *const c_char;
        /// Allocates memory of the current device that can be registered.
        optional fn ncclMemAlloc(ptr: *mut *mut c_void, size: usize) -> ncclResult_t;
        /// Frees it.
        optional fn ncclMemFree(ptr: *mut c_void) -> ncclResult_t;

        // Communicators.

        /// What the ranks of a new world find each other by.
        required fn ncclGetUniqueId(uniqueId: *mut ncclUniqueId) -> ncclResult_t;
        /// This rank's communicator, on the current device. All ranks call it.
        required fn ncclCommInitRank(
            comm: *mut ncclComm_t, nranks: c_int, commId: ncclUniqueId, rank: c_int,
        ) -> ncclResult_t;
        /// This rank's communicator, as the configuration says.
        optional fn ncclCommInitRankConfig(
            comm: *mut ncclComm_t, nranks: c_int, commId: ncclUniqueId, rank: c_int,
            config: *mut ncclConfig_t,
        ) -> ncclResult_t;
        /// The communicators of a world in this process, one for each device.
        required fn ncclCommInitAll(
            comm: *mut ncclComm_t, ndev: c_int, devlist: *const c_int,
        ) -> ncclResult_t;
        /// Communicators for parts of a world. All its ranks call it.
        optional fn ncclCommSplit(
            comm: ncclComm_t, color: c_int, key: c_int, newcomm: *mut ncclComm_t,
            config: *mut ncclConfig_t,
        ) -> ncclResult_t;
        /// Ends what a communicator still does. All ranks call it.
        optional fn ncclCommFinalize(comm: ncclComm_t) -> ncclResult_t;
        /// Ends a communicator.
        required fn ncclCommDestroy(comm: ncclComm_t) -> ncclResult_t;
        /// Ends a communicator, and breaks off what it does.
        required fn ncclCommAbort(comm: ncclComm_t) -> ncclResult_t;
        /// What a communicator has met with since it was last asked.
        required fn ncclCommGetAsyncError(
            comm: ncclComm_t, asyncError: *mut ncclResult_t,
        ) -> ncclResult_t;
        /// The ranks of a communicator's world.
        required fn ncclCommCount(comm: ncclComm_t, count: *mut c_int) -> ncclResult_t;
        /// The device of a communicator.
        required fn ncclCommCuDevice(comm: ncclComm_t, device: *mut c_int) -> ncclResult_t;
        /// The rank of a communicator.
        required fn ncclCommUserRank(comm: ncclComm_t, rank: *mut c_int) -> ncclResult_t;

        // Registered memory.

        /// Registers memory, so that it is used in place.
        optional fn ncclCommRegister(
            comm: ncclComm_t, buff: *mut c_void, size: usize, handle: *mut *mut c_void,
        ) -> ncclResult_t;
        /// No longer has memory registered.
        optional fn ncclCommDeregister(comm: ncclComm_t, handle: *mut c_void) -> ncclResult_t;
        /// Registers memory at all ranks. All ranks call it.
        optional fn ncclCommWindowRegister(
            comm: ncclComm_t, buff: *mut c_void, size: usize, win: *mut ncclWindow_t,
            winFlags: c_int,
        ) -> ncclResult_t;
        /// No longer has memory registered at all ranks.
        optional fn ncclCommWindowDeregister(comm: ncclComm_t, win: ncclWindow_t) -> ncclResult_t;

        // Operations, in the order of a stream.

        /// Begins a group: calls that are carried out together.
        required fn ncclGroupStart() -> ncclResult_t;
        /// Ends a group, and carries it out.
        required fn ncclGroupEnd() -> ncclResult_t;
        /// Reduces `count` elements of all ranks, for all.
        required fn ncclAllReduce(
            sendbuff: *const c_void, recvbuff: *mut c_void, count: usize,
            datatype: ncclDataType_t, op: ncclRedOp_t, comm: ncclComm_t, stream: ncclStream_t,
        ) -> ncclResult_t;
        /// Reduces elements of all ranks, `recvcount` of them for each.
        required fn ncclReduceScatter(
            sendbuff: *const c_void, recvbuff: *mut c_void, recvcount: usize,
            datatype: ncclDataType_t, op: ncclRedOp_t, comm: ncclComm_t, stream: ncclStream_t,
        ) -> ncclResult_t;
        /// Gathers `sendcount` elements of each rank, for all.
        required fn ncclAllGather(
            sendbuff: *const c_void, recvbuff: *mut c_void, sendcount: usize,
            datatype: ncclDataType_t, comm: ncclComm_t, stream: ncclStream_t,
        ) -> ncclResult_t;
        /// Reduces `count` elements of all ranks, for one.
        required fn ncclReduce(
            sendbuff: *const c_void, recvbuff: *mut c_void, count: usize,
            datatype: ncclDataType_t, op: ncclRedOp_t, root: c_int, comm: ncclComm_t,
            stream: ncclStream_t,
        ) -> ncclResult_t;
        /// Brings `count` elements of one rank to all.
        required fn ncclBroadcast(
            sendbuff: *const c_void, recvbuff: *mut c_void, count: usize,
            datatype: ncclDataType_t, root: c_int, comm: ncclComm_t, stream: ncclStream_t,
        ) -> ncclResult_t;
        /// Sends elements to a rank that receives them.
        required fn ncclSend(
            sendbuff: *const c_void, count: usize, datatype: ncclDataType_t, peer: c_int,
            comm: ncclComm_t, stream: ncclStream_t,
        ) -> ncclResult_t;
        /// Receives elements from a rank that sends them.
        required fn ncclRecv(
            recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, peer: c_int,
            comm: ncclComm_t, stream: ncclStream_t,
        ) -> ncclResult_t;
    }
}

// The kernel of an operation: what an operation's file includes, and ends with. Of a world without ranks it does nothing: a launch of
// that kind only has the driver load it.
#pragma once

#include "operation.h"

#if defined(IRIS_SM90)

#include "sm90/crews.h"

/// Of how many blocks a cluster consists.
#if defined(IRIS_PAIRED) && !defined(IRIS_EMULATED)
#define IRIS_CLUSTER __cluster_dims__(2, 1, 1)
#else
#define IRIS_CLUSTER
#endif

/// Makes the kernel `NAME` of the operation `OP`.
#define IRIS_OPERATION(NAME, OP)                                                           \
    IRIS_KERNEL_ALONE(BLOCK_THREADS) IRIS_CLUSTER NAME(IRIS_GRID_CONSTANT FastArgs fast) { \
        IRIS_SHARED(CrewsShared, shared);                                                  \
        if (fast.args.world == 0) {                                                        \
            return;                                                                        \
        }                                                                                  \
        run_crews<OP>(fast, shared);                                                       \
    }

#else

#include "walk.h"

#if defined(__CUDACC__)
#pragma nv_diag_suppress 177 // of what crews alone ask of an operation
#endif

/// Makes the kernel `NAME` of the operation `OP`.
#define IRIS_OPERATION(NAME, OP)                                                                                           \
    IRIS_KERNEL(THREADS) NAME(const Args args) {                                                                           \
        IRIS_SHARED(Shared, shared);                                                                                       \
        if (args.world != 0) {                                                                                             \
            admit_launch_after();                                                                                          \
            await_launch_before();                                                                                         \
            walk<OP>(args, shared);                                                                                        \
        }                                                                                                                  \
    }

#endif

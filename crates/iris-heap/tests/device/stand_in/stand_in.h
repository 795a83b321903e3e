// A HIP runtime without GPUs, for tests: memory is the host's, a stream is a thread, and it has one kernel, `relay`.
//
// It refuses what a runtime refuses, so that a driver that is used wrongly fails here: memory of others without access, handles that
// were given back, IPC handles in the process that made them. When the process ends it says what was not given back, and fails it.
//
// From the environment: STAND_IN_DEVICES, STAND_IN_VERSION, STAND_IN_VMM (0: none, 1: without descriptors, 2: whole), STAND_IN_LINK.
// For a test to call: stand_in_live, stand_in_fail.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

// Codes of HIP.
enum { OK = 0, INVALID = 1, MEMORY = 2, NO_DEVICE = 100, BAD_DEVICE = 101, BAD_CONTEXT = 201, BAD_IMAGE = 209, NOT_FOUND = 500,
       NOT_READY = 600, ILLEGAL = 700, ALREADY = 704, UNSUPPORTED = 801, CAPTURING = 900, UNKNOWN = 999 };
// Places in each table, the most devices, and the bytes of a device's memory, of a page, of what sizes had best be multiples of.
enum { MOST = 4096, DEVICES = 4, TOTAL = 1 << 30, PAGE = 4096, GRANULE = 1 << 16 };

long setting(const char *name, long otherwise);
int devices(void);
int version(void);

/// For all tables.
extern pthread_mutex_t lock;
extern _Thread_local int current;
/// What has not been given back.
extern atomic_long live; // of all threads
/// Says what a caller did wrong, which no caller may.
int refuse(const char *what, int code);
/// Waits for all streams of a device.
void drain(int device);
/// Whether a device may access bytes.
int reaches(int device, const void *address, size_t bytes);

/// Whether this call is the one that a test wants to fail.
int fails(const char *name);
#define MAY_FAIL \
    if (fails(__func__)) return UNKNOWN

// Devices and memory. See the header.
#include "stand_in.h"

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
_Thread_local int current;
atomic_long live;
static atomic_long wrong;
static _Thread_local char failing[64];
static _Thread_local int failing_at;
static char peers[DEVICES][DEVICES]; // [device][owner]

long setting(const char *name, long otherwise) {
    const char *value = getenv(name);
    return value && *value ? atol(value) : otherwise;
}
int devices(void) { return (int)setting("STAND_IN_DEVICES", 2); }
int version(void) { return (int)setting("STAND_IN_VERSION", 70125424); }

/// Has the calling thread's n-th call of a function fail.
void stand_in_fail(const char *name, int n) {
    snprintf(failing, sizeof failing, "%s", name);
    failing_at = n;
}
int fails(const char *name) { return failing_at && !strcmp(name, failing) && !--failing_at; }

/// What has not been given back.
long stand_in_live(void) { return live; }

int refuse(const char *what, int code) {
    fprintf(stderr, "stand-in: %s\n", what);
    wrong++;
    return code;
}

__attribute__((destructor)) static void end(void) {
    if (live || wrong) {
        fprintf(stderr, "stand-in: %ld things were not given back, %ld calls were wrong\n", live, wrong);
        fflush(NULL);
        _exit(9);
    }
}

// Devices.

const char *hipGetErrorName(int code) { return (void)code, NULL; }
int hipRuntimeGetVersion(int *out) { return *out = version(), OK; }
int hipGetDeviceCount(int *count) { return *count = devices(), *count ? OK : NO_DEVICE; }
int hipSetDevice(int device) { return device < 0 || device >= devices() ? BAD_DEVICE : (current = device, OK); }
int hipGetDevice(int *device) { return *device = current, OK; }
int hipDeviceGetName(char *name, int bytes, int device) { return snprintf(name, (size_t)bytes, "Stand-in %d", device), OK; }
int hipDeviceGetPCIBusId(char *id, int bytes, int device) {
    return snprintf(id, (size_t)bytes, "0000:%02x:00.0", 0xc1 + device), OK;
}
int hipDeviceGetUuid(char uuid[16], int device) {
    (void)device; // devices without a number of their own
    memset(uuid, 0, 16);
    uuid[0] = uuid[1] = 'X';
    return OK;
}
int hipDeviceTotalMem(size_t *bytes, int device) { return *bytes = TOTAL, device < devices() ? OK : BAD_DEVICE; }
int hipDeviceGetAttribute(int *value, int attribute, int device) {
    if (device >= devices()) return BAD_DEVICE;
    switch (attribute) {
    case 10: return *value = 1, OK; // cooperative
    case 63: return *value = 4, OK; // multiprocessors
    case 74: return *value = 65536, OK; // shared memory of a block
    case 89: return *value = setting("STAND_IN_VMM", 2) > 0, OK;
    default: return INVALID;
    }
}
int hipDeviceCanAccessPeer(int *can, int device, int peer) { return *can = device != peer, OK; }
int hipDeviceGetP2PAttribute(int *value, int attribute, int device, int peer) {
    return *value = 1, attribute == 2 && device != peer ? OK : INVALID;
}
int hipExtGetLinkTypeAndHopCount(int device, int peer, uint32_t *link, uint32_t *hops) {
    *link = (uint32_t)setting("STAND_IN_LINK", 4), *hops = 1;
    return device != peer ? OK : INVALID;
}
int hipDeviceEnablePeerAccess(int owner, unsigned flags) {
    MAY_FAIL;
    if (flags || owner == current) return INVALID;
    if (peers[current][owner]) return ALREADY;
    peers[current][owner] = 1;
    return OK;
}

// Memory. A block is an allocation, pinned memory, or physical memory that is mapped somewhere.

enum Kind { FREE, DEVICE, HOST, MAPPED, OPENED };
struct Block { enum Kind kind; char *start; size_t bytes; int device, fd; unsigned access; };
static struct Block blocks[MOST];
struct Physical { int used, fd, device; size_t bytes; int exportable; };
static struct Physical physicals[MOST];
struct Reserved { char *start; size_t bytes; };
static struct Reserved reserveds[MOST];

static size_t used(int device) {
    size_t sum = 0;
    for (int i = 0; i < MOST; i++) {
        if (blocks[i].kind == DEVICE && blocks[i].device == device) sum += blocks[i].bytes;
        if (physicals[i].used && physicals[i].device == device) sum += physicals[i].bytes;
    }
    return sum;
}

static int memory(size_t bytes) {
    int fd = memfd_create("stand-in", MFD_CLOEXEC);
    return fd >= 0 && !ftruncate(fd, (off_t)bytes) ? fd : -1;
}

static struct Block *at(const void *address) {
    for (int i = 0; i < MOST; i++)
        if (blocks[i].kind && blocks[i].start <= (char *)address && (char *)address < blocks[i].start + blocks[i].bytes)
            return &blocks[i];
    return NULL;
}

static struct Block *slot(void) {
    for (int i = 0; i < MOST; i++)
        if (!blocks[i].kind) return &blocks[i];
    abort();
}

int reaches(int device, const void *address, size_t bytes) {
    struct Block *block = at(address);
    if (!block || (char *)address + bytes > block->start + block->bytes) return 0;
    if (block->kind == HOST || block->kind == OPENED) return 1;
    if (block->kind == MAPPED) return block->access >> device & 1;
    return block->device == device || peers[device][block->device];
}

static int allocate(void **address, size_t bytes, enum Kind kind) {
    pthread_mutex_lock(&lock);
    int code = MEMORY;
    size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
    if (bytes && whole <= TOTAL && (kind == HOST || used(current) + whole <= TOTAL)) {
        int fd = memory(whole);
        void *start = fd < 0 ? MAP_FAILED : mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (start != MAP_FAILED) {
            // What was not zeroed is seen.
            memset(start, 0xa5, whole);
            *slot() = (struct Block){kind, start, bytes, current, fd, 0};
            live++;
            *address = start;
            code = OK;
        }
    }
    pthread_mutex_unlock(&lock);
    return code;
}

static int drop_block(void *address, enum Kind kind) {
    pthread_mutex_lock(&lock);
    struct Block *block = at(address);
    int code = OK;
    if (!block || block->kind != kind || block->start != address) {
        code = refuse("memory was freed that is none", INVALID);
    } else {
        munmap(block->start, (block->bytes + PAGE - 1) / PAGE * PAGE);
        close(block->fd);
        block->kind = FREE;
        live--;
    }
    pthread_mutex_unlock(&lock);
    return code;
}

int hipMalloc(void **address, size_t bytes) { MAY_FAIL; return allocate(address, bytes, DEVICE); }
int hipExtMallocWithFlags(void **address, size_t bytes, unsigned flags) {
    MAY_FAIL;
    return flags == 0 || flags == 3 ? allocate(address, bytes, DEVICE) : INVALID;
}
int hipFree(void *address) {
    struct Block *block = at(address);
    if (block) drain(block->device);
    return drop_block(address, DEVICE);
}
int hipHostMalloc(void **address, size_t bytes, unsigned flags) {
    MAY_FAIL;
    return flags & 0x40000000u ? allocate(address, bytes, HOST) : INVALID;
}
int hipHostFree(void *address) { return drop_block(address, HOST); }
int hipHostGetDevicePointer(void **device, void *host, unsigned flags) {
    MAY_FAIL;
    *device = host;
    return flags ? INVALID : OK;
}
int hipMemGetInfo(size_t *free, size_t *total) {
    pthread_mutex_lock(&lock);
    *total = TOTAL;
    *free = TOTAL - used(current);
    pthread_mutex_unlock(&lock);
    return OK;
}

struct Attributes { int type, device; void *on_device, *on_host; int managed; unsigned flags; };
int hipPointerGetAttributes(struct Attributes *attributes, const void *address) {
    pthread_mutex_lock(&lock);
    struct Block *block = at(address);
    if (block)
        *attributes = (struct Attributes){block->kind == HOST ? 1 : 2, block->device, (void *)address, NULL, 0, 0};
    pthread_mutex_unlock(&lock);
    return block ? OK : INVALID;
}
int hipMemGetAddressRange(void **start, size_t *bytes, void *address) {
    pthread_mutex_lock(&lock);
    struct Block *block = at(address);
    if (block) *start = block->start, *bytes = block->bytes;
    pthread_mutex_unlock(&lock);
    return block ? OK : NOT_FOUND;
}

int hipIpcGetMemHandle(int handle[16], void *address) {
    MAY_FAIL;
    struct Block *block = at(address);
    if (!block || block->kind != DEVICE || block->start != address) return INVALID;
    memset(handle, 0, 64);
    handle[0] = getpid(), handle[1] = block->fd, handle[2] = block->device, handle[3] = (int)block->bytes;
    return OK;
}
struct Name { int words[16]; };
int hipIpcOpenMemHandle(void **address, struct Name name, unsigned flags) {
    MAY_FAIL;
    if (flags != 1) return INVALID;
    if (name.words[0] == getpid()) return refuse("an IPC handle was opened where it was made", BAD_CONTEXT);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", name.words[0], name.words[1]);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return INVALID;
    size_t bytes = (size_t)name.words[3];
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    pthread_mutex_lock(&lock);
    *slot() = (struct Block){OPENED, start, bytes, name.words[2], fd, 0};
    live++;
    pthread_mutex_unlock(&lock);
    *address = start;
    return OK;
}
int hipIpcCloseMemHandle(void *address) { return drop_block(address, OPENED); }

// Physical memory. A handle is a place in the table, counted from 1.

struct Prop { int type, handle_types, location_type, location; void *win32; int flags; };
static int good(const struct Prop *prop) {
    int uncached = prop->type == 0x40000000 && version() >= 70100000;
    return (prop->type == 1 || uncached) && prop->location_type == 1 && prop->location < devices() && !prop->win32;
}
int hipMemGetAllocationGranularity(size_t *granularity, const struct Prop *prop, int which) {
    MAY_FAIL;
    *granularity = which == 1 ? GRANULE : PAGE;
    return good(prop) ? OK : INVALID;
}
static int physical(void **handle, int fd, size_t bytes, int device, int exportable) {
    pthread_mutex_lock(&lock);
    int i = 0;
    while (physicals[i].used) i++;
    physicals[i] = (struct Physical){1, fd, device, bytes, exportable};
    live++;
    pthread_mutex_unlock(&lock);
    *handle = (void *)(intptr_t)(i + 1);
    return OK;
}
static struct Physical *physical_of(void *handle) {
    intptr_t i = (intptr_t)handle - 1;
    return i >= 0 && i < MOST && physicals[i].used ? &physicals[i] : NULL;
}
int hipMemCreate(void **handle, size_t bytes, const struct Prop *prop, unsigned long long flags) {
    MAY_FAIL;
    if (setting("STAND_IN_VMM", 2) < 2 && prop->handle_types) return UNSUPPORTED;
    if (!good(prop) || flags || !bytes || bytes % PAGE) return INVALID;
    if (prop->location != current) return refuse("memory was created for a device that is not current", INVALID);
    if (used(current) + bytes > TOTAL) return MEMORY;
    int fd = memory(bytes);
    return fd < 0 ? MEMORY : physical(handle, fd, bytes, current, prop->handle_types == 1);
}
int hipMemRelease(void *handle) {
    struct Physical *of = physical_of(handle);
    if (!of) return refuse("physical memory was released that is none", INVALID);
    close(of->fd);
    of->used = 0;
    live--;
    return OK;
}
int hipMemExportToShareableHandle(int *out, void *handle, int type, unsigned long long flags) {
    MAY_FAIL;
    struct Physical *of = physical_of(handle);
    if (!of || !of->exportable || type != 1 || flags) return INVALID;
    *out = dup(of->fd);
    return OK;
}
int hipMemImportFromShareableHandle(void **handle, void *given, int type) {
    MAY_FAIL;
    int theirs = version() >= 70100000 ? (int)(intptr_t)given : *(int *)given;
    int fd = dup(theirs);
    off_t bytes = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    return bytes <= 0 || type != 1 ? INVALID : physical(handle, fd, (size_t)bytes, current, 1);
}
int hipMemAddressReserve(void **address, size_t bytes, size_t align, void *wanted, unsigned long long flags) {
    MAY_FAIL;
    if (!bytes || bytes % PAGE || align & (align - 1) || wanted || flags) return INVALID;
    char *start = mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *aligned = (char *)(((uintptr_t)start + align - 1) / align * align);
    munmap(start, (size_t)(aligned - start));
    munmap(aligned + bytes, (size_t)(start + align - aligned));
    pthread_mutex_lock(&lock);
    int i = 0;
    while (reserveds[i].start) i++;
    reserveds[i] = (struct Reserved){aligned, bytes};
    live++;
    pthread_mutex_unlock(&lock);
    *address = aligned;
    return OK;
}
int hipMemAddressFree(void *address, size_t bytes) {
    pthread_mutex_lock(&lock);
    int code = INVALID;
    for (int i = 0; i < MOST; i++)
        if (reserveds[i].start == address && reserveds[i].bytes == bytes && address) {
            code = at(address) ? refuse("addresses were given back that are mapped", INVALID) : OK;
            munmap(address, bytes);
            reserveds[i].start = NULL;
            live--;
        }
    pthread_mutex_unlock(&lock);
    return code ? refuse("addresses were given back that are not reserved", code) : OK;
}
int hipMemMap(void *address, size_t bytes, size_t offset, void *handle, unsigned long long flags) {
    MAY_FAIL;
    struct Physical *of = physical_of(handle);
    if (!of || offset || flags || bytes > of->bytes) return INVALID;
    pthread_mutex_lock(&lock);
    *slot() = (struct Block){MAPPED, address, bytes, of->device, dup(of->fd), 0};
    live++;
    pthread_mutex_unlock(&lock);
    return OK;
}
struct Access { int type, device, flags; };
int hipMemSetAccess(void *address, size_t bytes, const struct Access *access, size_t count) {
    MAY_FAIL;
    struct Block *block = at(address);
    if (!block || block->kind != MAPPED || block->bytes != bytes || count != 1 || access->type != 1) return INVALID;
    mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, block->fd, 0);
    block->access |= 1u << access->device;
    return OK;
}
int hipMemUnmap(void *address, size_t bytes) {
    pthread_mutex_lock(&lock);
    struct Block *block = at(address);
    int code = OK;
    if (!block || block->kind != MAPPED || block->start != address || block->bytes != bytes) {
        code = refuse("memory was unmapped that is not mapped", INVALID);
    } else {
        mmap(address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        close(block->fd);
        block->kind = FREE;
        live--;
    }
    pthread_mutex_unlock(&lock);
    return code;
}

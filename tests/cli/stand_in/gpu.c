// A host of GPUs without GPUs, for tests of what is made of their libraries: the CUDA driver, NVRTC, cuBLASLt and NCCL in one library,
// which computes on the host. Whatever is enqueued is done at once, unless the stream is being captured; ranks are threads.
//
// From the environment: STAND_IN_DEVICES; STAND_IN_OPERATIONS, set where there are kernels of operations; STAND_IN_WRONG, the call that
// gives a wrong result: product and collective (the vendor's), fused and exchange (ours).
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 8 };

static int devices(void) { return atoi(getenv("STAND_IN_DEVICES") ? getenv("STAND_IN_DEVICES") : "2"); }
static int wrong(const char *what) { return getenv("STAND_IN_WRONG") && !strcmp(getenv("STAND_IN_WRONG"), what); }

// Streams and graphs: calls with their arguments, made at once or kept.

typedef struct { void (*run)(void *); char arguments[512]; } Call;
typedef struct { Call *calls; size_t count; } Graph;
typedef struct { Graph *capturing; } Stream;

static int enqueue(Stream *stream, void (*run)(void *), const void *arguments, size_t bytes) {
    Call call = {run, {0}};
    if (bytes > sizeof call.arguments) abort();
    memcpy(call.arguments, arguments, bytes);
    if (!stream->capturing) return run(call.arguments), 0;
    Graph *graph = stream->capturing;
    graph->calls = realloc(graph->calls, (graph->count + 1) * sizeof call);
    graph->calls[graph->count++] = call;
    return 0;
}

int cuStreamCreate(Stream **stream, unsigned flags) { return (void)flags, *stream = calloc(1, sizeof(Stream)), 0; }
int cuStreamDestroy_v2(Stream *stream) { return free(stream), 0; }
int cuStreamSynchronize(Stream *stream) { return stream->capturing ? 900 : 0; }
int cuStreamQuery(Stream *stream) { return (void)stream, 0; }
int cuStreamWaitEvent(Stream *stream, void *event, unsigned flags) { return (void)stream, (void)event, (void)flags, 0; }
int cuStreamBeginCapture_v2(Stream *stream, unsigned mode) {
    return (void)mode, stream->capturing = calloc(1, sizeof(Graph)), 0;
}
int cuStreamEndCapture(Stream *stream, Graph **graph) { return *graph = stream->capturing, stream->capturing = NULL, 0; }
int cuGraphInstantiateWithFlags(Graph **exec, Graph *graph, unsigned long long flags) {
    (void)flags;
    *exec = malloc(sizeof(Graph));
    **exec = *graph;
    graph->calls = NULL;
    return 0;
}
int cuGraphDestroy(Graph *graph) { return free(graph->calls), free(graph), 0; }
int cuGraphExecDestroy(Graph *graph) { return cuGraphDestroy(graph); }
int cuGraphLaunch(Graph *graph, Stream *stream) {
    (void)stream;
    for (size_t i = 0; i < graph->count; i++) {
        Call call = graph->calls[i];
        call.run(call.arguments);
    }
    return 0;
}

int cuEventCreate(struct timespec **event, unsigned flags) { return (void)flags, *event = calloc(1, sizeof **event), 0; }
int cuEventDestroy_v2(struct timespec *event) { return free(event), 0; }
int cuEventRecord(struct timespec *event, Stream *stream) { return (void)stream, clock_gettime(CLOCK_MONOTONIC, event); }
int cuEventSynchronize(struct timespec *event) { return (void)event, 0; }
int cuEventElapsedTime(float *ms, struct timespec *from, struct timespec *to) {
    *ms = (float)((double)(to->tv_sec - from->tv_sec) * 1e3 + (double)(to->tv_nsec - from->tv_nsec) * 1e-6);
    return 0;
}

// Devices.

static int contexts[MOST];
static _Thread_local int *current;
int cuInit(unsigned flags) { return (void)flags, 0; }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuGetErrorName(int code, const char **name) { return (void)code, *name = "STAND_IN", 0; }
int cuDeviceGetCount(int *count) { return *count = devices(), 0; }
int cuDeviceGetName(char *name, int bytes, int device) { return (void)device, snprintf(name, (size_t)bytes, "Stand-in"), 0; }
int cuDeviceGetPCIBusId(char *id, int bytes, int device) {
    return snprintf(id, (size_t)bytes, "0000:%02x:00.0", 0xc1 + device), 0;
}
int cuDeviceGetUuid_v2(char uuid[16], int device) { return memset(uuid, 0, 16), uuid[0] = (char)(device + 1), 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return (void)device, *bytes = (size_t)80 << 30, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 2 : attribute == 97 ? 1 << 16 : 1;
    return 0;
}
int cuDeviceCanAccessPeer(int *can, int device, int peer) { return (void)device, (void)peer, *can = 1, 0; }
int cuDeviceGetP2PAttribute(int *value, int attribute, int device, int peer) {
    return (void)attribute, (void)device, (void)peer, *value = 1, 0;
}
int cuDevicePrimaryCtxRetain(int **context, int device) { return *context = &contexts[device], 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return (void)device, 0; }
int cuCtxSetCurrent(int *context) { return current = context, 0; }
int cuCtxSynchronize(void) { return current ? 0 : 201; }
int cuStreamGetCtx(Stream *stream, int **context) { return (void)stream, *context = current, 0; }

// Memory: the host's.

typedef struct { uint64_t to, from; size_t bytes; uint8_t value; } Move;
static void move(void *arguments) {
    Move *it = arguments;
    memmove((void *)it->to, (void *)it->from, it->bytes);
}
static void set(void *arguments) {
    Move *it = arguments;
    // What is this large was just allocated, and is zero; touching it would take as much memory.
    if (it->value != 0 || it->bytes < (size_t)1 << 28) memset((void *)it->to, it->value, it->bytes);
}
int cuMemGetInfo_v2(size_t *left, size_t *total) { return *left = (size_t)79 << 30, *total = (size_t)80 << 30, 0; }
static struct { uint64_t start; size_t bytes; int device; } allocated[1 << 14];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int find(uint64_t address) {
    int found = -1;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 1 << 14; i++) {
        if (address - allocated[i].start < allocated[i].bytes) found = i;
    }
    pthread_mutex_unlock(&lock);
    return found;
}
int cuPointerGetAttribute(unsigned *value, int attribute, uint64_t address) {
    int at = find(address);
    if (at < 0) return 1;
    return *value = attribute == 2 ? 2 : attribute == 9 ? (unsigned)allocated[at].device : 0, 0;
}
int cuMemGetAddressRange_v2(uint64_t *start, size_t *bytes, uint64_t address) {
    int at = find(address);
    if (at < 0) return 1;
    return *start = allocated[at].start, *bytes = allocated[at].bytes, 0;
}
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    *address = (uint64_t)aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (bytes < (size_t)1 << 28) memset((void *)*address, 0x55, bytes);
    pthread_mutex_lock(&lock);
    int at = 0;
    while (allocated[at].bytes) at++;
    allocated[at].start = *address, allocated[at].bytes = bytes, allocated[at].device = (int)(current - contexts);
    pthread_mutex_unlock(&lock);
    return 0;
}
int cuMemFree_v2(uint64_t address) {
    int at = find(address);
    if (at < 0 || allocated[at].start != address) return 1;
    allocated[at].bytes = 0;
    return free((void *)address), 0;
}
int cuMemHostAlloc(void **host, size_t bytes, unsigned flags) { return (void)flags, *host = calloc(bytes, 1), 0; }
int cuMemFreeHost(void *host) { return free(host), 0; }
int cuMemHostGetDevicePointer_v2(uint64_t *address, void *host, unsigned flags) {
    return (void)flags, *address = (uint64_t)host, 0;
}
int cuMemGetAllocationGranularity(size_t *bytes, const void *prop, unsigned option) {
    return (void)prop, (void)option, *bytes = 4096, 0;
}
int cuMemCreate(unsigned long long *handle, size_t bytes, const void *prop, unsigned long long flags) {
    (void)prop, (void)flags;
    int fd = memfd_create("stand-in", MFD_CLOEXEC);
    *handle = (unsigned long long)fd;
    return fd < 0 || ftruncate(fd, (off_t)bytes) ? 2 : 0;
}
int cuMemRelease(unsigned long long handle) { return close((int)handle), 0; }
int cuMemExportToShareableHandle(int *fd, unsigned long long handle, unsigned type, unsigned long long flags) {
    return (void)type, (void)flags, *fd = dup((int)handle), 0;
}
int cuMemImportFromShareableHandle(unsigned long long *handle, void *fd, unsigned type) {
    return (void)type, *handle = (unsigned long long)dup((int)(intptr_t)fd), 0;
}
int cuMemAddressReserve(uint64_t *address, size_t bytes, size_t align, uint64_t hint, unsigned long long flags) {
    (void)align, (void)hint, (void)flags;
    return *address = (uint64_t)mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 0;
}
int cuMemAddressFree(uint64_t address, size_t bytes) { return munmap((void *)address, bytes), 0; }
int cuMemMap(uint64_t address, size_t bytes, size_t offset, unsigned long long handle, unsigned long long flags) {
    (void)flags;
    void *at = mmap((void *)address, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, (int)handle, (off_t)offset);
    return at == MAP_FAILED ? 2 : 0;
}
int cuMemUnmap(uint64_t address, size_t bytes) {
    mmap((void *)address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return 0;
}
int cuMemSetAccess(uint64_t address, size_t bytes, const void *access, size_t count) {
    return (void)address, (void)bytes, (void)access, (void)count, 0;
}
int cuMemsetD8Async(uint64_t to, uint8_t value, size_t bytes, Stream *stream) {
    Move it = {to, 0, bytes, value};
    return enqueue(stream, set, &it, sizeof it);
}
int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, Stream *stream) {
    Move it = {to, from, bytes, 0};
    return enqueue(stream, move, &it, sizeof it);
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, Stream *stream) {
    return cuMemcpyAsync(to, (uint64_t)from, bytes, stream);
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, Stream *stream) {
    return cuMemcpyAsync((uint64_t)to, from, bytes, stream);
}

// Elements: f32 (0, and 7 for NCCL) and bf16 (14, and 9 for NCCL).

static int wide(int type) { return type == 0 || type == 7; }
static float get(const void *from, size_t at, int type) {
    if (wide(type)) return ((const float *)from)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)from)[at] << 16;
    float value;
    return memcpy(&value, &bits, 4), value;
}
static void put(void *to, size_t at, int type, float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (wide(type)) ((float *)to)[at] = value;
    else ((uint16_t *)to)[at] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Kernels: those of iris-measure's measure.hip, and what the operations' come to, by their names. A module is the name of its type of
// elements.

typedef struct { const char *name; int type; } Kernel;
typedef struct { uint64_t to, rows, cols, stride, row, col, width, transposed, key, blocks; int type; } Fill;
static void fill(void *arguments) {
    Fill *it = arguments;
    for (uint64_t row = 0; row < it->rows; row++) {
        for (uint64_t col = 0; col < it->cols; col++) {
            uint64_t at = it->transposed ? (it->row + col) * it->width + it->col + row : (it->row + row) * it->width + it->col + col;
            uint64_t x = it->key + at * 0x9e3779b97f4a7c15u;
            x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
            x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
            x ^= x >> 31;
            put((void *)it->to, row * it->stride + col, it->type, (float)(x >> 40) * 0x1p-23f - 1);
        }
    }
}
static void nothing(void *arguments) { (void)arguments; }

/// The twin of `Args` in iris-kernels, as far as it is looked at.
typedef struct {
    uint64_t heap[16], world, rank, blocks, m, n, k, m_share, n_share, k_share, row_parts, row_part, col_parts, col_part, rows_first, in_turn, sends_first, apart, given, a, a_row, a_col, b, b_row, b_col, bias, c, c_row, output, output_row, bounced;
} Args;
typedef struct { Args args; char name[48]; int type; } Operation;
static struct { pthread_barrier_t met; int made; const Operation *of[MOST]; } together;
static uint64_t begin_of(uint64_t total, uint64_t world, uint64_t rank) {
    uint64_t begin = (total + world - 1) / world * rank;
    return begin < total ? begin : total;
}
/// An element of a rank's product, or of what is given in its place; `row` and `col` as they stand in its operands.
static float element(const Operation *of, uint64_t row, uint64_t col, uint64_t depth) {
    const Args *it = &of->args;
    if (it->given) return get((void *)it->a, row * it->a_row + col * it->a_col, of->type);
    float sum = 0;
    for (uint64_t at = 0; at < depth; at++) {
        sum += get((void *)it->a, row * it->a_row + at * it->a_col, of->type)
             * get((void *)it->b, at * it->b_row + col * it->b_col, of->type);
    }
    return sum;
}
static float rounded(float value, int type) {
    char bits[4];
    return put(bits, 0, type, value), get(bits, 0, type);
}
static void operation(void *arguments) {
    Operation *own = arguments;
    Args *it = &own->args;
    uint64_t world = it->world, rank = it->rank, m = it->m, n = it->n, k = it->k;
    if (!world) return; // launched to be loaded
    if (!strcmp(own->name, "iris_matmul")) {
        for (uint64_t at = 0; at < m * n; at++) {
            float sum = element(own, at / n, at % n, k) + (float)wrong("matmul") * 8;
            put((void *)it->c, at / n * it->c_row + at % n, own->type, sum);
        }
        return;
    }
    pthread_mutex_lock(&lock);
    if (!together.made++) pthread_barrier_init(&together.met, NULL, (unsigned)world);
    pthread_mutex_unlock(&lock);
    together.of[rank] = own;
    pthread_barrier_wait(&together.met);
    int scatters = !!strstr(own->name, "scatter"), gathers = !!strstr(own->name, "matmul_all_gather");
    int rows = strstr(own->name, "gather_matmul_rows") || strstr(own->name, "gather_matmul_packets"), columns = !!strstr(own->name, "gather_matmul_columns");
    int stores = gathers || (strstr(own->name, "two_shot") && !strstr(own->name, "packets"));
    uint64_t first = scatters ? begin_of(m, world, rank) : 0, last = scatters ? begin_of(m, world, rank + 1) : m;
    uint64_t width = rows || columns ? begin_of(n, world, rank + 1) - begin_of(n, world, rank) : n;
    for (uint64_t row = first; row < last; row++) {
        for (uint64_t col = 0; col < width; col++) {
            float sum = 0;
            for (uint64_t peer = 0; peer < world; peer++) {
                const Operation *of = together.of[peer];
                const Args *its = &of->args;
                uint64_t top = begin_of(m, world, peer), bottom = begin_of(m, world, peer + 1);
                uint64_t left = begin_of(k, world, peer), right = begin_of(k, world, peer + 1);
                if (gathers || rows) {
                    if (row < top || row >= bottom) continue;
                    if (gathers) sum = element(of, row - top, col, k);
                    for (uint64_t at = 0; rows && at < k; at++) {
                        sum += get((void *)its->a, (row - top) * its->a_row + at * its->a_col, own->type)
                             * get((void *)it->b, at * it->b_row + col * it->b_col, own->type);
                    }
                } else if (columns) {
                    for (uint64_t at = left; at < right; at++) {
                        sum += get((void *)its->a, row * its->a_row + (at - left) * its->a_col, own->type)
                             * get((void *)it->b, at * it->b_row + col * it->b_col, own->type);
                    }
                } else {
                    sum += rounded(element(of, row, col, right - left), own->type);
                }
            }
            sum += (float)wrong(it->given ? "exchange" : "fused") * 8;
            uint64_t at = stores && !it->bounced ? row * it->output_row + col : (row - first) * it->c_row + col;
            put((void *)(stores && !it->bounced ? it->heap[rank] + it->output : it->c), at, own->type, sum);
        }
    }
    pthread_barrier_wait(&together.met);
}
int cuModuleLoadData(char **module, const void *image) { return *module = strdup(image), 0; }
int cuModuleUnload(char *module) { return free(module), 0; }
int cuModuleGetFunction(Kernel **kernel, const char *module, const char *name) {
    int ours = strcmp(name, "iris_fill") && strcmp(name, "iris_read");
    if (strncmp(name, "iris_", 5) || (ours && !getenv("STAND_IN_OPERATIONS"))) return 500;
    *kernel = malloc(sizeof(Kernel));
    **kernel = (Kernel){strdup(name), strcmp(module, "f32") ? 14 : 0};
    return 0;
}
int cuFuncSetAttribute(Kernel *kernel, int attribute, int value) { return (void)kernel, (void)attribute, (void)value, 0; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, Kernel *kernel, int threads, size_t shared) {
    return (void)kernel, (void)threads, (void)shared, *blocks = 1, 0;
}
int cuLaunchCooperativeKernel(Kernel *kernel, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                              unsigned shared, Stream *stream, void **arguments) {
    (void)x, (void)y, (void)z, (void)tx, (void)ty, (void)tz, (void)shared;
    if (!strcmp(kernel->name, "iris_read")) return enqueue(stream, nothing, "", 1);
    if (strcmp(kernel->name, "iris_fill")) {
        Operation of = {.type = kernel->type};
        memcpy(&of.args, arguments[0], sizeof of.args);
        snprintf(of.name, sizeof of.name, "%s", kernel->name);
        return enqueue(stream, operation, &of, sizeof of);
    }
    Fill it;
    memcpy(&it, arguments[0], 80);
    it.type = kernel->type;
    return enqueue(stream, fill, &it, sizeof it);
}
int cuLaunchKernel(Kernel *kernel, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz, unsigned shared,
                   Stream *stream, void **arguments, void **extra) {
    return (void)extra, cuLaunchCooperativeKernel(kernel, x, y, z, tx, ty, tz, shared, stream, arguments);
}

int nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, 0; }
int nvrtcGetNumSupportedArchs(int *count) { return *count = 1, 0; }
int nvrtcGetSupportedArchs(int *architectures) { return architectures[0] = 90, 0; }
int nvrtcCreateProgram(char **program, const char *text, const char *name, int headers, const void *a, const void *b) {
    return (void)text, (void)name, (void)headers, (void)a, (void)b, *program = calloc(8, 1), 0;
}
int nvrtcDestroyProgram(char **program) { return free(*program), 0; }
int nvrtcCompileProgram(char *program, int count, const char **options) {
    for (int i = 0; i < count; i++) sscanf(options[i], "-DIRIS_DTYPE=%7s", program);
    return 0;
}
int nvrtcGetProgramLogSize(const char *program, size_t *bytes) { return (void)program, *bytes = 1, 0; }
int nvrtcGetProgramLog(const char *program, char *log) { return (void)program, *log = 0, 0; }
int nvrtcGetCUBINSize(const char *program, size_t *bytes) { return (void)program, *bytes = 8, 0; }
int nvrtcGetCUBIN(const char *program, char *cubin) { return memcpy(cubin, program, 8), 0; }

// cuBLASLt: column-major, op(A) of m x k times op(B) of k x n.

typedef struct { int transposed[2]; } Product;
typedef struct { int type; uint64_t rows, cols; int64_t ld; } Layout;
typedef struct { const void *a, *b; void *d; Product product; Layout la, lb, ld; } Multiply;
static void multiply(void *arguments) {
    Multiply *it = arguments;
    uint64_t depth = it->product.transposed[0] ? it->la.rows : it->la.cols;
    for (uint64_t row = 0; row < it->ld.rows; row++) {
        for (uint64_t col = 0; col < it->ld.cols; col++) {
            float sum = 0;
            for (uint64_t at = 0; at < depth; at++) {
                uint64_t a = it->product.transposed[0] ? at + row * (uint64_t)it->la.ld : row + at * (uint64_t)it->la.ld;
                uint64_t b = it->product.transposed[1] ? col + at * (uint64_t)it->lb.ld : at + col * (uint64_t)it->lb.ld;
                sum += get(it->a, a, it->la.type) * get(it->b, b, it->lb.type);
            }
            put(it->d, row + col * (uint64_t)it->ld.ld, it->ld.type, sum + (float)wrong("product") * 8);
        }
    }
}
size_t cublasLtGetVersion(void) { return 130002; }
int cublasLtCreate(void **handle) { return *handle = malloc(1), current ? 0 : 1; }
int cublasLtDestroy(void *handle) { return free(handle), 0; }
int cublasLtMatmulDescCreate(Product **product, int compute, int scale) {
    return (void)compute, (void)scale, *product = calloc(1, sizeof(Product)), 0;
}
int cublasLtMatmulDescDestroy(Product *product) { return free(product), 0; }
int cublasLtMatmulDescSetAttribute(Product *product, unsigned attribute, const int *value, size_t bytes) {
    if ((attribute != 3 && attribute != 4) || bytes != 4) return 7;
    return product->transposed[attribute - 3] = *value, 0;
}
int cublasLtMatrixLayoutCreate(Layout **layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    *layout = malloc(sizeof(Layout));
    **layout = (Layout){type, rows, cols, ld};
    return (uint64_t)ld < rows ? 7 : 0;
}
int cublasLtMatrixLayoutDestroy(Layout *layout) { return free(layout), 0; }
int cublasLtMatmulPreferenceCreate(void **preference) { return *preference = malloc(1), 0; }
int cublasLtMatmulPreferenceDestroy(void *preference) { return free(preference), 0; }
int cublasLtMatmulPreferenceSetAttribute(void *preference, unsigned attribute, const size_t *value, size_t bytes) {
    return (void)preference, (void)value, attribute == 1 && bytes == 8 ? 0 : 7;
}
typedef struct { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; } Suggestion;
int cublasLtMatmulAlgoGetHeuristic(void *handle, Product *product, Layout *a, Layout *b, Layout *c, Layout *d, void *preference,
                                   int asked, Suggestion *suggestions, int *found) {
    (void)handle, (void)product, (void)a, (void)b, (void)c, (void)d, (void)preference;
    // The second cannot be used, as the library may say of any.
    for (*found = 0; *found < asked && *found < 3; ++*found) suggestions[*found] = (Suggestion){.state = *found == 1 ? 15 : 0};
    return 0;
}
int cublasLtMatmul(void *handle, Product *product, const float *alpha, const void *a, Layout *la, const void *b, Layout *lb,
                   const float *beta, const void *c, Layout *lc, void *d, Layout *ld, const void *algorithm, void *workspace,
                   size_t bytes, Stream *stream) {
    (void)handle, (void)c, (void)lc, (void)algorithm, (void)workspace, (void)bytes;
    int *t = product->transposed;
    uint64_t m = t[0] ? la->cols : la->rows, k = t[0] ? la->rows : la->cols;
    uint64_t n = t[1] ? lb->rows : lb->cols, depth = t[1] ? lb->cols : lb->rows;
    if (*alpha != 1 || *beta != 0 || m != ld->rows || n != ld->cols || k != depth) return 7;
    Multiply it = {a, b, d, *product, *la, *lb, *ld};
    return enqueue(stream, multiply, &it, sizeof it);
}

// NCCL: ranks are threads that meet.

typedef struct { pthread_barrier_t met; int size; const void *send[MOST]; } World;
typedef struct { World *world; int rank; } Comm;
typedef struct { Comm comm; const void *send; void *receive; size_t count; int type, kind; } Exchange;
static void exchange(void *arguments) {
    Exchange *it = arguments;
    World *world = it->comm.world;
    size_t size = it->type == 7 ? 4 : 2, rank = (size_t)it->comm.rank, ranks = (size_t)world->size;
    size_t len = it->kind == 2 ? ranks * it->count : it->count;
    char *result = malloc(len * size + 1);
    world->send[rank] = it->send;
    pthread_barrier_wait(&world->met);
    for (size_t at = 0; at < len; at++) {
        if (it->kind == 2) {
            memcpy(result + at * size, (const char *)world->send[at / it->count] + at % it->count * size, size);
            continue;
        }
        size_t from = it->kind == 1 ? rank * it->count + at : at;
        float sum = 0;
        for (size_t peer = 0; peer < ranks; peer++) {
            if (!(wrong("collective") && peer == 1)) sum += get(world->send[peer], from, it->type);
        }
        put(result, at, it->type, sum);
    }
    if (it->kind == 2 && wrong("collective")) memset(result, 0, len * size);
    pthread_barrier_wait(&world->met); // the results may go where others have read
    memcpy(it->receive, result, len * size);
    free(result);
}
static int collective(int kind, const void *send, void *receive, size_t count, int type, Comm *comm, Stream *stream) {
    Exchange it = {*comm, send, receive, count, type, kind};
    return enqueue(stream, exchange, &it, sizeof it);
}
int ncclAllReduce(const void *s, void *r, size_t count, int type, int op, Comm *comm, Stream *stream) {
    return op ? 4 : collective(0, s, r, count, type, comm, stream);
}
int ncclReduceScatter(const void *s, void *r, size_t count, int type, int op, Comm *comm, Stream *stream) {
    return op ? 4 : collective(1, s, r, count, type, comm, stream);
}
int ncclAllGather(const void *s, void *r, size_t count, int type, Comm *comm, Stream *stream) {
    return collective(2, s, r, count, type, comm, stream);
}
static World worlds[16];
typedef struct { char bytes[128]; } Id;
int ncclGetVersion(int *version) { return *version = 22803, 0; }
const char *ncclGetErrorString(int code) { return code ? "wrong" : "right"; }
int ncclGetUniqueId(Id *id) {
    static int next;
    return memset(id, 0, sizeof *id), id->bytes[0] = 7, id->bytes[127] = (char)next++, 0;
}
int ncclCommInitRank(Comm **comm, int size, Id id, int rank) {
    const char *multicast = getenv("NCCL_NVLS_ENABLE");
    if (id.bytes[0] != 7 || size > MOST || !multicast || strcmp(multicast, "0") || !current) return 5;
    World *world = &worlds[id.bytes[127] % 16];
    pthread_mutex_lock(&lock);
    if (!world->size) pthread_barrier_init(&world->met, NULL, (unsigned)size);
    world->size = size;
    pthread_mutex_unlock(&lock);
    *comm = malloc(sizeof(Comm));
    **comm = (Comm){world, rank};
    return 0;
}
int ncclCommDestroy(Comm *comm) { return free(comm), 0; }
int ncclCommAbort(Comm *comm) { return free(comm), 0; }
int ncclMemAlloc(void **memory, size_t bytes) { return *memory = aligned_alloc(4096, bytes), memset(*memory, 0, bytes), 0; }
int ncclMemFree(void *memory) { return free(memory), 0; }
int ncclCommWindowRegister(Comm *comm, void *memory, size_t bytes, void **window, int flags) {
    return (void)comm, *window = memory, bytes % 4096 || flags != 1 ? 4 : 0;
}
int ncclCommWindowDeregister(Comm *comm, void *window) { return (void)comm, (void)window, 0; }
#define UNUSED(name) int name(void) { return 5; }
UNUSED(ncclCommInitAll) UNUSED(ncclCommGetAsyncError) UNUSED(ncclCommCount) UNUSED(ncclCommCuDevice) UNUSED(ncclCommUserRank)
UNUSED(ncclGroupStart) UNUSED(ncclGroupEnd) UNUSED(ncclReduce) UNUSED(ncclBroadcast) UNUSED(ncclSend) UNUSED(ncclRecv)

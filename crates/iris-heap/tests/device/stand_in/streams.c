// Streams, events, the kernel, graphs. See the header.
#include "stand_in.h"

// Streams: a thread that does what is in its queue.

struct Work { void (*run)(struct Work *); void *to; const void *from; size_t bytes; int value; uint64_t args[4]; struct timespec *time;
              struct Work *next; };
struct Stream { int device, capturing, ends, busy; struct Work *first, *last, *captured; pthread_cond_t changed; pthread_t thread;
                int code; };
struct Graph { struct Work *first; };
static struct Stream *streams[MOST];
static struct Stream *defaults[DEVICES];

static void *serve(void *argument) {
    struct Stream *stream = argument;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!stream->first && !stream->ends) pthread_cond_wait(&stream->changed, &lock);
        struct Work *work = stream->first;
        if (!work) break;
        stream->first = work->next;
        stream->busy = 1;
        pthread_mutex_unlock(&lock);
        work->run(work);
        free(work);
        pthread_mutex_lock(&lock);
        stream->busy = 0;
        pthread_cond_broadcast(&stream->changed);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static struct Stream *new_stream(int device) {
    struct Stream *stream = calloc(1, sizeof *stream);
    stream->device = device;
    pthread_cond_init(&stream->changed, NULL);
    pthread_create(&stream->thread, NULL, serve, stream);
    return stream;
}

static struct Stream *stream_of(struct Stream *stream) {
    if (!stream) {
        if (!defaults[current]) defaults[current] = new_stream(current);
        return defaults[current];
    }
    for (int i = 0; i < MOST; i++)
        if (streams[i] == stream) return stream;
    refuse("a stream was used that is none", INVALID);
    return NULL;
}

static void append(struct Stream *stream, struct Work *work) {
    work->next = NULL;
    pthread_mutex_lock(&lock);
    if (stream->first) stream->last->next = work; else stream->first = work;
    stream->last = work;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&lock);
}

static int enqueue(struct Stream *given, struct Work work) {
    struct Stream *stream = stream_of(given);
    if (!stream) return INVALID;
    if (stream->device != current) return refuse("a stream was used on a device that is not its own", INVALID);
    struct Work *copy = malloc(sizeof *copy);
    *copy = work;
    copy->next = NULL;
    if (!stream->capturing) return append(stream, copy), OK;
    struct Work **end = &stream->captured;
    while (*end) end = &(*end)->next;
    *end = copy;
    return OK;
}

int hipStreamCreateWithFlags(struct Stream **stream, unsigned flags) {
    MAY_FAIL;
    if (flags != 1) return INVALID;
    *stream = new_stream(current);
    pthread_mutex_lock(&lock);
    int i = 0;
    while (streams[i]) i++;
    streams[i] = *stream;
    live++;
    pthread_mutex_unlock(&lock);
    return OK;
}
static int await(struct Stream *stream) {
    if (stream->capturing) return CAPTURING;
    pthread_mutex_lock(&lock);
    while (stream->first || stream->busy) pthread_cond_wait(&stream->changed, &lock);
    pthread_mutex_unlock(&lock);
    return OK;
}
void drain(int device) {
    for (int i = 0; i < MOST; i++)
        if (streams[i] && streams[i]->device == device) await(streams[i]);
    if (defaults[device]) await(defaults[device]);
}
int hipStreamSynchronize(struct Stream *given) {
    MAY_FAIL;
    struct Stream *stream = stream_of(given);
    return stream ? await(stream) : INVALID;
}
int hipStreamDestroy(struct Stream *stream) {
    if (!stream || !stream_of(stream)) return INVALID;
    pthread_mutex_lock(&lock);
    stream->ends = 1;
    pthread_cond_broadcast(&stream->changed);
    for (int i = 0; i < MOST; i++)
        if (streams[i] == stream) streams[i] = NULL;
    live--;
    pthread_mutex_unlock(&lock);
    pthread_join(stream->thread, NULL);
    free(stream);
    return OK;
}
int hipStreamQuery(struct Stream *given) {
    struct Stream *stream = stream_of(given);
    if (!stream) return INVALID;
    pthread_mutex_lock(&lock);
    int code = stream->first || stream->busy ? NOT_READY : OK;
    pthread_mutex_unlock(&lock);
    return code;
}
int hipStreamGetDevice(struct Stream *given, int *device) {
    struct Stream *stream = stream_of(given);
    return stream ? (*device = stream->device, OK) : INVALID;
}
int hipDeviceSynchronize(void) {
    MAY_FAIL;
    drain(current);
    return OK;
}

static void copy(struct Work *work) { memcpy(work->to, work->from, work->bytes); }
static void fill(struct Work *work) { memset(work->to, work->value, work->bytes); }
int hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind, struct Stream *stream) {
    MAY_FAIL;
    if (kind != 1 && !reaches(current, from, bytes)) return refuse("a copy reads what it may not", ILLEGAL);
    if (kind != 2 && !reaches(current, to, bytes)) return refuse("a copy writes what it may not", ILLEGAL);
    return enqueue(stream, (struct Work){.run = copy, .to = to, .from = from, .bytes = bytes});
}
int hipMemsetAsync(void *to, int value, size_t bytes, struct Stream *stream) {
    MAY_FAIL;
    if (!reaches(current, to, bytes)) return refuse("a fill writes what it may not", ILLEGAL);
    return enqueue(stream, (struct Work){.run = fill, .to = to, .bytes = bytes, .value = value});
}

// Events.

static void stamp(struct Work *work) { clock_gettime(CLOCK_MONOTONIC, work->time); }
struct Event { struct timespec time; struct Stream *stream; };
int hipEventCreateWithFlags(struct Event **event, unsigned flags) {
    MAY_FAIL;
    *event = calloc(1, sizeof **event);
    live++;
    return flags ? INVALID : OK;
}
int hipEventDestroy(struct Event *event) { return free(event), live--, OK; }
int hipEventRecord(struct Event *event, struct Stream *stream) {
    event->stream = stream;
    return enqueue(stream, (struct Work){.run = stamp, .time = &event->time});
}
int hipEventSynchronize(struct Event *event) { return hipStreamSynchronize(event->stream); }
int hipStreamWaitEvent(struct Stream *stream, struct Event *event, unsigned flags) {
    // More than is asked for: the caller waits.
    return stream && !flags ? hipEventSynchronize(event) : INVALID;
}
int hipEventElapsedTime(float *ms, struct Event *from, struct Event *to) {
    *ms = (float)((double)(to->time.tv_sec - from->time.tv_sec) * 1e3 + (double)(to->time.tv_nsec - from->time.tv_nsec) * 1e-6);
    return OK;
}

// The kernel: see `Relay` in the test.

static void relay(struct Work *work) {
    const uint32_t *from = (const uint32_t *)work->args[0];
    uint32_t *to = (uint32_t *)work->args[1];
    _Atomic uint32_t *flag = (_Atomic uint32_t *)work->args[2], *awaited = (_Atomic uint32_t *)work->args[3];
    while (awaited && !atomic_load_explicit(awaited, memory_order_acquire)) usleep(100);
    for (int i = 0; i < 32; i++) to[i] = from[i] + 1;
    atomic_store_explicit(flag, 1, memory_order_release);
}
static char kernel;
int hipModuleLoadData(void **module, const void *image) {
    if (memcmp(image, "stand-in", 8)) return BAD_IMAGE;
    *module = malloc(1);
    live++;
    return OK;
}
int hipModuleUnload(void *module) { return free(module), live--, OK; }
int hipModuleGetFunction(void **function, void *module, const char *name) {
    *function = &kernel;
    return module && !strcmp(name, "relay") ? OK : NOT_FOUND;
}
int hipFuncGetAttribute(int *value, int attribute, void *function) {
    *value = 1024;
    return attribute == 1 && function == &kernel ? OK : INVALID;
}
int hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared) {
    *blocks = 2;
    return function == &kernel && threads <= 1024 && shared <= 64512 ? OK : INVALID;
}
int hipModuleLaunchCooperativeKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned by, unsigned bz,
                                     unsigned shared, struct Stream *stream, void **arguments) {
    (void)shared;
    if (function != &kernel || x != 1 || y * z * by * bz != 1 || threads != 32) return INVALID;
    struct Work work = {.run = relay};
    memcpy(work.args, arguments[0], sizeof work.args);
    for (int i = 0; i < 4; i++)
        if (work.args[i] && !reaches(current, (void *)work.args[i], i < 2 ? 128 : 4))
            return refuse("a kernel accesses what it may not", ILLEGAL);
    return enqueue(stream, work);
}

// Graphs.

int hipStreamBeginCapture(struct Stream *given, int mode) {
    struct Stream *stream = given ? stream_of(given) : NULL;
    return stream && mode == 1 && !stream->capturing ? (stream->capturing = 1, OK) : INVALID;
}
int hipStreamEndCapture(struct Stream *stream, struct Graph **graph) {
    if (!stream_of(stream) || !stream->capturing) return INVALID;
    *graph = calloc(1, sizeof **graph);
    (*graph)->first = stream->captured;
    stream->captured = NULL;
    stream->capturing = 0;
    live++;
    return OK;
}
int hipGraphInstantiateWithFlags(struct Graph **exec, struct Graph *graph, unsigned long long flags) {
    MAY_FAIL;
    *exec = calloc(1, sizeof **exec);
    struct Work **end = &(*exec)->first;
    for (struct Work *work = graph->first; work; work = work->next, end = &(*end)->next) {
        *end = malloc(sizeof **end);
        **end = *work;
        (*end)->next = NULL;
    }
    live++;
    return flags ? INVALID : OK;
}
int hipGraphLaunch(struct Graph *exec, struct Stream *stream) {
    int code = OK;
    for (struct Work *work = exec->first; work && !code; work = work->next) code = enqueue(stream, *work);
    return code;
}
int hipGraphDestroy(struct Graph *graph) {
    for (struct Work *work = graph->first, *next; work; work = next) next = work->next, free(work);
    return free(graph), live--, OK;
}
int hipGraphExecDestroy(struct Graph *exec) { return hipGraphDestroy(exec); }

/* libcudart: the CUDA runtime of cards that compute nothing.
 *
 * Signatures: NVIDIA's "CUDA Runtime API"; those of __cuda... functions are what nvcc's output
 * calls. A launch is counted, checked for a possible shape, and does nothing.
 */
#define _GNU_SOURCE
#include "card.h"
#include "cuda13.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static __thread int last_error;

static int say(int error)
{
    if (error)
        last_error = error;
    return error;
}

/* ------------------------------------------------------------------------------------ devices */
int cudaGetDeviceCount(int *count)
{
    *count = card_count();
    return *count ? OK : say(NO_DEVICE);
}
int cudaGetDevice(int *device) { return *device = current_device(), card_count() ? OK : say(NO_DEVICE); }
int cudaSetDevice(int device)
{
    if (!card_of(device))
        return say(INVALID_DEVICE);
    return choose_device(device), OK;
}
int cudaDeviceSynchronize(void) { return OK; }
int cudaDriverGetVersion(int *version) { return *version = CUDA_VERSION_ANSWERED, OK; }
int cudaRuntimeGetVersion(int *version) { return *version = CUDA_VERSION_ANSWERED, OK; }
int cudaDeviceCanAccessPeer(int *can, int a, int b) { return (void)a, (void)b, *can = 0, OK; }
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    return *least = 0, *greatest = -5, OK;
}
int cudaDeviceGetPCIBusId(char *id, int room, int device)
{
    int place = card_place(device);
    if (place < 0)
        return say(INVALID_DEVICE);
    return snprintf(id, (size_t)room, "0000:%02x:00.0", 1 + place), OK;
}

int cudaGetDeviceProperties(struct properties *told, int device)
{
    const struct card *card = card_of(device);
    if (!card)
        return say(INVALID_DEVICE);
    struct limits limits = card_limits(card);
    memset(told, 0, sizeof *told);
    snprintf(told->name, sizeof told->name, "%s", card->name);
    card_uuid(card_place(device), told->uuid);
    told->total_bytes = card->total_bytes;
    told->shared_bytes = 48 << 10;
    told->registers = told->multiprocessor_registers = 65536;
    told->warp = 32;
    told->pitch = 2147483647;
    told->threads = 1024;
    memcpy(told->block, (int[]){1024, 1024, 64}, sizeof told->block);
    memcpy(told->grid, (int[]){2147483647, 65535, 65535}, sizeof told->grid);
    told->constant_bytes = 65536;
    told->major = card->major, told->minor = card->minor;
    told->texture_alignment = told->surface_alignment = 512, told->texture_pitch_alignment = 32;
    told->multiprocessors = card->multiprocessors;
    told->maps_host = told->concurrent_kernels = told->unified = 1;
    told->pci_bus = 1 + card_place(device);
    told->copy_engines = 2;
    told->bus_bits = card->bus_bits;
    told->l2_bytes = (int)card->l2_bytes;
    told->multiprocessor_threads = limits.threads, told->multiprocessor_blocks = limits.blocks;
    told->priorities = told->global_l1 = told->local_l1 = 1;
    told->shared_optin_bytes = limits.shared_optin_bytes;
    told->reserved_shared_bytes = (size_t)limits.reserved_shared_bytes;
    told->multiprocessor_shared_bytes = told->shared_optin_bytes + told->reserved_shared_bytes;
    told->managed = told->preemption = told->cooperative = told->host_register = 1;
    return OK;
}

int cudaDeviceGetAttribute(int *value, int attribute, int device)
{
    return card_attribute(device, attribute, value) ? say(INVALID_DEVICE) : OK;
}

/* ------------------------------------------------------------------------------------- memory */
int cudaMalloc(void **address, size_t bytes)
{
    *address = NULL;
    if (!bytes)
        return OK;
    if (!card_of(current_device()))
        return say(NO_DEVICE);
    *address = memory_allocate(current_device(), bytes);
    work_done();
    return *address ? OK : say(OUT_OF_MEMORY);
}
int cudaFree(void *address)
{
    return !address || memory_free(address) == 0 ? OK : say(INVALID_VALUE);
}
int cudaMallocAsync(void **address, size_t bytes, void *stream)
{
    return (void)stream, cudaMalloc(address, bytes);
}
int cudaFreeAsync(void *address, void *stream) { return (void)stream, cudaFree(address); }
int cudaMemGetInfo(size_t *free, size_t *total)
{
    const struct card *card = card_of(current_device());
    if (!card)
        return say(NO_DEVICE);
    if (card_enter(current_device())) /* whoever asks has a context */
        return say(OUT_OF_MEMORY);
    *total = card->total_bytes, *free = card_free_bytes(current_device());
    return OK;
}
int cudaMemPoolGetAttribute(void *pool, int attribute, void *value)
{
    (void)pool;
    if (attribute < 4) /* the first three are switches, the others sizes */
        *(int *)value = 0;
    else
        *(uint64_t *)value = 0;
    return OK;
}

int cudaHostAlloc(void **address, size_t bytes, unsigned flags)
{
    (void)flags;
    return *address = host_allocate(bytes), *address ? OK : say(OUT_OF_MEMORY);
}
int cudaFreeHost(void *address)
{
    size_t bytes = address ? host_forget(address) : 0;
    if (address && !bytes)
        return say(INVALID_VALUE);
    if (bytes)
        munmap(address, bytes);
    return OK;
}
int cudaHostRegister(void *address, size_t bytes, unsigned flags)
{
    return (void)flags, host_remember(address, bytes), OK;
}
int cudaHostUnregister(void *address) { return host_forget(address) ? OK : say(INVALID_VALUE); }

int cudaPointerGetAttributes(struct pointer_attributes *told, const void *address)
{
    int device = memory_device(address);
    *told = (struct pointer_attributes){0, -2, NULL, (void *)address};
    if (device >= 0)
        *told = (struct pointer_attributes){2, device, (void *)address, NULL};
    else if (host_owns(address))
        *told = (struct pointer_attributes){1, current_device(), (void *)address, (void *)address};
    return OK;
}

int cudaMemcpy(void *to, const void *from, size_t bytes, int kind)
{
    return (void)kind, copy_bytes(to, from, bytes), work_done(), OK;
}
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream)
{
    return (void)stream, cudaMemcpy(to, from, bytes, kind);
}
int cudaMemcpyPeerAsync(void *to, int a, const void *from, int b, size_t bytes, void *stream)
{
    return (void)a, (void)b, (void)stream, cudaMemcpy(to, from, bytes, 0);
}
int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                      size_t height, int kind, void *stream)
{
    (void)kind, (void)stream;
    if (!width || height <= card_state()->copied_bytes / width)
        for (size_t row = 0; row < height; row++)
            memmove((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
    return work_done(), OK;
}
int cudaMemset(void *to, int value, size_t bytes)
{
    if (bytes <= card_state()->copied_bytes)
        memset(to, value, bytes);
    return work_done(), OK;
}
int cudaMemsetAsync(void *to, int value, size_t bytes, void *stream)
{
    return (void)stream, cudaMemset(to, value, bytes);
}

/* ------------------------------------------------------------------------- streams and events */
int cudaStreamCreate(void **stream) { return *stream = new_handle(), OK; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags)
{
    return (void)flags, *stream = new_handle(), OK;
}
int cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority)
{
    return (void)flags, (void)priority, *stream = new_handle(), OK;
}
int cudaStreamGetPriority(void *stream, int *priority) { return (void)stream, *priority = 0, OK; }
int cudaThreadExchangeStreamCaptureMode(int *mode) { return *mode = 0, OK; }
int cudaEventCreate(void **event) { return *event = new_handle(), OK; }
int cudaEventCreateWithFlags(void **event, unsigned flags)
{
    return (void)flags, *event = new_handle(), OK;
}
int cudaEventElapsedTime(float *ms, void *a, void *b) { return (void)a, (void)b, *ms = 0.01f, OK; }
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data)
{
    return (void)stream, function(data), OK;
}
int cudaStreamAddCallback(void *stream, void (*call)(void *, int, void *), void *data,
                          unsigned flags)
{
    return (void)flags, call(stream, OK, data), OK;
}

/* ------------------------------------------------------------------------------- CUDA graphs */
/* What is captured has its memory while it is captured, and is done then; a launch of the graph is a
   launch. A stream that waits for what a capturing one has recorded captures, too. */
#define MOST_CAPTURING 256
static struct capturing {
    void *one, *graph; /* a stream or an event, and what it goes into */
    unsigned long long id;
} capturing[MOST_CAPTURING];
static pthread_mutex_t capture_lock = PTHREAD_MUTEX_INITIALIZER;
static int captures; /* at work; mostly none is, and nobody waits for the lock */

static struct capturing capture_of(void *one)
{
    struct capturing found = {0};
    if (!__atomic_load_n(&captures, __ATOMIC_ACQUIRE))
        return found;
    pthread_mutex_lock(&capture_lock);
    for (int at = 0; one && at < MOST_CAPTURING; at++)
        if (capturing[at].id && capturing[at].one == one)
            found = capturing[at];
    pthread_mutex_unlock(&capture_lock);
    return found;
}
/* Put a stream or an event into a capture; with an id of 0 take it out of its own. */
static int set_capture(void *one, struct capturing its)
{
    int room = -1;
    if (!its.id && !__atomic_load_n(&captures, __ATOMIC_ACQUIRE))
        return 0;
    pthread_mutex_lock(&capture_lock);
    for (int at = MOST_CAPTURING; at-- > 0;) {
        if (capturing[at].one == one)
            capturing[at].id = 0;
        if (!capturing[at].id)
            room = at;
    }
    its.one = one;
    if (its.id && room >= 0)
        capturing[room] = its;
    pthread_mutex_unlock(&capture_lock);
    return its.id && room < 0 ? -1 : 0;
}
int cudaStreamIsCapturing(void *stream, int *status)
{
    return *status = capture_of(stream).id != 0, OK;
}
int cudaStreamGetCaptureInfo(void *stream, int *status, unsigned long long *id, void **graph,
                             const void **nodes, const void **edges, size_t *count)
{
    struct capturing its = capture_of(stream);
    *status = its.id != 0;
    if (id)
        *id = its.id;
    if (graph)
        *graph = its.graph;
    if (nodes)
        *nodes = NULL;
    if (edges)
        *edges = NULL;
    if (count)
        *count = 0;
    return OK;
}
int cudaStreamBeginCapture(void *stream, int mode)
{
    static unsigned long long last;
    struct capturing its = {stream, new_handle(), __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED)};
    (void)mode;
    if (!stream || capture_of(stream).id || set_capture(stream, its))
        return say(CAPTURE_UNSUPPORTED);
    return __atomic_add_fetch(&captures, 1, __ATOMIC_RELEASE), OK;
}
int cudaStreamEndCapture(void *stream, void **graph)
{
    struct capturing its = capture_of(stream);
    if (!its.id)
        return say(INVALID_VALUE);
    pthread_mutex_lock(&capture_lock);
    for (int at = 0; at < MOST_CAPTURING; at++)
        if (capturing[at].id == its.id)
            capturing[at].id = 0;
    pthread_mutex_unlock(&capture_lock);
    __atomic_sub_fetch(&captures, 1, __ATOMIC_RELEASE);
    return *graph = its.graph, OK;
}
int cudaEventRecord(void *event, void *stream)
{
    return set_capture(event, capture_of(stream)) ? say(CAPTURE_UNSUPPORTED) : OK;
}
int cudaEventRecordWithFlags(void *event, void *stream, unsigned flags)
{
    return (void)flags, cudaEventRecord(event, stream);
}
int cudaStreamWaitEvent(void *stream, void *event, unsigned flags)
{
    struct capturing its = capture_of(event);
    (void)flags;
    return its.id && set_capture(stream, its) ? say(CAPTURE_UNSUPPORTED) : OK;
}
int cudaStreamSynchronize(void *stream)
{
    return capture_of(stream).id ? say(CAPTURE_UNSUPPORTED) : OK;
}
int cudaStreamUpdateCaptureDependencies(void *stream) { return (void)stream, OK; }
int cudaGraphGetNodes(void *graph, void **nodes, size_t *count)
{
    if (nodes && *count)
        *nodes = graph;
    return *count = 1, OK;
}
int cudaGraphNodeGetDependencies(void *node, void **nodes, void *edges, size_t *count)
{
    return (void)node, (void)nodes, (void)edges, *count = 0, OK;
}
int cudaGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags)
{
    (void)graph, (void)flags;
    card_note("cuda: what a graph keeps on the card for itself");
    return *made = new_handle(), OK;
}
int cudaGraphRetainUserObject(void *graph) { return (void)graph, OK; }
int cudaGraphLaunch(void *made, void *stream)
{
    return (void)made, (void)stream, work_done(), OK;
}
int cudaGraphDestroy(void *graph) { return (void)graph, OK; }
int cudaGraphExecDestroy(void *made) { return (void)made, OK; }

/* ------------------------------------------------------------------------------------ kernels */
struct kernel {
    const void *host;
    int threads;
    struct kernel *next;
};
struct variable {
    const void *host;
    void *device;
    size_t bytes;
    struct variable *next;
};
#define BUCKETS 65536
static struct kernel *kernels[BUCKETS];
static struct variable *variables;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct kernel **bucket(const void *host) { return kernels + ((uintptr_t)host >> 4) % BUCKETS; }

void **__cudaRegisterFatBinary(void *binary)
{
    void **handle = malloc(sizeof *handle);
    if (handle)
        *handle = binary;
    return handle;
}
void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
void __cudaUnregisterFatBinary(void **handle) { free(handle); }
char __cudaInitModule(void **handle) { return (void)handle, 1; }
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name,
                            int threads, void *a, void *b, void *c, void *d, int *e)
{
    (void)handle, (void)device, (void)name, (void)a, (void)b, (void)c, (void)d, (void)e;
    struct kernel *new = malloc(sizeof *new);
    if (!new)
        return;
    pthread_mutex_lock(&lock);
    *new = (struct kernel){host, threads, *bucket(host)};
    *bucket(host) = new;
    pthread_mutex_unlock(&lock);
}
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external,
                       size_t bytes, int constant, int global)
{
    (void)handle, (void)device, (void)name, (void)external, (void)constant, (void)global;
    struct variable *new = malloc(sizeof *new);
    if (!new)
        return;
    pthread_mutex_lock(&lock);
    *new = (struct variable){host, NULL, bytes, variables};
    variables = new;
    pthread_mutex_unlock(&lock);
}
static struct variable *variable_of(const void *host)
{
    pthread_mutex_lock(&lock);
    struct variable *at = variables;
    while (at && at->host != host)
        at = at->next;
    if (at && !at->device)
        at->device = calloc(1, at->bytes ? at->bytes : 1); /* it is in the context, not beside it */
    pthread_mutex_unlock(&lock);
    return at && at->device ? at : NULL;
}
int cudaGetSymbolAddress(void **address, const void *symbol)
{
    struct variable *found = variable_of(symbol);
    if (!found)
        return say(INVALID_SYMBOL);
    return *address = found->device, OK;
}
int cudaMemcpyToSymbol(const void *symbol, const void *from, size_t bytes, size_t offset, int kind)
{
    struct variable *found = variable_of(symbol);
    (void)kind;
    if (!found || offset > found->bytes || bytes > found->bytes - offset)
        return say(INVALID_SYMBOL);
    return memcpy((char *)found->device + offset, from, bytes), OK;
}

struct call {
    struct dim3 grid, block;
    size_t shared;
    void *stream;
};
static __thread struct call calls[16];
static __thread int depth;

unsigned __cudaPushCallConfiguration(struct dim3 grid, struct dim3 block, size_t shared,
                                     void *stream)
{
    if (depth >= 16)
        return 1;
    return calls[depth++] = (struct call){grid, block, shared, stream}, 0;
}
int __cudaPopCallConfiguration(struct dim3 *grid, struct dim3 *block, size_t *shared, void *stream)
{
    if (!depth)
        return say(MISSING_CONFIGURATION);
    struct call *call = calls + --depth;
    *grid = call->grid, *block = call->block, *shared = call->shared;
    *(void **)stream = call->stream;
    return OK;
}
static int launch(struct dim3 grid, struct dim3 block, size_t shared)
{
    const struct card *card = card_of(current_device());
    if (!card)
        return say(NO_DEVICE);
    if (!grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z || block.x > 1024 ||
        block.y > 1024 || block.z > 64 || (size_t)block.x * block.y * block.z > 1024 ||
        shared > card_limits(card).shared_optin_bytes)
        return say(INVALID_CONFIGURATION);
    return work_done(), OK;
}
int cudaLaunchKernel(const void *host, struct dim3 grid, struct dim3 block, void **arguments,
                     size_t shared, void *stream)
{
    return (void)host, (void)arguments, (void)stream, launch(grid, block, shared);
}
int cudaLaunchCooperativeKernel(const void *host, struct dim3 grid, struct dim3 block,
                                void **arguments, size_t shared, void *stream)
{
    return (void)host, (void)arguments, (void)stream, launch(grid, block, shared);
}
int cudaLaunchKernelExC(const struct launch_config *config, const void *host, void **arguments)
{
    return (void)host, (void)arguments, launch(config->grid, config->block, config->shared_bytes);
}
int __cudaGetKernel(const void **kernel, const void *host) { return *kernel = host, OK; }
int __cudaLaunchKernel(const void *kernel, struct dim3 grid, struct dim3 block, void **arguments,
                       size_t shared, void *stream)
{
    return (void)kernel, (void)arguments, (void)stream, launch(grid, block, shared);
}

/* The architecture whose kernels are loaded from torch's wheels: they have none for these alone, and
   CUB refuses one that it was not compiled for. */
static int loaded_kernels(const struct card *card)
{
    int own = card->major * 10 + card->minor;
    switch (own) {
    case 87: case 89: return 86;
    case 103: return 100;
    case 121: return 120;
    default: return own;
    }
}

/* The registers that a kernel takes are in its binary, which is not read: they are assumed. */
int cudaFuncGetAttributes(struct function_attributes *told, const void *host)
{
    const struct card *card = card_of(current_device());
    if (!card)
        return say(NO_DEVICE);
    struct kernel *kernel = *bucket(host);
    while (kernel && kernel->host != host)
        kernel = kernel->next;
    int binary = loaded_kernels(card);
    *told = (struct function_attributes){
        .threads = kernel && kernel->threads > 0 ? kernel->threads : 1024,
        .registers = 32,
        .ptx = binary,
        .binary = binary,
        .dynamic_shared_bytes = 48 << 10,
    };
    return OK;
}
static int resident(int threads)
{
    const struct card *card = card_of(current_device());
    if (!card)
        return 1;
    struct limits limits = card_limits(card);
    int most = threads > 0 ? limits.threads / threads : limits.blocks;
    return most < 1 ? 1 : most > limits.blocks ? limits.blocks : most;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *host, int threads,
                                                  size_t shared)
{
    return (void)host, (void)shared, *blocks = resident(threads), OK;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *host,
                                                           int threads, size_t shared,
                                                           unsigned flags)
{
    return (void)host, (void)shared, (void)flags, *blocks = resident(threads), OK;
}

/* ------------------------------------------------------------------------------------- errors */
int cudaGetLastError(void)
{
    int error = last_error;
    return last_error = OK, error;
}
int cudaPeekAtLastError(void) { return last_error; }
const char *cudaGetErrorName(int error)
{
    switch (error) {
    case OK: return "cudaSuccess";
    case INVALID_VALUE: return "cudaErrorInvalidValue";
    case OUT_OF_MEMORY: return "cudaErrorMemoryAllocation";
    case INVALID_CONFIGURATION: return "cudaErrorInvalidConfiguration";
    case INVALID_SYMBOL: return "cudaErrorInvalidSymbol";
    case NO_DEVICE: return "cudaErrorNoDevice";
    case INVALID_DEVICE: return "cudaErrorInvalidDevice";
    case NOT_SUPPORTED: return "cudaErrorNotSupported";
    default: return "cudaErrorUnknown";
    }
}
const char *cudaGetErrorString(int error)
{
    switch (error) {
    case OK: return "no error";
    case INVALID_VALUE: return "invalid argument";
    case OUT_OF_MEMORY: return "out of memory";
    case INVALID_CONFIGURATION: return "invalid configuration argument";
    case INVALID_SYMBOL: return "invalid device symbol";
    case NO_DEVICE: return "no CUDA-capable device is detected";
    case INVALID_DEVICE: return "invalid device ordinal";
    case CAPTURE_UNSUPPORTED: return "operation not permitted when stream is capturing";
    case NOT_SUPPORTED: return "operation not supported on a pretended card";
    default: {
        static __thread char text[64];
        return snprintf(text, sizeof text, "error %d of a pretended card", error), text;
    }
    }
}

/* ------------------------------------------------------- driver functions that torch asks for */
static int unanswered(void) { return NOT_SUPPORTED; }

int cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                     unsigned long long flags, int *status)
{
    static void *driver;
    (void)version, (void)flags;
    if (!driver)
        driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *function = driver ? dlsym(driver, symbol) : NULL;
    if (!*function)
        *function = (void *)unanswered;
    if (status)
        *status = 0;
    return OK;
}

/* libcuda: what torch asks the driver itself for, virtual memory above all. */
#define _GNU_SOURCE
#include "card.h"
#include "cuda13.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int cuGetErrorString(int error, const char **text)
{
    *text = error == OUT_OF_MEMORY ? "out of memory" : "an error of a pretended card";
    return OK;
}
int cuGetErrorName(int error, const char **text)
{
    *text = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN";
    return OK;
}
int cuInit(unsigned flags) { return (void)flags, card_count() ? OK : NO_DEVICE; }
int cuDriverGetVersion(int *version) { return *version = CUDA_VERSION_ANSWERED, OK; }
int cuDeviceGetCount(int *count) { return *count = card_count(), OK; }
int cuDeviceGet(int *device, int ordinal)
{
    return *device = ordinal, card_of(ordinal) ? OK : INVALID_DEVICE;
}
int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    return card_attribute(device, attribute, value) ? INVALID_DEVICE : OK;
}
int cuDeviceGetName(char *text, int room, int device)
{
    const struct card *card = card_of(device);
    if (!card)
        return INVALID_DEVICE;
    return snprintf(text, (size_t)room, "%s", card->name), OK;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device)
{
    const struct card *card = card_of(device);
    if (!card)
        return INVALID_DEVICE;
    return *bytes = card->total_bytes, OK;
}

/* A context is its device's number, and one more: NULL is none. */
static void *context_of(int device) { return (void *)(uintptr_t)(device + 1); }
int cuCtxGetCurrent(void **context) { return *context = context_of(current_device()), OK; }
int cuCtxSetCurrent(void *context)
{
    if (context)
        choose_device((int)(uintptr_t)context - 1);
    return OK;
}
int cuCtxGetDevice(int *device) { return *device = current_device(), OK; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active)
{
    int32_t pid;
    *flags = 0, *active = 0;
    for (int slot = 0; slot < MOST_PROCESSES && card_place(device) >= 0; slot++)
        if (card_used_by(card_place(device), slot, &pid) && pid == (int32_t)getpid())
            *active = 1;
    return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device)
{
    return *context = context_of(device), card_enter(device) ? OUT_OF_MEMORY : OK;
}
int cuPointerGetAttribute(void *value, int attribute, uintptr_t address)
{
    int device = memory_device((void *)address);
    if (device < 0)
        return INVALID_VALUE;
    if (attribute == 1) /* the context */
        *(void **)value = context_of(device);
    else if (attribute == 2) /* what kind of memory: a device's */
        *(unsigned *)value = 2;
    else if (attribute == 3 || attribute == 4) /* where a device sees it, and the host */
        *(uintptr_t *)value = address;
    else if (attribute == 9) /* the ordinal */
        *(int *)value = device;
    else
        return NOT_SUPPORTED;
    return OK;
}
int cuTensorMapEncodeTiled(void *map) { return (void)map, OK; }
int cuTensorMapEncodeIm2col(void *map) { return (void)map, OK; }
int cuCtxGetLimit(size_t *value, int limit) { return (void)limit, *value = 0, OK; }
int cuCtxSetLimit(int limit, size_t value) { return (void)limit, (void)value, OK; }

/* ---------------------------------- kernels that a program brings itself, compiled for the card */
int cuModuleLoadData(void **module, const void *image)
{
    return (void)image, *module = new_handle(), OK;
}
int cuModuleLoad(void **module, const char *path) { return cuModuleLoadData(module, path); }
int cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options,
                       void **values)
{
    return (void)count, (void)options, (void)values, cuModuleLoadData(module, image);
}
int cuModuleGetFunction(void **function, void *module, const char *name)
{
    return (void)module, (void)name, *function = new_handle(), OK;
}
int cuModuleUnload(void *module) { return (void)module, OK; }
int cuFuncGetAttribute(int *value, int attribute, void *function)
{
    (void)function;
    /* the most threads of a block, and registers; static shared, constant and local memory: none */
    *value = attribute == 0 ? 1024 : attribute == 4 ? 32 : 0;
    return OK;
}
int cuFuncSetAttribute(void *function, int attribute, int value)
{
    return (void)function, (void)attribute, (void)value, OK;
}
int cuFuncSetCacheConfig(void *function, int config) { return (void)function, (void)config, OK; }
int cuOccupancyMaxActiveClusters(int *count, void *function, const void *config)
{
    const struct card *card = card_of(current_device());
    (void)function, (void)config;
    return *count = card ? card->multiprocessors : 1, OK;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *count, void *function, int threads,
                                                size_t shared)
{
    return (void)function, (void)threads, (void)shared, *count = 1, OK;
}
int cuLaunchKernel(void *function) { return (void)function, work_done(), OK; }
int cuLaunchKernelEx(const void *config) { return (void)config, work_done(), OK; }
int cuLaunchCooperativeKernel(void *function) { return (void)function, work_done(), OK; }

/* --------------------------------------------------------- virtual memory: expandable segments */
struct chunk {
    size_t bytes;
    int device, held; /* by its handle and by each mapping */
};
struct mapping {
    uintptr_t at;
    struct chunk *chunk;
};
static struct mapping *mappings;
static size_t mapping_count, mapping_room;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int cuMemGetAllocationGranularity(size_t *bytes, const struct allocation_wish *wish, int option)
{
    return (void)wish, (void)option, *bytes = GRAIN, OK;
}
int cuMemAddressReserve(uintptr_t *address, size_t bytes, size_t alignment, uintptr_t wanted,
                        unsigned long long flags)
{
    (void)alignment, (void)wanted, (void)flags;
    *address = (uintptr_t)memory_reserve(bytes);
    return *address ? OK : OUT_OF_MEMORY;
}
int cuMemAddressFree(uintptr_t address, size_t bytes)
{
    return (void)bytes, memory_unreserve((void *)address) ? INVALID_VALUE : OK;
}
int cuMemCreate(unsigned long long *handle, size_t bytes, const struct allocation_wish *wish,
                unsigned long long flags)
{
    (void)flags;
    if (!bytes || bytes % GRAIN || wish->where.type != 1) /* a device's memory, in whole pages */
        return INVALID_VALUE;
    struct chunk *chunk = malloc(sizeof *chunk);
    if (!chunk || card_take(wish->where.id, bytes)) {
        free(chunk);
        return OUT_OF_MEMORY;
    }
    *chunk = (struct chunk){bytes, wish->where.id, 1};
    work_done();
    return *handle = (unsigned long long)(uintptr_t)chunk, OK;
}
static void release(struct chunk *chunk)
{
    if (__atomic_sub_fetch(&chunk->held, 1, __ATOMIC_SEQ_CST))
        return;
    card_give(chunk->device, chunk->bytes);
    free(chunk);
}
int cuMemRelease(unsigned long long handle)
{
    return release((struct chunk *)(uintptr_t)handle), OK;
}
int cuMemMap(uintptr_t at, size_t bytes, size_t offset, unsigned long long handle,
             unsigned long long flags)
{
    struct chunk *chunk = (struct chunk *)(uintptr_t)handle;
    (void)flags;
    if (offset || bytes != chunk->bytes || memory_device((void *)at) < 0)
        return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    if (mapping_count == mapping_room) {
        size_t room = mapping_room ? 2 * mapping_room : 1024;
        struct mapping *more = realloc(mappings, room * sizeof *mappings);
        if (!more) {
            pthread_mutex_unlock(&lock);
            return OUT_OF_MEMORY;
        }
        mappings = more, mapping_room = room;
    }
    mappings[mapping_count++] = (struct mapping){at, chunk};
    __atomic_add_fetch(&chunk->held, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&lock);
    return OK;
}
int cuMemUnmap(uintptr_t at, size_t bytes)
{
    int found = 0;
    pthread_mutex_lock(&lock);
    for (size_t number = mapping_count; number-- > 0;)
        if (mappings[number].at >= at && mappings[number].at < at + bytes) {
            struct chunk *chunk = mappings[number].chunk;
            mappings[number] = mappings[--mapping_count];
            release(chunk);
            found = 1;
        }
    pthread_mutex_unlock(&lock);
    if (!found)
        return INVALID_VALUE;
    madvise((void *)at, bytes, MADV_DONTNEED);
    return OK;
}
int cuMemSetAccess(uintptr_t at, size_t bytes, const void *wish, size_t count)
{
    return (void)at, (void)bytes, (void)wish, (void)count, OK;
}

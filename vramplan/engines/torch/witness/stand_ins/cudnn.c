/* libcudnn: torch's calls, answered by the real cuDNN without a device.
 *
 * Since 9.8 cuDNN plans for a device that is described to it (its documentation: "Deviceless
 * Ahead-of-time Compilation"). Where a caller names its handle, which is a device, the description
 * is set in its place. So which plans there are, in which order, and how much workspace each takes
 * are cuDNN's own answers; only executing one does nothing. VRAMPLAN_PRETENDED_CUDNN has the
 * paths of the real cuBLASLt, which it uses, and of the real cuDNN, with a colon between; without
 * them there is one plan for everything, and it takes no workspace. So it is with attention: what
 * plans it is compiled on the spot, for a card that is there.
 */
#define _GNU_SOURCE
#include "card.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NO_MEMORY = 2003 };
enum { TYPE_HANDLE = 0, TYPE_INT64 = 3, TYPE_DESCRIPTOR = 15, TYPE_CHAR = 24 };
enum { ENGINE = 2, HEURISTICS = 4, PRODUCT = 19, DEVICE = 38, ATTENTION = 41,
       ATTENTION_BACKWARD = 43 };
enum { HEURISTICS_DEVICE = 204, PLAN_HANDLE = 400, PLAN_WORKSPACE = 402, PLAN_DEVICE = 407,
       ENGINE_DEVICE = 1307, DEVICE_JSON = 2702 };

static struct {
    int (*create)(int, void **);
    int (*destroy)(void *);
    int (*finalize)(void *);
    int (*set)(void *, int, int, int64_t, const void *);
    int (*get)(void *, int, int, int64_t, int64_t *, void *);
    size_t (*version)(void);
    void (*last_error)(char *, size_t);
    const char *(*error)(int);
} real;
static int is_loaded;
static void *devices[MOST_CARDS]; /* the description of each card */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void describe(int place)
{
    const struct card *card = card_state()->card + place;
    struct limits limits = card_limits(card);
    char text[2048], name[sizeof card->name];
    snprintf(name, sizeof name, "%s", card->name);
    for (char *at = name; *at; at++)
        if (*at == '"' || *at == '\\')
            *at = ' ';
    int length = snprintf(
        text, sizeof text,
        "{\"deviceVer\":%d,\"multiProcessorCount\":%d,\"warpSize\":32,"
        "\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":%zu,"
        "\"reservedSharedMemoryPerBlock\":%d,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":%d,"
        "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":%d,\"regsPerBlock\":65536,"
        "\"totalGlobalMem\":%zu,\"smClockRateKHz\":%d,\"l2CacheSize\":%zu,"
        "\"maxBlockSize\":[1024,1024,64],\"memClockRateKHz\":%d,"
        "\"maxGridSize\":[2147483647,65535,65535],\"supportCoopLaunch\":1,\"pciDeviceId\":0,"
        "\"isTccDriver\":0,\"cudaDeviceId\":0,\"driverVer\":13000,\"memoryBusWidth\":%d,"
        "\"deviceName\":\"%s\"}",
        card->major * 100 + card->minor * 10, card->multiprocessors, limits.shared_optin_bytes,
        limits.reserved_shared_bytes, limits.blocks, limits.threads, (size_t)card->total_bytes,
        card->clock_khz, (size_t)card->l2_bytes, card->memory_clock_khz, card->bus_bits,
        name);
    void *made;
    if (!real.create(DEVICE, &made) && !real.set(made, DEVICE_JSON, TYPE_CHAR, length + 1, text) &&
        !real.finalize(made))
        devices[place] = made;
    else
        card_note("cudnn: it does not know this card");
}

/* The path of another stand-in, which stands beside this one. */
static const char *path_beside(const char *name, char *text, size_t room)
{
    Dl_info about;
    if (!dladdr((void *)path_beside, &about))
        return name;
    const char *slash = strrchr(about.dli_fname, '/');
    int folder = slash ? (int)(slash - about.dli_fname) + 1 : 0;
    return snprintf(text, room, "%.*s%s", folder, about.dli_fname, name), text;
}

/* A second name space has a second libc, which hands out keys of thread-specific data from 0 as the
   first does; but both keep the data in the same table of a thread. A library that finds another's
   value under its key falls over it. So the first libc never hands out keys from FIRST to LAST, and
   the second none below FIRST. The table's blocks of 32 are allocated when they are first used and
   freed by the first libc, when a thread ends: it has to be the one that allocates them, too. */
enum { FIRST = 512, LAST = 768, BLOCK = 32 };

static int keep_keys_apart(void *driver)
{
    static pthread_key_t lower[FIRST];
    int (*create)(pthread_key_t *, void (*)(void *)) =
        (int (*)(pthread_key_t *, void (*)(void *)))dlsym(driver, "pthread_key_create");
    pthread_key_t key = 0;
    size_t count = 0;
    if (!create)
        return 0;
    while (key + 1 < LAST && !pthread_key_create(&key, NULL))
        if (key < FIRST)
            lower[count++] = key;
    while (count)
        pthread_key_delete(lower[--count]);
    if (key + 1 != LAST)
        return 0;
    for (key = 0; key + 1 < FIRST;)
        if (create(&key, NULL))
            return 0;
    return key + 1 == FIRST;
}

/* Have the first libc allocate the blocks of this thread. */
static void prepare_thread(void)
{
    static __thread int is_prepared;
    for (pthread_key_t key = FIRST; !is_prepared && key < LAST; key += BLOCK) {
        pthread_setspecific(key, &is_prepared);
        pthread_setspecific(key, NULL);
    }
    is_prepared = 1;
}

static void begin(void)
{
    const char *path = getenv("VRAMPLAN_PRETENDED_CUDNN");
    if (!path || !*path)
        return;
    /* In a name space of its own, so that it does not get our cuDNN's and cuBLASLt's functions. Of
       its parts some are linked with the driver: ours is there before. */
    Lmid_t place = LM_ID_NEWLM;
    char beside[4096];
    void *driver =
        dlmopen(place, path_beside("libcuda.so.1", beside, sizeof beside), RTLD_NOW | RTLD_LOCAL);
    const char *colon = strchr(path, ':');
    void *products = NULL, *library = NULL;
    if (driver && colon && keep_keys_apart(driver) && !dlinfo(driver, RTLD_DI_LMID, &place)) {
        snprintf(beside, sizeof beside, "%.*s", (int)(colon - path), path);
        prepare_thread();
        products = dlmopen(place, beside, RTLD_NOW | RTLD_LOCAL);
    }
    if (products)
        library = dlmopen(place, colon + 1, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        card_note("cudnn: it cannot be loaded");
        return;
    }
    real.create = (int (*)(int, void **))dlsym(library, "cudnnBackendCreateDescriptor");
    real.destroy = (int (*)(void *))dlsym(library, "cudnnBackendDestroyDescriptor");
    real.finalize = (int (*)(void *))dlsym(library, "cudnnBackendFinalize");
    real.set = (int (*)(void *, int, int, int64_t, const void *))dlsym(
        library, "cudnnBackendSetAttribute");
    real.get = (int (*)(void *, int, int, int64_t, int64_t *, void *))dlsym(
        library, "cudnnBackendGetAttribute");
    real.version = (size_t (*)(void))dlsym(library, "cudnnGetVersion");
    real.last_error = (void (*)(char *, size_t))dlsym(library, "cudnnGetLastErrorString");
    real.error = (const char *(*)(int))dlsym(library, "cudnnGetErrorString");
    is_loaded = real.create && real.destroy && real.finalize && real.set && real.get &&
                real.version && real.last_error && real.error;
    for (int place = 0; is_loaded && place < (int)card_state()->cards; place++)
        describe(place);
}
static void *device(void)
{
    pthread_once(&once, begin);
    if (is_loaded)
        prepare_thread();
    int place = card_place(current_device());
    return place < 0 ? NULL : devices[place];
}

/* ------------------------------------------------------------- which descriptor is of which type */
#define BUCKETS 16384
struct seen {
    void *descriptor;
    int type;
    int is_ours; /* it is, or is made of, what the real one is not asked about */
    struct seen *next;
};
static struct seen *seen[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct seen **bucket(const void *one) { return seen + ((uintptr_t)one >> 4) % BUCKETS; }

static void remember(void *descriptor, int type)
{
    struct seen *new = malloc(sizeof *new);
    if (!new)
        return;
    pthread_mutex_lock(&lock);
    int is_ours = type == PRODUCT || type == ATTENTION || type == ATTENTION_BACKWARD;
    *new = (struct seen){descriptor, type, is_ours, *bucket(descriptor)};
    *bucket(descriptor) = new;
    pthread_mutex_unlock(&lock);
}
static int type_of(void *descriptor, int forgets)
{
    int type = -1;
    pthread_mutex_lock(&lock);
    for (struct seen **at = bucket(descriptor); *at; at = &(*at)->next)
        if ((*at)->descriptor == descriptor) {
            struct seen *found = *at;
            type = found->type;
            if (forgets) {
                *at = found->next;
                free(found);
            }
            break;
        }
    pthread_mutex_unlock(&lock);
    return type;
}

static int is_ours(void *descriptor, int becomes)
{
    int answer = 0;
    pthread_mutex_lock(&lock);
    for (struct seen *at = *bucket(descriptor); at; at = at->next)
        if (at->descriptor == descriptor) {
            answer = at->is_ours |= becomes;
            break;
        }
    pthread_mutex_unlock(&lock);
    return answer;
}

int cudnnBackendCreateDescriptor(int type, void **made)
{
    int status = OK;
    if (device())
        status = real.create(type, made);
    else
        status = (*made = calloc(1, 64)) ? OK : NO_MEMORY;
    if (!status)
        remember(*made, type);
    return status;
}
int cudnnBackendDestroyDescriptor(void *descriptor)
{
    type_of(descriptor, 1);
    if (device())
        return real.destroy(descriptor);
    return free(descriptor), OK;
}
int cudnnBackendSetAttribute(void *descriptor, int name, int type, int64_t count,
                             const void *values)
{
    void *described = device();
    if (!described)
        return OK;
    for (int64_t number = 0; type == TYPE_DESCRIPTOR && number < count; number++)
        if (is_ours(((void *const *)values)[number], 0))
            is_ours(descriptor, 1);
    if (is_ours(descriptor, 0))
        return OK;
    if (type != TYPE_HANDLE)
        return real.set(descriptor, name, type, count, values);
    if (name == PLAN_HANDLE)
        return real.set(descriptor, PLAN_DEVICE, TYPE_DESCRIPTOR, 1, &described);
    return OK; /* a graph of operations needs none */
}
int cudnnBackendFinalize(void *descriptor)
{
    void *described = device();
    if (!described || is_ours(descriptor, 0))
        return OK;
    int type = type_of(descriptor, 0);
    if (type == HEURISTICS)
        real.set(descriptor, HEURISTICS_DEVICE, TYPE_DESCRIPTOR, 1, &described);
    else if (type == ENGINE)
        real.set(descriptor, ENGINE_DEVICE, TYPE_DESCRIPTOR, 1, &described);
    return real.finalize(descriptor);
}
int cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t wanted, int64_t *count,
                             void *values)
{
    int ours = is_ours(descriptor, 0);
    if (device() && !ours)
        return real.get(descriptor, name, type, wanted, count, values);
    if (count)
        *count = 1;
    if (name == PLAN_WORKSPACE)
        card_note(ours ? "cudnn: attention's workspace" : "cudnn: it is not installed");
    if (ours && type == TYPE_DESCRIPTOR && values && wanted > 0)
        is_ours(*(void **)values, 1);
    if (type != TYPE_DESCRIPTOR && values && wanted == 1)
        memset(values, 0, type == TYPE_INT64 ? 8 : 4);
    return OK;
}
int cudnnBackendExecute(void *handle, void *plan, void *pack)
{
    return (void)handle, (void)plan, (void)pack, work_done(), OK;
}

int cudnnCreate(void **handle) { return *handle = calloc(1, 64), *handle ? OK : NO_MEMORY; }
int cudnnDestroy(void *handle) { return free(handle), OK; }
int cudnnSetStream(void *handle, void *stream) { return (void)handle, (void)stream, OK; }
int cudnnGetStream(void *handle, void **stream) { return (void)handle, *stream = NULL, OK; }
size_t cudnnGetVersion(void)
{
    pthread_once(&once, begin);
    return is_loaded ? real.version() : 92400;
}
int cudnnGetProperty(int which, int *value)
{
    int version = (int)cudnnGetVersion();
    *value = which == 0 ? version / 10000 : which == 1 ? version / 100 % 100 : version % 100;
    return OK;
}
size_t cudnnGetCudartVersion(void) { return 13000; }
const char *cudnnGetErrorString(int status)
{
    if (device())
        return real.error(status);
    return status ? "an error of a pretended card" : "CUDNN_STATUS_SUCCESS";
}
void cudnnGetLastErrorString(char *text, size_t room)
{
    if (device())
        real.last_error(text, room);
    else if (room)
        text[0] = 0;
}

static int make(void **made) { return *made = calloc(1, 512), *made ? OK : NO_MEMORY; }
int cudnnCreateActivationDescriptor(void **made) { return make(made); }
int cudnnCreateConvolutionDescriptor(void **made) { return make(made); }
int cudnnCreateDropoutDescriptor(void **made) { return make(made); }
int cudnnCreateFilterDescriptor(void **made) { return make(made); }
int cudnnCreateRNNDataDescriptor(void **made) { return make(made); }
int cudnnCreateRNNDescriptor(void **made) { return make(made); }
int cudnnCreateTensorDescriptor(void **made) { return make(made); }
int cudnnCreatePoolingDescriptor(void **made) { return make(made); }
int cudnnCreateSpatialTransformerDescriptor(void **made) { return make(made); }
int cudnnCreateCTCLossDescriptor(void **made) { return make(made); }

/* Batch normalisation asks how much memory it may use: cuDNN tells that to a device alone. */
static int unknown_size(size_t *bytes)
{
    return card_note("cudnn: batch normalisation's workspace"), *bytes = 0, OK;
}
int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void *handle, int mode, int operations,
                                                             void *x, void *z, void *y,
                                                             void *scale, void *activation,
                                                             size_t *bytes)
{
    (void)handle, (void)mode, (void)operations, (void)x, (void)z, (void)y, (void)scale;
    return (void)activation, unknown_size(bytes);
}
int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void *handle, int mode, int operations,
                                                      void *x, void *y, void *dy, void *dz,
                                                      void *dx, void *scale, void *activation,
                                                      size_t *bytes)
{
    (void)handle, (void)mode, (void)operations, (void)x, (void)y, (void)dy, (void)dz, (void)dx;
    return (void)scale, (void)activation, unknown_size(bytes);
}
int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void *handle, int mode, int operations,
                                                         void *activation, void *x, size_t *bytes)
{
    (void)handle, (void)mode, (void)operations, (void)activation, (void)x;
    return unknown_size(bytes);
}

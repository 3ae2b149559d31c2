/* libnvidia-ml: the pretended cards as this machine's processes fill them.
 *
 * Signatures and structures: NVIDIA's "NVML API Reference". It sees all cards, whatever
 * CUDA_VISIBLE_DEVICES says.
 */
#define _GNU_SOURCE
#include "card.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NO_DRIVER = 9 };

static struct card *card_at(const void *device)
{
    struct state *state = card_state();
    const struct card *card = device;
    return card >= state->card && card < state->card + state->cards ? (struct card *)card : NULL;
}
static int place_at(const void *device) { return (int)((const struct card *)device - card_state()->card); }

int nvmlInit_v2(void) { return card_state()->cards ? OK : NO_DRIVER; }
int nvmlInitWithFlags(unsigned flags) { return (void)flags, nvmlInit_v2(); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int error)
{
    return error ? "not on a pretended card" : "the operation was successful";
}
int nvmlSystemGetDriverVersion(char *text, unsigned room)
{
    return snprintf(text, room, "pretended"), OK;
}
int nvmlSystemGetNVMLVersion(char *text, unsigned room) { return snprintf(text, room, "13"), OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { return *version = 13000, OK; }
int nvmlSystemGetCudaDriverVersion(int *version) { return *version = 13000, OK; }
int nvmlSystemGetProcessName(unsigned pid, char *text, unsigned room)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = room ? fopen(path, "r") : NULL;
    if (!file)
        return NOT_FOUND;
    size_t length = fread(text, 1, room - 1, file);
    fclose(file);
    text[length] = 0;
    return OK;
}
int nvmlDeviceGetCount_v2(unsigned *count) { return *count = card_state()->cards, OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    struct state *state = card_state();
    if (index >= state->cards)
        return INVALID;
    return *device = state->card + index, OK;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned room)
{
    unsigned char id[16];
    if (!card_at(device) || room < 41)
        return INVALID;
    card_uuid(place_at(device), id);
    int at = snprintf(text, room, "GPU-");
    for (int byte = 0; byte < 16; byte++)
        at += snprintf(text + at, room - (unsigned)at, "%s%02x",
                       byte == 4 || byte == 6 || byte == 8 || byte == 10 ? "-" : "", id[byte]);
    return OK;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device)
{
    struct state *state = card_state();
    char own[64];
    for (unsigned place = 0; place < state->cards; place++)
        if (!nvmlDeviceGetUUID(state->card + place, own, sizeof own) && !strcmp(own, uuid))
            return *device = state->card + place, OK;
    return NOT_FOUND;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device)
{
    const char *colon = strchr(id, ':');
    unsigned bus = colon ? (unsigned)strtoul(colon + 1, NULL, 16) : 0;
    return bus ? nvmlDeviceGetHandleByIndex_v2(bus - 1, device) : NOT_FOUND;
}
int nvmlDeviceGetIndex(void *device, unsigned *index)
{
    return card_at(device) ? (*index = (unsigned)place_at(device), OK) : INVALID;
}
int nvmlDeviceGetName(void *device, char *text, unsigned room)
{
    const struct card *card = card_at(device);
    return card ? (snprintf(text, room, "%s", card->name), OK) : INVALID;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor)
{
    const struct card *card = card_at(device);
    return card ? (*major = card->major, *minor = card->minor, OK) : INVALID;
}

struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory_v2 *told)
{
    const struct card *card = card_at(device);
    if (!card)
        return INVALID;
    told->total = card->total_bytes + card->reserved_bytes;
    told->reserved = card->reserved_bytes;
    told->used = __atomic_load_n(&card->used_bytes, __ATOMIC_SEQ_CST);
    told->free = told->used < card->total_bytes ? card->total_bytes - told->used : 0;
    return OK;
}
int nvmlDeviceGetMemoryInfo(void *device, struct memory *told)
{
    struct memory_v2 all;
    int error = nvmlDeviceGetMemoryInfo_v2(device, &all);
    if (!error)
        *told = (struct memory){all.total, all.free, all.used + all.reserved};
    return error;
}

struct process_info { unsigned pid; unsigned long long used; unsigned instance, compute; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count,
                                            struct process_info *told)
{
    unsigned room = *count, found = 0;
    if (!card_at(device))
        return INVALID;
    for (int slot = 0; slot < MOST_PROCESSES; slot++) {
        int32_t pid;
        uint64_t used = card_used_by(place_at(device), slot, &pid);
        if (!used)
            continue;
        if (found < room)
            told[found] = (struct process_info){(unsigned)pid, used, ~0u, ~0u};
        found++;
    }
    *count = found;
    return found > room ? TOO_SMALL : OK;
}
int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *count, struct process_info *told)
{
    return nvmlDeviceGetComputeRunningProcesses_v3(device, count, told);
}
int nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned *count,
                                            struct process_info *told)
{
    return nvmlDeviceGetComputeRunningProcesses_v3(device, count, told);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, void *told)
{
    return (void)told, card_at(device) ? (*count = 0, OK) : INVALID;
}
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *next)
{
    return (void)device, (void)now, (void)next, NOT_SUPPORTED;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count)
{
    return (void)device, *count = 0, OK;
}
int nvmlDeviceGetMaxClockInfo(void *device, int kind, unsigned *megahertz)
{
    const struct card *card = card_at(device);
    if (!card)
        return INVALID;
    int khz = kind == 2 ? card->memory_clock_khz : card->clock_khz; /* NVML_CLOCK_MEM */
    return *megahertz = (unsigned)khz / 1000, khz ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetMemoryBusWidth(void *device, unsigned *bits)
{
    const struct card *card = card_at(device);
    if (!card)
        return INVALID;
    return *bits = (unsigned)card->bus_bits, card->bus_bits ? OK : NOT_SUPPORTED;
}
/* A card that computes nothing is not busy; what it would measure of itself it has not. */
int nvmlDeviceGetUtilizationRates(void *device, unsigned told[2])
{
    return card_at(device) ? (told[0] = told[1] = 0, OK) : INVALID;
}
int nvmlDeviceGetTemperature(void) { return NOT_SUPPORTED; }
int nvmlDeviceGetPowerUsage(void) { return NOT_SUPPORTED; }
int nvmlDeviceGetPowerManagementLimit(void) { return NOT_SUPPORTED; }
int nvmlDeviceGetEnforcedPowerLimit(void) { return NOT_SUPPORTED; }
int nvmlDeviceGetTotalEnergyConsumption(void) { return NOT_SUPPORTED; }
int nvmlDeviceGetFanSpeed(void) { return NOT_SUPPORTED; }
int nvmlDeviceGetClockInfo(void) { return NOT_SUPPORTED; }
/* what torch looks up when an allocation fails, and need not know */
int nvmlDeviceGetNvLinkRemoteDeviceType(void) { return NOT_SUPPORTED; }
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void) { return NOT_SUPPORTED; }
int nvmlDeviceGetGpuFabricInfoV(void) { return NOT_SUPPORTED; }
int nvmlDeviceGetP2PStatus(void) { return NOT_SUPPORTED; }
int nvmlDeviceGetNumGpuCores(void *device, unsigned *count) { return (void)device, (void)count, NOT_SUPPORTED; }

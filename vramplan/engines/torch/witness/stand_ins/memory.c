/* Addresses of the pretended cards: mapped without reserve, so that what nobody writes is free. */
#define _GNU_SOURCE
#include "card.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum kind { ALLOCATED, RESERVED, HOST };
struct range {
    char *first;
    size_t bytes;
    int device;
    enum kind kind;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *ranges; /* sorted by address */
static size_t range_count, range_room;

static size_t rounded(size_t bytes) { return (bytes + GRAIN - 1) & ~(GRAIN - 1); }

/* The number of the first range behind an address. */
static size_t behind(const char *address)
{
    size_t low = 0, high = range_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges[middle].first <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int insert(struct range one) /* lock held */
{
    if (range_count == range_room) {
        size_t room = range_room ? 2 * range_room : 256;
        struct range *more = realloc(ranges, room * sizeof *ranges);
        if (!more)
            return -1;
        ranges = more, range_room = room;
    }
    size_t place = behind(one.first);
    memmove(ranges + place + 1, ranges + place, (range_count - place) * sizeof *ranges);
    ranges[place] = one;
    range_count++;
    return 0;
}

static struct range *find(const void *address) /* lock held */
{
    size_t place = behind(address);
    if (!place)
        return NULL;
    struct range *one = ranges + place - 1;
    return (const char *)address < one->first + one->bytes ? one : NULL;
}

static void erase(struct range *one) /* lock held */
{
    size_t place = (size_t)(one - ranges);
    memmove(one, one + 1, (range_count - place - 1) * sizeof *ranges);
    range_count--;
}

/* Addresses at multiples of the grain, as the driver's are. */
static char *map(size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    char *found = mmap(NULL, bytes + GRAIN, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED)
        return NULL;
    char *first = (char *)(((uintptr_t)found + GRAIN - 1) & ~(uintptr_t)(GRAIN - 1));
    if (first > found)
        munmap(found, (size_t)(first - found));
    munmap(first + bytes, (size_t)(found + GRAIN - first));
    madvise(first, bytes, MADV_NOHUGEPAGE); /* a written byte costs a page, not 2 MiB */
    return first;
}

static char *map_range(size_t bytes, int device, enum kind kind)
{
    char *first = map(bytes);
    if (!first)
        return NULL;
    pthread_mutex_lock(&lock);
    int failed = insert((struct range){first, bytes, device, kind});
    pthread_mutex_unlock(&lock);
    if (failed) {
        munmap(first, bytes);
        return NULL;
    }
    return first;
}

void *memory_allocate(int device, size_t bytes)
{
    if (bytes > SIZE_MAX / 4) /* no rounding overflows below that */
        bytes = SIZE_MAX / 4;
    size_t whole = rounded(bytes);
    if (card_take(device, whole))
        return NULL;
    char *first = map_range(whole, device, ALLOCATED);
    if (!first)
        card_give(device, whole);
    return first;
}

static size_t forget(void *address, enum kind kind, int *device)
{
    size_t bytes = 0;
    pthread_mutex_lock(&lock);
    struct range *one = find(address);
    if (one && one->first == address && one->kind == kind) {
        bytes = one->bytes, *device = one->device;
        erase(one);
    }
    pthread_mutex_unlock(&lock);
    return bytes;
}

int memory_free(void *address)
{
    int device;
    size_t bytes = forget(address, ALLOCATED, &device);
    if (!bytes)
        return -1;
    munmap(address, bytes);
    card_give(device, bytes);
    return 0;
}

int memory_device(const void *address)
{
    pthread_mutex_lock(&lock);
    struct range *one = find(address);
    int device = one && one->kind != HOST ? one->device : -1;
    pthread_mutex_unlock(&lock);
    return device;
}

void *memory_reserve(size_t bytes)
{
    return bytes > SIZE_MAX / 4 ? NULL : map_range(rounded(bytes), current_device(), RESERVED);
}

int memory_unreserve(void *address)
{
    int device;
    size_t bytes = forget(address, RESERVED, &device);
    return bytes ? munmap(address, bytes) : -1;
}

void *host_allocate(size_t bytes)
{
    return bytes > SIZE_MAX / 4 ? NULL : map_range(rounded(bytes ? bytes : 1), -1, HOST);
}

void host_remember(void *address, size_t bytes)
{
    pthread_mutex_lock(&lock);
    insert((struct range){address, bytes, -1, HOST});
    pthread_mutex_unlock(&lock);
}

size_t host_forget(void *address)
{
    int device;
    return forget(address, HOST, &device);
}

int host_owns(const void *address)
{
    pthread_mutex_lock(&lock);
    struct range *one = find(address);
    int answer = one && one->kind == HOST;
    pthread_mutex_unlock(&lock);
    return answer;
}

/* The state that all processes with the same cards share, and what each takes of it. */
#define _GNU_SOURCE
#include "card.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(struct card) == 184, "card_state.py has this layout");
_Static_assert(sizeof(struct process) == 144, "card_state.py has this layout");
_Static_assert(offsetof(struct state, card) == 24, "card_state.py has this layout");

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct state nothing; /* without a file: no cards */
static struct state *state = &nothing;
static struct process *own;
static int visible[MOST_CARDS], visible_count;
static int has_context[MOST_CARDS];

static uint64_t started_at(int32_t pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0)
        return 0;
    text[length] = 0;
    char *at = strrchr(text, ')'); /* a program's name may have blanks and brackets */
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

static int is_alive(const struct process *one)
{
    if (one->pid <= 0 || (kill(one->pid, 0) && errno != EPERM))
        return 0;
    uint64_t now = started_at(one->pid);
    return !now || !one->started || now == one->started;
}

/* Which cards CUDA_VISIBLE_DEVICES leaves, by number or the beginning of a UUID; as CUDA does, the
   list ends where it names something that is not there. */
static void choose_visible(void)
{
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    int count = (int)state->cards;
    if (!text) {
        for (visible_count = 0; visible_count < count; visible_count++)
            visible[visible_count] = visible_count;
        return;
    }
    while (*text && visible_count < MOST_CARDS) {
        int found = -1;
        size_t length = strcspn(text, ",");
        char *end;
        long number = strtol(text, &end, 10);
        if (end == text + length && length) {
            found = number >= 0 && number < count ? (int)number : -1;
        } else if (length > 4 && !strncmp(text, "GPU-", 4)) {
            for (int place = 0; place < count && found < 0; place++) {
                unsigned char id[16];
                char words[48];
                card_uuid(place, id);
                int at = snprintf(words, sizeof words, "GPU-");
                for (int byte = 0; byte < 16; byte++)
                    at += snprintf(words + at, sizeof words - (size_t)at, "%s%02x",
                                   byte == 4 || byte == 6 || byte == 8 || byte == 10 ? "-" : "",
                                   id[byte]);
                if (length <= (size_t)at && !strncmp(words, text, length))
                    found = place;
            }
        }
        if (found < 0)
            return;
        visible[visible_count++] = found;
        text += length + (text[length] == ',');
    }
}

static void leave(void);

static void begin_child(void)
{
    own = NULL; /* what the parent has on the card is not its child's */
    memset(has_context, 0, sizeof has_context);
}

static void begin(void)
{
    const char *path = getenv("VRAMPLAN_PRETENDED_CARDS");
    int file = path && *path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    struct stat about;
    if (file < 0)
        return;
    if (!fstat(file, &about) && about.st_size >= (off_t)sizeof *state) {
        struct state *found =
            mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (found != MAP_FAILED && !memcmp(found->magic, "vrpcard", 8) &&
            found->layout == CARD_LAYOUT && found->cards <= MOST_CARDS)
            state = found;
    }
    close(file);
    choose_visible();
    pthread_atfork(NULL, NULL, begin_child);
    atexit(leave);
}

struct state *card_state(void) { return pthread_once(&once, begin), state; }

int card_count(void) { return card_state(), visible_count; }

int card_place(int device)
{
    return device >= 0 && device < card_count() ? visible[device] : -1;
}

struct card *card_of(int device)
{
    int place = card_place(device);
    return place < 0 ? NULL : state->card + place;
}

void card_uuid(int place, unsigned char bytes[16])
{
    memcpy(bytes, "pretended-card-", 15);
    bytes[15] = (unsigned char)('0' + place);
}

void card_note(const char *function)
{
    card_state();
    pthread_mutex_lock(&lock);
    for (int place = 0; place < MOST_NOTES; place++) {
        char *note = state->note[place];
        if (!strncmp(note, function, sizeof state->note[0] - 1))
            break;
        if (!*note) {
            snprintf(note, sizeof state->note[0], "%s", function);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
}

/* ------------------------------------------------------------------ what processes have in use */
static uint64_t load(const uint64_t *from) { return __atomic_load_n(from, __ATOMIC_SEQ_CST); }

static void give_back(struct process *one)
{
    for (int place = 0; place < MOST_CARDS; place++) {
        uint64_t bytes = __atomic_exchange_n(one->used_bytes + place, 0, __ATOMIC_SEQ_CST);
        __atomic_sub_fetch(&state->card[place].used_bytes, bytes, __ATOMIC_SEQ_CST);
    }
}

/* Take back what processes had that have ended without a word. */
static void clear_dead(void)
{
    for (struct process *one = state->process; one < state->process + MOST_PROCESSES; one++) {
        int32_t pid = __atomic_load_n(&one->pid, __ATOMIC_SEQ_CST);
        if (pid <= 0 || is_alive(one))
            continue;
        if (__atomic_compare_exchange_n(&one->pid, &pid, -1, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {
            give_back(one);
            __atomic_store_n(&one->pid, 0, __ATOMIC_SEQ_CST);
        }
    }
}

static void leave(void)
{
    pthread_mutex_lock(&lock);
    if (own && own->pid == (int32_t)getpid()) {
        give_back(own);
        __atomic_store_n(&own->pid, 0, __ATOMIC_SEQ_CST);
    }
    own = NULL;
    pthread_mutex_unlock(&lock);
}

static int find_own(void) /* lock held */
{
    for (int tries = 0; !own && tries < 2; tries++) {
        struct process *one = state->process;
        for (; one < state->process + MOST_PROCESSES && !own; one++) {
            int32_t nobody = 0;
            if (__atomic_compare_exchange_n(&one->pid, &nobody, (int32_t)getpid(), 0,
                                            __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
                own = one;
                own->started = started_at(own->pid);
            }
        }
        if (!own)
            clear_dead();
    }
    return own ? 0 : -1;
}

static int charge(int place, uint64_t bytes) /* lock held */
{
    struct card *card = state->card + place;
    int swept = 0;
    uint64_t used = load(&card->used_bytes);
    for (;;) {
        if (bytes > card->total_bytes || used > card->total_bytes - bytes) {
            if (swept++)
                return -1;
            clear_dead();
            used = load(&card->used_bytes);
        } else if (__atomic_compare_exchange_n(&card->used_bytes, &used, used + bytes, 0,
                                               __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            break;
        }
    }
    __atomic_add_fetch(own->used_bytes + place, bytes, __ATOMIC_SEQ_CST);
    uint64_t now = used + bytes, peak = load(&card->peak_bytes);
    while (now > peak && !__atomic_compare_exchange_n(&card->peak_bytes, &peak, now, 0,
                                                      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    return 0;
}

static int enter(int device) /* lock held */
{
    int place = card_place(device);
    if (place < 0 || find_own())
        return -1;
    if (!has_context[place]) {
        if (charge(place, state->card[place].context_bytes))
            return -1;
        has_context[place] = 1;
    }
    return 0;
}

int card_enter(int device)
{
    card_state();
    pthread_mutex_lock(&lock);
    int answer = enter(device);
    pthread_mutex_unlock(&lock);
    return answer;
}

int card_take(int device, size_t bytes)
{
    struct card *card = card_of(device);
    if (!card)
        return -1;
    pthread_mutex_lock(&lock);
    int answer = enter(device) || charge(card_place(device), bytes) ? -1 : 0;
    if (answer) {
        __atomic_add_fetch(&card->refused, 1, __ATOMIC_SEQ_CST);
        __atomic_store_n(&card->refused_bytes, bytes, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

void card_give(int device, size_t bytes)
{
    int place = card_place(device);
    pthread_mutex_lock(&lock);
    if (place >= 0 && own && load(own->used_bytes + place) >= bytes) { /* not a parent's */
        __atomic_sub_fetch(own->used_bytes + place, bytes, __ATOMIC_SEQ_CST);
        __atomic_sub_fetch(&state->card[place].used_bytes, bytes, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&lock);
}

size_t card_free_bytes(int device)
{
    struct card *card = card_of(device);
    if (!card)
        return 0;
    uint64_t used = load(&card->used_bytes);
    return used < card->total_bytes ? card->total_bytes - used : 0;
}

uint64_t card_used_by(int place, int slot, int32_t *pid)
{
    if (place < 0 || place >= MOST_CARDS || slot < 0 || slot >= MOST_PROCESSES)
        return 0;
    const struct process *one = card_state()->process + slot;
    *pid = one->pid;
    return is_alive(one) ? load(one->used_bytes + place) : 0;
}

/* ------------------------------------------------------------------------------ architectures
   CUDA C++ Programming Guide, "Technical specifications per compute capability". */
struct limits card_limits(const struct card *card)
{
    struct limits found = {(size_t)99 << 10, 2048, 32, card->major >= 8 ? 1024 : 0};
    switch (card->major * 10 + card->minor) {
    case 60: case 61: found.shared_optin_bytes = (size_t)48 << 10; break;
    case 70: found.shared_optin_bytes = (size_t)96 << 10; break;
    case 75: found = (struct limits){(size_t)64 << 10, 1024, 16, 0}; break;
    case 80: found.shared_optin_bytes = (size_t)163 << 10; break;
    case 86: found.threads = 1536, found.blocks = 16; break;
    case 87: found.shared_optin_bytes = (size_t)163 << 10, found.threads = 1536, found.blocks = 16; break;
    case 89: found.threads = 1536, found.blocks = 24; break;
    case 90: case 100: case 103: found.shared_optin_bytes = (size_t)227 << 10; break;
    case 110: found.shared_optin_bytes = (size_t)227 << 10, found.threads = 1536, found.blocks = 24; break;
    case 120: case 121: found.threads = 1536, found.blocks = 24; break;
    default: break;
    }
    return found;
}

/* Numbers: cudaDeviceAttr of driver_types.h, which are those of CUdevice_attribute. */
int card_attribute(int device, int number, int *value)
{
    const struct card *card = card_of(device);
    if (!card)
        return -1;
    struct limits limits = card_limits(card);
    switch (number) {
    case 1: case 2: case 3: *value = 1024; break;             /* threads of a block; x; y */
    case 4: *value = 64; break;                               /* z */
    case 5: *value = 2147483647; break;                       /* blocks of a grid: x */
    case 6: case 7: *value = 65535; break;                    /* y, z */
    case 8: *value = 48 << 10; break;                         /* shared memory of a block */
    case 9: *value = 65536; break;                            /* constant memory */
    case 10: *value = 32; break;                              /* warp */
    case 11: *value = 2147483647; break;                      /* pitch */
    case 12: case 82: *value = 65536; break;                  /* registers of block, multiprocessor */
    case 13: *value = card->clock_khz; break;
    case 14: *value = 512; break;                             /* alignment of textures */
    case 16: *value = card->multiprocessors; break;
    case 36: *value = card->memory_clock_khz; break;
    case 37: *value = card->bus_bits; break;
    case 38: *value = (int)card->l2_bytes; break;
    case 39: *value = limits.threads; break;
    case 40: *value = 2; break;                               /* copy engines */
    case 33: *value = 1 + card_place(device); break;          /* PCI bus */
    case 75: *value = card->major; break;
    case 76: *value = card->minor; break;
    case 81: *value = (int)limits.shared_optin_bytes + limits.reserved_shared_bytes; break;
    case 97: *value = (int)limits.shared_optin_bytes; break;
    case 106: *value = limits.blocks; break;
    case 111: *value = limits.reserved_shared_bytes; break;
    case 15: case 19: case 31: case 41: case 78: case 79: case 80: case 83: case 90: case 95:
    case 99: case 102: *value = 1; break; /* overlap, mapped, concurrent, unified, priorities, L1,
                                             managed, preemption, cooperative, registered, VMM */
    default: *value = 0;
    }
    return 0;
}

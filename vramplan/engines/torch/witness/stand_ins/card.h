/* The pretended cards: what each is, what is in use of it, and what was asked of it.
 *
 * All processes with the same cards share one file, which whoever starts them makes
 * (card_state.py has the same layout). The path is in VRAMPLAN_PRETENDED_CARDS. Without it
 * there is no card, and CUDA says so.
 */
#ifndef VRAMPLAN_CARD_H
#define VRAMPLAN_CARD_H

#include <stddef.h>
#include <stdint.h>

#define CARD_LAYOUT 1
#define MOST_CARDS 16
#define MOST_PROCESSES 256
#define MOST_NOTES 32

struct card {
    char name[96];
    int32_t major, minor; /* compute capability */
    int32_t multiprocessors;
    int32_t bus_bits;
    int32_t clock_khz, memory_clock_khz;
    uint64_t total_bytes;    /* what CUDA calls total */
    uint64_t reserved_bytes; /* what NVML's total has beyond it: the system's */
    uint64_t context_bytes;  /* a process takes them before its first allocation */
    uint64_t l2_bytes;
    /* what happened */
    uint64_t used_bytes, peak_bytes; /* of all processes, contexts inside */
    uint64_t refused, refused_bytes; /* allocations that did not fit; what the last one asked for */
};

struct process {
    int32_t pid; /* 0: free; -1: being cleared */
    uint32_t unused;
    uint64_t started; /* ticks after boot: a number may come again */
    uint64_t used_bytes[MOST_CARDS];
};

struct state {
    char magic[8]; /* "vrpcard" */
    uint32_t layout, cards;
    uint64_t copied_bytes; /* the largest copy that is really made */
    struct card card[MOST_CARDS];
    struct process process[MOST_PROCESSES];
    char note[MOST_NOTES][64]; /* functions that were refused, each once */
};

/* The least alignment of an address, and what the driver hands out memory in. */
#define GRAIN ((size_t)2 << 20)

struct state *card_state(void);
int card_count(void);                  /* of those that this process may see */
struct card *card_of(int device);      /* NULL: there is no such device */
int card_place(int device);            /* its number in the file; -1: there is none */
void card_note(const char *function);  /* it was refused */
uint64_t card_used_by(int place, int slot, int32_t *pid); /* 0: nobody there */

/* Memory. Each answers 0, or -1 where the card is full. */
int card_enter(int device);            /* the process has a context there from now on */
int card_take(int device, size_t bytes);
void card_give(int device, size_t bytes);
size_t card_free_bytes(int device);

/* Addresses are real, mapped without reserve: what nobody writes costs nothing. */
void *memory_allocate(int device, size_t bytes); /* NULL where the card is full */
int memory_free(void *address);                  /* -1: it is none of ours */
int memory_device(const void *address);          /* -1: not on a card */
void *memory_reserve(size_t bytes);              /* addresses alone */
int memory_unreserve(void *address);
void *host_allocate(size_t bytes);
void host_remember(void *address, size_t bytes);
size_t host_forget(void *address);               /* what it had; 0: it is none of ours */
int host_owns(const void *address);

/* What of an architecture is in no file of cards. */
struct limits {
    size_t shared_optin_bytes; /* most shared memory of a block, asked for */
    int threads, blocks;       /* that one multiprocessor holds */
    int reserved_shared_bytes; /* of a block */
};
struct limits card_limits(const struct card *card);
int card_attribute(int device, int number, int *value); /* cudaDeviceAttr = CUdevice_attribute */
void card_uuid(int place, unsigned char bytes[16]);

/* The device that the calling thread works on. */
int current_device(void);
void choose_device(int device);

/* After every so many calls that give a card work, Python is asked (by its Py_AddPendingCall) to
   call `pending` when it may; 0 for never. */
void work_tell_pending(int (*ask)(int (*)(void *), void *), int (*pending)(void *),
                       unsigned every);
void work_done(void);
size_t work_count(void);
void copy_bytes(void *to, const void *from, size_t bytes);
#define MOST_ANSWERS 4
void answer_next_copies(const long long *values, int count);
void drop_answers(void); /* those that were not fetched */
void *new_handle(void);

#endif

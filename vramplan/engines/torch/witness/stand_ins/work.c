/* What a thread gives a card to do: nothing is computed, small copies are made. */
#define _GNU_SOURCE
#include "card.h"

#include <string.h>
#include <sys/mman.h>

static __thread int device;
int current_device(void) { return device; }
void choose_device(int chosen) { device = chosen; }

static size_t done;
static unsigned told_every;
static int (*ask_python)(int (*)(void *), void *);
static int (*told)(void *);

void work_tell_pending(int (*ask)(int (*)(void *), void *), int (*pending)(void *), unsigned every)
{
    ask_python = ask, told = pending, told_every = every;
}
size_t work_count(void) { return __atomic_load_n(&done, __ATOMIC_RELAXED); }
void work_done(void)
{
    size_t number = __atomic_add_fetch(&done, 1, __ATOMIC_RELAXED);
    unsigned every = told_every;
    if (every && number % every == 0)
        ask_python(told, NULL);
}

/* Values that the next small copies to the host shall bring, one each, whatever is on the card: what
   kernels would have counted. */
static __thread int answers, answered;
static __thread long long next_answers[MOST_ANSWERS];
void answer_next_copies(const long long *values, int count)
{
    answers = count < MOST_ANSWERS ? count : MOST_ANSWERS, answered = 0;
    for (int at = 0; at < answers; at++)
        next_answers[at] = values[at];
}
void drop_answers(void) { answers = answered = 0; }

/* Small copies are real, so that time steps, schedules and token ids survive the way to the card
   and back; what comes to the host comes whole, up to a picture's size. */
#define MOST_TO_HOST ((size_t)256 << 20)

/* Which pages of a range are in memory. One that nobody has written to is not, and reads as zeros;
   one that the system has swapped out looks so too, and then what was in it comes as zeros. */
#define PAGE ((size_t)4096)
#define LOOK ((size_t)1 << 20)
typedef unsigned char pages[LOOK / PAGE + 2];

static void look(const char *at, size_t bytes, pages seen)
{
    uintptr_t first = (uintptr_t)at & ~(PAGE - 1);
    if (mincore((void *)first, (uintptr_t)at + bytes - first, seen))
        memset(seen, 1, sizeof(pages));
}

/* Copy what somebody has written: a model that goes back to the host takes no memory there. */
static void copy_written(char *to, const char *from, size_t bytes)
{
    pages sources, targets;
    for (size_t part, done = 0; done < bytes; done += part) {
        part = bytes - done < LOOK ? bytes - done : LOOK;
        look(from + done, part, sources), look(to + done, part, targets);
        size_t from_first = (uintptr_t)(from + done) % PAGE, to_first = (uintptr_t)(to + done) % PAGE;
        for (size_t size, at = 0; at < part; at += size) { /* a page of the target, or its part */
            size = PAGE - (to_first + at) % PAGE;
            size = size < part - at ? size : part - at;
            size_t first = (from_first + at) / PAGE, last = (from_first + at + size - 1) / PAGE;
            if ((sources[first] | sources[last] | targets[(to_first + at) / PAGE]) & 1)
                memmove(to + done + at, from + done + at, size);
        }
    }
}

void copy_bytes(void *to, const void *from, size_t bytes)
{
    int stays = memory_device(to) >= 0;
    if (!stays && answered < answers && bytes <= sizeof *next_answers) {
        memcpy(to, &next_answers[answered++], bytes);
    } else if (bytes <= card_state()->copied_bytes) {
        memmove(to, from, bytes);
    } else if (!stays && bytes <= MOST_TO_HOST) {
        copy_written(to, from, bytes);
    }
}

/* Streams, events and handles are nothing but different. */
void *new_handle(void)
{
    static char handles[1 << 16];
    static size_t next;
    return handles + (__atomic_fetch_add(&next, 16, __ATOMIC_RELAXED) & 0xffff);
}

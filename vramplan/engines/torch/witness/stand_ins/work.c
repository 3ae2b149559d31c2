/* What a thread gives a card to do: nothing is computed, small copies are made. */
#include "card.h"

#include <string.h>

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

/* A value that the next small copy to the host shall bring, whatever is on the card: what a kernel
   would have counted. */
static __thread int answers_next;
static __thread long long next_answer;
void answer_next_copy(long long value) { answers_next = 1, next_answer = value; }
int drop_answer(void)
{
    int was_there = answers_next;
    return answers_next = 0, was_there;
}

/* Small copies are real, so that time steps, schedules and token ids survive the way to the card
   and back; what comes to the host comes whole, up to a picture's size. */
#define MOST_TO_HOST ((size_t)256 << 20)

void copy_bytes(void *to, const void *from, size_t bytes)
{
    int stays = memory_device(to) >= 0;
    if (!stays && answers_next && bytes <= sizeof next_answer) {
        memcpy(to, &next_answer, bytes);
        answers_next = 0;
    } else if (bytes <= card_state()->copied_bytes || (!stays && bytes <= MOST_TO_HOST)) {
        memmove(to, from, bytes);
    }
}

/* Streams, events and handles are nothing but different. */
void *new_handle(void)
{
    static char handles[1 << 16];
    static size_t next;
    return handles + (__atomic_fetch_add(&next, 16, __ATOMIC_RELAXED) & 0xffff);
}

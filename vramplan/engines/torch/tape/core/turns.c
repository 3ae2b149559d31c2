/* Loops whose iterations ask for the same.
 *
 * Under a limit a loop may take some iterations until each leaves memory as the one before did, or
 * as the one before that: two buffers often take turns. From there on it repeats itself, and a try
 * goes on behind the loop.
 */

#include "turns.h"

#include <stdlib.h>
#include <string.h>

#define LEAST_ITERATIONS 3
#define MOST_ITERATIONS 64
#define MOST_NAMES ((int64_t)1 << 22)

/* ------------------------------------------------------------------- iterations that are alike */

/* Where something came from: which step of an iteration, and how many iterations ago; or, below 0,
 * it was there before the loop. */
static int64_t role_of(const int64_t *births, int32_t number, int64_t iteration) {
    int64_t birth = births[number];
    return birth < 0 ? -1 - (int64_t)number : birth + ((iteration - (birth >> 32) * 2) << 32);
}

typedef struct {
    int64_t of, role;
    int32_t kind;
} Sign;

/* A step told by where what it is about came from, and what it changes of that. */
static Sign sign_of(const Step *s, int64_t *lives, int64_t *segments, int64_t iteration,
                    int64_t offset) {
    Sign sign = {s->of, s->live, s->kind};
    int64_t birth = iteration << 32 | offset;
    switch (s->kind) {
    case ASKS:
    case OWN:
        sign.role = 0;
        lives[s->live] = birth;
        break;
    case RETURNS:
        sign.role = role_of(lives, s->live, iteration);
        lives[s->live] = -1;
        break;
    case OPENS:
        sign.of = sign.role = 0;
        segments[s->live] = birth;
        break;
    case CLOSES:
        sign.of = 0;
        sign.role = role_of(segments, s->live, iteration);
        segments[s->live] = -1;
        break;
    case ORDERS:
        sign.of = role_of(segments, (int32_t)s->of, iteration);
        sign.role = role_of(segments, s->live, iteration);
        break;
    default: break; /* it is the same step */
    }
    return sign;
}

/* ------------------------------------------------------------------------------ how it is named */

typedef struct {
    int64_t role;
    int32_t number;
} Named;

static int by_role(const void *one, const void *other) {
    int64_t x = ((const Named *)one)->role, y = ((const Named *)other)->role;
    return (x > y) - (x < y);
}

/* Give what has a role the number of what has it at the end, -1 where nothing has. */
static int name_all(int32_t *names, const int64_t *roles, const int64_t *last, int32_t count) {
    Named *ends = malloc(((size_t)count + 1) * sizeof *ends);
    if (ends == NULL) return FAILED;
    for (int32_t i = 0; i < count; i++) ends[i] = (Named){last[i], i};
    qsort(ends, (size_t)count, sizeof *ends, by_role);
    for (int32_t i = 0; i < count; i++) {
        Named wanted = {roles[i], 0};
        const Named *found = bsearch(&wanted, ends, (size_t)count, sizeof *ends, by_role);
        names[i] = found == NULL ? -1 : found->number;
    }
    free(ends);
    return DONE;
}

static void note_roles(int64_t *roles, const int64_t *births, int32_t count, int64_t iteration) {
    for (int32_t i = 0; i < count; i++) roles[i] = role_of(births, i, iteration);
}

static void end_loop(Turns *loop) {
    free(loop->at);
    free(loop->names);
}

/* Keep the iterations from `first` on, with the roles of all that is there where each begins. */
static int keep_loop(AllTurns *all, const int64_t *at, int32_t first, int32_t iterations,
                     const int64_t *roles, int32_t lives, int32_t segments) {
    int32_t count = iterations - first + 1, each = lives + segments;
    if (count <= LEAST_ITERATIONS || (int64_t)count * each > MOST_NAMES) return DONE;
    TRY(make_room((void **)&all->loops, &all->room, all->count + 1, sizeof(Turns)));
    Turns *loop = &all->loops[all->count];
    *loop = (Turns){malloc((size_t)count * sizeof(int64_t)), count, lives, segments,
                    malloc((size_t)count * (size_t)each * sizeof(int32_t) + 1)};
    int status = loop->at && loop->names ? DONE : FAILED;
    if (!status) memcpy(loop->at, at + first, (size_t)count * sizeof(int64_t));
    const int64_t *last = roles + (int64_t)iterations * each;
    for (int32_t i = 0; i < count && !status; i++) {
        const int64_t *its = roles + (int64_t)(first + i) * each;
        int32_t *names = loop->names + (int64_t)i * each;
        status = name_all(names, its, last, lives) ||
                 name_all(names + lives, its + lives, last + lives, segments);
    }
    if (status) end_loop(loop);
    else all->count++;
    return status;
}

int turns_add(AllTurns *all, const Step *steps, const int64_t *at, int32_t iterations,
              int32_t lives, int32_t segments) {
    int32_t each = lives + segments, first = 0;
    if (iterations < LEAST_ITERATIONS || iterations > MOST_ITERATIONS ||
        (int64_t)(iterations + 1) * each > MOST_NAMES)
        return DONE;
    int64_t longest = 0;
    for (int32_t k = 0; k < iterations; k++)
        if (at[k + 1] - at[k] > longest) longest = at[k + 1] - at[k];
    int64_t *births = malloc(((size_t)each + 1) * sizeof(int64_t));
    int64_t *roles = malloc(((size_t)(iterations + 1) * (size_t)each + 1) * sizeof(int64_t));
    Sign *signs = calloc(2 * (size_t)longest + 1, sizeof(Sign));
    int status = births && roles && signs ? DONE : FAILED;
    for (int32_t i = 0; i < each && !status; i++) births[i] = -1;
    for (int32_t k = 0; k <= iterations && !status; k++) {
        note_roles(roles + (int64_t)k * each, births, lives, k);
        note_roles(roles + (int64_t)k * each + lives, births + lives, segments, k);
        if (k == iterations) break;
        int64_t length = at[k + 1] - at[k];
        int is_alike = k > 0 && length == at[k] - at[k - 1];
        Sign *now = signs + (k & 1) * longest, *before = signs + (~k & 1) * longest;
        for (int64_t o = 0; o < length; o++) {
            now[o] = sign_of(&steps[at[k] + o], births, births + lives, k, o);
            is_alike = is_alike && now[o].kind == before[o].kind && now[o].of == before[o].of &&
                       now[o].role == before[o].role;
        }
        if (!is_alike) first = k;
    }
    if (!status) status = keep_loop(all, at, first, iterations, roles, lives, segments);
    free(births);
    free(roles);
    free(signs);
    return status;
}

void turns_end(AllTurns *all) {
    for (int32_t i = 0; i < all->count; i++) end_loop(&all->loops[i]);
    free(all->loops);
    memset(all, 0, sizeof *all);
}

/* ------------------------------------------------------------------------------------- coming back */

int64_t next_turn(const AllTurns *all, int64_t step, const Turns **loop, int32_t *which) {
    int64_t next = INT64_MAX;
    for (int32_t i = 0; i < all->count; i++) {
        const Turns *one = &all->loops[i];
        if (one->at[one->count - 1] <= step || one->at[0] >= next) continue;
        int32_t place = 0;
        while (place < one->count - 1 && one->at[place] < step) place++;
        if (place == one->count - 1 || one->at[place] >= next) continue;
        next = one->at[place];
        *loop = one;
        *which = place;
    }
    return next;
}

static const int32_t *names_at(const Turns *loop, int32_t which) {
    return loop->names + (int64_t)which * (loop->lives + loop->segments);
}

static int is_same_line(const Line *one, const Line *other, const int32_t *its,
                        const int32_t *others) {
    if (one->count != other->count) return 0;
    for (int32_t i = 0; i < one->count; i++) {
        int32_t x = one->at[i], y = other->at[i];
        if ((x == WHOLE) != (y == WHOLE)) return 0;
        if (x != WHOLE && (its[x] < 0 || its[x] != others[y])) return 0;
    }
    return 1;
}

/* True where a try goes on from one place of a loop as it did from another, all else renamed. */
static int is_alike(const State *first, const State *second, const Turns *loop, int32_t one,
                    int32_t other) {
    const Allocator *a = &first->allocator, *b = &second->allocator;
    const int32_t *its = names_at(loop, one), *others = names_at(loop, other);
    return a->reserved == b->reserved && a->allocated == b->allocated &&
           !memcmp(first->chosen, second->chosen, (size_t)first->chosen_count) &&
           is_same_line(&first->line, &second->line, its + loop->lives, others + loop->lives) &&
           is_same_pool(a, b, 1, its, others);
}

/* Give what is there the names that it has where the loop ends. */
static int rename_all(State *now, const Turns *loop, int32_t which) {
    const int32_t *names = names_at(loop, which);
    Block *blocks = now->allocator.blocks;
    memset(now->held, 0xff, (size_t)loop->lives * sizeof(int32_t));
    for (int32_t s = now->allocator.pools[1].first_segment; s >= 0; s = now->allocator.beside[s].later)
        for (int32_t b = s; b >= 0; b = blocks[b].next) {
            if (is_free(&blocks[b])) continue;
            int32_t name = names[owner_of(&blocks[b])];
            if (name < 0) return FAILED;
            set_owner(&blocks[b], name);
            now->held[name] = b;
        }
    for (int32_t i = 0; i < now->line.count; i++)
        if (now->line.at[i] != WHOLE) now->line.at[i] = names[loop->lives + now->line.at[i]];
    return DONE;
}

int turn(Tries *t, State *now, const Turns *loop, int32_t which) {
    int64_t limit = now->allocator.limit, granted = now->allocator.granted;
    if (!which || !t->kept_count || t->kept[0].request != loop->at[which - 1]) t->kept_count = 0;
    for (int32_t period = 1; period <= t->kept_count; period++) {
        if (!is_alike(&t->kept[period - 1], now, loop, which - period, which)) continue;
        int32_t more = (loop->count - 1 - which) % period; /* iterations behind all whole periods */
        if (more)
            TRY(copy_state(now, &t->kept[period - more - 1], loop->lives, limit, now->chosen_count));
        TRY(rename_all(now, loop, more ? which - period + more : which));
        now->allocator.granted = granted;
        now->request = loop->at[loop->count - 1];
        t->repeated = loop->at[which - period];
        t->kept_count = 0;
        return DONE;
    }
    State oldest = t->kept[KEPT - 1];
    memmove(t->kept + 1, t->kept, (KEPT - 1) * sizeof(State));
    t->kept[0] = oldest;
    if (t->kept_count < KEPT) t->kept_count++;
    return copy_state(&t->kept[0], now, loop->lives, limit, now->chosen_count);
}

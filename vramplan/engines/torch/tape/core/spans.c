/* For which scratch a search of limits went as it did.
 *
 * Scratch is given back at once, so it leaves nothing behind where a free block has room for it, of
 * whichever pool, and else a segment, whose size is the same for many sizes of scratch; or it is
 * refused, as more would be. So a search that is the same for some sizes of scratch is the same for
 * all within bounds, and runs that differ in nothing else need one search.
 */

#include "spans.h"

#include <stdlib.h>
#include <string.h>

static const Span ANY = {-1, LARGEST, LARGEST, LARGEST};

static int is_any(const Span *one) { return !memcmp(one, &ANY, sizeof ANY); }

static int is_within(const Span *one, int64_t size) {
    if (size <= one->above || size > one->most) return 0;
    return size == 0 || size <= (size > SMALL ? one->large : one->small);
}

int spans_add(Spans *s) {
    int32_t count = s->count + 1;
    TRY(make_room((void **)&s->spans, &s->span_room, count * MOST_PLANS, sizeof(Span)));
    TRY(make_room((void **)&s->counted, &s->counted_room, count, sizeof(uint8_t)));
    for (int32_t p = 0; p < MOST_PLANS; p++) s->spans[s->count * MOST_PLANS + p] = ANY;
    s->counted[s->count] = 0;
    s->count = count;
    return DONE;
}

int spans_copy(Spans *to, const Spans *from) {
    int32_t count = from->count;
    TRY(make_room((void **)&to->spans, &to->span_room, count * MOST_PLANS + 1, sizeof(Span)));
    TRY(make_room((void **)&to->counted, &to->counted_room, count + 1, sizeof(uint8_t)));
    if (count) {
        memcpy(to->spans, from->spans, (size_t)count * MOST_PLANS * sizeof(Span));
        memcpy(to->counted, from->counted, (size_t)count);
    }
    to->count = count;
    to->is_lost = from->is_lost;
    return DONE;
}

void spans_end(Spans *s) {
    free(s->spans);
    free(s->counted);
    memset(s, 0, sizeof *s);
}

static Span *span_of(Spans *s, int32_t which, int32_t plan) {
    if (s == NULL) return NULL;
    if (which >= s->count) s->is_lost = 1;
    return which < s->count ? &s->spans[which * MOST_PLANS + plan] : NULL;
}

void narrow_as(Spans *s, int32_t which, int32_t plan, const Span *other) {
    Span *one = span_of(s, which, plan);
    if (one == NULL) return;
    if (other->above > one->above) one->above = other->above;
    if (other->most < one->most) one->most = other->most;
    if (other->small < one->small) one->small = other->small;
    if (other->large < one->large) one->large = other->large;
}

void narrow(Spans *s, int32_t which, int32_t plan, int64_t above, int64_t most) {
    Span other = {above, most, LARGEST, LARGEST};
    narrow_as(s, which, plan, &other);
}

void narrow_to_room(Spans *s, int32_t which, int32_t plan, int64_t small, const Allocator *a) {
    Span *one = span_of(s, which, plan);
    if (one == NULL) return;
    if (small < one->small) one->small = small;
    if (one->large > SMALL && fitting(a, one->large) < 0) one->large = largest_free(a, 1);
}

void narrow_to_segment(Spans *s, int32_t which, int32_t plan, int64_t size, int64_t room) {
    int64_t least, most;
    segment_span(size, &least, &most);
    narrow(s, which, plan, room > least ? room : least, most);
}

void narrow_to_refusal(Spans *s, int32_t which, int32_t plan, int64_t size) {
    narrow_to_segment(s, which, plan, size, -1);
}

void narrow_to_last(Spans *s, int32_t which, const Plans *plans, int refused) {
    if (s == NULL || which >= s->count) return;
    s->counted[which] = (uint8_t)plans->count;
    if (refused != WITHOUT)
        narrow_to_refusal(s, which, plans->count - 1, plans->size[plans->count - 1]);
}

/* It had no room, and no segment would be granted that is larger than what was left. */
static void narrow_to_refused(Spans *s, int32_t which, int32_t plan, int64_t size, int64_t room,
                              int64_t left) {
    int64_t above, most;
    segment_span(size, &above, &most);
    if (size > OWN_SEGMENT - ROUND) { /* every larger one is refused, too */
        int64_t granted = left - left % LARGE_ROUND;
        above = granted > OWN_SEGMENT - ROUND ? granted : OWN_SEGMENT - ROUND;
        most = LARGEST;
    } else if (size > SMALL && left < OWN_SEGMENT) {
        most = LARGEST;
    }
    narrow(s, which, plan, room > above ? room : above, most);
}

/* The plan of a bound that says how many there are. */
#define COUNTED (-1)

int bounds_of(Bounds *bounds, const Spans *s) {
    int32_t count = 0;
    for (int32_t i = 0; i < s->count; i++) {
        count += s->counted[i] != 0;
        for (int32_t p = 0; p < MOST_PLANS; p++) {
            count += !is_any(&s->spans[i * MOST_PLANS + p]);
        }
    }
    bounds->bounds = malloc(((size_t)count + 1) * sizeof(Bound));
    if (bounds->bounds == NULL) return FAILED;
    bounds->sizes = s->count;
    bounds->count = count;
    Bound *next = bounds->bounds;
    for (int32_t i = 0; i < s->count; i++) {
        int32_t plans = s->counted[i];
        if (plans) *next++ = (Bound){i, COUNTED, {plans - 1, plans, plans, plans}};
        for (int32_t p = 0; p < MOST_PLANS; p++) {
            const Span *one = &s->spans[i * MOST_PLANS + p];
            if (!is_any(one)) *next++ = (Bound){i, p, *one};
        }
    }
    return DONE;
}

int are_within(const Bounds *bounds, const Plans *plans, int32_t count) {
    if (count != bounds->sizes) return 0;
    for (int32_t i = 0; i < bounds->count; i++) {
        const Bound *one = &bounds->bounds[i];
        const Plans *its = &plans[one->which];
        if (one->plan >= its->count) return 0;
        int64_t is = one->plan == COUNTED ? its->count : its->size[one->plan];
        if (!is_within(&one->span, is)) return 0;
    }
    return 1;
}

int lend(Allocator *a, Spans *s, int32_t which, int32_t plan, int64_t size, int64_t small) {
    int32_t block;
    if (size == 0) {
        narrow_to_room(s, which, plan, small, a);
        return DONE;
    }
    if (a->is_expandable) { /* nobody asks for what this would do */
        TRY(allocator_malloc(a, size, &block));
        return allocator_free(a, block);
    }
    if (size > SMALL ? fitting(a, size) >= 0 : size <= small) {
        narrow_to_room(s, which, plan, small, a);
        return DONE;
    }
    int64_t room = size > SMALL ? largest_free(a, 1) : small;
    int status = allocator_malloc(a, size, &block);
    if (status == REFUSED) {
        narrow_to_refused(s, which, plan, size, room, a->limit - a->reserved);
        return REFUSED;
    }
    narrow_to_segment(s, which, plan, size, room);
    return status ? status : allocator_free(a, block);
}

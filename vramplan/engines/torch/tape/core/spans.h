/* For which scratch a search of limits went as it did: what tells that another goes alike. */
#ifndef VRAMPLAN_SPANS_H
#define VRAMPLAN_SPANS_H

#include "core.h"

#define MOST_PLANS 8 /* of one library for one operator */

/* What a library would take for an operator, by plan, in the order in which they are tried. */
typedef struct {
    int64_t size[MOST_PLANS];
    int32_t count;
} Plans;

/* More than so many bytes, and no more than those; and nothing, or what the free blocks of its pool had
 * room for wherever it was lent. */
typedef struct {
    int64_t above, most, small, large;
} Span;

/* Of each of a journal's sizes where its plans may lie, and how many there must be. */
typedef struct {
    Span *spans; /* MOST_PLANS of each size */
    uint8_t *counted; /* 0: as many as it likes */
    int32_t count, span_room, counted_room;
    int is_lost; /* it went by more than is said here */
} Spans;

int spans_add(Spans *s); /* of one more size, which may be anything */
int spans_copy(Spans *to, const Spans *from);
void spans_end(Spans *s);
/* What follows takes NULL for spans that nobody wants to know. */
void narrow(Spans *s, int32_t which, int32_t plan, int64_t above, int64_t most);
/* It was what a try failed for, whose figures say so. */
void narrow_to_refusal(Spans *s, int32_t which, int32_t plan, int64_t size);
/* There were no more plans, of which the last is what a try fails for unless it needs none. */
void narrow_to_last(Spans *s, int32_t which, const Plans *plans, int refused);
/* It had room, as anything has that is no larger than the largest free block of its pool: so many
 * bytes in the small one, and in the large one what is there. */
void narrow_to_room(Spans *s, int32_t which, int32_t plan, int64_t small, const Allocator *a);
/* It is as narrow as another. */
void narrow_as(Spans *s, int32_t which, int32_t plan, const Span *other);
/* It had not, and got a segment. */
void narrow_to_segment(Spans *s, int32_t which, int32_t plan, int64_t size, int64_t room);
/* What is kept of spans: those of the plans that were asked for, and how many there must be. */
typedef struct {
    int32_t which, plan;
    Span span;
} Bound;
typedef struct {
    Bound *bounds;
    int32_t count, sizes;
} Bounds;

int bounds_of(Bounds *bounds, const Spans *s);
/* Whether so many sizes with these plans would have gone alike. */
int are_within(const Bounds *bounds, const Plans *plans, int32_t count);
/* Scratch that is taken and given back at once, by one plan of a size; the small pool's largest free
 * block has so many bytes. */
int lend(Allocator *a, Spans *s, int32_t which, int32_t plan, int64_t size, int64_t small);

#endif

/* A tape run through the allocator without a limit and written down (replay.py, residency.py). */

#include <stdlib.h>
#include <string.h>

#include "run.h"

#define MOST_STEPS 12000000
#define MOST_SECONDS 60.0
#define MOST_SLOTS 1000000
#define MOST_MARKS 100000
#define LONGEST_LOOP 100000
#define QUIET 6
#define DEEPEST 400
#define MOST_ALIKE 256 /* free blocks of one size that are looked at */
#define MOST_SEGMENTS 4096

/* ----------------------------------------------------------------------------- the journal */

/* Ask without a limit; what would be granted more than ever may be where a try will start. */
static int obtain(Run *r, int64_t size, int32_t *block) {
    Allocator *a = &r->allocator;
    Journal *j = &r->journal;
    int64_t granted = a->granted;
    a->is_watched = !j->is_complete;
    int status = allocator_malloc(a, size, block);
    if (status == PAUSED) {
        if (is_opening_due(j)) {
            TRY(note_opening(j, a, r->blocks));
            TRY(line_copy(&j->openings[j->opening_count - 1].line, &r->segments.line));
        }
        a->is_watched = 0;
        status = allocator_malloc(a, size, block);
    }
    if (status) return FAILED; /* refused without a limit, too */
    return a->granted > granted && !j->is_complete ? note_growth(j, a->granted) : DONE;
}

/* Write down an event before it happens to the small pool's bytes. */
static int tell(Run *r, int32_t kind, int64_t of) {
    if (!r->is_told || r->journal.is_complete) return DONE;
    TRY(make_room((void **)&r->events, &r->event_room, r->event_count + 1, sizeof(Event)));
    Event *one = &r->events[r->event_count++];
    int64_t now = r->allocator.small_allocated;
    one->kind = kind;
    one->request = r->journal.count;
    one->peak = r->small_peak > now ? r->small_peak : now;
    one->now = now;
    one->part = kind == SIZED ? largest_part(&r->allocator) : 0;
    one->of = of;
    r->small_peak = now;
    return DONE;
}

/* Nothing is told of a run that would take too long to tell. */
static int is_telling(const Run *r) { return r->is_told && !r->journal.is_complete; }

static int name_segment(Run *r, int32_t *number) {
    Segments *s = &r->segments;
    if (s->unused_count) {
        *number = s->unused[--s->unused_count];
    } else {
        *number = s->count;
        TRY(make_room((void **)&s->births, &s->room, s->count + 1, sizeof(int32_t)));
        s->count++;
    }
    s->births[*number] = ++s->birth;
    return DONE;
}

/* Whether it was told already that one segment has to come before another. */
static int was_ordered(Run *r, int32_t one, int32_t other, int *was) {
    Segments *s = &r->segments;
    if (2 * s->order_count >= s->order_room) {
        free(s->orders);
        s->order_count = 0; /* what was told is told again */
        s->order_room = s->order_room < 1 << 16 ? (s->order_room ? 4 * s->order_room : 256)
                                                : s->order_room;
        s->orders = calloc((size_t)s->order_room, sizeof(int64_t));
        if (s->orders == NULL) {
            s->order_room = 0;
            return FAILED;
        }
    }
    int64_t key = (int64_t)s->births[one] << 32 | s->births[other];
    uint64_t at = (uint64_t)key * 0x9E3779B97F4A7C15u >> 32;
    for (;; at++) {
        int64_t *place = &s->orders[at & (uint64_t)(s->order_room - 1)];
        *was = *place == key;
        if (*was) return DONE;
        if (*place == 0) {
            *place = key;
            s->order_count++;
            return DONE;
        }
    }
}

/* Blocks of one size that are free in several segments are told apart by the segments' order. */
static int tell_order(Run *r, int32_t block) {
    const Block *blocks = r->allocator.blocks;
    int32_t one = r->allocator.beside[block].segment, seen = 0;
    for (int32_t b = blocks[block].higher; b >= 0 && blocks[b].size == blocks[block].size;
         b = blocks[b].higher) {
        int32_t other = r->allocator.beside[b].segment;
        int was;
        if (++seen > MOST_ALIKE) {
            r->is_told = 0;
            return DONE;
        }
        if (other == one) continue;
        TRY(was_ordered(r, one, other, &was));
        if (!was) TRY(tell(r, ORDERED, (int64_t)one << 32 | other));
    }
    return DONE;
}

/* Obtain what is in the small pool, and tell of it. */
static int obtain_small(Run *r, int64_t size, int32_t *block) {
    Allocator *a = &r->allocator;
    Line *line = &r->segments.line;
    int32_t number, found = is_telling(r) ? fitting(a, size) : -1;
    if (found >= 0) {
        if (a->blocks[found].size < SMALL_SEGMENT) {
            TRY(tell_order(r, found));
        } else {
            TRY(name_segment(r, &number));
            TRY(tell(r, TAKEN, number));
            if (!line_take(line, number)) return FAILED;
            a->beside[found].segment = number;
        }
    }
    int64_t before = a->small_reserved;
    TRY(obtain(r, size, block));
    if (a->small_reserved != before && is_telling(r)) {
        TRY(name_segment(r, &number));
        TRY(tell(r, GROWN, number));
        TRY(line_add(line, number));
        if (line->count > MOST_SEGMENTS) r->is_told = 0;
        int32_t rest = a->blocks[*block].next;
        a->beside[*block].segment = number;
        if (rest >= 0) a->beside[rest].segment = number;
    }
    if (a->small_allocated > r->small_peak) r->small_peak = a->small_allocated;
    return DONE;
}

/* Tell of a segment of the small pool that is wholly free once a block is. */
static int tell_return(Run *r, int32_t block) {
    const Block *blocks = r->allocator.blocks, *b = &blocks[block];
    int32_t before = b->previous, after = b->next;
    int32_t number = r->allocator.beside[block].segment;
    if (before >= 0 && (!is_free(&blocks[before]) || blocks[before].previous >= 0)) return DONE;
    if (after >= 0 && (!is_free(&blocks[after]) || blocks[after].next >= 0)) return DONE;
    Segments *s = &r->segments;
    TRY(tell(r, RETURNED, number));
    line_return(&s->line, number);
    TRY(make_room((void **)&s->unused, &s->unused_room, s->unused_count + 1, sizeof(int32_t)));
    s->unused[s->unused_count++] = number;
    return DONE;
}

static int new_live(Run *r, int32_t *live) {
    Journal *j = &r->journal;
    if (r->unused_count) {
        *live = r->unused[--r->unused_count];
        return DONE;
    }
    *live = j->live_count;
    if (*live >= 1 << 30) return FAILED;
    TRY(make_room((void **)&r->blocks, &r->blocks_room, *live + 1, sizeof(int32_t)));
    TRY(make_room((void **)&r->turns, &r->turns_room, *live + 1, sizeof(int32_t)));
    r->turns[j->live_count++] = 0;
    return DONE;
}

/* Ask for a size, written down as it is or as one of the journal's own. */
static int ask_as(Run *r, int64_t size, int64_t written, Slot *slot) {
    slot->live = -1;
    slot->turn = 0;
    if (size == 0) return DONE;
    int32_t block, live;
    if (written < 0) {
        if (size <= SMALL) r->is_told = 0; /* it stays, where in another run it may be larger */
        if (is_telling(r)) narrow(&r->journal.run, (int32_t)(-1 - written), 0, size - 1, size);
        TRY(tell(r, SIZED, largest_free(&r->allocator, 0)));
    } else if (size > SMALL) {
        TRY(tell(r, LARGE, 0));
    }
    TRY(size > SMALL ? obtain(r, size, &block) : obtain_small(r, size, &block));
    TRY(new_live(r, &live));
    r->blocks[live] = block;
    set_owner(&r->allocator.blocks[block], live);
    slot->live = live;
    slot->turn = r->turns[live];
    return note_request(&r->journal, written, live);
}

static int ask(Run *r, int64_t size, Slot *slot) { return ask_as(r, size, size, slot); }

static int give(Run *r, Slot slot) {
    if (slot.live < 0) return DONE;
    if (r->turns[slot.live] != slot.turn) return FAILED; /* free already */
    r->turns[slot.live]++;
    int32_t block = r->blocks[slot.live];
    if (pool_of(&r->allocator.blocks[block])) TRY(tell(r, LARGE, 0));
    else if (is_telling(r)) TRY(tell_return(r, block));
    TRY(allocator_free(&r->allocator, block));
    TRY(make_room((void **)&r->unused, &r->unused_room, r->unused_count + 1, sizeof(int32_t)));
    r->unused[r->unused_count++] = slot.live;
    return note_request(&r->journal, GIVEN_BACK, slot.live);
}

static int give_cache(Run *r) {
    int64_t before = r->allocator.small_reserved;
    TRY(allocator_empty_cache(&r->allocator));
    TRY(tell(r, EMPTIED, before - r->allocator.small_reserved));
    if (is_telling(r)) line_empty(&r->segments.line);
    return note_request(&r->journal, EMPTY_CACHE, 0);
}

/* Take scratch of one of the journal's sizes, and give it back. */
static int use_scratch(Run *r, int32_t which) {
    Allocator *a = &r->allocator;
    int64_t size = r->journal.sizes[which], before = a->small_reserved;
    int32_t block;
    TRY(tell(r, SIZED, largest_free(a, 0)));
    if (is_telling(r)) {
        if (size == 0 || fitting(a, size) >= 0)
            narrow_to_room(&r->journal.run, which, 0, largest_free(a, 0), a);
        else
            narrow_to_segment(&r->journal.run, which, 0, size, largest_free(a, size > SMALL));
    }
    if (size) {
        TRY(obtain(r, size, &block));
        if (a->small_reserved != before && is_telling(r)) { /* the small pool has grown for it */
            Event *one = &r->events[r->event_count - 1];
            one->of = -1 - one->of;
            TRY(tell(r, GROWN, WHOLE));
            TRY(line_add(&r->segments.line, WHOLE));
        }
        TRY(allocator_free(a, block));
    }
    return note_request(&r->journal, -1 - (int64_t)which, -1);
}

/* ---------------------------------------------------------------------------------- marks */

static int take_snapshot(Run *r) {
    TRY(make_room((void **)&r->weights, &r->weights_room,
                  r->weights_count + 1 + 2 * r->present_count, sizeof(int64_t)));
    r->snapshot = r->weights_count;
    r->weights[r->weights_count++] = r->present_count;
    for (int32_t i = 0; i < r->present_count; i++) {
        r->weights[r->weights_count++] = r->present[i];
        r->weights[r->weights_count++] = r->weight_bytes[r->present[i]];
    }
    r->is_changed = 0;
    return DONE;
}

static int close_mark(Run *r) {
    Allocator *a = &r->allocator;
    TRY(tell(r, MARKED, r->component >= 0));
    if (r->component >= 0) {
        if (r->mark_count >= MOST_MARKS) return FAILED;
        if (r->is_changed) TRY(take_snapshot(r));
        TRY(make_room((void **)&r->marks, &r->mark_room, r->mark_count + 1, sizeof(Mark)));
        Mark *mark = &r->marks[r->mark_count++];
        mark->phase = r->phase;
        mark->component = r->component;
        mark->allocated_peak = a->peak_allocated;
        mark->reserved_peak = a->peak_reserved;
        mark->allocated = a->allocated;
        mark->reserved = a->reserved;
        mark->weights = r->snapshot;
    }
    a->peak_allocated = a->allocated;
    a->peak_reserved = a->reserved;
    return DONE;
}

static int begin_mark(Run *r, int32_t phase, int32_t component) {
    TRY(close_mark(r));
    r->phase = phase;
    r->component = component;
    TRY(make_room((void **)&r->places, &r->place_room, r->place_count + 1, sizeof(Place)));
    r->places[r->place_count].request = r->journal.count;
    r->places[r->place_count].phase = phase;
    r->places[r->place_count++].component = component;
    return DONE;
}

static int spend(Run *r, int64_t steps) {
    r->spent += steps + 1;
    if (r->spent > MOST_STEPS) return TOO_LONG;
    if (--r->until_clock <= 0) {
        r->until_clock = 1000;
        if ((double)(clock() - r->began) / CLOCKS_PER_SEC > MOST_SECONDS) return TOO_LONG;
    }
    return DONE;
}

/* ---------------------------------------------------------------------------- the weights */

static int64_t tensor_bytes(int64_t tensor, int64_t element) {
    return tensor < 0 ? -1 - tensor : tensor * element;
}

static int64_t element_of(const Run *r, int32_t component) {
    return r->cast[component] ? r->cast[component] : r->element;
}

static int64_t total_bytes(const Run *r, int32_t component, int64_t element) {
    const Component *c = &r->program->components[component];
    int64_t total = 0;
    for (int32_t m = 0; m < c->module_count; m++)
        for (int64_t t = 0; t < c->modules[m].count; t++) {
            total += tensor_bytes(c->modules[m].tensors[t], element);
            if (total > LARGEST) return -1;
        }
    return total;
}

static int hold(Held *held, Slot slot) {
    TRY(make_room((void **)&held->slots, &held->room, held->count + 1, sizeof(Slot)));
    held->slots[held->count++] = slot;
    return DONE;
}

static int send_away(Run *r, int32_t component) {
    Held *held = &r->whole[component];
    if (!held->is_there) return DONE;
    for (int32_t i = 0; i < r->present_count; i++)
        if (r->present[i] == component) {
            r->present_count--;
            memmove(r->present + i, r->present + i + 1,
                    (size_t)(r->present_count - i) * sizeof(int32_t));
            break;
        }
    r->is_changed = 1;
    held->is_there = 0;
    for (int32_t i = 0; i < held->count; i++) TRY(give(r, held->slots[i]));
    held->count = 0;
    return DONE;
}

static int bring(Run *r, int32_t component, int64_t *count) {
    const Component *c = &r->program->components[component];
    Held *held = &r->whole[component];
    int64_t element = element_of(r, component), total = total_bytes(r, component, element);
    if (total < 0 || held->is_there) return FAILED;
    if (r->has_warm_up && r->offload == OFFLOAD_NONE) {
        Slot slot;
        TRY(ask(r, total, &slot));
        TRY(give(r, slot));
    }
    *count = 0;
    for (int32_t m = 0; m < c->module_count; m++)
        for (int64_t t = 0; t < c->modules[m].count; t++) {
            Slot slot;
            TRY(ask(r, tensor_bytes(c->modules[m].tensors[t], element), &slot));
            TRY(hold(held, slot));
            ++*count;
        }
    held->is_there = 1;
    r->present[r->present_count++] = component;
    r->weight_bytes[component] = total;
    r->is_changed = 1;
    return DONE;
}

static int cast_component(Run *r, int32_t component, int64_t element) {
    const Component *c = &r->program->components[component];
    Held *held = &r->whole[component];
    r->cast[component] = element;
    if (!held->is_there) return spend(r, 0);
    int64_t total = total_bytes(r, component, element);
    if (total < 0) return FAILED;
    int32_t at = 0;
    for (int32_t m = 0; m < c->module_count; m++)
        for (int64_t t = 0; t < c->modules[m].count; t++, at++) {
            if (c->modules[m].tensors[t] < 0) continue;
            Slot slot;
            TRY(ask(r, tensor_bytes(c->modules[m].tensors[t], element), &slot));
            TRY(give(r, held->slots[at]));
            held->slots[at] = slot;
        }
    r->weight_bytes[component] = total;
    r->is_changed = 1;
    return spend(r, at);
}

static int make_way(Run *r, const Routine *routine, int32_t *brought) {
    *brought = -1;
    if (r->offload != OFFLOAD_MODEL || routine->component < 0) return DONE;
    if (routine->before >= 0 && r->whole[routine->before].is_there) {
        TRY(send_away(r, routine->before));
        TRY(give_cache(r));
    }
    if (!r->whole[routine->component].is_there) *brought = routine->component;
    return DONE;
}

static int enter_module(Run *r, int32_t component, int32_t module) {
    const Component *c = &r->program->components[component];
    if (r->offload != OFFLOAD_SEQUENTIAL || c->stays) return spend(r, 0);
    Held *held = &r->modules[component][module];
    if (held->is_there) return spend(r, 0);
    int64_t element = element_of(r, component);
    for (int64_t t = 0; t < c->modules[module].count; t++) {
        Slot slot;
        TRY(ask(r, tensor_bytes(c->modules[module].tensors[t], element), &slot));
        TRY(give_cache(r));
        TRY(hold(held, slot));
    }
    held->is_there = 1;
    return spend(r, held->count);
}

static int exit_module(Run *r, int32_t component, int32_t module) {
    Held *held = &r->modules[component][module];
    if (r->offload != OFFLOAD_SEQUENTIAL || !held->is_there) return DONE;
    held->is_there = 0;
    for (int32_t i = 0; i < held->count; i++) TRY(give(r, held->slots[i]));
    held->count = 0;
    return DONE;
}

static int end_of_run(Run *r) {
    if (r->offload != OFFLOAD_MODEL) return DONE;
    for (int32_t i = 0; i < r->present_count;) {
        int32_t component = r->present[i];
        if (r->program->components[component].stays) i++;
        else TRY(send_away(r, component));
    }
    return give_cache(r);
}

/* ---------------------------------------------------------------------------------- frames */

static Frame *new_frame(Run *r, Frame *parent, int32_t loop, int32_t number) {
    Frame *frame = r->spare_frames;
    if (frame != NULL) {
        r->spare_frames = frame->spare;
    } else {
        frame = calloc(1, sizeof *frame);
        if (frame == NULL) return NULL;
        frame->chained = r->frames;
        r->frames = frame;
    }
    frame->parent = parent;
    frame->loop = loop;
    frame->number = number;
    return frame;
}

/* Let go of everything below; return how many slots that were. */
static int64_t forget(Run *r, Frame *frame) {
    int64_t count = frame->slot_count;
    frame->slot_count = 0;
    for (int32_t i = 0; i < frame->loop_count; i++) {
        Iterations *loop = &frame->loops[i];
        for (int32_t j = 0; j < loop->count; j++) {
            count += forget(r, loop->frames[j]);
            loop->frames[j]->spare = r->spare_frames;
            r->spare_frames = loop->frames[j];
        }
        free(loop->frames);
    }
    frame->loop_count = 0;
    return count;
}

static int push_slot(Frame *frame, Slot slot) {
    TRY(make_room((void **)&frame->slots, &frame->slot_room, frame->slot_count + 1, sizeof(Slot)));
    frame->slots[frame->slot_count++] = slot;
    return DONE;
}

/* ------------------------------------------------------------------------------ dimensions */

static void end_dimensions(Dimensions *d) {
    free(d->given);
    memset(d, 0, sizeof *d);
}

static int begin_dimensions(const Run *r, const Variant *v, Dimensions *d) {
    size_t names = (size_t)r->program->name_count + 1;
    size_t sizes = v == NULL ? 0 : (size_t)v->size_count;
    char *memory = calloc(1, (2 * names + sizes) * sizeof(int64_t) + 2 * names);
    if (memory == NULL) return FAILED;
    d->given = (int64_t *)memory;
    d->values = d->given + names;
    d->sizes = d->values + names;
    d->is_given = (uint8_t *)(d->sizes + sizes);
    d->known = d->is_given + names;
    return DONE;
}

/* The dimensions with the derived ones; a loop's index is 0 outside of the loop. */
static int complete(const Run *r, const Variant *v, Dimensions *d) {
    size_t names = (size_t)r->program->name_count + 1;
    memcpy(d->values, d->given, names * sizeof(int64_t));
    memcpy(d->known, d->is_given, names);
    for (int32_t i = 0; i < v->index_count; i++)
        if (!d->is_given[v->indices[i]]) {
            d->values[v->indices[i]] = 0;
            d->known[v->indices[i]] = 1;
        }
    for (int32_t i = 0; i < v->definition_count; i++) {
        int64_t value;
        TRY(evaluate(&r->program->expressions, v->definitions[i].expression, d->values, d->known,
                     &value));
        if (value > LARGEST || value < -LARGEST) return FAILED;
        d->values[v->definitions[i].name] = value;
        d->known[v->definitions[i].name] = 1;
    }
    return DONE;
}

static int find_sizes(const Run *r, const Variant *v, Dimensions *d) {
    TRY(complete(r, v, d));
    for (int32_t i = 0; i < v->size_count; i++) {
        TRY(evaluate(&r->program->expressions, v->sizes[i], d->values, d->known, &d->sizes[i]));
        if (d->sizes[i] < 0 || d->sizes[i] > LARGEST) return FAILED;
    }
    return DONE;
}

/* ------------------------------------------------------------------------------------ code */

typedef struct {
    const int64_t *at, *end;
} Cursor;

static int sequence(Run *r, Code code, Frame *frame, const Variant *v, Dimensions *d);
static int routine(Run *r, int32_t number, const Dimensions *given, Frame *caller);

static int word(Cursor *c, int64_t least, int64_t most, int64_t *value) {
    if (c->at >= c->end || *c->at < least || *c->at > most) return FAILED;
    *value = *c->at++;
    return DONE;
}

static int part(Cursor *c, Code *code) {
    TRY(word(c, 0, INT32_MAX, &code->steps));
    TRY(word(c, 0, c->end - c->at, &code->count));
    if (code->count > c->end - c->at) return FAILED;
    code->words = c->at;
    c->at += code->count;
    return DONE;
}

/* The frames that are one stage of a path further down, in place of those that are there. */
static int go_down(const Frame *from, Frame ***places, int64_t *count, int64_t loop, int64_t kind,
                   int64_t which) {
    Frame **found = NULL;
    int32_t room = 0;
    int64_t reached = 0;
    int32_t number = 0;
    if (kind == SAME) {
        const Frame *place = from;
        while (place != NULL && place->loop != which) place = place->parent;
        if (place == NULL) return FAILED;
        number = place->number;
    }
    for (int64_t i = 0; i < *count; i++) {
        const Frame *place = (*places)[i];
        if (loop >= place->loop_count) goto lost;
        const Iterations *one = &place->loops[loop];
        int64_t first = 0, last = (int64_t)one->count - 1;
        if (kind != ALL) {
            first = kind == SAME ? number : kind == BACK ? one->count - 1 - which : which;
            if (kind == AT && first < 0) first += one->count;
            if (first < 0 || first >= one->count) goto lost;
            last = first;
        }
        for (int64_t n = first; n <= last; n++) {
            if (make_room((void **)&found, &room, (int32_t)reached + 1, sizeof(Frame *))) goto lost;
            found[reached++] = one->frames[n];
        }
    }
    free(*places);
    *places = found;
    *count = reached;
    return DONE;
lost:
    free(found);
    return FAILED;
}

static int free_there(Run *r, Cursor *c, Frame *frame, Frame ***places) {
    int64_t up, stages, ranges, count = 1;
    Frame *place = frame;
    TRY(word(c, 0, INT32_MAX, &up));
    for (; up > 0; up--) {
        place = place->parent;
        if (place == NULL) return FAILED;
    }
    *places = malloc(sizeof(Frame *));
    if (*places == NULL) return FAILED;
    (*places)[0] = place;
    TRY(word(c, 0, INT32_MAX, &stages));
    for (; stages > 0; stages--) {
        int64_t loop, kind, which;
        TRY(word(c, 0, INT32_MAX, &loop));
        TRY(word(c, AT, SAME, &kind));
        TRY(word(c, kind == AT ? -INT32_MAX : 0, INT32_MAX, &which));
        TRY(go_down(frame, places, &count, loop, kind, which));
    }
    TRY(word(c, 0, INT32_MAX, &ranges));
    int64_t freed = 0;
    for (; ranges > 0; ranges--) {
        int64_t first, last;
        TRY(word(c, 0, INT32_MAX, &first));
        TRY(word(c, first, INT32_MAX, &last));
        for (int64_t slot = first; slot <= last; slot++)
            for (int64_t i = 0; i < count; i++) {
                if (slot >= (*places)[i]->slot_count) return FAILED;
                TRY(give(r, (*places)[i]->slots[slot]));
                freed++;
            }
    }
    return spend(r, freed);
}

static int free_elsewhere(Run *r, Cursor *c, Frame *frame) {
    Frame **places = NULL;
    int status = free_there(r, c, frame, &places);
    free(places);
    return status;
}

static int percents_bytes(const Run *r, int64_t width, const int64_t *operands, int64_t count,
                          int64_t *size) {
    const int64_t *percents = r->percents[0];
    for (int32_t i = 1; i < r->percents_count; i++)
        if (r->percents[i][0] == width) percents = r->percents[i];
    if (count < 3) return FAILED; /* what follows is no bytes: a batch, an input's sides */
    int64_t sum = 0;
    for (int i = 0; i < 3; i++) {
        if (operands[i] > LARGEST / MOST_PERCENT / 4) return FAILED;
        sum += operands[i] * percents[i + 1];
    }
    *size = sum / 100;
    return DONE;
}

static int find_plans(const Run *r, ScratchModel model, int32_t kind, int64_t width,
               const int64_t *operands, int64_t count, Plans *plans) {
    memset(plans, 0, sizeof *plans);
    if (model == NULL) {
        plans->count = 1;
        TRY(percents_bytes(r, width, operands, count, &plans->size[0]));
    } else {
        int64_t found = model(kind, width, operands, count, plans->size);
        if (found < 1 || found > MOST_PLANS) return FAILED;
        plans->count = (int32_t)found;
    }
    for (int32_t i = 0; i < plans->count; i++)
        if (plans->size[i] < 0 || plans->size[i] > LARGEST) return FAILED;
    return DONE;
}

int add_size(Run *r, const Plans *plans) {
    Journal *j = &r->journal;
    TRY(make_room((void **)&j->sizes, &j->size_room, j->size_count + 1, sizeof(int64_t)));
    TRY(make_room((void **)&j->plans, &j->plans_room, j->size_count + 1, sizeof(Plans)));
    TRY(make_room((void **)&r->sized, &r->sized_room, j->size_count + 1, sizeof(Asked)));
    memset(&r->sized[j->size_count], 0, sizeof(Asked));
    TRY(spans_add(&j->run));
    j->plans[j->size_count] = *plans;
    j->sizes[j->size_count++] = plans->size[0];
    return DONE;
}

int add_one_size(Run *r, int64_t size) {
    Plans plans = {{size}, 1};
    return add_size(r, &plans);
}

/* Which of the journal's sizes a library takes for these operands. */
static int scratch_size(Run *r, int32_t kind, const int64_t *operands, int64_t count,
                        int32_t *size) {
    int32_t owner = r->component < 0 ? -1 : r->program->label_components[r->component];
    int64_t width = owner < 0 ? 0 : r->cast[owner];
    Journal *j = &r->journal;
    if (r->asked_count * 2 >= r->asked_room) {
        free(r->asked);
        r->asked_count = 0;
        r->asked_room = r->asked_room < 65536 ? (r->asked_room ? r->asked_room * 4 : 256)
                                              : r->asked_room;
        r->asked = calloc((size_t)r->asked_room, sizeof(Asked));
        if (r->asked == NULL) {
            r->asked_room = 0;
            return FAILED;
        }
    }
    uint64_t hash = (uint64_t)kind * 31 + (uint64_t)width;
    for (int64_t i = 0; i < count; i++)
        hash = (hash ^ (uint64_t)operands[i]) * 0x9E3779B97F4A7C15u, hash ^= hash >> 29;
    for (uint64_t i = hash;; i++) {
        Asked *one = &r->asked[i & (uint64_t)(r->asked_room - 1)];
        if (one->count == 0) {
            Plans found;
            TRY(find_plans(r, r->scratch, kind, width, operands, count, &found));
            one->width = width;
            one->kind = kind;
            memcpy(one->operands, operands, (size_t)count * sizeof(int64_t));
            one->size = j->size_count;
            TRY(add_size(r, &found));
            one->count = (int32_t)count;
            r->sized[one->size] = *one;
            r->asked_count++;
        } else if (one->count != count || one->kind != kind || one->width != width ||
                   memcmp(one->operands, operands, (size_t)count * sizeof(int64_t)) != 0) {
            continue;
        }
        *size = one->size;
        return DONE;
    }
}

/* Let cuBLAS take its workspace for the first product of a thread. */
static int multiply(Run *r, int64_t thread) {
    Slot slot;
    if (r->has_cublas[thread]) return DONE;
    r->has_cublas[thread] = 1;
    return ask_as(r, r->cublas, -1, &slot);
}

/* `thread` multiplies while the scratch is held; -1: nobody does. */
static int scratch(Run *r, Cursor *c, const Variant *v, const Dimensions *d, int64_t thread) {
    int64_t kind, count, operands[MOST_OPERANDS];
    int32_t size;
    Slot slot;
    TRY(word(c, 0, r->program->label_count - 1, &kind));
    TRY(word(c, 1, MOST_OPERANDS, &count));
    for (int64_t i = 0; i < count; i++) {
        int64_t which;
        TRY(word(c, 0, v->size_count - 1, &which));
        operands[i] = d->sizes[which];
    }
    TRY(scratch_size(r, (int32_t)kind, operands, count, &size));
    if (thread < 0 || r->has_cublas[thread] || !r->journal.sizes[size]) {
        /* any at all would be held while the first product takes its workspace */
        if (thread >= 0 && !r->has_cublas[thread]) narrow(&r->journal.run, size, 0, -1, 0);
        TRY(use_scratch(r, size));
        return thread < 0 ? DONE : multiply(r, thread);
    }
    TRY(ask_as(r, r->journal.sizes[size], -1 - (int64_t)size, &slot));
    TRY(multiply(r, thread));
    return give(r, slot);
}

static int call(Run *r, Cursor *c, Frame *frame, const Variant *v, const Dimensions *d) {
    int64_t number, count;
    TRY(word(c, 0, r->program->routine_count - 1, &number));
    TRY(word(c, 0, INT32_MAX, &count));
    const Routine *called = &r->program->routines[number];
    Dimensions given;
    memset(&given, 0, sizeof given);
    TRY(begin_dimensions(r, NULL, &given));
    int status = DONE;
    for (; count > 0 && !status; count--) {
        int64_t name = 0, size = 0;
        status = word(c, 0, r->program->name_count - 1, &name) ||
                 word(c, 0, v->size_count - 1, &size);
        if (status) {
            status = FAILED;
            break;
        }
        given.given[name] = d->sizes[size];
        given.is_given[name] = 1;
    }
    int32_t outer = r->component, brought = -1;
    if (!status) status = make_way(r, called, &brought);
    if (!status && brought >= 0) {
        int64_t tensors = 0;
        status = begin_mark(r, r->phase, r->program->components[brought].label);
        if (!status) status = bring(r, brought, &tensors);
        if (!status) status = spend(r, tensors);
    }
    if (!status) status = begin_mark(r, r->phase, called->label);
    if (!status) status = routine(r, (int32_t)number, &given, frame);
    if (!status) status = begin_mark(r, r->phase, outer);
    end_dimensions(&given);
    return status;
}

void begin_iteration(const Run *r, Quiet *q) { q->mark = r->mark_count; }

static int64_t peak_since(const Run *r, int32_t mark) {
    int64_t peak = r->allocator.peak_allocated;
    for (int32_t i = mark; i < r->mark_count; i++)
        if (r->marks[i].allocated_peak > peak) peak = r->marks[i].allocated_peak;
    return peak;
}

int is_quiet(const Run *r, Quiet *q) {
    int64_t reserved = r->allocator.reserved, peak = peak_since(r, q->mark);
    q->quiet = reserved == q->last_reserved && peak == q->last_peak ? q->quiet + 1 : 0;
    q->last_reserved = reserved;
    q->last_peak = peak;
    return q->quiet == QUIET;
}

typedef struct {
    int64_t name, window;
    int is_indexed, may_cut;
    Frame *frame;
    int32_t ordinal;
    Dimensions own;
} Loop;

static int iterate(Run *r, Loop *loop, Code code, int64_t number, const Variant *v,
                   Dimensions *d) {
    Frame *inner = new_frame(r, loop->frame, (int32_t)loop->name, (int32_t)number);
    if (inner == NULL) return FAILED;
    Iterations *made = &loop->frame->loops[loop->ordinal];
    if (make_room((void **)&made->frames, &made->room, made->count + 1, sizeof(Frame *))) {
        inner->spare = r->spare_frames;
        r->spare_frames = inner;
        return FAILED;
    }
    made->frames[made->count++] = inner;
    if (loop->is_indexed) {
        loop->own.given[loop->name] = number;
        loop->own.is_given[loop->name] = 1;
        TRY(find_sizes(r, v, &loop->own));
        d = &loop->own;
    }
    TRY(sequence(r, code, inner, v, d));
    made = &loop->frame->loops[loop->ordinal];
    if (loop->window >= 0 && made->count > loop->window + 1)
        r->slots -= forget(r, made->frames[made->count - loop->window - 2]);
    return DONE;
}

static int loop_parts(Run *r, Cursor *c, Loop *loop, int64_t count, int64_t before, int64_t after,
                      const Variant *v, Dimensions *d) {
    Code code, body;
    for (int64_t n = 0; n < before; n++) {
        TRY(part(c, &code));
        TRY(iterate(r, loop, code, n, v, d));
    }
    TRY(part(c, &body));
    int64_t repeats = count - before - after;
    if (repeats > 0 && body.steps == 0) return FAILED;
    Quiet quiet = {0, 0, 0, 0};
    if (loop->may_cut) TRY(tell(r, LOOPING, 0));
    for (int64_t n = before; n < before + repeats; n++) {
        if (loop->may_cut) TRY(tell(r, ITERATING, 0));
        begin_iteration(r, &quiet);
        TRY(iterate(r, loop, body, n, v, d));
        if (!loop->may_cut) continue;
        int is_last = is_quiet(r, &quiet);
        TRY(tell(r, ITERATED, is_last || n + 1 == before + repeats ? 1 + is_last : 0));
        if (is_last) break;
    }
    for (int64_t n = before + repeats; n < count; n++) {
        TRY(part(c, &code));
        TRY(iterate(r, loop, code, n, v, d));
    }
    return DONE;
}

static int run_loop(Run *r, Cursor *c, Frame *frame, const Variant *v, Dimensions *d) {
    Loop loop;
    memset(&loop, 0, sizeof loop);
    int64_t expression, has_peers, before, after, count;
    TRY(word(c, 0, r->program->name_count - 1, &loop.name));
    TRY(word(c, 0, r->program->root_count - 1, &expression));
    TRY(word(c, -1, INT32_MAX, &loop.window));
    TRY(word(c, 0, 1, &has_peers));
    TRY(word(c, 0, INT32_MAX, &before));
    TRY(word(c, 0, INT32_MAX, &after));
    TRY(evaluate(&r->program->expressions, r->program->roots[expression], d->values, d->known,
                 &count));
    if (count > LONGEST_LOOP || count < before + after) return FAILED;
    TRY(make_room((void **)&frame->loops, &frame->loop_room, frame->loop_count + 1,
                  sizeof(Iterations)));
    loop.frame = frame;
    loop.ordinal = frame->loop_count++;
    memset(&frame->loops[loop.ordinal], 0, sizeof(Iterations));
    loop.is_indexed = v->names[loop.name];
    loop.may_cut = !loop.is_indexed && !has_peers;
    if (loop.is_indexed) {
        TRY(begin_dimensions(r, v, &loop.own));
        size_t names = (size_t)r->program->name_count + 1;
        memcpy(loop.own.given, d->given, names * sizeof(int64_t));
        memcpy(loop.own.is_given, d->is_given, names);
    }
    int status = loop_parts(r, c, &loop, count, before, after, v, d);
    end_dimensions(&loop.own);
    return status;
}

static int step(Run *r, Cursor *c, int64_t kind, Frame *frame, const Variant *v, Dimensions *d) {
    int64_t one, other;
    switch (kind) {
    case FREE_ELSEWHERE: return free_elsewhere(r, c, frame);
    case SCRATCH: return scratch(r, c, v, d, -1);
    case SCRATCH_OF_PRODUCT:
        TRY(word(c, 0, 1, &one));
        return scratch(r, c, v, d, one);
    case CALL: return call(r, c, frame, v, d);
    case LOOP: return run_loop(r, c, frame, v, d);
    case PRODUCT:
        TRY(word(c, 0, 1, &one));
        return multiply(r, one);
    case PHASE:
        TRY(word(c, 0, r->program->label_count - 1, &one));
        TRY(word(c, 0, r->program->label_count - 1, &other));
        return begin_mark(r, (int32_t)one, (int32_t)other);
    case CAST:
        TRY(word(c, 0, r->program->component_count - 1, &one));
        TRY(word(c, 1, 16, &other));
        return cast_component(r, (int32_t)one, other);
    case ENTER:
    case EXIT:
        TRY(word(c, 0, r->program->component_count - 1, &one));
        TRY(word(c, 0, r->program->components[one].module_count - 1, &other));
        return kind == ENTER ? enter_module(r, (int32_t)one, (int32_t)other)
                             : exit_module(r, (int32_t)one, (int32_t)other);
    default: return FAILED;
    }
}

static int sequence(Run *r, Code code, Frame *frame, const Variant *v, Dimensions *d) {
    TRY(spend(r, code.steps));
    if (++r->depth > DEEPEST) return FAILED;
    Cursor c = {code.words, code.words + code.count};
    while (c.at < c.end) {
        int64_t op = *c.at++;
        if (op >= 0) {
            Slot slot;
            if (op >= v->size_count) return FAILED;
            TRY(ask(r, d->sizes[op], &slot));
            TRY(push_slot(frame, slot));
        } else if (op > STEP) {
            if (-op - 1 >= frame->slot_count) return FAILED;
            TRY(give(r, frame->slots[-op - 1]));
        } else {
            TRY(step(r, &c, STEP - op, frame, v, d));
        }
    }
    r->slots += frame->slot_count;
    r->depth--;
    return r->slots > MOST_SLOTS ? FAILED : DONE;
}

/* The first of a routine's variants whose condition holds; its facts do, or it is not here. */
static int choose_variant(Run *r, const Routine *routine, const Dimensions *given,
                          const Variant **found) {
    for (int32_t i = 0; i < routine->variant_count; i++) {
        const Variant *v = &routine->variants[i];
        TRY(spend(r, v->definition_count));
        int64_t holds = 1;
        if (v->condition >= 0) {
            Dimensions d;
            TRY(begin_dimensions(r, NULL, &d));
            size_t names = (size_t)r->program->name_count + 1;
            memcpy(d.given, given->given, names * sizeof(int64_t));
            memcpy(d.is_given, given->is_given, names);
            int status = complete(r, v, &d);
            if (!status)
                status = evaluate(&r->program->expressions, v->condition, d.values, d.known,
                                  &holds);
            end_dimensions(&d);
            TRY(status);
        }
        if (holds) {
            *found = v;
            return DONE;
        }
    }
    return FAILED;
}

/* Run a routine; what it leaves goes to the caller's slots, or is freed where there is none. */
static int routine(Run *r, int32_t number, const Dimensions *given, Frame *caller) {
    const Variant *v;
    TRY(choose_variant(r, &r->program->routines[number], given, &v));
    Frame *frame = new_frame(r, NULL, -1, 0);
    if (frame == NULL) return FAILED;
    Dimensions d;
    TRY(begin_dimensions(r, v, &d));
    size_t names = (size_t)r->program->name_count + 1;
    memcpy(d.given, given->given, names * sizeof(int64_t));
    memcpy(d.is_given, given->is_given, names);
    int status = find_sizes(r, v, &d);
    if (!status) status = sequence(r, v->code, frame, v, &d);
    end_dimensions(&d);
    TRY(status);
    for (int32_t i = 0; i < v->output_count; i++)
        if (v->outputs[i] < 0 || v->outputs[i] >= frame->slot_count) return FAILED;
    for (int32_t i = 0; i < v->output_count; i++) {
        Slot slot = frame->slots[v->outputs[i]];
        TRY(caller == NULL ? give(r, slot) : push_slot(caller, slot));
    }
    r->slots -= forget(r, frame);
    frame->spare = r->spare_frames;
    r->spare_frames = frame;
    return DONE;
}

/* The first phase that the code names: what is uploaded before it belongs to it. */
static int first_phase(Run *r, const Dimensions *given, int32_t *phase) {
    const Variant *v;
    TRY(choose_variant(r, &r->program->routines[r->program->entry], given, &v));
    const int64_t *at = v->code.words, *end = at + v->code.count;
    *phase = r->program->idle_label;
    while (at < end) {
        int64_t kind = *at > STEP ? 0 : STEP - *at;
        at++;
        int64_t skipped;
        switch (kind) {
        case PHASE:
            if (at >= end || *at < 0 || *at >= r->program->label_count) return FAILED;
            *phase = (int32_t)*at;
            return DONE;
        case SCRATCH: skipped = at + 1 < end ? 2 + at[1] : 0; break;
        case SCRATCH_OF_PRODUCT: skipped = at + 2 < end ? 3 + at[2] : 0; break;
        case CALL: skipped = at + 1 < end ? 2 + 2 * at[1] : 0; break;
        case PRODUCT: skipped = 1; break;
        case ENTER:
        case EXIT:
        case CAST: skipped = 2; break;
        case FREE_ELSEWHERE: {
            int64_t stages = at + 1 < end ? at[1] : 0, ranges;
            if (stages < 0 || stages > end - at || 2 + 3 * stages >= end - at) return FAILED;
            ranges = at[2 + 3 * stages];
            skipped = 3 + 3 * stages + 2 * ranges;
            break;
        }
        case LOOP: {
            Cursor c = {at + 6, end};
            if (end - at < 6) return FAILED;
            for (int64_t parts = at[4] + at[5] + 1; parts > 0; parts--) {
                Code code;
                TRY(part(&c, &code));
            }
            skipped = c.at - at;
            break;
        }
        default: skipped = 0; break;
        }
        if (skipped < 0 || skipped > end - at) return FAILED;
        at += skipped;
    }
    return DONE;
}

/* ------------------------------------------------------------------------ what is exported */

/* The checksum of the sources it was built from, so that an old build is not taken for this one. */
#ifndef VRAMPLAN_SOURCES
#define VRAMPLAN_SOURCES 0
#endif
EXPORT int64_t vramplan_sources(void) { return VRAMPLAN_SOURCES; }

EXPORT void *vramplan_program(const int64_t *words, int64_t count, const char *text,
                              int64_t length) {
    return program_read(words, count, text, length);
}

EXPORT void vramplan_program_end(void *program) { program_end(program); }

EXPORT void vramplan_run_end(void *run) {
    Run *r = run;
    if (r == NULL) return;
    for (Frame *frame = r->frames; frame != NULL;) {
        Frame *following = frame->chained;
        for (int32_t i = 0; i < frame->loop_count; i++) free(frame->loops[i].frames);
        free(frame->loops);
        free(frame->slots);
        free(frame);
        frame = following;
    }
    int32_t components = r->program->component_count;
    for (int32_t i = 0; i < components && r->whole && r->modules; i++) {
        free(r->whole[i].slots);
        if (r->modules[i] == NULL) continue;
        for (int32_t m = 0; m < r->program->components[i].module_count; m++)
            free(r->modules[i][m].slots);
        free(r->modules[i]);
    }
    for (int32_t i = 0; i < r->searched_count; i++) free(r->searched[i].bounds.bounds);
    journal_end(&r->journal);
    allocator_end(&r->allocator);
    tries_end(&r->tries);
    turns_end(&r->loops);
    line_end(&r->segments.line);
    void *owned[] = {r->blocks,  r->turns, r->unused,  r->marks,        r->places, r->weights, r->whole, r->numbers, r->sized, r->events,
                     r->modules, r->cast,  r->present, r->weight_bytes, r->asked, r->tried, r->searched, r->steps, r->step_requests, r->segments.unused, r->segments.births, r->segments.orders};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    program_end(r->program);
    free(r);
}

/* A run that has not begun. NULL where there is no memory. */
EXPORT void *vramplan_run(void *program, const int64_t *numbers, int64_t number_count,
                          ScratchModel model, const int64_t *percents, int64_t widths,
                          int64_t element, int64_t cublas, int offload, int has_warm_up,
                          int is_expandable) {
    Program *p = program;
    if (widths > MOST_WIDTHS || number_count < 0 || number_count > 1 << 20) return NULL;
    for (int64_t i = 0; i < number_count; i++)
        if (numbers[2 * i] < 0 || numbers[2 * i] >= p->name_count) return NULL;
    for (int64_t i = 0; i < 4 * widths; i++)
        if (percents[i] < 0 || percents[i] > MOST_PERCENT) return NULL;
    Run *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    r->program = p;
    __atomic_add_fetch(&p->holders, 1, __ATOMIC_RELAXED);
    r->number_count = number_count;
    r->numbers = malloc(((size_t)number_count + 1) * 2 * sizeof(int64_t));
    if (number_count && r->numbers)
        memcpy(r->numbers, numbers, (size_t)number_count * 2 * sizeof(int64_t));
    r->scratch = widths > 0 ? NULL : model;
    if (widths > 0) memcpy(r->percents, percents, (size_t)widths * 4 * sizeof(int64_t));
    r->percents_count = (int32_t)widths;
    r->is_told = !is_expandable;
    r->element = element;
    r->cublas = cublas;
    r->offload = offload;
    r->has_warm_up = has_warm_up;
    r->is_expandable = is_expandable;
    r->phase = r->program->load_label;
    r->component = -1;
    r->is_changed = 1;
    int is_begun = allocator_begin(&r->allocator, UNLIMITED, is_expandable) == DONE &&
                   journal_begin(&r->journal, is_expandable) == DONE;
    size_t components = (size_t)r->program->component_count + 1;
    r->whole = calloc(components, sizeof *r->whole);
    r->modules = calloc(components, sizeof *r->modules);
    r->cast = calloc(components, sizeof *r->cast);
    r->present = calloc(components, sizeof *r->present);
    r->weight_bytes = calloc(components, sizeof *r->weight_bytes);
    int is_whole = is_begun && r->numbers && r->whole && r->modules && r->cast && r->present &&
                   r->weight_bytes && add_one_size(r, cublas) == DONE;
    for (int32_t i = 0; is_whole && i < r->program->component_count; i++) {
        r->modules[i] =
            calloc((size_t)r->program->components[i].module_count + 1, sizeof **r->modules);
        if (r->modules[i] == NULL) is_whole = 0;
    }
    if (!is_whole) {
        vramplan_run_end(r);
        return NULL;
    }
    return r;
}

EXPORT int vramplan_load(void *run) {
    Run *r = run;
    r->began = clock();
    for (int32_t i = 0; i < r->program->component_count; i++) {
        const Component *c = &r->program->components[i];
        if (c->is_skipped || !(r->offload == OFFLOAD_NONE || c->stays)) continue;
        int64_t count;
        TRY(begin_mark(r, r->program->load_label, c->label));
        TRY(bring(r, i, &count));
    }
    return close_mark(r);
}

static int run_entry(Run *r, Dimensions *numbers, Dimensions *given) {
    const Program *p = r->program;
    for (int64_t i = 0; i < r->number_count; i++) {
        numbers->values[r->numbers[2 * i]] = r->numbers[2 * i + 1];
        numbers->known[r->numbers[2 * i]] = 1;
    }
    for (int32_t i = 0; i < p->dimension_count; i++) {
        int64_t value;
        TRY(evaluate(&p->expressions, p->dimensions[i].expression, numbers->values, numbers->known,
                     &value));
        if (value > LARGEST || value < -LARGEST) return FAILED;
        given->given[p->dimensions[i].name] = value;
        given->is_given[p->dimensions[i].name] = 1;
    }
    int32_t phase;
    TRY(first_phase(r, given, &phase));
    TRY(begin_mark(r, phase, p->pipeline_label));
    TRY(routine(r, p->entry, given, NULL));
    TRY(close_mark(r));
    return end_of_run(r);
}

/* Run the entry once more in the same process; only the first time is written down for tries. */
EXPORT int vramplan_go(void *run) {
    Run *r = run;
    Dimensions numbers, given;
    if (r->base != NULL) return FAILED;
    r->depth = 0;
    r->journal.is_complete = r->has_gone;
    r->has_gone = 1;
    if (begin_dimensions(r, NULL, &numbers)) return FAILED;
    if (begin_dimensions(r, NULL, &given)) {
        end_dimensions(&numbers);
        return FAILED;
    }
    int status = run_entry(r, &numbers, &given);
    end_dimensions(&numbers);
    end_dimensions(&given);
    if (!r->cold_marks) {
        r->cold_marks = r->mark_count;
        r->cold_places = r->place_count;
        if (!status) status = note_steps(r);
    }
    return status;
}

/* How many marks there are, requests, words of weights, the most that was ever granted, and sizes of
 * the journal's own but the first. */
EXPORT void vramplan_figures(const void *run, int64_t *figures) {
    const Run *r = run;
    figures[0] = r->mark_count;
    figures[1] = r->journal.count;
    figures[2] = r->weights_count;
    figures[3] = most_granted(&r->journal);
    figures[4] = r->journal.size_count - 1;
}

/* Marks, seven numbers each, and the snapshots of weights that they point into. */
EXPORT void vramplan_marks(const void *run, int64_t *marks, int64_t *weights) {
    const Run *r = run;
    for (int32_t i = 0; i < r->mark_count; i++) {
        const Mark *mark = &r->marks[i];
        int64_t row[] = {mark->phase, mark->component, mark->allocated_peak, mark->reserved_peak,
                         mark->allocated, mark->reserved, mark->weights};
        memcpy(marks + 7 * (int64_t)i, row, sizeof row);
    }
    if (r->weights_count)
        memcpy(weights, r->weights, (size_t)r->weights_count * sizeof(int64_t));
}

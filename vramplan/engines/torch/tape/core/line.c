/* The segments of the small pool by address, where the pool itself is not kept. */

#include "line.h"

#include <stdlib.h>
#include <string.h>

static int32_t find(const Line *line, int32_t number) {
    int32_t place = 0;
    while (place < line->count && line->at[place] != number) place++;
    return place;
}

int line_add(Line *line, int32_t number) {
    TRY(make_room((void **)&line->at, &line->room, line->count + 1, sizeof(int32_t)));
    line->at[line->count++] = number;
    line->whole += number == WHOLE;
    return DONE;
}

int line_take(Line *line, int32_t number) {
    if (!line->whole) return 0;
    line->at[find(line, WHOLE)] = number;
    line->whole--;
    return 1;
}

void line_return(Line *line, int32_t number) {
    int32_t place = find(line, number);
    if (place == line->count) return;
    line->at[place] = WHOLE;
    line->whole++;
}

void line_empty(Line *line) {
    if (!line->whole) return;
    int32_t kept = 0;
    for (int32_t i = 0; i < line->count; i++)
        if (line->at[i] != WHOLE) line->at[kept++] = line->at[i];
    line->count = kept;
    line->whole = 0;
}

int line_is_before(const Line *line, int32_t one, int32_t other) {
    return find(line, one) < find(line, other);
}

int line_is_same(const Line *one, const Line *other) {
    return one->count == other->count &&
           (!one->count || !memcmp(one->at, other->at, (size_t)one->count * sizeof(int32_t)));
}

int line_copy(Line *to, const Line *from) {
    TRY(make_room((void **)&to->at, &to->room, from->count, sizeof(int32_t)));
    if (from->count) memcpy(to->at, from->at, (size_t)from->count * sizeof(int32_t));
    to->count = from->count;
    to->whole = from->whole;
    return DONE;
}

void line_end(Line *line) {
    free(line->at);
    memset(line, 0, sizeof *line);
}

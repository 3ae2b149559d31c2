/* The segments of the small pool by address, where the pool itself is not kept.
 *
 * What is asked of the small pool is the same in every run of a tape's requests, and a request takes
 * a segment that is wholly free only where no other has room. So what two runs may differ in is how
 * many segments are wholly free, and which of the others comes first where blocks of one size are
 * free in several. A segment in use has a number; one that is wholly free is as good as any other.
 */
#ifndef VRAMPLAN_LINE_H
#define VRAMPLAN_LINE_H

#include "core.h"

#define WHOLE (-1) /* a segment that is wholly free */

typedef struct {
    int32_t *at; /* the segments' numbers, or WHOLE */
    int32_t count, room, whole;
} Line;

int line_add(Line *line, int32_t number); /* behind all others; FAILED without memory */
int line_take(Line *line, int32_t number); /* the first that is wholly free; 0 where none is */
void line_return(Line *line, int32_t number); /* it is wholly free now */
void line_empty(Line *line);                  /* what is wholly free goes */
int line_is_before(const Line *line, int32_t one, int32_t other);
int line_is_same(const Line *one, const Line *other);
int line_copy(Line *to, const Line *from);
void line_end(Line *line);

#endif

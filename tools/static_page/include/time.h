/* As stdlib.h beside it; Emscripten's clock counts microseconds (musl, include/time.h). */
#pragma once

typedef long clock_t;
#define CLOCKS_PER_SEC 1000000L

clock_t clock(void);

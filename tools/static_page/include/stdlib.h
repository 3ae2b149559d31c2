/* What the core takes of the C library, which Pyodide has: declared here, since a compiler for a
   machine without a system brings no headers of one. */
#pragma once
#include <stddef.h>

void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *block, size_t size);
void free(void *block);
void qsort(void *first, size_t count, size_t size, int (*compare)(const void *, const void *));
void *bsearch(const void *key, const void *first, size_t count, size_t size,
              int (*compare)(const void *, const void *));

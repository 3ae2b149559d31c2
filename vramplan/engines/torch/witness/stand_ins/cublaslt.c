/* libcublasLt: one algorithm is offered for every product; beyond what torch has taken for a
   workspace before it asked, it needs none. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

size_t cublasLtGetVersion(void) { return 130000; }
static int create(void **made) { return *made = calloc(1, 256), *made ? 0 : 3; }
int cublasLtMatmulDescCreate(void **made, int compute, int scale)
{
    return (void)compute, (void)scale, create(made);
}
int cublasLtMatrixLayoutCreate(void **made, int type, uint64_t rows, uint64_t columns,
                               int64_t stride)
{
    return (void)type, (void)rows, (void)columns, (void)stride, create(made);
}
int cublasLtMatmulPreferenceCreate(void **made) { return create(made); }
int cublasLtMatmulDescDestroy(void *made) { return free(made), 0; }
int cublasLtMatrixLayoutDestroy(void *made) { return free(made), 0; }
int cublasLtMatmulPreferenceDestroy(void *made) { return free(made), 0; }

struct answer { /* cublasLtMatmulHeuristicResult_t */
    uint64_t algorithm[8];
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c,
                                   void *d, void *preference, int wanted, struct answer *answers,
                                   int *found)
{
    (void)handle, (void)operation, (void)a, (void)b, (void)c, (void)d, (void)preference;
    *found = wanted > 0;
    if (wanted > 0)
        memset(answers, 0, sizeof *answers);
    return 0;
}

/* libcusparse: handles alone; whatever asks how much memory it needs is refused. */
#include <stdlib.h>

int cusparseCreate(void **made) { return *made = calloc(1, 64), *made ? 0 : 2; }
int cusparseDestroy(void *made) { return free(made), 0; }
const char *cusparseGetErrorString(int error)
{
    return error ? "an error of a pretended card" : "success";
}

/* libcublas: handles and what is asked of them; every product is a stub that succeeds. torch gives
   a handle its workspace before any product, and that tensor is counted as any other. */
#include <stddef.h>
#include <stdlib.h>

int cublasCreate_v2(void **handle) { return *handle = calloc(1, 64), *handle ? 0 : 3; }
int cublasDestroy_v2(void *handle) { return free(handle), 0; }
int cublasSetPointerMode_v2(int *handle, int mode) { return handle[0] = mode, 0; }
int cublasGetPointerMode_v2(const int *handle, int *mode) { return *mode = handle[0], 0; }
int cublasSetMathMode(int *handle, int mode) { return handle[1] = mode, 0; }
int cublasGetMathMode(const int *handle, int *mode) { return *mode = handle[1], 0; }
int cublasGetVersion_v2(void *handle, int *version) { return (void)handle, *version = 130000, 0; }

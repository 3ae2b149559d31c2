/* libnvrtc: a kernel that torch writes at run time is accepted as it is; what comes of it is loaded
   and launched like any other and computes nothing (driver.c). */
#include "card.h"

#include <stdlib.h>
#include <string.h>

/* What has been compiled: as short as it is empty. */
#define COMPILED "a kernel of a pretended card"

/* A program is the names that it was asked about, which live as long as it does. */
struct program {
    struct name {
        struct name *next;
        char text[];
    } *names;
};

const char *nvrtcGetErrorString(int error) { return error ? "out of memory" : "success"; }
int nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, 0; }
int nvrtcCreateProgram(void **made, const char *source, const char *name, int count,
                       const char *const *headers, const char *const *names)
{
    (void)source, (void)name, (void)count, (void)headers, (void)names;
    *made = calloc(1, sizeof(struct program));
    return *made ? 0 : 1; /* NVRTC_ERROR_OUT_OF_MEMORY */
}
int nvrtcDestroyProgram(void **made)
{
    struct program *program = *made;
    for (struct name *one = program ? program->names : NULL, *next; one; one = next)
        next = one->next, free(one);
    free(program);
    return *made = NULL, 0;
}
int nvrtcAddNameExpression(void *program, const char *name)
{
    return (void)program, (void)name, 0;
}
int nvrtcCompileProgram(void *program, int count, const char *const *options)
{
    return (void)program, (void)count, (void)options, 0;
}
int nvrtcGetLoweredName(void *made, const char *asked, const char **lowered)
{
    struct program *program = made;
    size_t length = strlen(asked) + 1;
    struct name *one = malloc(sizeof *one + length);
    if (!one)
        return 1;
    memcpy(one->text, asked, length);
    one->next = program->names, program->names = one;
    return *lowered = one->text, 0;
}
static int tell(char *to, const char *text) { return memcpy(to, text, strlen(text) + 1), 0; }
int nvrtcGetProgramLogSize(void *program, size_t *bytes) { return (void)program, *bytes = 1, 0; }
int nvrtcGetProgramLog(void *program, char *log) { return (void)program, tell(log, ""); }
int nvrtcGetPTXSize(void *program, size_t *bytes)
{
    return (void)program, *bytes = sizeof COMPILED, 0;
}
int nvrtcGetPTX(void *program, char *to) { return (void)program, tell(to, COMPILED); }
int nvrtcGetCUBINSize(void *program, size_t *bytes) { return nvrtcGetPTXSize(program, bytes); }
int nvrtcGetCUBIN(void *program, char *to) { return nvrtcGetPTX(program, to); }

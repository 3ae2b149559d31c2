/* libnvrtc: nothing is compiled on a card that is not there. */
#include "card.h"

const char *nvrtcGetErrorString(int error)
{
    return error ? "nothing is compiled for a pretended card" : "success";
}
int nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, 0; }
int nvrtcCreateProgram(void **made, const char *source, const char *name, int count,
                       const char *const *headers, const char *const *names)
{
    (void)source, (void)name, (void)count, (void)headers, (void)names;
    card_note("nvrtcCreateProgram");
    return *made = NULL, 11; /* NVRTC_ERROR_INTERNAL_ERROR */
}

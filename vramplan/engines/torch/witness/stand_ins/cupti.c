/* libcupti: no tracing. */
#include <stddef.h>
#include <stdint.h>

int cuptiGetVersion(uint32_t *version) { return *version = 130000, 0; }
int cuptiSubscribe(void **made) { return *made = NULL, 1; }
int cuptiGetResultString(int error, const char **text)
{
    return (void)error, *text = "not on a pretended card", 0;
}

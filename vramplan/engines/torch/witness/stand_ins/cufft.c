/* libcufft: plans whose workspace nobody knows; that they were made is noted. */
#include "card.h"

int cufftCreate(int *plan)
{
    static int next;
    return *plan = ++next, 0;
}
int cufftXtMakePlanMany(int plan, int rank, long long *n, long long *inembed, long long istride,
                        long long idist, int input, long long *onembed, long long ostride,
                        long long odist, int output, long long batch, size_t *workspace, int type)
{
    (void)plan, (void)rank, (void)n, (void)inembed, (void)istride, (void)idist, (void)input;
    (void)onembed, (void)ostride, (void)odist, (void)output, (void)batch, (void)type;
    card_note("cufft: its workspace");
    return *workspace = 0, 0;
}

/* libnccl: communicators among processes that have nothing to say to each other. */
#include <string.h>

#include "card.h"

struct unique_id { char bytes[128]; };
int ncclGetVersion(int *version) { return *version = 22800, 0; }
const char *ncclGetErrorString(int error)
{
    return error ? "an error of a pretended card" : "no error";
}
const char *ncclGetLastError(void *communicator) { return (void)communicator, ""; }
int ncclGetUniqueId(struct unique_id *id) { return memset(id, 0, sizeof *id), 0; }
int ncclCommInitRank(void **made, int ranks, struct unique_id id, int rank)
{
    return (void)ranks, (void)id, (void)rank, *made = new_handle(), 0;
}
int ncclCommInitRankConfig(void **made, int ranks, struct unique_id id, int rank, void *config)
{
    return (void)config, ncclCommInitRank(made, ranks, id, rank);
}
int ncclCommGetAsyncError(void *communicator, int *error) { return (void)communicator, *error = 0, 0; }

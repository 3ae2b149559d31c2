/* libnccl: communicators among processes that have nothing to say to each other: what a rank would
 * hear from the others is what it says itself. The buffers that NCCL takes on a card are not known.
 */
#include <stdlib.h>
#include <string.h>

#include "card.h"

struct unique_id { char bytes[128]; };
struct communicator { int ranks, rank; };

int ncclGetVersion(int *version) { return *version = 22800, 0; }
const char *ncclGetErrorString(int error)
{
    return error ? "an error of a pretended card" : "no error";
}
const char *ncclGetLastError(void *communicator) { return (void)communicator, ""; }
int ncclGetUniqueId(struct unique_id *id) { return memset(id, 0, sizeof *id), 0; }

int ncclCommInitRank(struct communicator **made, int ranks, struct unique_id id, int rank)
{
    (void)id;
    card_note("nccl: the buffers of its communicators");
    *made = malloc(sizeof **made);
    if (!*made)
        return 2; /* ncclSystemError */
    return **made = (struct communicator){ranks, rank}, 0;
}
int ncclCommInitRankConfig(struct communicator **made, int ranks, struct unique_id id, int rank,
                           void *config)
{
    return (void)config, ncclCommInitRank(made, ranks, id, rank);
}
int ncclCommSplit(struct communicator *of, int color, int key, struct communicator **made,
                  void *config)
{
    struct unique_id id = {{0}};
    (void)color, (void)key, (void)config;
    return ncclCommInitRank(made, of->ranks, id, of->rank);
}
int ncclCommDestroy(struct communicator *one) { return free(one), 0; }
int ncclCommAbort(struct communicator *one) { return free(one), 0; }
int ncclCommCount(const struct communicator *one, int *count) { return *count = one->ranks, 0; }
int ncclCommUserRank(const struct communicator *one, int *rank) { return *rank = one->rank, 0; }
int ncclCommGetAsyncError(void *communicator, int *error) { return (void)communicator, *error = 0, 0; }

/* Sizes of ncclDataType_t: int8, uint8, int32, uint32, int64, uint64, half, float, double, bfloat16,
   and two of 8 bits. */
static size_t size_of(int type)
{
    static const unsigned char sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
    return type >= 0 && (size_t)type < sizeof sizes ? sizes[type] : 1;
}
static void carry(void *to, const void *from, size_t count, int type)
{
    if (to != from)
        copy_bytes(to, from, count * size_of(type));
    work_done();
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int operation,
                  struct communicator *among, void *stream)
{
    return (void)operation, (void)among, (void)stream, carry(to, from, count, type), 0;
}
int ncclReduce(const void *from, void *to, size_t count, int type, int operation, int root,
               struct communicator *among, void *stream)
{
    (void)operation, (void)stream;
    if (among->rank == root)
        carry(to, from, count, type);
    return 0;
}
int ncclBroadcast(const void *from, void *to, size_t count, int type, int root,
                  struct communicator *among, void *stream)
{
    (void)stream;
    if (among->rank == root)
        carry(to, from, count, type);
    return 0;
}
int ncclAllGather(const void *from, void *to, size_t count, int type, struct communicator *among,
                  void *stream)
{
    (void)stream;
    for (int rank = 0; rank < among->ranks; rank++)
        carry((char *)to + (size_t)rank * count * size_of(type), from, count, type);
    return 0;
}
int ncclReduceScatter(const void *from, void *to, size_t count, int type, int operation,
                      struct communicator *among, void *stream)
{
    (void)operation, (void)stream;
    carry(to, (const char *)from + (size_t)among->rank * count * size_of(type), count, type);
    return 0;
}

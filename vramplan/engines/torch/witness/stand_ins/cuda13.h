/* What is used of CUDA 13's interface, declared as NVIDIA documents it ("CUDA Runtime API",
 * "CUDA Driver API"): the numbers of errors, and the layout of the structures that are filled in.
 */
#ifndef VRAMPLAN_CUDA13_H
#define VRAMPLAN_CUDA13_H

#include <stddef.h>
#include <stdint.h>

#define CUDA_VERSION_ANSWERED 13000

enum { /* cudaError_t and CUresult share their numbers where both have a name */
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONFIGURATION = 9, INVALID_SYMBOL = 13,
    MISSING_CONFIGURATION = 52, NO_DEVICE = 100, INVALID_DEVICE = 101, NOT_READY = 600,
    NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900
};

struct dim3 { unsigned x, y, z; };

struct properties { /* cudaDeviceProp */
    char name[256];
    unsigned char uuid[16];
    char luid[8];
    unsigned luid_mask;
    size_t total_bytes, shared_bytes;
    int registers, warp;
    size_t pitch;
    int threads, block[3], grid[3];
    size_t constant_bytes;
    int major, minor;
    size_t texture_alignment, texture_pitch_alignment;
    int multiprocessors, is_integrated, maps_host;
    int textures[39]; /* the largest textures and surfaces */
    size_t surface_alignment;
    int concurrent_kernels, ecc, pci_bus, pci_device, pci_domain, tcc;
    int copy_engines, unified, bus_bits, l2_bytes, persisting_l2_bytes;
    int multiprocessor_threads, priorities, global_l1, local_l1;
    size_t multiprocessor_shared_bytes;
    int multiprocessor_registers, managed, multi_board, multi_board_group, host_atomics;
    int pageable, concurrent_managed, preemption, host_pointer, cooperative;
    size_t shared_optin_bytes;
    int host_page_tables, direct_managed, multiprocessor_blocks, access_window;
    size_t reserved_shared_bytes;
    int host_register, sparse, host_register_read_only, timeline, pools, rdma;
    unsigned rdma_flush;
    int rdma_order;
    unsigned pool_handles;
    int deferred, ipc_events, clusters, unified_functions;
    int numa_config, numa_id, mps, host_numa;
    unsigned pci_ids, pci_subsystem;
    int multinode, reserved[56];
};
_Static_assert(offsetof(struct properties, total_bytes) == 288, "cudaDeviceProp of CUDA 13");
_Static_assert(offsetof(struct properties, multiprocessors) == 384, "cudaDeviceProp of CUDA 13");
_Static_assert(offsetof(struct properties, surface_alignment) == 552, "cudaDeviceProp of CUDA 13");
_Static_assert(offsetof(struct properties, shared_optin_bytes) == 672, "cudaDeviceProp of CUDA 13");
_Static_assert(sizeof(struct properties) == 1008, "cudaDeviceProp of CUDA 13");

struct pointer_attributes { /* cudaPointerAttributes; what follows is reserved */
    int type, device; /* 0 unregistered, 1 host, 2 device */
    void *on_device, *on_host;
};

struct function_attributes { /* cudaFuncAttributes; what follows is of clusters */
    size_t shared_bytes, constant_bytes, local_bytes;
    int threads, registers, ptx, binary, cache, dynamic_shared_bytes, carveout;
};

struct launch_config { /* cudaLaunchConfig_t */
    struct dim3 grid, block;
    size_t shared_bytes;
    void *stream, *attributes;
    unsigned attribute_count;
};

struct location { int type, id; };      /* CUmemLocation */
struct allocation_wish {                /* CUmemAllocationProp, its beginning */
    int type, handles;
    struct location where;
};

#endif

/* A tape's code as numbers: what native.py writes and program.c reads. */
#ifndef VRAMPLAN_PROGRAM_H
#define VRAMPLAN_PROGRAM_H

#include "core.h"

/* a step that is no plain allocation or free is one of these, and its operands after it */
#define STEP (-((int64_t)1 << 40))
enum {
    FREE_ELSEWHERE = 1,
    SCRATCH,
    PRODUCT,
    PHASE,
    CALL,
    ENTER,
    EXIT,
    CAST,
    LOOP,
    SCRATCH_OF_PRODUCT /* of which cuBLAS multiplies while it is held */
};
enum { AT, ALL, BACK, SAME }; /* which iteration a free means */

typedef struct {
    const int64_t *words;
    int64_t count, steps;
} Code;

typedef struct {
    int32_t name, expression;
} Definition;

typedef struct {
    int32_t condition; /* -1: none */
    int32_t index_count, definition_count, size_count, output_count;
    const int64_t *indices, *outputs;
    Definition *definitions;
    int32_t *sizes;
    uint8_t *names; /* of the sizes and definitions, by name */
    Code code;
} Variant;

typedef struct {
    int32_t variant_count;
    Variant *variants;
    int32_t component, before; /* of the same name, and the one before it in the chain; -1 */
    int32_t label;
} Routine;

typedef struct {
    const int64_t *tensors; /* elements, or -1 - bytes */
    int64_t count;
} Module;

typedef struct {
    int32_t label;
    uint8_t stays, is_skipped;
    int32_t module_count;
    Module *modules;
} Component;

typedef struct {
    int holders; /* whoever reads it, and its runs: an interpreter that ends drops them in any order */
    int64_t *words;
    Expressions expressions;
    int32_t *roots; /* of each expression, by the number native.py gives it */
    int64_t root_count;
    int32_t name_count; /* all names, those of expressions included */
    int32_t label_count;
    int32_t *label_components; /* the component a label belongs to; -1 */
    int32_t routine_count, component_count, dimension_count;
    Routine *routines;
    Component *components;
    Definition *dimensions;
    int32_t entry;
    int32_t load_label, idle_label, pipeline_label; /* "load", "idle", "pipeline" */
} Program;

Program *program_read(const int64_t *words, int64_t count, const char *text, int64_t length);
void program_end(Program *p); /* for one holder */

#endif

/* Reading a program; whatever does not hold together makes it none. */

#include <stdlib.h>
#include <string.h>

#include "program.h"

typedef struct {
    const int64_t *at, *end;
    int failed;
} Words;

static int64_t next(Words *w, int64_t least, int64_t most) {
    if (w->failed || w->at >= w->end || *w->at < least || *w->at > most) {
        w->failed = 1;
        return least;
    }
    return *w->at++;
}

/* A run of words, its length before it. */
static const int64_t *run(Words *w, int64_t *count) {
    *count = next(w, 0, w->end - w->at);
    const int64_t *begin = w->at;
    if (w->failed || *count > w->end - w->at) {
        w->failed = 1;
        *count = 0;
        return begin;
    }
    w->at += *count;
    return begin;
}

static void *several(Words *w, int64_t count, size_t each) {
    void *items = calloc((size_t)count + 1, each);
    if (items == NULL) w->failed = 1;
    return items;
}

static Definition *definitions(Words *w, int32_t *count, const int32_t *expressions, int64_t most,
                               int64_t names) {
    *count = (int32_t)next(w, 0, w->end - w->at);
    Definition *found = several(w, *count, sizeof *found);
    for (int32_t i = 0; i < *count && !w->failed; i++) {
        found[i].name = (int32_t)next(w, 0, names - 1);
        found[i].expression = expressions[next(w, 0, most - 1)];
    }
    if (w->failed) *count = 0;
    return found;
}

static void read_variant(Words *w, Variant *v, const int32_t *expressions, int64_t most,
                         int64_t names) {
    int64_t condition = next(w, -1, most - 1), count;
    v->condition = condition < 0 ? -1 : expressions[condition];
    v->indices = run(w, &count);
    v->index_count = (int32_t)count;
    for (int64_t i = 0; i < count; i++)
        if (v->indices[i] < 0 || v->indices[i] >= names) w->failed = 1;
    v->definitions = definitions(w, &v->definition_count, expressions, most, names);
    const int64_t *sizes = run(w, &count);
    v->sizes = several(w, count, sizeof *v->sizes);
    v->size_count = (int32_t)count;
    for (int64_t i = 0; i < count && !w->failed; i++) {
        if (sizes[i] < 0 || sizes[i] >= most) w->failed = 1;
        else v->sizes[i] = expressions[sizes[i]];
    }
    v->outputs = run(w, &count);
    v->output_count = (int32_t)count;
    v->code.steps = next(w, 0, INT32_MAX);
    v->code.words = run(w, &v->code.count);
}

static void find_names(Program *p) {
    for (int32_t r = 0; r < p->routine_count; r++)
        for (int32_t i = 0; i < p->routines[r].variant_count; i++) {
            Variant *v = &p->routines[r].variants[i];
            v->names = calloc((size_t)p->name_count + 1, 1);
            if (v->names == NULL) continue;
            for (int32_t s = 0; s < v->size_count; s++)
                names_below(&p->expressions, v->sizes[s], v->names);
            for (int32_t d = 0; d < v->definition_count; d++)
                names_below(&p->expressions, v->definitions[d].expression, v->names);
        }
}

static void read_parts(Program *p, Words *w, const int32_t *expressions, int64_t most,
                       int64_t names) {
    p->label_count = (int32_t)next(w, 3, INT32_MAX);
    p->load_label = 0, p->idle_label = 1, p->pipeline_label = 2;
    int64_t components = next(w, 0, w->end - w->at);
    p->components = several(w, components, sizeof *p->components);
    for (int64_t c = 0; c < components && !w->failed; c++) {
        Component *one = &p->components[c];
        p->component_count++;
        one->label = (int32_t)next(w, 0, p->label_count - 1);
        one->stays = (uint8_t)next(w, 0, 1);
        one->is_skipped = (uint8_t)next(w, 0, 1);
        int64_t modules = next(w, 0, w->end - w->at);
        one->modules = several(w, modules, sizeof *one->modules);
        for (int64_t m = 0; m < modules && !w->failed; m++) {
            one->modules[m].tensors = run(w, &one->modules[m].count);
            one->module_count++;
        }
    }
    int64_t labels;
    const int64_t *owners = run(w, &labels);
    p->label_components = several(w, p->label_count, sizeof *p->label_components);
    if (w->failed || labels != p->label_count) {
        w->failed = 1;
        return;
    }
    for (int32_t i = 0; i < p->label_count; i++) {
        if (owners[i] < -1 || owners[i] >= components) w->failed = 1;
        p->label_components[i] = (int32_t)owners[i];
    }
    int64_t routines = next(w, 1, w->end - w->at);
    p->routines = several(w, routines, sizeof *p->routines);
    for (int64_t r = 0; r < routines && !w->failed; r++) {
        Routine *one = &p->routines[r];
        p->routine_count++;
        one->label = (int32_t)next(w, 0, p->label_count - 1);
        one->component = (int32_t)next(w, -1, components - 1);
        one->before = (int32_t)next(w, -1, components - 1);
        int64_t variants = next(w, 0, w->end - w->at);
        one->variants = several(w, variants, sizeof *one->variants);
        for (int64_t v = 0; v < variants && !w->failed; v++) {
            one->variant_count++;
            read_variant(w, &one->variants[v], expressions, most, names);
        }
    }
    p->entry = (int32_t)next(w, 0, routines - 1);
    p->dimensions = definitions(w, &p->dimension_count, expressions, most, names);
}

Program *program_read(const int64_t *words, int64_t count, const char *text, int64_t length) {
    if (count < 2 || count > ((int64_t)1 << 28) || length < 0) return NULL;
    Program *p = calloc(1, sizeof *p);
    if (p == NULL) return NULL;
    p->holders = 1;
    p->words = malloc((size_t)count * sizeof *words);
    if (p->words == NULL) {
        free(p);
        return NULL;
    }
    memcpy(p->words, words, (size_t)count * sizeof *words);
    Words w = {p->words, p->words + count, 0};
    /* lines of text: the names that native.py numbers, then the expressions */
    int64_t names = next(&w, 0, 4096), most = next(&w, 0, 1 << 20);
    int32_t *expressions = several(&w, most, sizeof *expressions);
    const char *at = text, *end = text + length;
    for (int64_t i = 0; i < names + most && !w.failed; i++) {
        const char *stop = at;
        while (stop < end && *stop != '\n') stop++;
        int32_t found = i < names
                            ? intern_name(&p->expressions, at, (size_t)(stop - at))
                            : parse_expression(&p->expressions, at, (size_t)(stop - at));
        if (found < 0 || stop == end || (i < names && found != i)) w.failed = 1;
        else if (i >= names) expressions[i - names] = found;
        at = stop + 1;
    }
    if (!w.failed) read_parts(p, &w, expressions, most, names);
    p->roots = expressions;
    p->root_count = most;
    p->name_count = p->expressions.name_count;
    if (w.failed || w.at != w.end) {
        program_end(p);
        return NULL;
    }
    find_names(p);
    return p;
}

void program_end(Program *p) {
    if (p == NULL || __atomic_sub_fetch(&p->holders, 1, __ATOMIC_ACQ_REL) > 0) return;
    for (int32_t r = 0; r < p->routine_count; r++) {
        for (int32_t i = 0; i < p->routines[r].variant_count; i++) {
            free(p->routines[r].variants[i].definitions);
            free(p->routines[r].variants[i].sizes);
            free(p->routines[r].variants[i].names);
        }
        free(p->routines[r].variants);
    }
    for (int32_t c = 0; c < p->component_count; c++) free(p->components[c].modules);
    free(p->components);
    free(p->roots);
    free(p->routines);
    free(p->dimensions);
    free(p->label_components);
    expressions_end(&p->expressions);
    free(p->words);
    free(p);
}

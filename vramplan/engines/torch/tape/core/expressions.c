/* Sizes as expressions (expressions.py): read once into a tree, evaluated at given dimensions.
 *
 * What this does not read, and every figure beyond 2^62 on the way, is left to the Python.
 */

#include <stdlib.h>
#include <string.h>

#include "core.h"

#define DEEPEST 200

enum { NUMBER, NAME, ADD, SUBTRACT, MULTIPLY, DIVIDE, MODULO, NEGATE, NOT, AND, OR,
       LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, EQUAL, NOT_EQUAL, LEAST, MOST };

typedef struct {
    Expressions *e;
    const char *at, *end;
    int depth;
} Reader;

void expressions_end(Expressions *e) {
    for (int32_t i = 0; i < e->name_count; i++) free(e->names[i]);
    free(e->names);
    free(e->nodes);
    memset(e, 0, sizeof *e);
}

int32_t intern_name(Expressions *e, const char *text, size_t length) {
    for (int32_t i = 0; i < e->name_count; i++)
        if (strlen(e->names[i]) == length && memcmp(e->names[i], text, length) == 0) return i;
    if (e->name_count >= 4096) return -1;
    if (make_room((void **)&e->names, &e->name_room, e->name_count + 1, sizeof(char *))) return -1;
    char *copy = malloc(length + 1);
    if (copy == NULL) return -1;
    memcpy(copy, text, length);
    copy[length] = 0;
    e->names[e->name_count] = copy;
    return e->name_count++;
}

static int32_t node(Expressions *e, int kind, int32_t left, int32_t right, int64_t value) {
    if (make_room((void **)&e->nodes, &e->room, e->count + 1, sizeof(Node))) return -1;
    Node *n = &e->nodes[e->count];
    n->kind = (uint8_t)kind;
    n->left = left;
    n->right = right;
    n->value = value;
    return e->count++;
}

/* ---------------------------------------------------------------------------------- reading */

static int is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static int is_digit(char c) { return c >= '0' && c <= '9'; }
static int is_word(char c) { return is_letter(c) || is_digit(c) || c == '_'; }

static void skip_blanks(Reader *r) {
    while (r->at < r->end && *r->at == ' ') r->at++;
}

static int takes(Reader *r, const char *sign) {
    skip_blanks(r);
    size_t length = strlen(sign);
    if ((size_t)(r->end - r->at) < length || memcmp(r->at, sign, length) != 0) return 0;
    if (is_letter(*sign) && r->at + length < r->end && is_word(r->at[length])) return 0;
    r->at += length;
    return 1;
}

static int32_t read_or(Reader *r);

static int32_t read_call(Reader *r, int kind) {
    int32_t found = read_or(r);
    int count = 1;
    while (found >= 0 && takes(r, ",")) {
        int32_t next = read_or(r);
        found = next < 0 ? -1 : node(r->e, kind, found, next, 0);
        count++;
    }
    return found >= 0 && count > 1 && takes(r, ")") ? found : -1;
}

static int32_t read_atom(Reader *r) {
    if (takes(r, "(")) {
        int32_t found = read_or(r);
        return found >= 0 && takes(r, ")") ? found : -1;
    }
    skip_blanks(r);
    const char *begin = r->at;
    if (r->at < r->end && is_digit(*r->at)) {
        int64_t value = 0;
        while (r->at < r->end && is_digit(*r->at)) {
            value = value * 10 + (*r->at++ - '0');
            if (value > LARGEST) return -1;
        }
        if (r->at < r->end && is_word(*r->at)) return -1;
        if (*begin == '0' && r->at - begin > 1) return -1;
        return node(r->e, NUMBER, -1, -1, value);
    }
    if (r->at >= r->end || !is_letter(*r->at)) return -1;
    while (r->at < r->end && is_word(*r->at)) r->at++;
    size_t length = (size_t)(r->at - begin);
    if (length == 3 && (memcmp(begin, "min", 3) == 0 || memcmp(begin, "max", 3) == 0))
        return takes(r, "(") ? read_call(r, memcmp(begin, "min", 3) == 0 ? LEAST : MOST) : -1;
    if (length > 32) return -1;
    /* Python's other words are no names; whichever they are, the Python says so */
    static const char *const words[] = {"and", "or", "not", "if", "else", "in", "is", "for",
                                        "lambda", "await", "None", "True", "False", "as", "async",
                                        "yield", "from", "with", "while", "def", "del", "class",
                                        "pass", "try", "raise", "return", "import", "global",
                                        "nonlocal", "assert", "break", "continue", "elif",
                                        "except", "finally"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i]) == length && memcmp(words[i], begin, length) == 0) return -1;
    int32_t name = intern_name(r->e, begin, length);
    return name < 0 ? -1 : node(r->e, NAME, -1, -1, name);
}

static int32_t read_factor(Reader *r) {
    if (++r->depth > DEEPEST) return -1;
    int32_t found;
    if (takes(r, "-")) {
        found = read_factor(r);
        if (found >= 0) found = node(r->e, NEGATE, found, -1, 0);
    } else if (takes(r, "+")) {
        found = read_factor(r);
    } else {
        found = read_atom(r);
    }
    r->depth--;
    return found;
}

static int32_t read_term(Reader *r) {
    int32_t found = read_factor(r);
    while (found >= 0) {
        int kind = takes(r, "//") ? DIVIDE : takes(r, "*") ? MULTIPLY : takes(r, "%") ? MODULO : 0;
        if (!kind) break;
        int32_t next = read_factor(r); /* a second * is no factor, so ** is not read */
        found = next < 0 ? -1 : node(r->e, kind, found, next, 0);
    }
    return found;
}

static int32_t read_sum(Reader *r) {
    int32_t found = read_term(r);
    while (found >= 0) {
        int kind = takes(r, "+") ? ADD : takes(r, "-") ? SUBTRACT : 0;
        if (!kind) break;
        int32_t next = read_term(r);
        found = next < 0 ? -1 : node(r->e, kind, found, next, 0);
    }
    return found;
}

static int32_t read_comparison(Reader *r) {
    int32_t left = read_sum(r), found = -1;
    while (left >= 0) {
        int kind = takes(r, "<=")   ? LESS_EQUAL
                   : takes(r, ">=") ? GREATER_EQUAL
                   : takes(r, "==") ? EQUAL
                   : takes(r, "!=") ? NOT_EQUAL
                   : takes(r, "<")  ? LESS
                   : takes(r, ">")  ? GREATER
                                    : 0;
        if (!kind) return found < 0 ? left : found;
        int32_t right = read_sum(r);
        if (right < 0) return -1;
        int32_t one = node(r->e, kind, left, right, 0);
        if (one < 0) return -1;
        found = found < 0 ? one : node(r->e, AND, found, one, 0); /* a < b < c */
        if (found < 0) return -1;
        left = right;
    }
    return -1;
}

static int32_t read_not(Reader *r) {
    if (++r->depth > DEEPEST) return -1;
    int32_t found;
    if (takes(r, "not")) {
        found = read_not(r);
        if (found >= 0) found = node(r->e, NOT, found, -1, 0);
    } else {
        found = read_comparison(r);
    }
    r->depth--;
    return found;
}

static int32_t read_and(Reader *r) {
    int32_t found = read_not(r);
    while (found >= 0 && takes(r, "and")) {
        int32_t next = read_not(r);
        found = next < 0 ? -1 : node(r->e, AND, found, next, 0);
    }
    return found;
}

static int32_t read_or(Reader *r) {
    if (++r->depth > DEEPEST) return -1;
    int32_t found = read_and(r);
    while (found >= 0 && takes(r, "or")) {
        int32_t next = read_and(r);
        found = next < 0 ? -1 : node(r->e, OR, found, next, 0);
    }
    r->depth--;
    return found;
}

int32_t parse_expression(Expressions *e, const char *text, size_t length) {
    Reader r = {e, text, text + length, 0};
    int32_t found = read_or(&r);
    skip_blanks(&r);
    return r.at == r.end ? found : -1;
}

/* ------------------------------------------------------------------------------- evaluating */

static int is_far(int64_t value) { return value > UNLIMITED || value < -UNLIMITED; }

static int multiply(int64_t a, int64_t b, int64_t *result) {
    int64_t x = a < 0 ? -a : a, y = b < 0 ? -b : b;
    if ((x | y) >> 31 && y != 0 && x > UNLIMITED / y) return FAILED;
    *result = a * b;
    return DONE;
}

/* Python's: rounded down, and the rest has the divisor's sign. */
static int divide(int64_t a, int64_t b, int64_t *quotient, int64_t *rest) {
    if (b == 0) return FAILED;
    *quotient = a / b;
    *rest = a % b;
    if (*rest != 0 && (*rest < 0) != (b < 0)) {
        *quotient -= 1;
        *rest += b;
    }
    return DONE;
}

int evaluate(const Expressions *e, int32_t at, const int64_t *values, const uint8_t *known,
             int64_t *result) {
    const Node *n = &e->nodes[at];
    int64_t a = 0, b = 0, other;
    switch (n->kind) {
    case NUMBER:
        *result = n->value;
        return DONE;
    case NAME:
        if (!known[n->value]) return FAILED;
        *result = values[n->value];
        return is_far(*result) ? FAILED : DONE;
    case AND:
    case OR:
        if (evaluate(e, n->left, values, known, result)) return FAILED;
        if ((*result != 0) == (n->kind == OR)) return DONE;
        return evaluate(e, n->right, values, known, result);
    default:
        break;
    }
    if (evaluate(e, n->left, values, known, &a)) return FAILED;
    if (n->right >= 0 && evaluate(e, n->right, values, known, &b)) return FAILED;
    switch (n->kind) {
    case ADD: *result = a + b; break;
    case SUBTRACT: *result = a - b; break;
    case MULTIPLY:
        if (multiply(a, b, result)) return FAILED;
        break;
    case DIVIDE:
        if (divide(a, b, result, &other)) return FAILED;
        break;
    case MODULO:
        if (divide(a, b, &other, result)) return FAILED;
        break;
    case NEGATE: *result = -a; break;
    case NOT: *result = !a; break;
    case LESS: *result = a < b; break;
    case LESS_EQUAL: *result = a <= b; break;
    case GREATER: *result = a > b; break;
    case GREATER_EQUAL: *result = a >= b; break;
    case EQUAL: *result = a == b; break;
    case NOT_EQUAL: *result = a != b; break;
    case LEAST: *result = b < a ? b : a; break;
    case MOST: *result = b > a ? b : a; break;
    default: return FAILED;
    }
    return is_far(*result) ? FAILED : DONE;
}

void names_below(const Expressions *e, int32_t at, uint8_t *found) {
    const Node *n = &e->nodes[at];
    if (n->kind == NAME) {
        found[n->value] = 1;
        return;
    }
    if (n->left >= 0) names_below(e, n->left, found);
    if (n->right >= 0) names_below(e, n->right, found);
}

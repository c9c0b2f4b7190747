/* Every kind of stack frame that a C compiler makes, each asleep on a thread of its own. */
#include "cell.h"
#include "shapes.h"

#include <alloca.h>
#include <stdint.h>
#include <stdlib.h>

static volatile int length = 100;

CELL static void cell_alloca(void) {
    char *memory = alloca(length);
    TOUCH(memory);
    cell_nap();
    TOUCH(memory);
}

CELL static void cell_vla(void) {
    int memory[length];
    TOUCH(memory);
    cell_nap();
    TOUCH(memory);
}

/* gcc reaches the caller of such a function through a register of its own, the DRAP, if its size is
   not known as well. */
CELL static void cell_aligned(int a, int b, int c, int d, int e, int f, int g, int h) {
    _Alignas(64) char memory[256];
    char *more = alloca(length + a + h);
    TOUCH(memory);
    TOUCH(more);
    cell_nap();
    TOUCH(memory);
    TOUCH(more);
    length += b + c + d + e + f + g;
}

CELL static void cell_drap(void) {
    cell_aligned(0, 0, 0, 0, 0, 0, 0, 0);
    STAY;
}

CELL static void cell_realigned(void) {
    _Alignas(128) char memory[512];
    TOUCH(memory);
    cell_nap();
    TOUCH(memory);
}

CELL static void cell_huge(void) {
    char memory[300 * 1024];
    TOUCH(memory);
    cell_nap();
    TOUCH(memory);
}

CELL static int cell_compare(const void *left, const void *right) {
    cell_nap();
    return *(const int *)left - *(const int *)right;
}

CELL static void cell_qsort(void) {
    int numbers[] = {3, 1, 2};
    qsort(numbers, 3, sizeof *numbers, cell_compare);
    TOUCH(numbers);
}

/* Uses every register that it has to save. */
CELL static void cell_saving(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
    uint64_t g = a * b, h = c * d, i = e * f;
    __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(g), "+r"(h));
    cell_nap();
    __asm__ volatile("" : : "r"(a), "r"(b), "r"(c), "r"(d), "r"(g), "r"(h), "m"(i));
}

CELL static void cell_saves(void) {
    cell_saving(1, 2, 3, 4, 5, 6);
    STAY;
}

void start_frames(void) {
    cell_start(cell_alloca);
    cell_start(cell_vla);
    cell_start(cell_drap);
    cell_start(cell_realigned);
    cell_start(cell_qsort);
    cell_start(cell_saves);
}

void start_huge(void) {
    cell_start(cell_huge);
}

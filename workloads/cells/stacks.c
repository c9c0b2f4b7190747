/* Stacks that do not begin where a thread does, and one that parent and child use both. */
#include "cell.h"
#include "shapes.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { STACK_BYTES = 64 * 1024 };

static ucontext_t caller;
static ucontext_t coroutine;
static char memory[STACK_BYTES];

CELL static void cell_vfork(void) {
    pid_t child = vfork();
    if (child == 0) {
        struct timespec nap = {0, 4000000};
        nanosleep(&nap, NULL);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    STAY;
}

CELL static void cell_coroutine_inner(void) {
    cell_nap();
    STAY;
}

CELL static void cell_coroutine(void) {
    for (;;) {
        cell_coroutine_inner();
        swapcontext(&coroutine, &caller);
    }
}

CELL static void cell_switch(void) {
    if (coroutine.uc_stack.ss_sp == NULL) {
        getcontext(&coroutine);
        coroutine.uc_stack.ss_sp = memory;
        coroutine.uc_stack.ss_size = sizeof memory;
        makecontext(&coroutine, cell_coroutine, 0);
    }
    swapcontext(&caller, &coroutine);
    STAY;
}

void start_stacks(void) {
    cell_start(cell_vfork);
    cell_start(cell_switch);
}

/* Handlers of signals that sleep: raised, on a stack of their own, and at any instruction. */
#include "cell.h"
#include "shapes.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { STACK_BYTES = 64 * 1024, SPIN_NS = 300000 };

static atomic_int handled;
static volatile unsigned spins;

CELL static void cell_handler(int signal) {
    (void)signal;
    cell_nap();
    STAY;
}

CELL static void cell_raise(void) {
    raise(SIGUSR1);
    STAY;
}

CELL static void cell_elsewhere(int signal) {
    (void)signal;
    cell_nap();
    STAY;
}

CELL static void cell_altstack(void) {
    static char memory[STACK_BYTES];
    stack_t stack = {.ss_sp = memory, .ss_size = sizeof memory};
    if (sigaltstack(&stack, NULL) != 0) abort();
    raise(SIGUSR2);
    STAY;
}

CELL static void cell_alarm(int signal) {
    (void)signal;
    cell_nap();
    atomic_store(&handled, 1);
}

CELL static unsigned cell_spin_leaf(unsigned a, unsigned b) {
    unsigned c = a * 3 + b, d = a ^ b, e = a + 7 * b;
    __asm__ volatile("" : "+b"(c), "+r"(d), "+r"(e));
    return c + d + e;
}

CELL static void cell_spin(void) {
    while (!atomic_load(&handled)) spins = cell_spin_leaf(spins, 5);
    STAY;
}

CELL static void cell_interrupted(void) {
    static _Thread_local timer_t timer;
    static _Thread_local int made;
    if (!made) {
        struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
        event._sigev_un._tid = (int)syscall(SYS_gettid);
        if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) abort();
        made = 1;
    }
    struct itimerspec once = {.it_value.tv_nsec = SPIN_NS + spins % 4096};
    atomic_store(&handled, 0);
    if (timer_settime(timer, 0, &once, NULL) != 0) abort();
    cell_spin();
    STAY;
}

static void handle(int signal, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags | SA_RESTART};
    if (sigaction(signal, &action, NULL) != 0) abort();
}

void start_signals(void) {
    handle(SIGUSR1, cell_handler, 0);
    handle(SIGUSR2, cell_elsewhere, SA_ONSTACK);
    handle(SIGRTMIN, cell_alarm, 0);
    cell_start(cell_raise);
    cell_start(cell_altstack);
    cell_start(cell_interrupted);
}

/* How the programs of the matrix wait, start threads and end. */
#include "cell.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { NAP_MS = 4 };

CELL void cell_nap(void) {
    struct timespec nap = {0, NAP_MS * 1000000};
    nanosleep(&nap, NULL);
    STAY;
}

CELL static void *cell_thread(void *shape) {
    for (;;) {
        ((void (*)(void))shape)();
        STAY;
    }
    return NULL;
}

void cell_start(void (*shape)(void)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, cell_thread, (void *)shape) != 0) abort();
}

CELL void cell_until_closed(void) {
    printf("ready %d\n", getpid());
    fflush(stdout);
    struct pollfd closed = {.fd = STDIN_FILENO, .events = POLLIN};
    for (;;) {
        char word[64];
        if (poll(&closed, 1, NAP_MS) > 0 && read(STDIN_FILENO, word, sizeof word) <= 0) break;
        STAY;
    }
}

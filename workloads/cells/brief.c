/* Threads that live for a few waits. */
#include "cell.h"

#include <pthread.h>
#include <stdlib.h>

enum { SPAWNERS = 4 };

CELL static void *cell_brief(void *nothing) {
    cell_nap();
    cell_nap();
    STAY;
    return nothing;
}

CELL static void cell_spawn(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, cell_brief, NULL) != 0) abort();
    pthread_join(thread, NULL);
    STAY;
}

int main(void) {
    for (int i = 0; i < SPAWNERS; i++) cell_start(cell_spawn);
    cell_until_closed();
}

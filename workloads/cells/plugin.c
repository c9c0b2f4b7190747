/* A plug-in whose functions, NAME and INNER, have frames of SIZE bytes. */
#include "cell.h"

#include <time.h>

CELL static void INNER(void) {
    char memory[SIZE];
    struct timespec nap = {0, 4000000};
    TOUCH(memory);
    nanosleep(&nap, NULL);
    TOUCH(memory);
}

CELL void NAME(void) {
    char memory[SIZE];
    TOUCH(memory);
    INNER();
    TOUCH(memory);
}

/* A chain that leads from the first to the last byte of a program of more than 50 MB. */
#include "cell.h"

void cell_last(void);

CELL void cell_first(void) {
    cell_last();
    STAY;
}

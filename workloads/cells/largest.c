/* The far end of the chain through a large program. */
#include "cell.h"

void cell_first(void);

CELL void cell_last(void) {
    cell_nap();
    STAY;
}

int main(void) {
    cell_start(cell_first);
    cell_until_closed();
}

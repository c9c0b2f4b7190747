/* Runs groups of shapes until stdin is closed: all of them, or those that are named. */
#include "cell.h"
#include "shapes.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    void (*start)(void);
} GROUPS[] = {
    {"frames", start_frames},   {"huge", start_huge},     {"waits", start_waits},
    {"signals", start_signals}, {"stacks", start_stacks},
};

enum { GROUP_COUNT = sizeof GROUPS / sizeof *GROUPS };

int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        int group = 0;
        while (group < GROUP_COUNT && strcmp(GROUPS[group].name, names[i]) != 0) group++;
        if (group == GROUP_COUNT) return 2;
        GROUPS[group].start();
    }
    cell_until_closed();
    return EXIT_SUCCESS;
}

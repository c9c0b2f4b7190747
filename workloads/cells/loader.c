/* Loads a plug-in once it is told to, and swaps it for another one at the same addresses. */
#include "cell.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { CALLS = 20 };

static const char *paths[2];

CELL static void cell_swap(void) {
    static const char *const NAMES[] = {"cell_plugin_a", "cell_plugin_b"};
    static unsigned turn;
    static ElfW(Addr) first;
    int which = turn++ % 2;
    void *plugin = dlopen(paths[which], RTLD_NOW);
    void (*function)(void) = plugin ? (void (*)(void))dlsym(plugin, NAMES[which]) : NULL;
    struct link_map *map;
    if (function == NULL || dlinfo(plugin, RTLD_DI_LINKMAP, &map) != 0) abort();
    if (first == 0) first = map->l_addr;
    if (first != map->l_addr) {
        fprintf(stderr, "%s is not where the other plug-in was\n", paths[which]);
        _exit(3);
    }
    for (int call = 0; call < CALLS; call++) function();
    dlclose(plugin);
    STAY;
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    paths[0] = arguments[1];
    paths[1] = arguments[2];
    printf("ready %d\n", getpid());
    fflush(stdout);
    char word[64];
    if (read(STDIN_FILENO, word, sizeof word) <= 0) return 1;
    cell_start(cell_swap);
    cell_until_closed();
}

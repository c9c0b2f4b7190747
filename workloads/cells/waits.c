/* Every kind of wait, each on a thread of its own. */
#include "cell.h"
#include "shapes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_MS = 4 };

static int ends[2];
static int epoll;
static int faults;
static char *page;

CELL static void cell_futex(void) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WAIT_MS * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&mutex);
    pthread_cond_timedwait(&never, &mutex, &until);
    pthread_mutex_unlock(&mutex);
    STAY;
}

CELL static void cell_pipe(void) {
    char byte;
    if (read(ends[0], &byte, 1) != 1) abort();
    STAY;
}

CELL static void cell_pipe_writer(void) {
    cell_nap();
    if (write(ends[1], "x", 1) != 1) abort();
    STAY;
}

CELL static void cell_poll(void) {
    poll(NULL, 0, WAIT_MS);
    STAY;
}

CELL static void cell_epoll(void) {
    struct epoll_event event;
    epoll_wait(epoll, &event, 1, WAIT_MS);
    STAY;
}

CELL static void cell_nanosleep(void) {
    struct timespec nap = {0, WAIT_MS * 1000000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
    STAY;
}

/* Sleeps in the instruction that reads. */
CELL static char cell_touch(const volatile char *memory) {
    return *memory;
}

CELL static void cell_fault(void) {
    cell_touch(page);
    madvise(page, 4096, MADV_DONTNEED);
    STAY;
}

CELL static void cell_fault_server(void) {
    struct uffd_msg message;
    if (read(faults, &message, sizeof message) != sizeof message) abort();
    cell_nap();
    struct uffdio_zeropage zero = {
        .range = {message.arg.pagefault.address & ~4095ull, 4096},
    };
    if (ioctl(faults, UFFDIO_ZEROPAGE, &zero) != 0 && errno != EEXIST) abort();
    STAY;
}

static void prepare_faults(void) {
    faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register region = {
        .range = {(unsigned long)page, 4096},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api) != 0) abort();
    if (ioctl(faults, UFFDIO_REGISTER, &region) != 0) abort();
}

void start_waits(void) {
    epoll = epoll_create1(0);
    if (pipe(ends) != 0 || epoll < 0) abort();
    prepare_faults();
    cell_start(cell_futex);
    cell_start(cell_pipe);
    cell_start(cell_pipe_writer);
    cell_start(cell_poll);
    cell_start(cell_epoll);
    cell_start(cell_nanosleep);
    cell_start(cell_fault);
    cell_start(cell_fault_server);
}

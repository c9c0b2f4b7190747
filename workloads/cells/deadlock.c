/* Two threads that wait for each other's mutex. Says `ready PID` and lives until its stdin ends. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t two = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t both_hold;

__attribute__((noinline)) static void take_other(pthread_mutex_t *mutex) {
    pthread_mutex_lock(mutex);
    __asm__ volatile("");
}

static void *one_first(void *unused) {
    pthread_mutex_lock(&one);
    pthread_barrier_wait(&both_hold);
    take_other(&two);
    return unused;
}

static void *two_first(void *unused) {
    pthread_mutex_lock(&two);
    pthread_barrier_wait(&both_hold);
    take_other(&one);
    return unused;
}

int main(void) {
    pthread_t threads[2];
    char byte;
    pthread_barrier_init(&both_hold, NULL, 3);
    pthread_create(&threads[0], NULL, one_first, NULL);
    pthread_create(&threads[1], NULL, two_first, NULL);
    pthread_setname_np(threads[0], "one-first");
    pthread_setname_np(threads[1], "two-first");
    pthread_barrier_wait(&both_hold);
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (read(0, &byte, 1) == 1) {
    }
    return 0;
}

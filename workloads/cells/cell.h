/* What the programs of the matrix share: functions that stay in the chain, and a short wait. */
#ifndef CELL_H
#define CELL_H

/* Keeps a function, under its own name and as a frame of its own. */
#ifdef __clang__
#define CELL __attribute__((noinline))
#else
#define CELL __attribute__((noipa))
#endif

/* Stands after the last call of a function, which is then no tail call. */
#define STAY __asm__ volatile("" ::: "memory")

/* Keeps the compiler from knowing what memory holds. */
#define TOUCH(memory) __asm__ volatile("" : : "r"(memory) : "memory")

#ifdef __cplusplus
extern "C" {
#endif

/* Waits for a few milliseconds. */
void cell_nap(void);

/* Runs `shape` again and again on a thread of its own. */
void cell_start(void (*shape)(void));

/* Says that the program is ready, and waits in short turns until stdin is closed. */
void cell_until_closed(void);

#ifdef __cplusplus
}
#endif

#endif

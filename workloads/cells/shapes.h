/* The groups of shapes that `shapes` runs. */

/* Kinds of stack frames. */
void start_frames(void);

/* A frame of which no copy of a stack holds the end. */
void start_huge(void);

/* Kinds of waits. */
void start_waits(void);

/* Handlers of signals. */
void start_signals(void);

/* Stacks that do not begin where a thread does, or are used twice. */
void start_stacks(void);

"""Python functions that call each other through functions in C, asleep at the end."""

import os
import select
import sys
import threading
import time

NAP = 0.004


def descend(depth, leaf):
    """Each level is a level of C as well."""
    if depth == 0:
        leaf()
    else:
        list(map(descend, [depth - 1], [leaf]))


def work(depth, leaf):
    while True:
        descend(depth, leaf)


def sleep():
    time.sleep(NAP)


def lock():
    held = threading.Lock()
    held.acquire()
    held.acquire(timeout=NAP)


def wait_until_closed():
    readable, _, _ = select.select([sys.stdin], [], [], NAP)
    if readable and not os.read(sys.stdin.fileno(), 64):
        os._exit(0)


for function in [sleep, lock]:
    threading.Thread(target=work, args=(20, function), daemon=True).start()
print("ready", os.getpid(), flush=True)
work(20, wait_until_closed)

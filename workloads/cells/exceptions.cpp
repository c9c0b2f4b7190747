// C++: asleep where exceptions are thrown through, caught, and destroyed.
#include "cell.h"

namespace {

struct Guard {
    CELL ~Guard() {
        cell_nap();
        STAY;
    }
};

struct Error {
    int number = 1;
    CELL ~Error() {
        cell_nap();
        STAY;
    }
};

} // namespace

extern "C" {

CELL void cell_throw() {
    throw 1;
}

CELL void cell_in_handler() {
    cell_nap();
    STAY;
}

CELL void cell_catch() {
    try {
        cell_throw();
    } catch (...) {
        cell_in_handler();
    }
    STAY;
}

// Its guard is destroyed on the way from the throw to the handler.
CELL void cell_unwound() {
    Guard guard;
    cell_throw();
}

CELL void cell_catcher() {
    try {
        cell_unwound();
    } catch (int) {
    }
    STAY;
}

CELL void cell_throw_error() {
    throw Error();
}

// The object is destroyed where the handler ends, by the C++ runtime.
CELL void cell_end_of_handler() {
    try {
        cell_throw_error();
    } catch (const Error &) {
    }
    STAY;
}

CELL void cell_guarded() {
    Guard guard;
    TOUCH(&guard);
    cell_in_handler();
    STAY;
}

CELL void cell_try() {
    try {
        cell_guarded();
    } catch (const Error &) {
        STAY;
    }
    STAY;
}

} // extern "C"

int main() {
    cell_start(cell_catch);
    cell_start(cell_catcher);
    cell_start(cell_end_of_handler);
    cell_start(cell_try);
    cell_until_closed();
}

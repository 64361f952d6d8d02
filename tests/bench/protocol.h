/*
 * How bench.py asks a measuring program for one figure after the other, so that programs can be
 * measured in turns: a line of words to standard input, "SECONDS COMMAND ARGUMENT...", where
 * SECONDS is how long to measure; a line of JSON to standard output.
 */
#ifndef BENCH_PROTOCOL_H
#define BENCH_PROTOCOL_H

#include <stddef.h>

#define PROTOCOL_MAX_WORDS 8

struct protocol_command {
    const char *name;
    size_t argument_count;
    /* Measure for `budget_s` and print one line of JSON. `arguments` has argument_count texts. */
    void (*run)(double budget_s, char *const arguments[]);
};

/* Answer until standard input ends. The commands end with one without a name. */
void protocol_serve(const struct protocol_command *commands);

/* A number of at least `least` and at most `most`, or the program ends and says which it was. */
size_t protocol_size(const char *text, size_t least, size_t most);

#endif

#include "tests/bench/protocol.h"

#include "tests/bench/measure.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINE 4096
#define MAX_BUDGET_S 60.0

size_t protocol_size(const char *text, size_t least, size_t most)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < least || value > most)
        bench_fail("expected a number from %zu to %zu, got '%s'", least, most, text);
    return (size_t)value;
}

static size_t split(char *words[PROTOCOL_MAX_WORDS], char *line)
{
    size_t count = 0;
    char *state = NULL;

    for (char *word = strtok_r(line, " \n", &state); word; word = strtok_r(NULL, " \n", &state)) {
        if (count == PROTOCOL_MAX_WORDS)
            bench_fail("expected at most %d words", PROTOCOL_MAX_WORDS);
        words[count++] = word;
    }
    return count;
}

static void answer(const struct protocol_command *commands, char *line)
{
    char *words[PROTOCOL_MAX_WORDS];
    size_t count = split(words, line);
    double budget_s = count > 0 ? strtod(words[0], NULL) : 0;

    if (count < 2 || !(budget_s >= 0 && budget_s <= MAX_BUDGET_S))
        bench_fail("expected SECONDS COMMAND ARGUMENT..., with at most %.0f seconds", MAX_BUDGET_S);
    for (const struct protocol_command *command = commands; command->name; command++) {
        if (strcmp(command->name, words[1]) != 0)
            continue;
        if (command->argument_count != count - 2)
            bench_fail("%s: expected %zu arguments, got %zu", words[1], command->argument_count,
                       count - 2);
        command->run(budget_s, words + 2);
        fflush(stdout);
        return;
    }
    bench_fail("unknown command '%s'", words[1]);
}

void protocol_serve(const struct protocol_command *commands)
{
    char line[MAX_LINE];

    while (fgets(line, sizeof line, stdin)) {
        if (!strchr(line, '\n'))
            bench_fail("expected lines of at most %d bytes", MAX_LINE - 2);
        answer(commands, line);
    }
}

#include "server/option_types.h"
#include "server/options.h"

#include <stdio.h>

/* What --print-config may come to: texts grow sixfold at worst when they are escaped. */
#define MAX_JSON_BYTES ((size_t)64 * 1024 * 1024)

static const char *const source_names[] = {
    [CONFIG_FROM_DEFAULT] = "default",
    [CONFIG_FROM_FILE] = "file",
    [CONFIG_FROM_ENVIRONMENT] = "environment",
    [CONFIG_FROM_FLAG] = "flag",
};

void config_print_help(FILE *to)
{
    char range[OPTION_RANGE_BYTES], variable[OPTION_NAME_BYTES];

    fputs("Usage: nsad [options]\n"
          "Serves the building blocks of Native Sparse Attention over HTTP.\n\n",
          to);
    for (const struct option *option = option_table; option->name; option++) {
        bool action = option->scope == OPTION_FLAG_ONLY;

        fprintf(to, "  --%s%s%s%s\n      %s\n", !option->metavariable && !action ? "[no-]" : "",
                option->name, option->metavariable ? " " : "",
                option->metavariable ? option->metavariable : "", option->help);
        if (action)
            continue;
        fprintf(to, "      %s: %s", option_variable(variable, option), option_range(range, option));
        if (option->default_text)
            fprintf(to, " (default %s)", option->default_text);
        fputc('\n', to);
    }
    fputs(
        "\nA flag beats its environment variable, which beats the --config file. --name=VALUE works"
        " too;\nin the environment a comma separates values that may be repeated.\n",
        to);
}

nsa_status config_print_json(FILE *to, const struct config *config)
{
    buffer text = {.max_bytes = MAX_JSON_BYTES};
    const char *separator = "{\n";
    nsa_status status;

    for (const struct option *option = option_table; option->name; option++) {
        char key[OPTION_NAME_BYTES];

        if (option->scope == OPTION_FLAG_ONLY)
            continue;
        buffer_printf(&text, "%s  \"%s\": {\"value\": ", separator, option_key(key, option));
        option_kinds[option->type].print(&text, (const char *)config + option->offset);
        buffer_printf(&text, ", \"source\": \"%s\"}",
                      source_names[config->sources[option - option_table]]);
        separator = ",\n";
    }
    buffer_append_text(&text, "\n}\n");
    status = text.status;
    if (status == NSA_OK && fwrite(text.data, 1, text.size, to) != text.size)
        status = NSA_EIO;
    buffer_free(&text);
    return status;
}

void options_print_markdown(FILE *to)
{
    char range[OPTION_RANGE_BYTES], variable[OPTION_NAME_BYTES], key[OPTION_NAME_BYTES];

    fputs("| Flag | Environment | Key in `--config` | Value | Default | Meaning |\n"
          "|---|---|---|---|---|---|\n",
          to);
    for (const struct option *option = option_table; option->name; option++) {
        fprintf(to, "| `--%s%s%s` |", option->name, option->metavariable ? " " : "",
                option->metavariable ? option->metavariable : "");
        if (option->scope >= OPTION_FLAG_AND_ENVIRONMENT)
            fprintf(to, " `%s`", option_variable(variable, option));
        fputs(" |", to);
        if (option->scope >= OPTION_EVERYWHERE)
            fprintf(to, " `%s`", option_key(key, option));
        fprintf(to, " | %s |", option_range(range, option));
        if (option->default_text)
            fprintf(to, " `%s`", option->default_text);
        fprintf(to, " | %s |\n", option->help);
    }
}

/* Prints the README's table of options, from the table that the server itself reads. */
#include "server/options.h"

#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    options_print_markdown(stdout);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

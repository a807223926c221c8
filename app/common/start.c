/* SPDX-License-Identifier: MIT */
/* The beginning and the end of a program: see start.h. Thread: main. */
#include "common/start.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "common/values.h"

static void open_standard_descriptors(void)
{
    int fd;

    /* Only to read: what is written there is still an error. */
    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

void hsk_program_begin(void)
{
    static const char *const folders[] = {"XDG_DATA_HOME", "XDG_RUNTIME_DIR"};

    open_standard_descriptors();
    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++) {
        const char *given = g_getenv(folders[i]);
        if (given && !g_path_is_absolute(given))
            g_unsetenv(folders[i]);
    }
}

int hsk_program_end(int status)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    g_autofree char *text = g_strdup_printf("what it has to say cannot be written: %s",
                                            g_strerror(errno != 0 ? errno : EIO));
    hsk_complain(text);
    return status ? status : 1;
}

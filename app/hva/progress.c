/* SPDX-License-Identifier: MIT */
/* The line with a long command's progress (progress.h). Thread: main. */
#include "progress.h"

#include <base/text.h>

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#define SHOW_EVERY_US 200000

/* The one thing that a signal handler may touch. */
static volatile sig_atomic_t pressed;

static void on_sigint(int signal)
{
    pressed = 1;
}

void hsk_progress_begin(struct hsk_progress *p, const char *verb, const char *file)
{
    struct stat st;
    struct sigaction action = {.sa_handler = on_sigint};

    *p = (struct hsk_progress){.verb = verb,
                               .file = file,
                               .bytes = stat(file, &st) == 0 ? (uint64_t)st.st_size : 0,
                               .started_us = g_get_monotonic_time(),
                               .terminal = isatty(STDERR_FILENO)};
    pressed = 0;
    sigaction(SIGINT, &action, NULL);
}

bool hsk_progress_step(void *progress, double fraction)
{
    struct hsk_progress *p = progress;
    gint64 now = g_get_monotonic_time();
    double seconds = (double)(now - p->started_us) / 1e6;

    p->interrupted = pressed;
    if (p->interrupted || !p->terminal || now - p->shown_us < SHOW_EVERY_US || seconds <= 0)
        return !p->interrupted;
    p->shown_us = now;
    g_autofree char *file = hsk_text_line(p->file);
    fraction = CLAMP(fraction, 0, 1);
    fprintf(stderr, "\r%s %s: %3.0f %%, %.0f MB/s", p->verb, file, 100 * fraction,
            (double)p->bytes * fraction / seconds / 1e6);
    if (fraction > 0.01)
        fprintf(stderr, ", %.0f s left", seconds / fraction - seconds);
    fputs("\033[K", stderr);
    return true;
}

void hsk_progress_end(struct hsk_progress *p)
{
    if (p->terminal && p->shown_us)
        fputs("\r\033[K", stderr);
    signal(SIGINT, SIG_DFL);
}

/*
 * crumble_progress.h - how far a pull is: one line that moves on a terminal, and elsewhere (a log) a line for each
 * tenth of the whole.
 */
#ifndef TOOLS_CRUMBLE_PROGRESS_H
#define TOOLS_CRUMBLE_PROGRESS_H

#include "cc.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BAR = 30, LINE = 160 };

/* What was last shown of a pull. */
struct progress {
    bool terminal, shown;
    int tenths; /* of the whole, on the last line where there is no terminal */
};

/* "1.5 GB" */
static const char *spell_size(double bytes, char out[32])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    for (; bytes >= 999.5 && unit < 4; unit++)
        bytes /= 1000;
    snprintf(out, 32, bytes < 9.95 && unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

static struct progress progress_start(void)
{
    struct progress p = {isatty(STDERR_FILENO) != 0, false, 0};
    return p;
}

/* So many columns a line may have. */
static int progress_columns(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 2 || size.ws_col > LINE)
        return LINE - 1;
    return size.ws_col - 1; /* a full line would make some terminals go to the next */
}

static void progress_show(const cc_download_progress *p, void *ctx)
{
    struct progress *state = ctx;
    char done[32], total[32], speed[32], text[LINE], rest[40] = "", bar[BAR + 1] = "";
    if (p->total <= 0) /* nothing to fetch, or not known yet how much */
        return;
    double part = (double)p->current / (double)p->total;
    int tenths = (int)(part * 10);
    if (!state->terminal && tenths == state->tenths)
        return;
    state->tenths = tenths;
    if (p->eta_seconds >= 0 && p->current < p->total)
        snprintf(rest, sizeof(rest), ", %.0f s left", p->eta_seconds);
    snprintf(text, sizeof(text), "%3.0f %%  %s of %s  %s/s%s", part * 100, spell_size((double)p->current, done),
             spell_size((double)p->total, total), spell_size(p->bytes_per_second, speed), rest);
    if (!state->terminal) {
        fprintf(stderr, "%s\n", text);
        return;
    }
    int columns = progress_columns(), room = columns - (int)strlen(text) - 3;
    int width = room < BAR ? room : BAR; /* on a narrow terminal a shorter bar, then none */
    if (width > 0) {
        memset(bar, ' ', (size_t)width);
        memset(bar, '#', (size_t)(part * width));
        fprintf(stderr, "\r[%s] %s\033[K", bar, text);
    } else {
        fprintf(stderr, "\r%.*s\033[K", columns, text);
    }
    state->shown = true;
}

static void progress_end(const struct progress *state)
{
    if (state->shown)
        fputc('\n', stderr);
}

#endif

/*
 * crumble_terminal.h - the user's terminal, when a command in a guest has one of its own (-t): its size, and raw mode,
 * in which every key goes to the guest's terminal, ^C among them, and that one makes of it what it means.
 */
#ifndef TOOLS_CRUMBLE_TERMINAL_H
#define TOOLS_CRUMBLE_TERMINAL_H

#include <stdbool.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct {
    struct termios before;
    volatile bool raw;
} terminal;

/* Also on the way out of a program that ends on the spot. */
static void terminal_restore(void)
{
    if (terminal.raw)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal.before);
    terminal.raw = false;
}

/* Standard input must be a terminal. */
static bool terminal_make_raw(void)
{
    struct termios raw;
    if (tcgetattr(STDIN_FILENO, &terminal.before) != 0)
        return false;
    raw = terminal.before;
    cfmakeraw(&raw);
    terminal.raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
    return terminal.raw;
}

/* The size of the terminal that standard output or input is; 80 by 24 when neither is one. */
static void terminal_size(int *columns, int *rows)
{
    struct winsize size;
    *columns = 80;
    *rows = 24;
    for (int fd = STDOUT_FILENO; fd >= STDIN_FILENO; fd--)
        if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col && size.ws_row) {
            *columns = size.ws_col;
            *rows = size.ws_row;
            return;
        }
}

#endif

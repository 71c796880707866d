/* PID 1 of the machine tests: says what it sees, then ends in the way that its environment asks for. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

static void show(const char *label, const char *path, const char *what)
{
    char line[4096];
    int count = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f))
        if (strstr(line, what) && count++ == 0)
            printf("%s: %s", label, line);
    printf("%s count: %d\n", label, count);
    if (f)
        (void)fclose(f);
}

int main(void)
{
    const char *how = getenv("end");
    (void)mount("proc", "/proc", "proc", 0, NULL);
    (void)mount("sys", "/sys", "sysfs", 0, NULL);
    show("cpu", "/proc/cpuinfo", "processor\t");
    show("memory", "/proc/meminfo", "MemTotal");
    show("clock", "/sys/devices/system/clocksource/clocksource0/current_clocksource", "");
    show("serial", "/proc/interrupts", "ttyS0");
    show("virtio", "/sys/bus/platform/devices/LNRO0005:00/uevent", "MODALIAS=");
    printf("init done\n");
    (void)fflush(stdout);
    (void)fsync(1);
    struct pollfd typed = {0, POLLIN, 0};
    for (int i = 0; how && strcmp(how, "ticks") == 0 && typed.revents == 0; i++) {
        printf("tick %d\n", i);
        (void)fflush(stdout);
        (void)poll(&typed, 1, 20); /* until somebody types a line */
    }
    if (how && strcmp(how, "reboot") == 0)
        (void)reboot(RB_AUTOBOOT);
    else if (how && strcmp(how, "panic") == 0)
        return 1; /* PID 1 may not end */
    else if (how && strcmp(how, "hang") == 0)
        for (;;)
            (void)pause();
    else
        (void)reboot(RB_POWER_OFF);
    return 0;
}

/*
 * api/log.h - log lines to the caller's callback.
 */
#ifndef CCI_API_LOG_H
#define CCI_API_LOG_H

#include "../base/mem.h"
#include "../base/os.h"

static struct cci_log {
    struct cci_mutex mutex;
    cc_log_callback fn;
    void *user_data;
} cci_log = {.mutex = CCI_MUTEX_INIT};

CC_API void cc_set_log_callback(cc_log_callback callback, void *user_data)
{
    cci_mutex_lock(&cci_log.mutex);
    cci_log.fn = callback;
    cci_log.user_data = user_data;
    cci_mutex_unlock(&cci_log.mutex);
}

/* One line, to the callback; kernel lines without one go to stderr, in one write so that lines do not mix. */
static void cci_log_line(cc_log_level level, const char *line)
{
    cci_mutex_lock(&cci_log.mutex);
    cc_log_callback fn = cci_log.fn;
    void *user_data = cci_log.user_data;
    cci_mutex_unlock(&cci_log.mutex);
    if (fn)
        fn(level, line, user_data);
    else if (level == CC_LOG_DMESG)
        (void)fprintf(stderr, "%s\n", line);
}

static void cci_log_printf(cc_log_level level, const char *fmt, ...) CCI_PRINTF(2, 3);
static void cci_log_printf(cc_log_level level, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *line = cci_mem_vprintf(fmt, args);
    va_end(args);
    if (line)
        cci_log_line(level, line);
    cci_mem_free(line);
}

#endif

/*
 * tests/api/guest_sh.h - a shell line in a guest; included after cc.h.
 */
#ifndef TESTS_API_GUEST_SH_H
#define TESTS_API_GUEST_SH_H

#include "../check.h"

/* Runs `sh -c script` and gives what it printed, in a buffer that the next call reuses. `code` may be NULL. */
static const char *guest_sh(cc_instance inst, const char *script, int *code)
{
    static char text[20000];
    const char *args[] = {"-c", script, NULL};
    uint8_t *out;
    size_t len;
    cc_cmd cmd;
    cc_error err = {0};
    CHECK_OK(cc_cmd_new(inst, "sh", args, &cmd, &err), err);
    CHECK_OK(cc_cmd_combined_output(cmd, &out, &len, code, &err), err);
    (void)snprintf(text, sizeof(text), "%.*s", (int)len, (const char *)out);
    cc_free_bytes(out);
    cc_cmd_free(cmd);
    return text;
}

#endif

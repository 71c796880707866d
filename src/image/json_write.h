/*
 * image/json_write.h - strings for the JSON documents that we write.
 *
 * The documents are short and of a fixed shape, so they are printed; only strings from elsewhere need care.
 */
#ifndef CCI_IMAGE_JSON_WRITE_H
#define CCI_IMAGE_JSON_WRITE_H

#include "../base/mem.h"

/* Appends a string with its quotes (RFC 8259, 7). It is UTF-8 already; the buffer's `failed` tells of no memory. */
static void cci_json_put_string(struct cci_buf *out, const char *text)
{
    (void)cci_buf_str(out, "\"");
    for (const char *p = text; *p; p++) {
        char escape[8];
        if (*p == '"' || *p == '\\')
            (void)snprintf(escape, sizeof(escape), "\\%c", *p);
        else if ((unsigned char)*p < 0x20)
            (void)snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)(unsigned char)*p);
        else
            (void)snprintf(escape, sizeof(escape), "%c", *p);
        (void)cci_buf_str(out, escape);
    }
    (void)cci_buf_str(out, "\"");
}

#endif

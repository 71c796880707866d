/*
 * image/gzip.h - decompression of gzip files (RFC 1952), pushed and bounded.
 *
 * A file is one or more members, each a header, a DEFLATE stream (inflate.h), and a trailer with the CRC-32 and the
 * size of what came out; what comes out of all members is one stream, which goes to the caller's sink. Header fields
 * are passed over, except that a header checksum is verified where there is one. Behind the last member there may
 * be zeros, as tapes and block devices leave them; anything else there is an error.
 *
 * Output reaches the sink before the trailer was seen. Who keeps it must drop it unless finish succeeds.
 */
#ifndef CCI_IMAGE_GZIP_H
#define CCI_IMAGE_GZIP_H

#include "crc32.h"
#include "inflate.h"

enum cci_gunzip_status {
    CCI_GUNZIP_OK,
    CCI_GUNZIP_STOPPED,        /* the sink returned something other than 0, now in inflate.sink_code */
    CCI_GUNZIP_TRUNCATED,      /* the file ends within a member */
    CCI_GUNZIP_BAD_MAGIC,      /* not a gzip file */
    CCI_GUNZIP_BAD_METHOD,     /* a compression method or flags that RFC 1952 does not know */
    CCI_GUNZIP_BAD_HEADER_CRC, /* the header is damaged */
    CCI_GUNZIP_BAD_DATA,       /* the compressed data are damaged; inflate.status tells how */
    CCI_GUNZIP_BAD_CRC,        /* the output differs from what was compressed */
    CCI_GUNZIP_BAD_SIZE,       /* so does its size */
    CCI_GUNZIP_GARBAGE,        /* something that is no member follows a member */
};

enum cci_gunzip_state {
    CCI_GUNZIP_FIXED,      /* the ten bytes that begin a header */
    CCI_GUNZIP_EXTRA_SIZE, /* two bytes, then as many of the extra field */
    CCI_GUNZIP_EXTRA,
    CCI_GUNZIP_NAME, /* up to a zero */
    CCI_GUNZIP_COMMENT,
    CCI_GUNZIP_HEADER_CRC, /* two bytes */
    CCI_GUNZIP_DATA,
    CCI_GUNZIP_TRAILER, /* eight bytes */
    CCI_GUNZIP_PADDING, /* zeros to the end */
};

struct cci_gunzip {
    enum cci_gunzip_state state;   /* what the next byte belongs to */
    enum cci_gunzip_status status; /* the error, once there was one */
    bool member;                   /* a whole member was read */
    uint8_t flags;                 /* of the present header */
    uint8_t field[10];             /* a field of fixed size, as far as it is there */
    unsigned have;                 /* how far */
    uint32_t extra;                /* bytes left of the extra field */
    uint32_t size;                 /* bytes that came out of this member, modulo 2^32 */
    cci_inflate_sink *sink;        /* during feed: where the output goes */
    void *sink_ctx;
    struct cci_crc32 crc; /* of the header, then of the output */
    struct cci_inflate inflate;
};

#define CCI_GUNZIP_FLAG_HCRC 2u
#define CCI_GUNZIP_FLAG_EXTRA 4u
#define CCI_GUNZIP_FLAG_NAME 8u
#define CCI_GUNZIP_FLAG_COMMENT 16u
#define CCI_GUNZIP_FLAGS_UNKNOWN 0xe0u

static void cci_gunzip_init(struct cci_gunzip *z)
{
    z->state = CCI_GUNZIP_FIXED;
    z->status = CCI_GUNZIP_OK;
    z->member = false;
    z->have = 0;
    cci_crc32_init(&z->crc);
    cci_inflate_init(&z->inflate);
}

/* What is wrong, for an error message. */
static const char *cci_gunzip_strerror(const struct cci_gunzip *z)
{
    switch (z->status) {
    case CCI_GUNZIP_OK:
        return "no error";
    case CCI_GUNZIP_STOPPED:
        return "stopped by the receiver";
    case CCI_GUNZIP_TRUNCATED:
        return "the gzip data end too early";
    case CCI_GUNZIP_BAD_MAGIC:
        return "not in gzip format";
    case CCI_GUNZIP_BAD_METHOD:
        return "unknown gzip compression method or flags";
    case CCI_GUNZIP_BAD_HEADER_CRC:
        return "wrong checksum of a gzip header";
    case CCI_GUNZIP_BAD_DATA:
        return cci_inflate_strerror(z->inflate.status);
    case CCI_GUNZIP_BAD_CRC:
        return "wrong checksum of gzip data";
    case CCI_GUNZIP_BAD_SIZE:
        return "wrong size of gzip data";
    case CCI_GUNZIP_GARBAGE:
        return "data that are not in gzip format follow gzip data";
    }
    return "unknown error";
}

static int cci_gunzip_output(void *ctx, const uint8_t *p, size_t n)
{
    struct cci_gunzip *z = ctx;
    cci_crc32_update(&z->crc, p, n);
    z->size += (uint32_t)n;
    return z->sink(z->sink_ctx, p, n);
}

/* Go on with the next part of the header that its flags announce. */
static void cci_gunzip_advance(struct cci_gunzip *z)
{
    z->have = 0;
    if (z->state < CCI_GUNZIP_EXTRA_SIZE && (z->flags & CCI_GUNZIP_FLAG_EXTRA)) {
        z->state = CCI_GUNZIP_EXTRA_SIZE;
    } else if (z->state < CCI_GUNZIP_NAME && (z->flags & CCI_GUNZIP_FLAG_NAME)) {
        z->state = CCI_GUNZIP_NAME;
    } else if (z->state < CCI_GUNZIP_COMMENT && (z->flags & CCI_GUNZIP_FLAG_COMMENT)) {
        z->state = CCI_GUNZIP_COMMENT;
    } else if (z->state < CCI_GUNZIP_HEADER_CRC && (z->flags & CCI_GUNZIP_FLAG_HCRC)) {
        z->state = CCI_GUNZIP_HEADER_CRC;
    } else {
        z->state = CCI_GUNZIP_DATA;
        z->size = 0;
        cci_crc32_restart(&z->crc);
        cci_inflate_init(&z->inflate);
    }
}

/* A byte of the ten at the start (2.3.1), which may also turn out to be padding. */
static enum cci_gunzip_status cci_gunzip_fixed(struct cci_gunzip *z, uint8_t byte)
{
    static const uint8_t magic[2] = {0x1f, 0x8b};
    if (z->have == 0) {
        cci_crc32_restart(&z->crc);
        if (z->member && byte == 0) {
            z->state = CCI_GUNZIP_PADDING;
            return CCI_GUNZIP_OK;
        }
    }
    cci_crc32_update(&z->crc, &byte, 1);
    z->field[z->have] = byte;
    if (z->have < 2 && byte != magic[z->have])
        return z->member ? CCI_GUNZIP_GARBAGE : CCI_GUNZIP_BAD_MAGIC;
    if ((z->have == 2 && byte != 8) || (z->have == 3 && (byte & CCI_GUNZIP_FLAGS_UNKNOWN)))
        return CCI_GUNZIP_BAD_METHOD;
    if (++z->have < 10)
        return CCI_GUNZIP_OK;
    z->flags = z->field[3];
    cci_gunzip_advance(z);
    return CCI_GUNZIP_OK;
}

static enum cci_gunzip_status cci_gunzip_trailer(struct cci_gunzip *z)
{
    if (cci_le32(z->field) != cci_crc32_value(&z->crc))
        return CCI_GUNZIP_BAD_CRC;
    if (cci_le32(z->field + 4) != z->size)
        return CCI_GUNZIP_BAD_SIZE;
    z->member = true;
    z->state = CCI_GUNZIP_FIXED;
    z->have = 0;
    return CCI_GUNZIP_OK;
}

/* A byte of a field that is not the first ten. */
static enum cci_gunzip_status cci_gunzip_field(struct cci_gunzip *z, uint8_t byte)
{
    uint32_t header_crc = cci_crc32_value(&z->crc);
    if (z->state < CCI_GUNZIP_HEADER_CRC)
        cci_crc32_update(&z->crc, &byte, 1);
    switch (z->state) {
    case CCI_GUNZIP_EXTRA_SIZE:
        z->field[z->have++] = byte;
        if (z->have == 2) {
            z->extra = cci_le16(z->field);
            z->state = CCI_GUNZIP_EXTRA;
            if (z->extra == 0)
                cci_gunzip_advance(z);
        }
        break;
    case CCI_GUNZIP_EXTRA:
        if (--z->extra == 0)
            cci_gunzip_advance(z);
        break;
    case CCI_GUNZIP_NAME:
    case CCI_GUNZIP_COMMENT:
        if (byte == 0)
            cci_gunzip_advance(z);
        break;
    case CCI_GUNZIP_HEADER_CRC:
        z->field[z->have++] = byte;
        if (z->have == 2) {
            if (cci_le16(z->field) != (header_crc & 0xffff))
                return CCI_GUNZIP_BAD_HEADER_CRC;
            cci_gunzip_advance(z);
        }
        break;
    case CCI_GUNZIP_TRAILER:
        z->field[z->have++] = byte;
        if (z->have == 8)
            return cci_gunzip_trailer(z);
        break;
    default: /* padding */
        if (byte != 0)
            return CCI_GUNZIP_GARBAGE;
        break;
    }
    return CCI_GUNZIP_OK;
}

/* Decompress as much of the stream of this member as is there. */
static enum cci_gunzip_status cci_gunzip_data(struct cci_gunzip *z, const uint8_t *p, size_t n, size_t *used)
{
    switch (cci_inflate_feed(&z->inflate, p, n, used, cci_gunzip_output, z)) {
    case CCI_INFLATE_MORE:
        return CCI_GUNZIP_OK;
    case CCI_INFLATE_DONE:
        z->state = CCI_GUNZIP_TRAILER;
        z->have = 0;
        return CCI_GUNZIP_OK;
    case CCI_INFLATE_STOPPED:
        return CCI_GUNZIP_STOPPED;
    default:
        return CCI_GUNZIP_BAD_DATA;
    }
}

/* Decompress a part of the next piece; how much of it, at least one byte, which is only right while status is OK. */
static size_t cci_gunzip_step(struct cci_gunzip *z, const uint8_t *p, size_t n, cci_inflate_sink *sink, void *ctx)
{
    size_t used = 1;
    z->sink = sink;
    z->sink_ctx = ctx;
    if (z->state == CCI_GUNZIP_DATA)
        z->status = cci_gunzip_data(z, p, n, &used);
    else if (z->state == CCI_GUNZIP_FIXED)
        z->status = cci_gunzip_fixed(z, *p);
    else
        z->status = cci_gunzip_field(z, *p);
    return used;
}

/*
 * Decompress the next piece of the file. All of it is taken, unless the result is an error, which is final and
 * comes again if the call is repeated.
 */
static enum cci_gunzip_status cci_gunzip_feed(struct cci_gunzip *z, const uint8_t *p, size_t n, cci_inflate_sink *sink,
                                              void *ctx)
{
    while (n > 0 && z->status == CCI_GUNZIP_OK) {
        size_t used = cci_gunzip_step(z, p, n, sink, ctx);
        p += used;
        n -= used;
    }
    return z->status;
}

/* The file ends here. Only when this succeeds was the output what had been compressed. */
static enum cci_gunzip_status cci_gunzip_finish(struct cci_gunzip *z)
{
    bool between = z->state == CCI_GUNZIP_PADDING || (z->state == CCI_GUNZIP_FIXED && z->have == 0);
    if (z->status == CCI_GUNZIP_OK && !(z->member && between))
        z->status = CCI_GUNZIP_TRUNCATED;
    return z->status;
}

#endif

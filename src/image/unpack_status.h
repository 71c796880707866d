/*
 * image/unpack_status.h - how a decompressor fared, whatever its format.
 */
#ifndef CCI_IMAGE_UNPACK_STATUS_H
#define CCI_IMAGE_UNPACK_STATUS_H

enum cci_unpack_status {
    CCI_UNPACK_OK,
    CCI_UNPACK_STOPPED, /* the sink returned something other than 0 */
    CCI_UNPACK_BAD,     /* not what had been compressed; the decompressor tells why */
};

#endif

/*
 * base/errno_text.h - words for error numbers.
 *
 * strerror depends on the locale and shares a buffer among threads, and the numbers that travel from the guest are
 * Linux's on every host. So the numbers that occur in practice have their words here.
 */
#ifndef CCI_BASE_ERRNO_TEXT_H
#define CCI_BASE_ERRNO_TEXT_H

/* The words for a Linux error number, such as "no such file or directory"; never NULL. */
static const char *cci_errno_text(int linux_errno)
{
    static const struct {
        int number;
        const char *text;
    } table[] = {
        {1, "operation not permitted"},
        {2, "no such file or directory"},
        {3, "no such process"},
        {4, "interrupted system call"},
        {5, "input/output error"},
        {6, "no such device or address"},
        {7, "argument list too long"},
        {8, "exec format error"},
        {9, "bad file descriptor"},
        {10, "no child processes"},
        {11, "resource temporarily unavailable"},
        {12, "cannot allocate memory"},
        {13, "permission denied"},
        {14, "bad address"},
        {16, "device or resource busy"},
        {17, "file exists"},
        {18, "invalid cross-device link"},
        {19, "no such device"},
        {20, "not a directory"},
        {21, "is a directory"},
        {22, "invalid argument"},
        {23, "too many open files in system"},
        {24, "too many open files"},
        {25, "inappropriate ioctl for device"},
        {26, "text file busy"},
        {27, "file too large"},
        {28, "no space left on device"},
        {29, "illegal seek"},
        {30, "read-only file system"},
        {31, "too many links"},
        {32, "broken pipe"},
        {34, "numerical result out of range"},
        {36, "file name too long"},
        {38, "function not implemented"},
        {39, "directory not empty"},
        {40, "too many levels of symbolic links"},
        {61, "no data available"},
        {71, "protocol error"},
        {75, "value too large for defined data type"},
        {88, "socket operation on non-socket"},
        {90, "message too long"},
        {95, "operation not supported"},
        {98, "address already in use"},
        {104, "connection reset by peer"},
        {107, "transport endpoint is not connected"},
        {110, "connection timed out"},
        {111, "connection refused"},
        {116, "stale file handle"},
        {122, "disk quota exceeded"},
        {125, "operation canceled"},
    };
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (table[i].number == linux_errno)
            return table[i].text;
    return "unknown error";
}

#endif

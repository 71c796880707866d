/*
 * As much of <windows.h> as registry/trust_windows.h uses, so that it can be run on Linux by test_trust_windows.c,
 * which has the functions. Types have Windows' sizes: a DWORD is 32 bits.
 */
#ifndef TESTS_FAKE_WINDOWS_H
#define TESTS_FAKE_WINDOWS_H

#include <stdint.h>

typedef uint32_t DWORD;
typedef int BOOL;
typedef uint8_t BYTE;
typedef char *LPSTR;
typedef const char *LPCSTR;
typedef int32_t HRESULT;

#define ERROR_SUCCESS 0

DWORD GetLastError(void);
void SetLastError(DWORD error);

#endif

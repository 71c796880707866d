/*
 * As much of CoreFoundation as registry/trust_macos.h uses, so that it can be run on Linux by test_trust_macos.c, which
 * has the functions.
 */
#ifndef TESTS_FAKE_COREFOUNDATION_H
#define TESTS_FAKE_COREFOUNDATION_H

#include <stdint.h>

typedef long CFIndex;
typedef unsigned char Boolean;
typedef int32_t SInt32;
typedef int32_t OSStatus;
typedef const void *CFTypeRef;
typedef const struct __CFString *CFStringRef;
typedef const struct __CFArray *CFArrayRef;
typedef const struct __CFData *CFDataRef;
typedef const struct __CFDictionary *CFDictionaryRef;
typedef const struct __CFNumber *CFNumberRef;
typedef CFIndex CFNumberType;
typedef struct {
    CFIndex location, length;
} CFRange;

enum { kCFNumberSInt32Type = 3 };

static inline CFRange CFRangeMake(CFIndex location, CFIndex length)
{
    CFRange r = {location, length};
    return r;
}

/* On macOS a constant of the compiler's; the tests keep a table. */
CFStringRef fake_string(const char *text);
#define CFSTR(text) fake_string(text)

void CFRelease(CFTypeRef object);
Boolean CFEqual(CFTypeRef a, CFTypeRef b);
CFIndex CFArrayGetCount(CFArrayRef array);
const void *CFArrayGetValueAtIndex(CFArrayRef array, CFIndex i);
Boolean CFArrayContainsValue(CFArrayRef array, CFRange range, const void *value);
const void *CFDictionaryGetValue(CFDictionaryRef dictionary, const void *key);
Boolean CFNumberGetValue(CFNumberRef number, CFNumberType type, void *out);
const uint8_t *CFDataGetBytePtr(CFDataRef data);
CFIndex CFDataGetLength(CFDataRef data);

#endif

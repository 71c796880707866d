/* libcc.h - the header by the name that programs for libcc include it by; all of it is in cc.h. */
#include "cc.h"

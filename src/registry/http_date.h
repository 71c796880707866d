/*
 * registry/http_date.h - dates in HTTP fields (RFC 9110, 5.6.7), in the three forms that a recipient has to know:
 *
 *     Sun, 06 Nov 1994 08:49:37 GMT       IMF-fixdate
 *     Sunday, 06-Nov-94 08:49:37 GMT      RFC 850; two digits of a year that is at most 50 years ahead
 *     Sun Nov  6 08:49:37 1994            asctime()
 *
 * The day of the week has to be one, but not the right one.
 */
#ifndef CCI_REGISTRY_HTTP_DATE_H
#define CCI_REGISTRY_HTTP_DATE_H

#include "../base/base.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct cci_http_date {
    const char *at; /* what is left of the text; NULL once something did not fit */
    unsigned day, month, year, hour, minute, second;
};

/* Takes this text. */
static void cci_http_date_text(struct cci_http_date *d, const char *text)
{
    size_t n = strlen(text);
    if (d->at)
        d->at = strncmp(d->at, text, n) == 0 ? d->at + n : NULL;
}

/* Takes a number of so many digits. */
static void cci_http_date_digits(struct cci_http_date *d, unsigned digits, unsigned *out)
{
    *out = 0;
    for (; digits && d->at; digits--) {
        unsigned digit = (unsigned)(unsigned char)*d->at - '0';
        *out = *out * 10 + digit;
        d->at = digit < 10 ? d->at + 1 : NULL;
    }
}

/* Takes one of some words, the whole of it or its first three letters. Its number, from 1. */
static unsigned cci_http_date_word(struct cci_http_date *d, const char *const *words, unsigned count, bool whole)
{
    for (unsigned i = 0; i < count && d->at; i++) {
        size_t n = whole ? strlen(words[i]) : 3;
        if (strncmp(d->at, words[i], n) == 0) {
            d->at += n;
            return i + 1;
        }
    }
    d->at = NULL;
    return 0;
}

static void cci_http_date_month(struct cci_http_date *d)
{
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    d->month = cci_http_date_word(d, months, 12, true);
}

static void cci_http_date_time(struct cci_http_date *d)
{
    cci_http_date_text(d, " ");
    cci_http_date_digits(d, 2, &d->hour);
    cci_http_date_text(d, ":");
    cci_http_date_digits(d, 2, &d->minute);
    cci_http_date_text(d, ":");
    cci_http_date_digits(d, 2, &d->second);
    cci_http_date_text(d, " ");
}

/* Days from 1970-01-01 to the first of March of a year: leap days are at the end of years that begin there. */
static int64_t cci_http_date_march(int64_t year)
{
    return year * 365 + year / 4 - year / 100 + year / 400 - 719468;
}

/* Seconds since 1970; false for what is no date, or lies before. */
static bool cci_http_date_seconds(const struct cci_http_date *d, uint64_t *out)
{
    static const unsigned days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    /* of the months from March on, before their first day */
    static const unsigned before[] = {306, 337, 0, 31, 61, 92, 122, 153, 184, 214, 245, 275};
    bool leap = d->year % 4 == 0 && (d->year % 100 != 0 || d->year % 400 == 0);
    if (d->month < 1 || d->month > 12 || d->day < 1 || d->day > days[d->month - 1] || d->hour > 23 || d->minute > 59 ||
        d->second > 60 || d->year < 1970 || (d->month == 2 && d->day == 29 && !leap))
        return false;
    int64_t day = cci_http_date_march((int64_t)d->year - (d->month < 3)) + before[d->month - 1] + d->day - 1;
    *out = (uint64_t)day * 86400 + d->hour * 3600u + d->minute * 60u + d->second;
    return true;
}

/* Reads a date, seconds since 1970. `now`, too, decides what two digits of a year mean. False for anything else. */
static bool cci_http_date_parse(const char *text, uint64_t now, uint64_t *out)
{
    static const char *const weekdays[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                           "Friday", "Saturday", "Sunday"};
    struct cci_http_date d = {text, 0, 0, 0, 0, 0, 0};
    unsigned comma = (unsigned)strcspn(text, ","), this_year = 1970 + (unsigned)(now / 31556952);
    bool asctime = text[comma] == '\0';
    (void)cci_http_date_word(&d, weekdays, 7, !asctime && comma > 3);
    cci_http_date_text(&d, asctime ? " " : ", ");
    if (asctime) {
        cci_http_date_month(&d);
        cci_http_date_text(&d, " ");
        bool one = d.at && *d.at == ' ';
        cci_http_date_text(&d, one ? " " : "");
        cci_http_date_digits(&d, one ? 1 : 2, &d.day);
        cci_http_date_time(&d);
        cci_http_date_digits(&d, 4, &d.year);
    } else {
        bool full = comma == 3;
        cci_http_date_digits(&d, 2, &d.day);
        cci_http_date_text(&d, full ? " " : "-");
        cci_http_date_month(&d);
        cci_http_date_text(&d, full ? " " : "-");
        cci_http_date_digits(&d, full ? 4 : 2, &d.year);
        if (!full) {
            d.year += this_year / 100 * 100;
            d.year -= d.year > this_year + 50 ? 100 : 0;
        }
        cci_http_date_time(&d);
        cci_http_date_text(&d, "GMT");
    }
    return d.at && *d.at == '\0' && cci_http_date_seconds(&d, out);
}

#endif

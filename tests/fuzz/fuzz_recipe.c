/*
 * Any bytes as the recipe of a layer's tar: replaying it gives what the header promises, or an error.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../src/image/layer_recipe.h"

#define MOST ((uint64_t)1 << 24)

static cc_error_code count(void *ctx, const uint8_t *p, size_t n, cc_error *err)
{
    uint64_t *total = ctx;
    (void)err;
    for (size_t i = 0; i < n; i += 4096)
        *(volatile const uint8_t *)(p + i);
    *total += n;
    return CC_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t contents[10000];
    static uint8_t buf[CCI_RECIPE_BATCH], copy[CCI_RECIPE_BATCH];
    struct cci_recipe_reader r;
    uint64_t total = 0;
    memset(&r, 0, sizeof(r));
    r.recipe = memfd_create("recipe", 0);
    r.data = memfd_create("data", 0);
    r.buf = buf;
    r.copy = copy;
    r.next = CCI_RECIPE_HEADER;
    if (r.recipe < 0 || r.data < 0 || write(r.recipe, data, size) != (ssize_t)size ||
        write(r.data, contents, sizeof(contents)) != (ssize_t)sizeof(contents))
        abort();
    if (cci_recipe_size(r.recipe, &r.total, NULL) == CC_OK && r.total <= MOST) {
        r.left = r.total;
        cc_error_code code = cci_recipe_replay(&r, count, &total, NULL);
        if (total > r.total || (code == CC_OK && total != r.total))
            abort();
    }
    close(r.recipe);
    close(r.data);
    return 0;
}

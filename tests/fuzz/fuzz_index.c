/*
 * libFuzzer target: the input is a layer's index. It is merged twice over itself, as two layers of a chain, and what
 * comes of it is written as a filesystem. Nothing may crash, hang or ask for memory without bound; what the checks let
 * through must be something that can be written.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "../../src/image/ext4_write.h"
#include "../../src/image/merge.h"

static void write_tree(struct cci_tree *tree, const uint64_t blocks[2])
{
    static const struct cci_ext4_identity id = {{1}, {2}, "fuzz", CCI_EXT4_RO_COMPAT};
    uint64_t size;
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0)
        abort();
    (void)cci_ext4_write(tree, blocks, 2, &id, fd, &size, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cci_tree tree;
    struct cci_view index = {data, size};
    uint64_t blocks[2] = {0, 0};
    if (cci_tree_init(&tree, NULL))
        return 0;
    bool good = cci_merge_layer(&tree, 0, index, &blocks[0], NULL) == CC_OK &&
                cci_merge_layer(&tree, 1, index, &blocks[1], NULL) == CC_OK;
    /* In the store the blocks are those of a file that is there; here they are only a number. */
    if (good && blocks[0] < 1 << 20)
        write_tree(&tree, blocks);
    cci_tree_free(&tree);
    return 0;
}

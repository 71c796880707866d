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

static int index_fd = -1, disk_fd = -1;

static void write_tree(struct cci_tree *tree)
{
    static const struct cci_ext4_identity id = {{1}, {2}, "fuzz", CCI_EXT4_RO_COMPAT};
    uint64_t size;
    if (ftruncate(disk_fd, 0) != 0)
        abort();
    (void)cci_ext4_write(tree, &id, disk_fd, &size, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cci_tree tree;
    uint64_t blocks = 0;
    if (index_fd < 0) {
        index_fd = memfd_create("index", MFD_CLOEXEC);
        disk_fd = memfd_create("fuzz", MFD_CLOEXEC);
    }
    if (ftruncate(index_fd, 0) != 0 || cci_os_pwrite_all(index_fd, data, size, 0) != 0)
        abort();
    if (cci_tree_init(&tree, NULL))
        return 0;
    bool good = cci_merge_layer(&tree, index_fd, &blocks, NULL) == CC_OK &&
                cci_merge_layer(&tree, index_fd, &blocks, NULL) == CC_OK;
    /* The index may change between the merge and the writing: every other time a byte does. */
    if (good && size > CCI_INDEX_HEADER && data[size - 1] & 1) {
        uint8_t other = (uint8_t)~data[size / 2];
        if (cci_os_pwrite_all(index_fd, &other, 1, size / 2) != 0)
            abort();
    }
    /* In the store the blocks are those of a file that is there; here they are only a number. */
    if (good && blocks < 1 << 20)
        write_tree(&tree);
    cci_tree_free(&tree);
    return 0;
}

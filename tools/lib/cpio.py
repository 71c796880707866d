"""Writes initramfs archives: cpio in the "newc" form the kernel unpacks (Documentation/driver-api/early-userspace/
buffer-format.rst), with all times zero and numbered inodes, so that equal input gives equal bytes."""
import os
import stat


class Archive:
    def __init__(self):
        self.parts = []
        self.inode = 0
        self.names = {""}

    def _entry(self, name, mode, data=b"", major=0, minor=0):
        self.inode += 1
        encoded = os.fsencode(name) + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self.parts += [header, bytes(-len(header) % 4), data, bytes(-len(data) % 4)]

    def _parents(self, name):
        parent = os.path.dirname(name)
        if parent not in self.names:
            self.directory(parent)

    def directory(self, name, mode=0o755):
        name = name.strip("/")
        if name not in self.names:
            self._parents(name)
            self.names.add(name)
            self._entry(name, stat.S_IFDIR | mode)

    def file(self, name, data, mode=0o644):
        name = name.strip("/")
        if name not in self.names:
            self._parents(name)
            self.names.add(name)
            self._entry(name, stat.S_IFREG | mode, data)

    def symlink(self, name, target):
        name = name.strip("/")
        if name not in self.names:
            self._parents(name)
            self.names.add(name)
            self._entry(name, stat.S_IFLNK | 0o777, os.fsencode(target))

    def device(self, name, mode, major, minor):
        name = name.strip("/")
        self._parents(name)
        self.names.add(name)
        self._entry(name, mode, b"", major, minor)

    def bytes(self):
        self._entry("TRAILER!!!", 0)
        return b"".join(self.parts)

"""A tar writer that makes what Python's own cannot: sparse files in each of their four forms, extended attributes with
any bytes, base-256 numbers, and headers that are wrong on purpose.

Formats as in POSIX.1-2017 pax (ustar and extended headers) and GNU tar's manual, "Basic Tar Format" and "Storing
Sparse Files". Each entry is written as given, in order; nothing is sorted, checked or read from the disk.
"""
BLOCK = 512


def pad(data):
    return data + bytes(-len(data) % BLOCK)


def _number(value, width):
    """An octal field, or GNU's base-256 when it does not fit (or is negative)."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return (value & (1 << (8 * width)) - 1 | (0x80 << (8 * (width - 1)))).to_bytes(width, "big")


def header(name, kind=b"0", mode=0o644, uid=0, gid=0, size=0, mtime=0, link=b"", user=b"", group=b"", major=0, minor=0,
           gnu=False, prefix=b"", checksum=None):
    """One header block. `checksum` replaces the right one when given."""
    block = bytearray(BLOCK)

    def put(offset, data):
        block[offset:offset + len(data)] = data

    put(0, name[:100])
    put(100, _number(mode, 8))
    put(108, _number(uid, 8))
    put(116, _number(gid, 8))
    put(124, _number(size, 12))
    put(136, _number(mtime, 12))
    put(148, b" " * 8)
    put(156, kind)
    put(157, link[:100])
    put(257, b"ustar  \0" if gnu else b"ustar\x0000")
    put(265, user[:32])
    put(297, group[:32])
    if kind in b"34":
        put(329, _number(major, 8))
        put(337, _number(minor, 8))
    put(345, prefix[:155])
    put(148, b"%06o\0 " % (sum(block) if checksum is None else checksum))
    return block


def _record(key, value):
    """One pax record: its own length in decimal, a space, key=value, a newline."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def pax(records, kind=b"x", name=b"PaxHeaders/x"):
    """An extended header (kind x: for the next entry; g: for all that follow)."""
    data = b"".join(_record(key, value) for key, value in records.items())
    return bytes(header(name, kind, size=len(data))) + pad(data)


class Tar:
    def __init__(self, complete=False):
        """`complete`: a directory nobody added gets an entry of its own, mode 755, before the first thing in it."""
        self.parts = []
        self.seen = {b""} if complete else None

    def raw(self, data):
        self.parts.append(bytes(data))

    def add(self, name, kind=b"0", data=b"", mode=None, uid=0, gid=0, mtime=1700000000, link=b"", xattrs=None,
            major=0, minor=0, long="pax", records=None, size=None):
        """One entry. `mtime` may be a string of decimals ("1.5"); `long` says how a long name travels: pax, gnu, ustar
        (split into prefix and name); `xattrs` and `records` are extra pax records; `size` may differ from the data."""
        if self.seen is not None:
            self._parents(name)
        records = dict(records or {})
        for key, value in (xattrs or {}).items():
            records[b"SCHILY.xattr." + key] = value
        if isinstance(mtime, str):
            records[b"mtime"] = mtime.encode()
            mtime = max(0, int(float(mtime)))
        prefix = b""
        if len(name) > 100 and long == "ustar":
            cut = name.rindex(b"/", 0, 156)
            prefix, name = name[:cut], name[cut + 1:]
        elif long == "gnu":
            for text, letter in ((name, b"L"), (link, b"K")):
                if len(text) > 100:
                    self.raw(header(b"././@LongLink", letter, size=len(text) + 1, gnu=True))
                    self.raw(pad(text + b"\0"))
        else:
            for text, key in ((name, b"path"), (link, b"linkpath")):
                if len(text) > 100:
                    records[key] = text
        if long == "pax":  # numbers that octal cannot hold travel as records, as pax asks
            for value, key in ((uid, b"uid"), (gid, b"gid")):
                if value >= 8 ** 7:
                    records[key] = b"%d" % value
            uid, gid = (0 if value >= 8 ** 7 else value for value in (uid, gid))
        if mode is None:
            mode = 0o755 if kind == b"5" else 0o777 if kind == b"2" else 0o644
        if records:
            self.raw(pax(records))
        self.raw(header(name, kind, mode, uid, gid, len(data) if size is None else size, mtime, link, major=major,
                        minor=minor, gnu=long == "gnu", prefix=prefix))
        self.raw(pad(data))

    def _parents(self, name):
        parent = name.rstrip(b"/").rpartition(b"/")[0]
        self.seen.add(name.rstrip(b"/"))
        if parent not in self.seen:
            self.directory(parent)

    def directory(self, name, **more):
        self.add(name.rstrip(b"/") + b"/", b"5", **more)

    def file(self, name, data=b"", **more):
        self.add(name, b"0", data, **more)

    def hardlink(self, name, target, **more):
        self.add(name, b"1", link=target, **more)

    def symlink(self, name, target, **more):
        self.add(name, b"2", link=target, **more)

    def whiteout(self, name):
        directory, slash, base = name.rpartition(b"/")
        self.file(directory + slash + b".wh." + base)

    def opaque(self, directory):
        self.file(directory.rstrip(b"/") + b"/.wh..wh..opq")

    def sparse(self, name, size, chunks, form, mode=0o644):
        """A sparse file of `size` bytes with data [(offset, bytes)…] in GNU's form "old", "0.0", "0.1" or "1.0"."""
        data = b"".join(piece for _, piece in chunks)
        spans = [(offset, len(piece)) for offset, piece in chunks] + [(size, 0)]
        if form == "old":
            return self._old_sparse(name, size, spans, data, mode)
        if form == "0.0":  # one record pair per span, repeated keys: written by hand
            body = _record(b"GNU.sparse.size", b"%d" % size) + _record(b"GNU.sparse.numblocks", b"%d" % len(spans))
            for offset, length in spans:
                body += _record(b"GNU.sparse.offset", b"%d" % offset)
                body += _record(b"GNU.sparse.numbytes", b"%d" % length)
            pieces = [bytes(header(b"PaxHeaders/x", b"x", size=len(body))), pad(body)]
        elif form == "0.1":
            pieces = [pax({b"GNU.sparse.size": b"%d" % size, b"GNU.sparse.numblocks": b"%d" % len(spans),
                           b"GNU.sparse.name": name,
                           b"GNU.sparse.map": b",".join(b"%d,%d" % span for span in spans)})]
        else:
            pieces = [pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": name,
                           b"GNU.sparse.realsize": b"%d" % size})]
            table = b"%d\n" % len(spans) + b"".join(b"%d\n%d\n" % span for span in spans)
            data = pad(table) + data
        stored = name if form == "0.0" else b"GNUSparseFile.0/" + name.rpartition(b"/")[2]
        self.raw(b"".join(pieces))
        self.raw(header(stored, b"0", mode, size=len(data), mtime=1700000000))
        self.raw(pad(data))
        return None

    def _old_sparse(self, name, size, spans, data, mode):
        """Type S: four spans in the header, the others in following blocks of 21, each saying whether more come."""
        block = header(name, b"S", mode, size=len(data), mtime=1700000000, gnu=True)
        block[345:] = bytes(BLOCK - 345)
        for i, (offset, length) in enumerate(spans[:4]):
            block[386 + 24 * i:410 + 24 * i] = _number(offset, 12) + _number(length, 12)
        block[482] = len(spans) > 4
        block[483:495] = _number(size, 12)
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        self.raw(block)
        rest = spans[4:]
        while rest:
            more = bytearray(BLOCK)
            for i, (offset, length) in enumerate(rest[:21]):
                more[24 * i:24 * i + 24] = _number(offset, 12) + _number(length, 12)
            rest = rest[21:]
            more[504] = bool(rest)
            self.raw(more)
        self.raw(pad(data))

    def bytes(self, end=True):
        return b"".join(self.parts) + (bytes(2 * BLOCK) if end else b"")

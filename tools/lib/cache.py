"""Where the tools keep what is dear to make: kernels, the rig's saved machine, test images.

Everything in the cache can be thrown away; nothing in it is edited in place. An entry is made under a temporary
name and renamed, so a reader sees a whole entry or none, and a lock keeps two makers from doing the work twice.
"""
import contextlib
import fcntl
import os
import shutil
import sys

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


def root():
    """The tools' cache directory, apart from the library's own cache (cc.h)."""
    base = os.environ.get("CC_TOOLS_CACHE")
    if not base:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        base = os.path.join(home, "cc.h-tools")
    return os.path.abspath(base)


def path(*parts):
    """A path in the cache whose parent directory exists."""
    result = os.path.join(root(), *parts)
    os.makedirs(os.path.dirname(result), exist_ok=True)
    return result


@contextlib.contextmanager
def lock(name):
    """Holds the cache's lock of that name; waits for another process that makes the same thing."""
    with open(path("locks", name), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def new_directory(final):
    """Yields a fresh directory that becomes `final` (replacing an older one) when the block succeeds."""
    temporary = f"{final}.new.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    try:
        yield temporary
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def say(text):
    """One line of progress on stderr; standard output is for results."""
    print(text, file=sys.stderr, flush=True)

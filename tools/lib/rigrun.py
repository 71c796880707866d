"""One run of tools/rig: gets a machine (resumed, or booted), hands it the job, passes its output on."""
import binascii
import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import cache
import kernels
import machine as outer

PASSED = ("PATH", "HOME", "TMPDIR", "TERM", "LANG", "LC_ALL", "SOURCE_DATE_EPOCH")
PASSED_PREFIXES = ("CC_", "XDG_")
PASSED_SUFFIXES = ("SAN_OPTIONS",)
RIG_FAILED = 125
TIMED_OUT = 124
KEEP_TEMPLATES = 6
KEEP_FILES_SECONDS = 30 * 86400


def run(options):
    started = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _interrupted)
    try:
        setup = outer.Setup(options.arch, options.kernel or _default_kernel(options.arch), options.cpus,
                            options.memory, options.icount)
        if options.check:
            return _check(setup, options)
        if options.icount:
            return _run_virtual(setup, options, started)
        return _run_shared(setup, options, started)
    except (kernels.Failure, outer.Broken) as problem:
        cache.say(f"rig: {problem}")
        return RIG_FAILED


def _interrupted(number, _frame):
    sys.exit(128 + number)  # the finally clauses on the way end QEMU


def _default_kernel(arch):
    return "rig" if kernels.cached("rig", arch) else "stock"


def _check(setup, options):
    options.command, options.timeout = ["/bin/sh", "-c", "test -c /dev/kvm"], 60
    status = _run_shared(setup, options, time.monotonic())
    cache.say("rig: works" if status == 0 else "rig: the outer machine has no /dev/kvm")
    return status


# ---- the job --------------------------------------------------------------------------------------------------


def _environment(options):
    chosen = {name: value for name, value in os.environ.items()
              if name in PASSED or name.startswith(PASSED_PREFIXES) or name.endswith(PASSED_SUFFIXES)}
    for one in options.env:
        name, equals, value = one.partition("=")
        if equals or name in os.environ:
            chosen[name] = value if equals else os.environ[name]
    chosen["CC_RIG"] = "1"
    return chosen


def _job(options, environment, lines):
    lines = lines + [f"d{os.getcwd()}"]
    lines += [f"e{name}={value}" for name, value in environment.items()]
    lines += [f"a{argument}" for argument in options.command]
    return b"".join(os.fsencode(line) + b"\0" for line in lines)


class _Input:
    """Feeds our standard input to the command in frames."""

    def __init__(self, machine):
        self.machine = machine

    def fileno(self):
        return 0

    def pump(self):
        data = os.read(0, 32768)
        self.machine.send(b"i", data)
        return bool(data)


def _write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def _finish(machine, options, started):
    """Passes output on until the command's exit status arrives, and returns that."""
    deadline = started + options.timeout
    feed = _Input(machine) if options.stdin and not options.icount else None
    try:
        while True:
            kind, data = machine.next_frame(deadline, feed)
            if kind in b"oe":
                _write_all(1 if kind == b"o" else 2, data)
            elif kind == b"x":
                return int(data)
            else:
                raise outer.Broken(data.decode(errors="replace"))
    except TimeoutError:
        cache.say(f"rig: time limit of {options.timeout:g} s passed: {' '.join(options.command)}")
        return TIMED_OUT
    except BrokenPipeError:  # our reader has gone, as with `| head`
        return 128 + signal.SIGPIPE
    finally:
        if options.verbose:
            machine.read_console()
            sys.stderr.write(machine.console_text.decode(errors="replace"))


# ---- the shared-files machine -----------------------------------------------------------------------------------


def _run_shared(setup, options, started):
    build = os.path.join(cache.CHECKOUT, "build")
    os.makedirs(build, exist_ok=True)
    writable = [build] + [os.path.abspath(path) for path in options.share]
    for path in writable:
        if not os.path.isdir(path):
            raise kernels.Failure(f"--share {path}: not a directory")
    machine = _start(setup, options, writable)
    try:
        if options.verbose:
            cache.say(f"rig: started in {time.monotonic() - started:.3f} s")
        return _finish(machine, options, started)
    finally:
        machine.stop()


def _shared_job(options, writable):
    lines = [f"t{time.time():.9f}", f"s{binascii.hexlify(os.urandom(64)).decode()}"]
    lines += [f"ww{number} {path}" for number, path in enumerate(writable)]
    return _job(options, _environment(options), lines + (["i"] if options.stdin else []))


def _initrd(setup):
    """The initramfs of the shared-files machine, and its bytes; kept by hash."""
    data = setup.initramfs()
    path = cache.path("rig", f"initrd-{binascii.crc32(data):08x}-{len(data)}")
    if not os.path.exists(path):
        with open(f"{path}.{os.getpid()}", "wb") as handle:
            handle.write(data)
        os.rename(f"{path}.{os.getpid()}", path)
    return path, data


def _start(setup, options, writable):
    initrd, data = _initrd(setup)
    if not options.cold:
        try:
            return _resume_or_make(setup, initrd, setup.key(data + b"%d" % len(writable)), writable, options)
        except outer.Broken as problem:
            cache.say(f"rig: cannot resume the saved machine, booting a new one ({problem})")
    return outer.boot(setup, initrd, writable, _shared_job(options, writable))


def _resume_or_make(setup, initrd, key, writable, options):
    """Resumes the template of that key; makes it first if there is none, and once more if it proves broken."""
    directory = cache.path("rig", f"template-{key}")
    for attempt in (1, 2):
        with cache.lock(f"rig-{key}"):
            if not os.path.exists(f"{directory}/state"):
                seconds = _make_template(setup, initrd, directory, writable)
                _prune()
                if options.verbose:
                    cache.say(f"rig: booted and saved a machine in {seconds:.1f} s")
        try:
            os.utime(directory)
            return outer.resume(setup, initrd, directory, writable, _shared_job(options, writable))
        except (outer.Broken, OSError):
            if attempt == 2:
                raise
            with cache.lock(f"rig-{key}"):
                shutil.rmtree(directory, ignore_errors=True)
    return None


def _make_template(setup, initrd, directory, writable):
    """A busy host disturbs the calibration of the outer kernel's timers; PID 1 refuses such a machine, and another is
    booted."""
    for left in (3, 2, 1, 0):
        try:
            return outer.make_template(setup, initrd, directory, writable)
        except outer.Broken:
            if not left:
                raise
    return 0


def _prune():
    """Keeps the templates used last (each holds the memory of a booted machine) and forgets old initramfs files."""
    base = os.path.dirname(cache.path("rig", "x"))
    found = [entry for entry in os.scandir(base) if ".new." not in entry.name]
    templates = [entry for entry in found if entry.name.startswith("template-")]
    templates.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in templates[KEEP_TEMPLATES:]:
        shutil.rmtree(entry.path, ignore_errors=True)
    for entry in found:
        if entry.is_file() and time.time() - entry.stat().st_mtime > KEEP_FILES_SECONDS:
            os.unlink(entry.path)


# ---- the virtual-time machine -----------------------------------------------------------------------------------


def _libraries(path):
    """The shared libraries and loader of a dynamically linked program."""
    with open(path, "rb") as handle:
        if handle.read(4) != b"\x7fELF":
            return []
    listed = subprocess.run(["ldd", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    words = [word for line in listed.splitlines() for word in line.split()]
    return [word for word in words if word.startswith("/")]


def _add_path(archive, path):
    """Adds a file as found, a symbolic link with its target, a directory with all in it, a program with libraries."""
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        archive.symlink(path, os.readlink(path))
        _add_path(archive, os.path.join(os.path.dirname(path), os.readlink(path)))
    elif stat.S_ISDIR(info.st_mode):
        archive.directory(path, stat.S_IMODE(info.st_mode))
        for name in sorted(os.listdir(path)):
            _add_path(archive, os.path.join(path, name))
    else:
        with open(path, "rb") as handle:
            archive.file(path, handle.read(), stat.S_IMODE(info.st_mode))
        if info.st_mode & stat.S_IXUSR:
            for library in _libraries(path):
                _add_path(archive, library)


def _which(name):
    for directory in os.environ.get("PATH", "").split(":") if "/" not in name else [""]:
        path = os.path.abspath(os.path.join(directory, name))
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise kernels.Failure(f"no such program: {name}")


def _run_virtual(setup, options, started):
    # Host-dependent values would change the number of instructions: only these go in.
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/", "CC_RIG": "1"}
    environment.update(one.split("=", 1) for one in options.env if "=" in one)
    paths = [_which(options.command[0])] + [os.path.abspath(path) for path in options.file]
    options.command[0] = paths[0]

    def add(archive):
        archive.directory("tmp", 0o1777)
        archive.directory(os.getcwd())
        for path in paths:
            _add_path(archive, path)
        archive.file("rig.job", _job(options, environment, []))

    initrd = cache.path("rig", f"virtual-{os.getpid()}")
    machine = None
    try:
        with open(initrd, "wb") as handle:
            handle.write(setup.initramfs(add))
        machine = outer.boot_virtual(setup, initrd)
        return _finish(machine, options, started)
    finally:
        if machine:
            machine.stop()
        if os.path.exists(initrd):
            os.unlink(initrd)

"""The rig's outer machine: QEMU's command line, its initramfs, the frames it speaks, and the saved template.

A template is a directory with `mem` (the machine's RAM, a file that every resume maps privately, so copy-on-write)
and `state` (the devices, about 60 kB). It is made by booting once to the point where PID 1 (tools/riginit.c) waits for
a job. Its name is a hash of everything it depends on: QEMU, the command line, the kernel, the initramfs.
"""
import ctypes
import hashlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import time

import cache
import cpio
import kernels

STOCK_MODULES = ["virtio_mmio", "virtio_console", "overlay", "9pnet_virtio", "9p", "kvm-amd", "loop", "fuse",
                 "tun", "vhost_vsock", "vhost_net"]
BOOT_SECONDS = 90
RESUME_SECONDS = 60
PR_SET_PDEATHSIG = 1


class Broken(Exception):
    """The outer machine itself failed (not the command in it)."""


def qemu_binary(arch):
    name = f"qemu-system-{arch}"
    found = shutil.which(name)
    if not found:
        raise kernels.Failure(f"{name} is not installed: run tools/setup")
    return found


def _init_binary():
    """The compiled PID 1, kept by the hash of its sources."""
    source = os.path.join(cache.CHECKOUT, "tools", "riginit.c")
    digest = hashlib.sha256()
    for path in (source, source[:-2] + "_machine.h", source[:-2] + "_port.h"):
        with open(path, "rb") as handle:
            digest.update(handle.read())
    key = digest.hexdigest()[:16]
    binary = cache.path("rig", f"init-{key}")
    if not os.path.exists(binary):
        temporary = f"{binary}.{os.getpid()}"
        done = subprocess.run(["cc", "-O2", "-static", "-o", temporary, source], stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise kernels.Failure(f"cannot compile tools/riginit.c: {done.stderr.strip()}")
        os.rename(temporary, binary)
    return binary


def _processor():
    with open("/proc/cpuinfo", encoding="utf-8") as handle:
        return next((line for line in handle if line.startswith("model name")), "")


class Setup:
    """What kind of outer machine: the choices, and the files that follow from them."""

    def __init__(self, arch, kernel, cpus, memory, virtual=False):
        self.arch, self.kernel, self.memory, self.virtual = arch, kernel, memory, virtual
        # Text patching races with multithreaded emulation: a kernel with jump labels gets one processor.
        self.cpus = 1 if kernel == "stock" or virtual else cpus
        name = "generic" if kernel == "stock" else kernel
        self.bundle = kernels.cached(name, arch) or (kernels.fetch(name, arch) if kernel == "stock" else None)
        if not self.bundle:
            raise kernels.Failure(f"no {kernel} kernel in the cache: run `tools/kernel path {kernel}`")
        self.qemu = qemu_binary(arch)
        self.init = _init_binary()

    def tsc_khz(self):
        """The frequency of the machine's time-stamp counter: emulation hands the host's counter through, which takes a
        moment to measure; in virtual time it counts nanoseconds."""
        return 1000000 if self.virtual else int(subprocess.check_output([self.init]))

    def initramfs(self, extra=None):
        """Path of the initramfs. `extra` (a cpio.Archive function) adds a job's own files: such a one is not kept."""
        archive = cpio.Archive()
        with open(self.init, "rb") as handle:
            archive.file("init", handle.read(), 0o755)
        archive.directory("dev")
        archive.device("dev/console", 0o020600, 5, 1)
        if self.kernel == "stock":
            self._add_modules(archive)
        if extra:
            extra(archive)
        return archive.bytes()

    def _add_modules(self, archive):
        modules, names = os.path.join(self.bundle, "modules"), []
        for number, path in enumerate(kernels.module_closure(modules, STOCK_MODULES)):
            name = f"modules/{number:02d}-{os.path.basename(path)}"
            with open(os.path.join(modules, path), "rb") as handle:
                archive.file(name, handle.read())
            names.append(f"/{name}\n")
        archive.file("modules.list", "".join(names).encode())

    def command(self, initrd, tsc_khz=None):
        """The part of QEMU's command line that a saved machine depends on. A resumed one has no more use for the
        frequency and may be given any."""
        # A stock kernel finds virtio-mmio devices only through ACPI, our own through its command line.
        machine = "microvm,acpi=" + ("on" if self.kernel == "stock" else "off")
        append = "console=ttyS0 reboot=t panic=-1 quiet loglevel=4 random.trust_cpu=on tsc=reliable"
        append += f" tsc_early_khz={tsc_khz or self.tsc_khz()}"
        command = [self.qemu, "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-cpu",
                   "EPYC,+svm,+npt", "-smp", str(self.cpus), "-m", str(self.memory), "-kernel",
                   os.path.join(self.bundle, "vmlinuz"), "-initrd", initrd]
        if self.virtual:
            command += ["-M", machine, "-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off,align=off",
                        "-rtc", "base=2024-01-01T00:00:00,clock=vm", "-seed", "1"]
            append += " nolapic_timer rig.virtual"
        else:
            append += " rig.stock" if self.kernel == "stock" else ""
            command += ["-M", machine + ",memory-backend=ram", "-accel", "tcg,thread=multi"]
        return command + ["-append", append, "-serial", "chardev:console", "-device",
                          "virtio-serial-device,max_ports=2", "-device", "virtserialport,chardev=port,nr=1,name=rig"]

    def key(self, initrd_bytes):
        about = []
        for path in (self.qemu, os.path.join(self.bundle, "vmlinuz")):
            info = os.stat(path)
            about += [os.path.realpath(path), info.st_ino, info.st_size, info.st_mtime_ns]
        # The measured frequency is never twice the same; the processor is.
        about += self.command("initrd", tsc_khz=1) + [_processor()]
        about += [hashlib.sha256(initrd_bytes).hexdigest()]
        return hashlib.sha256(repr(about).encode()).hexdigest()[:24]


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()  # a ^C at the terminal goes to tools/rig alone, which ends QEMU itself


class Machine:
    """A running QEMU with its three sockets: the port to PID 1, the console, and (for templates) the monitor."""

    def __init__(self, command, monitor=False, keep=()):
        self.port, port = socket.socketpair()
        self.console, console = socket.socketpair()
        self.console_text = b""
        self.received, self.ended = bytearray(), []
        self.monitor, self.monitor_text, self.events = None, b"", set()
        inherited = [port, console]
        command = command + ["-chardev", f"socket,id=port,fd={port.fileno()}",
                             "-chardev", f"socket,id=console,fd={console.fileno()}"]
        if monitor:
            self.monitor, other = socket.socketpair()
            inherited.append(other)
            command += ["-chardev", f"socket,id=monitor,fd={other.fileno()}", "-mon", "chardev=monitor,mode=control"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            pass_fds=[s.fileno() for s in inherited] + list(keep), preexec_fn=_die_with_parent)
        for other in inherited:
            other.close()

    def stop(self):
        self.process.kill()
        self.process.wait()
        for one in (self.port, self.console, self.monitor, self.process.stderr):
            if one:
                one.close()

    def why(self):
        """What QEMU and the console said last, for an error message."""
        if self.process.poll() is None:
            self.process.kill()
        error = self.process.stderr.read().decode(errors="replace").strip()
        self.read_console()
        tail = self.console_text.decode(errors="replace").strip().splitlines()[-12:]
        return "\n".join(filter(None, [error, *tail])) or "no message"

    def read_console(self):
        """Takes what is on the console now; keeps the last 16 KiB. Returns False once QEMU has closed it."""
        while True:
            try:
                data = self.console.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self.console_text = (self.console_text + data)[-16384:]

    # ---- the port

    def send(self, kind, data):
        self.port.sendall(kind + struct.pack("<I", len(data)) + data)

    def next_frame(self, deadline, other=None):
        """The next (type, payload) from PID 1; calls other.pump() whenever the file `other` watches can be read."""
        while True:
            if len(self.received) >= 5:
                end = 5 + struct.unpack_from("<I", self.received, 1)[0]
                if len(self.received) >= end:
                    frame = (bytes(self.received[:1]), bytes(self.received[5:end]))
                    del self.received[:end]
                    return frame
            self._receive(deadline, other)

    def _receive(self, deadline, other):
        """Waits for something from the port, the console or `other`, and takes it."""
        watched = [self.port] + [one for one in (self.console, other) if one and one not in self.ended]
        poll = select.poll()
        for one in watched:
            poll.register(one.fileno(), select.POLLIN)
        left = deadline - time.monotonic()
        ready = [fd for fd, _ in poll.poll(left * 1000)] if left > 0 else []
        if not ready:
            raise TimeoutError
        if self.console.fileno() in ready and not self.read_console():
            self.ended.append(self.console)
        if other and other.fileno() in ready and not other.pump():
            self.ended.append(other)
        if self.port.fileno() in ready:
            data = self.port.recv(262144)
            if not data:
                raise Broken(f"the outer machine ended by itself:\n{self.why()}")
            self.received += data

    def wait_for(self, kind, seconds):
        """Waits for a frame of that type, which must be the next one."""
        try:
            got, data = self.next_frame(time.monotonic() + seconds)
        except TimeoutError:
            raise Broken(f"no answer from the outer machine in {seconds} s:\n{self.why()}") from None
        if got != kind:
            raise Broken(f"the outer machine cannot start: {data.decode(errors='replace')}")

    # ---- the monitor (QMP)

    def _message(self, deadline):
        while b"\n" not in self.monitor_text:
            self.monitor.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self.monitor.recv(65536)
            except TimeoutError:
                raise Broken("QEMU's monitor does not answer") from None
            except OSError:
                data = b""
            if not data:
                raise Broken(f"QEMU ended:\n{self.why()}")
            self.monitor_text += data
        line, _, self.monitor_text = self.monitor_text.partition(b"\n")
        return json.loads(line)

    def ask(self, command, deadline, **arguments):
        self.monitor.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            message = self._message(deadline)
            if "error" in message:
                raise Broken(f"QEMU refused {command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
            self.events.add(message.get("event"))

    def open_monitor(self, deadline):
        self._message(deadline)  # the greeting
        self.ask("qmp_capabilities", deadline)
        self.ask("migrate-set-capabilities", deadline, capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def wait_event(self, name, deadline):
        while name not in self.events:
            self.events.add(self._message(deadline).get("event"))


def _ram(setup, path, share):
    # reserve=off: the memory is larger than some hosts', and only what the machine touches is ever used
    return ["-object", f"memory-backend-file,id=ram,size={setup.memory}M,mem-path={path},share={share},reserve=off"]


def shares(writable):
    """The host's root, read-only, and each writable directory, as 9p devices. They are present but unmounted in the
    template: QEMU cannot save a machine whose 9p is mounted. The same number of devices is always there."""
    result = ["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
              "-device", "virtio-9p-device,fsdev=host,mount_tag=host"]
    for number, path in enumerate(writable):
        result += ["-fsdev", f"local,id=w{number},path={path},security_model=none,multidevs=remap",
                   "-device", f"virtio-9p-device,fsdev=w{number},mount_tag=w{number}"]
    return result


def _quote(path):
    return path.replace(",", ",,")


def make_template(setup, initrd, directory, writable):
    """Boots a machine to the point where it waits for a job, and saves it."""
    started = time.monotonic()
    deadline = started + BOOT_SECONDS
    with cache.new_directory(directory) as new:
        command = setup.command(initrd) + _ram(setup, _quote(f"{new}/mem"), "on") + shares(writable)
        machine = Machine(command, monitor=True)
        try:
            machine.open_monitor(deadline)
            machine.wait_for(b"r", BOOT_SECONDS)
            machine.ask("migrate", deadline, uri="exec:cat > '" + f"{new}/state".replace("'", "'\\''") + "'")
            while True:
                status = machine.ask("query-migrate", deadline).get("status")
                if status == "completed":
                    break
                if status in ("failed", "cancelled") or time.monotonic() > deadline:
                    raise Broken("QEMU could not save the machine")
                time.sleep(0.01)
        finally:
            machine.stop()
        for name in ("mem", "state"):
            fd = os.open(f"{new}/{name}", os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
    return time.monotonic() - started


def _start(machine, job):
    """Hands the job to PID 1. Its answer tells a machine that works from one that was saved or restored badly; nothing
    of the job has run before it."""
    machine.send(b"j", job)
    machine.wait_for(b"s", RESUME_SECONDS)


def resume(setup, initrd, directory, writable, job):
    """Starts the job in a copy of the saved machine."""
    state = os.open(f"{directory}/state", os.O_RDONLY)
    try:
        command = setup.command(initrd, tsc_khz=1) + _ram(setup, _quote(f"{directory}/mem"), "off") + shares(writable)
        machine = Machine(command + ["-incoming", "defer"], monitor=True, keep=[state])
    finally:
        os.close(state)
    try:
        deadline = time.monotonic() + RESUME_SECONDS
        machine.open_monitor(deadline)
        machine.ask("migrate-incoming", deadline, uri=f"fd:{state}")
        machine.wait_event("RESUME", deadline)
        _start(machine, job)
    except BaseException:
        machine.stop()
        raise
    return machine


def boot(setup, initrd, writable, job):
    """Starts the job in a machine booted anew."""
    memory = ["-object", f"memory-backend-ram,id=ram,size={setup.memory}M,reserve=off"]
    machine = Machine(setup.command(initrd) + memory + shares(writable))
    try:
        machine.wait_for(b"r", BOOT_SECONDS)
        _start(machine, job)
    except BaseException:
        machine.stop()
        raise
    return machine


def boot_virtual(setup, initrd):
    """Starts a machine whose job is in its initramfs."""
    return Machine(setup.command(initrd))

"""Builds the guest's and the rig's kernels from the distribution's kernel source (the package linux-source)."""
import glob
import os
import shutil
import subprocess
import tempfile

import cache
import kernels

PACKAGES = "linux-source flex bison bc libelf-dev libssl-dev lz4"
KERNEL_ARCH = {"x86_64": "x86_64"}


def _run(arguments, cwd, log):
    done = subprocess.run(arguments, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise kernels.Failure(f"`{' '.join(arguments)}` failed; its output is in {log.name}")


def _source():
    """Unpacks the newest installed linux-source once; returns its directory and version."""
    found = sorted(glob.glob("/usr/src/linux-source-*.tar.*"))
    if not found:
        raise kernels.Failure(f"no kernel source; install: {PACKAGES}")
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", os.path.basename(found[-1]).split(".tar")[0]],
                          stdout=subprocess.PIPE, text=True)
    version = done.stdout.strip() or os.path.basename(found[-1])
    directory = cache.path("kernel-source", version)
    with cache.lock("kernel-source"):
        if not os.path.isdir(directory):
            cache.say(f"kernel: unpacking {os.path.basename(found[-1])}")
            with cache.new_directory(directory) as new:
                subprocess.run(["tar", "-xf", found[-1], "--strip-components=1", "-C", new], check=True)
    return directory, version


def _configure(name, arch, source, output, log):
    """tinyconfig, our fragments over it, the rest by default; then a look whether every setting was taken."""
    make = ["make", "-C", source, f"O={output}", f"ARCH={KERNEL_ARCH[arch]}"]
    fragments = kernels.fragment_paths(name, arch)
    _run(make + ["tinyconfig"], source, log)
    base = os.path.join(output, "tiny")
    shutil.copyfile(os.path.join(output, ".config"), base)
    _run(["scripts/kconfig/merge_config.sh", "-m", "-O", output, base, *fragments], source, log)
    _run(make + ["olddefconfig"], source, log)
    return _refused(fragments, os.path.join(output, ".config"))


def _refused(fragments, config):
    """Settings of the fragments that the configuration did not take: a dependency is missing, or a name is gone."""
    wanted, got = kernels.settings(fragments), kernels.settings([config])
    return sorted(key for key, value in wanted.items() if got.get(key, "n") != value)


def build(name, arch, jobs, configure_only=False):
    """Builds one kernel into its bundle and returns the bundle (or, configure_only, the path of the configuration)."""
    source, version = _source()
    with cache.lock(f"build-{name}-{arch}"), tempfile.TemporaryDirectory() as output:
        log_path = cache.path("kernel", f"build-{name}-{arch}.log")
        with open(log_path, "w") as log:
            refused = _configure(name, arch, source, output, log)
            if refused:
                cache.say(f"kernel: not taken by linux-source {version}: {' '.join(refused)}")
            if configure_only:
                kept = cache.path("kernel", f"build-{name}-{arch}.config")
                shutil.copyfile(os.path.join(output, ".config"), kept)
                return kept
            cache.say(f"kernel: building the {name} kernel from linux-source {version}, about 9 minutes")
            _run(["make", "-C", source, f"O={output}", f"ARCH={KERNEL_ARCH[arch]}", f"-j{jobs}", "bzImage",
                  "KBUILD_BUILD_TIMESTAMP=1970-01-01", "KBUILD_BUILD_USER=cc", "KBUILD_BUILD_HOST=cc"], source, log)
        image = os.path.join(output, "arch", "x86", "boot", "bzImage")
        directory = kernels.bundle(name, arch)
        with cache.new_directory(directory) as new:
            kernels.install(new, image, f"{kernels.recipe(name, arch)} linux-source {version}")
    return directory

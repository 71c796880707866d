#!/usr/bin/env python3
"""Pull of an image from a TLS registry on loopback into the store, ready to boot, against

    skopeo copy to an OCI layout, then `gzip -dc | sha256sum` of each layer: the same bytes fetched and checked, none unpacked
    skopeo copy to an OCI layout, then umoci unpack

The image has three gzip layers, about 150 MB together, of files of this machine's /usr in an order that only their names
decide; MB are compressed. The large one has three more layers, of other files. Five alternating runs, medians. Ours ends with
fsync, the peers do not wait for the disk.

Memory is the highest Private_Dirty of our process, read every 2 ms, in runs of their own. Requests are counted by the
registry, when the image is pulled a second time.
"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "registry"))
from registry import Layout, Registry  # noqa: E402

RUNS = 5
SIZES = [230, 130, 70]  # MB of files in each layer
LARGE = [300, 300, 300]
MEDIA = "application/vnd.oci.image.layer.v1.tar+gzip"


def fail(text):
    raise SystemExit("bench_pull: " + text)


def run(command, **env):
    done = subprocess.run(command, shell=isinstance(command, str), executable="/bin/bash" if isinstance(command, str) else None,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env={**os.environ, **env})
    if done.returncode:
        fail(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def files():
    """(size, path) of files of /usr, in the order of their paths' digests."""
    found = []
    for top in ("/usr/bin", "/usr/lib", "/usr/share"):
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < 8 << 20 and path.isprintable():
                    found.append((hashlib.sha256(path.encode()).digest(), os.path.getsize(path), path))
    return iter([(size, path) for _, size, path in sorted(found)])


def layer(layout, some, megabytes, level):
    """The descriptor and diffID of a layer of the next files, each directory before the first thing in it."""
    chosen, total, there = [], 0, set()
    while total < megabytes * 1000000:
        size, path = next(some, (0, None))
        if not path:
            fail("/usr has too few files")
        parts = path.split("/")
        above = ["/".join(parts[:n]) for n in range(2, len(parts))]
        chosen += [folder for folder in above if folder not in there] + [path]
        there.update(above)
        total += size
    work = os.path.join(layout.folder, "work")
    with open(work + ".list", "w", encoding="utf-8", errors="surrogateescape") as f:
        f.write("\n".join(chosen) + "\n")
    diff_id, digest = (t.split()[0] for t in run(
        f"tar -C / --format=pax --no-recursion -cf - -T {work}.list 2>/dev/null | tee >(sha256sum >{work}.diff) | gzip -n{level} >{work}.gz;"
        f"cat {work}.diff; sha256sum {work}.gz").splitlines())
    size = os.path.getsize(work + ".gz")
    os.rename(work + ".gz", os.path.join(layout.folder, "blobs/sha256", digest))
    return {"mediaType": MEDIA, "digest": "sha256:" + digest, "size": size}, "sha256:" + diff_id


def images(folder):
    """The layout, made once; and the compressed sizes of its two images."""
    sizes = os.path.join(folder, "sizes.json")
    if not os.path.exists(sizes):
        shutil.rmtree(folder, ignore_errors=True)
        layout, some = Layout(folder), files()
        three = [layer(layout, some, megabytes, 6) for megabytes in SIZES]
        more = [layer(layout, some, megabytes, 1) for megabytes in LARGE]
        layout.tag(layout.image(three), "image")
        layout.tag(layout.image(three + more), "large")
        with open(sizes, "w", encoding="utf-8") as f:
            json.dump({"image": sum(d["size"] for d, _ in three), "large": sum(d["size"] for d, _ in three + more)}, f)
    with open(sizes, encoding="utf-8") as f:
        return json.load(f)


class Pulls:
    """The three ways, each into a directory of its own that is removed afterwards."""

    def __init__(self, program, folder, registry):
        self.program, self.out, self.registry = program, os.path.join(folder, "out"), registry
        self.took = {"ours": [], "gzip_sha256sum": [], "umoci": []}

    def clean(self):
        run(["chmod", "-R", "u+w", self.out])
        shutil.rmtree(self.out)
        os.sync()

    def ours(self, name="image", store=None, **env):
        run([self.program, store or self.out, f"{self.registry.address}/bench/{name}:1"], CA_FILE=self.registry.ca, **env)

    def skopeo(self):
        run(["skopeo", "--insecure-policy", "copy", "-q", f"docker://{self.registry.address}/bench/image:1", f"oci:{self.out}:x"],
            SSL_CERT_FILE=self.registry.ca)

    def gzip_sha256sum(self):
        self.skopeo()
        run(f'set -e; for blob in {self.out}/blobs/sha256/*; do [ "$(head -c 1 "$blob")" = "{{" ] || '
            'gzip -dc "$blob" | sha256sum; done')

    def umoci(self):
        self.skopeo()
        run(["umoci", "unpack", *([] if os.getuid() == 0 else ["--rootless"]), "--image", self.out + ":x", self.out + "/bundle"])

    def timed(self):
        for _ in range(RUNS):
            for name, took in self.took.items():
                began = time.monotonic()
                getattr(self, name)()
                took.append(time.monotonic() - began)
                self.clean()

    def median(self, name):
        return sorted(self.took[name])[RUNS // 2]

    def private_dirty(self, name):
        """The most that our process has, in kB."""
        process = subprocess.Popen([self.program, self.out, f"{self.registry.address}/bench/{name}:1"], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, env={**os.environ, "CA_FILE": self.registry.ca})
        most = 0
        while process.poll() is None:
            try:
                with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as f:
                    most = max([most] + [int(line.split()[1]) for line in f if line.startswith("Private_Dirty:")])
            except (ProcessLookupError, FileNotFoundError):
                pass  # it has just ended
            time.sleep(0.002)
        if process.returncode:
            fail(f"pull of {name}: exit code {process.returncode}")
        self.clean()
        return most

    def requests(self, store, **env):
        before = len(self.registry.requests())
        self.ours(store=store, **env)
        return len(self.registry.requests()) - before


def main():
    if len(sys.argv) != 3:
        fail("usage: bench_pull.py PULL-PROGRAM LAYOUT")
    program, layout = sys.argv[1:]
    sizes = images(layout)
    folder = tempfile.mkdtemp(prefix="bench-pull.")
    try:
        with Registry(os.path.join(folder, "registry"), tls=True) as registry:
            for name in sizes:
                registry.push(f"oci:{layout}:{name}", f"bench/{name}:1")
            p = Pulls(program, folder, registry)
            store = os.path.join(folder, "store")
            first = p.requests(store)
            always, kept = p.requests(store, POLICY="always"), p.requests(store)
            p.timed()
            megabytes = sizes["image"] / 1e6
            for peer in ("gzip_sha256sum", "umoci"):
                print(f"bench pull_vs_skopeo_{peer} ours={megabytes / p.median('ours'):.1f} "
                      f"peer={megabytes / p.median(peer):.1f} unit=MB/s ratio={p.median(peer) / p.median('ours'):.2f}")
            for name, size in sizes.items():
                print(f"bench pull_{name}_size ours={size / 1e6:.0f} unit=MB")
                print(f"bench pull_{name}_private_dirty ours={p.private_dirty(name)} unit=kB")
            print(f"bench pull_first_requests ours={first} unit=count")
            print(f"bench pull_again_always ours={always} unit=count")
            print(f"bench pull_again_if_not_present ours={kept} unit=count")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

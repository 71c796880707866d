"""A real registry on loopback for tests: docker-registry, plain or with TLS, open, with basic auth, or with a token server;
and OCI image layouts to fill it with.

    with Registry(folder, tls=True, auth="token") as r:
        r.push(layout, "name:tag")          # by skopeo, digests preserved
        r.address, r.ca, r.requests()       # 127.0.0.1:port, its CA's file, what it was asked: (method, path, status)

Nothing is downloaded, and every process that is started here is ended here, by its own id.
"""
import base64
import gzip
import hashlib
import http.client
import http.server
import io
import json
import os
import re
import socket
import socketserver
import ssl
import subprocess
import tarfile
import threading
import time
import urllib.parse

USER, PASSWORD = "tester", "a pass:word"


def run(*command, **options):
    r = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=180, **options)
    if r.returncode:
        raise SystemExit(f"{' '.join(command)}: {r.stdout}{r.stderr}")
    return r.stdout


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def certificates(folder, name="127.0.0.1", days=30):
    """A CA, and a certificate for loopback (or for another name): ca.pem, server.pem, server.key."""
    os.makedirs(folder, exist_ok=True)
    path = lambda f: os.path.join(folder, f)
    if not os.path.exists(path("ca.pem")):
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
            "-subj", "/CN=test authority", "-keyout", path("ca.key"), "-out", path("ca.pem"),
            "-addext", "keyUsage=critical,keyCertSign")
    with open(path("ext"), "w") as f:
        f.write(f"subjectAltName={'IP' if re.fullmatch('[0-9.]+', name) else 'DNS'}:{name}"
                + (",DNS:localhost" if name == "127.0.0.1" else "") + "\n")
    run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=" + name,
        "-keyout", path("server.key"), "-out", path("server.csr"))
    run("openssl", "x509", "-req", "-in", path("server.csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"),
        "-CAcreateserial", "-days", str(days), "-extfile", path("ext"), "-out", path("server.pem"))
    return path("ca.pem"), path("server.pem"), path("server.key")


class TokenServer:
    """Gives out tokens as the registry's configuration trusts them: RS256, the key's certificate in the header."""

    def __init__(self, folder, tls):
        self.folder, self.requests, self.seconds, self.refresh = folder, [], 300, "a-refresh-token"
        self.key, self.cert = os.path.join(folder, "token.key"), os.path.join(folder, "token.pem")
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=tokens",
            "-keyout", self.key, "-out", self.cert)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def answer(self, status, body):
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                want = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                ok = self.headers.get("Authorization") == want
                outer.requests.append(("GET", self.path, 200 if ok else 401))
                self.answer(200 if ok else 401, {"token": outer.token(query), "expires_in": outer.seconds} if ok else {})

            def do_POST(self):
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = urllib.parse.parse_qs(text)
                ok = form.get("grant_type") == ["refresh_token"] and form.get("refresh_token") == [outer.refresh]
                outer.requests.append(("POST", text, 200 if ok else 401))
                self.answer(200 if ok else 401, {"access_token": outer.token(form), "expires_in": outer.seconds} if ok else {})

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # a client that goes away in the middle is part of the test

        self.server = Server(("127.0.0.1", 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls[1], tls[2])
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.realm = f"{'https' if tls else 'http'}://127.0.0.1:{self.server.server_address[1]}/token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, query):
        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, name, actions = scope.rsplit(":", 2) if scope.count(":") == 2 else (scope, "", "")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        b64 = lambda b: base64.urlsafe_b64encode(b).rstrip(b"=").decode()
        with open(self.cert) as f:
            der = ssl.PEM_cert_to_DER_cert(f.read())
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {"iss": "tests", "sub": USER, "aud": "registry", "exp": now + self.seconds, "nbf": now - 60, "iat": now,
                  "jti": os.urandom(8).hex(), "access": access}
        text = b64(json.dumps(head).encode()) + "." + b64(json.dumps(claims).encode())
        r = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=text.encode(), capture_output=True, check=True)
        return text + "." + b64(r.stdout)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Registry:
    def __init__(self, folder, tls=False, auth=None, name="127.0.0.1"):
        self.folder, self.auth, self.tokens, self.process = folder, auth, None, None
        os.makedirs(folder, exist_ok=True)
        path = lambda f: os.path.join(folder, f)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.tls = certificates(path("tls"), name) if tls else None
        self.ca = self.tls[0] if tls else None
        config = {"version": 0.1, "log": {"level": "info", "accesslog": {"disabled": False}},
                  "storage": {"filesystem": {"rootdirectory": path("data")}, "delete": {"enabled": True}},
                  "http": {"addr": self.address}}
        if tls:
            config["http"]["tls"] = {"certificate": self.tls[1], "key": self.tls[2]}
        if auth == "basic":
            hashed = run("htpasswd", "-nbB", "-C", "4", USER, PASSWORD)
            with open(path("htpasswd"), "w") as f:
                f.write(hashed)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": path("htpasswd")}}
        if auth == "token":
            self.tokens = TokenServer(folder, self.tls)
            config["auth"] = {"token": {"realm": self.tokens.realm, "service": "registry", "issuer": "tests",
                                        "rootcertbundle": self.tokens.cert}}
        with open(path("config.yml"), "w") as f:
            json.dump(config, f)  # JSON is YAML
        self.log = path("log")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", path("config.yml")], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=dict(os.environ, OTEL_TRACES_EXPORTER="none"))
        end = time.monotonic() + 30  # it does not say that it listens
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit("docker-registry does not start: " + open(self.log).read())
            time.sleep(0.05)

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def push(self, layout, name):
        """Copies all of an OCI layout ("oci:DIR:TAG") into the registry."""
        extra = ["--dest-creds", f"{USER}:{PASSWORD}"] if self.auth else []
        run("skopeo", "copy", "-q", "--all", "--preserve-digests", "--dest-tls-verify=false", *extra, layout,
            f"docker://{self.address}/{name}")

    def requests(self):
        """(method, path, status) of each request so far."""
        with open(self.log, errors="replace") as f:
            return [(m[1], m[2], int(m[3])) for m in re.finditer(r'"(GET|HEAD|PUT|POST|PATCH|DELETE) (\S+) HTTP/[\d.]+" (\d+)',
                                                                 f.read())]

    def blob_file(self, digest):
        return os.path.join(self.folder, "data/docker/registry/v2/blobs/sha256", digest[7:9], digest[7:], "data")

    def close(self):
        if self.process:
            self.process.terminate()
            self.process.wait(10)
        if self.tokens:
            self.tokens.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- The program that pulls (pull.c) ---------------------------------------------------------------------------------

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def build(folder, name, source="tests/registry/pull.c", flags=(), sanitize="address,undefined"):
    """Compiles a program, unless the build directory has one that is newer than all sources."""
    binary = os.path.join(os.environ.get("CC_BUILD", folder), name)
    sources = [os.path.join(d, f) for top in ("src", "guest") for d, _, files in os.walk(os.path.join(ROOT, top))
               for f in files if f.endswith(".h")] + [os.path.join(ROOT, f) for f in ("cc.h", source)]
    if os.path.exists(binary) and os.path.getmtime(binary) > max(map(os.path.getmtime, sources)):
        return binary
    run("gcc", "-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Wno-unused-function", "-Wno-tsan",
        "-fsanitize=" + sanitize, "-fno-sanitize-recover=all", "-I" + ROOT, os.path.join(ROOT, source), "-o", binary + ".new",
        "-lpthread", "-l:libbearssl.a", *flags)
    os.replace(binary + ".new", binary)
    return binary


def build_pull(folder):
    return build(folder, "registry_pull")


class Puller:
    """Runs it, each time with a store of a name."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.home = os.path.join(folder, "home")
        os.makedirs(self.home, exist_ok=True)

    def store(self, name):
        return os.path.join(self.folder, "store-" + name)

    def environment(self, env):
        base = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and k not in ("DOCKER_CONFIG", "SSL_CERT_FILE")}
        return dict(base, HOME=self.home, **{k: str(v) for k, v in env.items() if v is not None})

    def __call__(self, store, reference, **env):
        """(exit code, output)"""
        r = subprocess.run([self.binary, self.store(store), reference], capture_output=True, text=True, errors="replace",
                           env=self.environment(env), stdin=subprocess.DEVNULL, timeout=100)
        return r.returncode, r.stdout + r.stderr


# ---- Image layouts ------------------------------------------------------------------------------------------------


def tar_of(files):
    """A tar of {path: bytes, or TarInfo with its bytes}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as t:
        for path, content in files.items():
            info, data = content if isinstance(content, tuple) else (tarfile.TarInfo(path), content)
            info.name = path
            info.mtime = 1700000000
            if info.isreg():
                info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Layout:
    """An OCI image layout in a directory, under construction."""

    def __init__(self, folder):
        self.folder, self.index = folder, []
        os.makedirs(os.path.join(folder, "blobs/sha256"))
        with open(os.path.join(folder, "oci-layout"), "w") as f:
            f.write('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data, media):
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(self.folder, "blobs/sha256", digest), "wb") as f:
            f.write(data)
        return {"mediaType": media, "digest": "sha256:" + digest, "size": len(data)}

    def layer(self, files, compress=True):
        """(descriptor, diffID)"""
        tar = files if isinstance(files, bytes) else tar_of(files)
        diff = "sha256:" + hashlib.sha256(tar).hexdigest()
        media = "application/vnd.oci.image.layer.v1.tar"
        return (self.blob(gzip.compress(tar, 1, mtime=0), media + "+gzip") if compress else self.blob(tar, media)), diff

    def image(self, layers, arch="amd64", **config):
        """The descriptor of an image of layers that self.layer made."""
        text = {"architecture": arch, "os": "linux", "config": config,
                "rootfs": {"type": "layers", "diff_ids": [d for _, d in layers]}}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": self.blob(json.dumps(text).encode(), "application/vnd.oci.image.config.v1+json"),
                    "layers": [l for l, _ in layers]}
        d = self.blob(json.dumps(manifest).encode(), manifest["mediaType"])
        return dict(d, platform={"os": "linux", "architecture": arch})

    def many(self, images):
        """An index of them."""
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": images}
        return self.blob(json.dumps(index).encode(), index["mediaType"])

    def tag(self, descriptor, name):
        d = {k: v for k, v in descriptor.items() if k != "platform"}
        self.index.append(dict(d, annotations={"org.opencontainers.image.ref.name": name}))
        with open(os.path.join(self.folder, "index.json"), "w") as f:
            json.dump({"schemaVersion": 2, "manifests": self.index}, f)
        return f"oci:{self.folder}:{name}"

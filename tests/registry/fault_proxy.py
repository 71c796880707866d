#!/usr/bin/env python3
"""An HTTP server that goes wrong to order: in front of a real one, or with answers of its own; and a forward proxy.

    with FaultProxy(upstream="127.0.0.1:5000") as p:                # or FaultProxy(answer=lambda request: (200, [], b"hi"))
        p.rule("GET .*/blobs/", "cut", 1000)                        # the next such request is cut after 1000 bytes of body
        p.rule("HEAD", "status", 429, times=2, headers=[("Retry-After", "1")])
        p.address                                                   # 127.0.0.1:port
        p.log                                                       # what came, in order: see class Entry

A rule holds for requests whose "METHOD target" its pattern finds, `times` times (default once; None: always). The first
that holds is taken. Faults, with their argument:

    refuse        close without an answer            reset N       N bytes of body, then a TCP reset
    cut_head N    N bytes of the head, then close    cut N         N bytes of body, then close
    stall N       N bytes of body, then silence      stall_head N  N bytes of the head, then silence
    drip S        body in pieces of `piece` bytes,   drip_head S   the same for the head
                  S seconds apart
    longer N      says N bytes more than come        shorter N     says N bytes fewer than come
    wrong N       the body's byte N is changed       truncate N    only N bytes of body, and says so
    huge_head N   N bytes more of header             chunked N     the body in chunks of N bytes, without a length
    append B      bytes B behind the body            raw B         bytes B and nothing else
    body B        other bytes than upstream's        no_range      the whole, whatever range was asked for
    status N      this status, `headers`, `body`     redirect L    307 to L; {path} in it is the request's target

As a command: fault_proxy.py HOST:PORT RULES.json [PORT], the rules a list of [pattern, fault, argument, {options}].
"""
import http.client
import json
import re
import select
import socket
import ssl
import struct
import sys
import threading


class Entry:
    """A request as it came, and what became of the answer."""

    def __init__(self, connection, method, target, headers, body):
        self.connection = connection  # number of the TCP connection
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.fault = None             # name of the fault it met
        self.sent = 0                 # bytes of answer that the socket took
        self.gone = False             # whether the client was seen to close in the middle of it

    def header(self, name):
        return next((v for k, v in self.headers if k.lower() == name.lower()), None)


class Rule:
    def __init__(self, pattern, fault, arg=None, times=1, piece=1, headers=(), body=b""):
        self.pattern, self.fault, self.arg, self.times = re.compile(pattern), fault, arg, times
        self.piece, self.headers, self.body = piece, list(headers), body


class Closed(Exception):
    """The connection is to end now."""


class FaultProxy:
    def __init__(self, upstream=None, answer=None, tls=None, hosts=None, credentials=None, port=0):
        """tls: (certificate, key) to serve with. hosts: {"name": "address"} for CONNECT and absolute targets.
        credentials: the value of Proxy-Authorization that is wanted."""
        self.upstream, self.answer, self.hosts, self.credentials = upstream, answer, hosts or {}, credentials
        self.rules, self.log, self.connections, self.lock = [], [], 0, threading.Lock()
        self.changed = threading.Condition(self.lock)  # the log has grown, or a client has gone
        self.open = set()
        self.stopping = False
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*tls)
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = ("https://" if tls else "http://") + self.address
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.stopping = True
        self.listener.close()
        with self.lock:
            left = list(self.open)
        for s in left:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def left_by(self, entry):
        """Notes that the client has gone."""
        with self.changed:
            entry.gone = True
            self.changed.notify_all()

    def wait_until_gone(self, entry, timeout):
        with self.changed:
            return self.changed.wait_for(lambda: entry.gone, timeout)

    def rule(self, *args, **kw):
        with self.lock:
            self.rules.append(Rule(*args, **kw))

    def take_rule(self, line):
        with self.lock:
            for r in self.rules:
                if r.times != 0 and r.pattern.search(line):
                    if r.times is not None:
                        r.times -= 1
                    return r
        return Rule("", None)

    def accept(self):
        while not self.stopping:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                number = self.connections
                self.open.add(s)
            threading.Thread(target=self.serve, args=(s, number), daemon=True).start()

    def serve(self, plain, number):
        s = plain
        try:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                s = self.context.wrap_socket(s, server_side=True)
            stream = s.makefile("rb")
            while self.one(s, stream, number):
                pass
        except (OSError, Closed, ValueError):
            pass
        finally:
            with self.lock:
                self.open.discard(plain)
            try:  # with TLS: a proper end
                s = s.unwrap() if isinstance(s, ssl.SSLSocket) else s
            except (OSError, ValueError):
                pass
            try:
                s.shutdown(socket.SHUT_WR)  # whatever still has the descriptor, the peer learns of the end
            except OSError:
                pass
            s.close()

    def one(self, s, stream, number):
        line = stream.readline(65537)
        if not line:
            return False
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers = []
        while (h := stream.readline(65537)) not in (b"\r\n", b""):
            name, _, value = h.decode("latin-1").partition(":")
            headers.append((name, value.strip()))
        entry = Entry(number, method, target, headers, b"")
        entry.body = stream.read(int(entry.header("Content-Length") or 0))
        with self.lock:
            self.log.append(entry)
            self.changed.notify_all()
        if (method == "CONNECT" or "://" in target) and self.credentials and \
                entry.header("Proxy-Authorization") != self.credentials:
            self.send(s, entry, b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
            return True
        if method == "CONNECT":
            return self.tunnel(s, entry)
        return self.respond(s, entry)

    # ---- Answers ----

    def place(self, address):
        host, _, port = address.rpartition(":")
        return self.hosts.get(host, host.strip("[]")), int(port)

    def tunnel(self, s, entry):
        try:
            other = socket.create_connection(self.place(entry.target), timeout=10)
        except OSError:
            self.send(s, entry, b"HTTP/1.1 502 Not there\r\nContent-Length: 0\r\n\r\n")
            return True
        self.send(s, entry, b"HTTP/1.1 200 Connected\r\n\r\n")
        with other:
            while True:
                for ready in select.select([s, other], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return False
                    (other if ready is s else s).sendall(data)

    def fetch(self, entry, rule):
        """(status, headers, body as an iterable of bytes, its length)."""
        if self.answer:
            status, headers, body = self.answer(entry)
            return status, headers, [body], len(body)
        address, target = self.upstream, entry.target
        if "://" in target:
            address, slash, target = target.split("://", 1)[1].partition("/")
            target = slash + target
            address += "" if ":" in address else ":80"
        connection = http.client.HTTPConnection(*self.place(address), timeout=60)
        connection.putrequest(entry.method, target, skip_host=True, skip_accept_encoding=True)
        for k, v in entry.headers:
            if k.lower() not in ("connection", "proxy-authorization") and not (rule.fault == "no_range" and k.lower() == "range"):
                connection.putheader(k, v)
        connection.endheaders(entry.body or None)
        r = connection.getresponse()
        headers = [(k, v) for k, v in r.getheaders() if k.lower() not in ("transfer-encoding", "connection", "content-length")]
        length = r.getheader("Content-Length")
        if length is None and entry.method != "HEAD":
            body = r.read()
            return r.status, headers, [body], len(body)
        return r.status, headers, iter(lambda: r.read(65536), b""), int(length or 0)

    def respond(self, s, entry):
        rule = self.take_rule(f"{entry.method} {entry.target}")
        fault, arg = rule.fault, rule.arg
        entry.fault = fault
        if fault == "refuse":
            return False
        if fault == "raw":
            self.send(s, entry, arg)
            return False
        if fault in ("status", "redirect"):
            extra = [("Location", arg.replace("{path}", entry.target))] if fault == "redirect" else []
            status, headers, body, length = (307 if extra else arg), extra + rule.headers, [rule.body], len(rule.body)
        else:
            status, headers, body, length = self.fetch(entry, rule)
        if fault == "body":
            body, length = [arg], len(arg)
        if fault == "truncate":
            body, length = [b"".join(body)[:arg]], min(length, arg)
        said = length + (arg if fault == "longer" else -arg if fault == "shorter" else 0)
        if fault == "append":  # in one piece with the body, so that it does not come too late to be seen
            body = [b"".join(body) + arg]
        head = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Status')}"] + [f"{k}: {v}" for k, v in headers]
        head.append("Transfer-Encoding: chunked" if fault == "chunked" else f"Content-Length: {said}")
        if fault == "huge_head":
            head += [f"X-Filler-{i}: " + "x" * 1000 for i in range(arg // 1000)]
        self.send_head(s, entry, rule, ("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
        if entry.method != "HEAD" and status not in (204, 304):
            self.send_body(s, entry, rule, body)
        return fault not in ("longer", "shorter") and (entry.header("Connection") or "").lower() != "close"

    def send(self, s, entry, data):
        try:
            s.sendall(data)
        except OSError:
            self.left_by(entry)
            raise
        entry.sent += len(data)

    def watch(self, s, entry, timeout):
        """Waits, but not longer than until the client goes (a reset, if it left bytes unread)."""
        if select.select([s], [], [], timeout)[0]:
            try:
                if s.recv(65536):
                    return
            except ConnectionError:
                pass
            self.left_by(entry)
            raise Closed

    def silence(self, s, entry):
        while True:
            self.watch(s, entry, None)

    def drip(self, s, entry, rule, data):
        for at in range(0, len(data), rule.piece):
            self.watch(s, entry, rule.arg)
            self.send(s, entry, data[at:at + rule.piece])

    def send_head(self, s, entry, rule, head):
        if rule.fault in ("cut_head", "stall_head"):
            self.send(s, entry, head[:rule.arg])
            if rule.fault == "stall_head":
                self.silence(s, entry)
            raise Closed
        if rule.fault == "drip_head":
            self.drip(s, entry, rule, head)
        else:
            self.send(s, entry, head)

    def send_body(self, s, entry, rule, body):
        at = 0
        for data in body:
            if rule.fault == "drip":
                self.drip(s, entry, rule, data)
                continue
            if rule.fault in ("cut", "reset", "stall") and at + len(data) >= rule.arg:
                self.send(s, entry, data[:rule.arg - at])
                if rule.fault == "stall":
                    self.silence(s, entry)
                if rule.fault == "reset":
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    s.close()
                raise Closed
            if rule.fault == "wrong" and at <= rule.arg < at + len(data):
                data = data[:rule.arg - at] + bytes([data[rule.arg - at] ^ 0x20]) + data[rule.arg - at + 1:]
            at += len(data)
            if rule.fault == "chunked":
                for i in range(0, len(data), rule.arg):
                    piece = data[i:i + rule.arg]
                    self.send(s, entry, b"%x\r\n%s\r\n" % (len(piece), piece))
            else:
                self.send(s, entry, data)
        if rule.fault == "chunked":
            self.send(s, entry, b"0\r\n\r\n")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    proxy = FaultProxy(upstream=sys.argv[1], port=int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    with open(sys.argv[2], encoding="utf-8") as f:
        for pattern, fault, *rest in json.load(f):
            arg, options = (rest + [None, {}])[0], (rest[1] if len(rest) > 1 else {})
            if "body" in options:
                options["body"] = options["body"].encode()
            proxy.rule(pattern, fault, arg.encode() if fault in ("raw", "append", "body") else arg, **options)
    print(proxy.address, flush=True)
    seen = 0
    while True:
        with proxy.changed:
            proxy.changed.wait_for(lambda: len(proxy.log) > seen)
            new = proxy.log[seen:]
        for e in new:
            seen += 1
            print(f"{e.connection} {e.method} {e.target} {e.fault or '-'}", flush=True)


if __name__ == "__main__":
    main()

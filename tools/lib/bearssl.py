"""BearSSL's TLS client as one region of dist/cc.h: the part of its sources that registry/tls_bear.h and trust_anchors.h use.

The sources are those of tools/bearssl, whose text is checked against DIGEST: the lists here were made for it. They are
joined in a fixed order, headers first. What makes many files into one:

  linkage     every declaration outside of functions becomes static, so that no symbol of theirs leaves the program
  collisions  a name that is private to several files is defined as a macro of file and name for the length of each
  macros      those of a file are undefined behind it, those of the headers behind the last part that uses them (END)
  includes    those in DROPPED are for systems or settings that we do not use
  the rest    declarations of what other files of BearSSL define go, and so do comments; the licence stands at the top

Nothing else is changed, and our own code is not touched at all.
"""
import hashlib
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
INCLUDE = "#include <bearssl.h>"  # the line that the region takes the place of
END = "src/registry/tls_bear.h"  # behind this part the headers' macros end
DIGEST = "76350c2f0d7da137210d314196012b2e5540cd5b026d40b71632b20fec3ea1cf"
HEADERS = ["src/config.h"] + ["inc/bearssl_%s.h" % h for h in (
    "hash", "hmac", "kdf", "block", "rand", "prf", "aead", "rsa", "ec", "x509", "ssl", "pem")] + ["inc/bearssl.h", "src/inner.h"]
SOURCES = """
    src/symcipher/aes_ct64.c src/symcipher/aes_ct64_ctr.c src/symcipher/aes_ct64_enc.c src/symcipher/aes_x86ni.c
    src/symcipher/aes_x86ni_ctr.c src/codec/ccopy.c src/symcipher/chacha20_ct.c src/symcipher/chacha20_sse2.c
    src/codec/dec32be.c src/codec/dec32le.c src/codec/dec64be.c src/ec/ec_all_m31.c src/ec/ec_c25519_m31.c
    src/ec/ec_p256_m31.c src/ec/ec_prime_i31.c src/ec/ec_secp256r1.c src/ec/ec_secp384r1.c src/ec/ec_secp521r1.c
    src/ec/ecdsa_atr.c src/ec/ecdsa_i31_bits.c src/ec/ecdsa_i31_vrfy_asn1.c src/ec/ecdsa_i31_vrfy_raw.c
    src/codec/enc32be.c src/codec/enc32le.c src/codec/enc64be.c src/hash/ghash_ctmul64.c src/hash/ghash_pclmul.c
    src/mac/hmac.c src/rand/hmac_drbg.c src/int/i31_add.c src/int/i31_bitlen.c src/int/i31_decmod.c src/int/i31_decode.c
    src/int/i31_encode.c src/int/i31_fmont.c src/int/i31_iszero.c src/int/i31_modpow.c src/int/i31_modpow2.c
    src/int/i31_montmul.c src/int/i31_muladd.c src/int/i31_ninv31.c src/int/i31_rshift.c src/int/i31_sub.c
    src/int/i31_tmont.c src/int/i32_div32.c src/int/i62_modpow2.c src/hash/multihash.c src/symcipher/poly1305_ctmul.c
    src/symcipher/poly1305_ctmulq.c src/ssl/prf.c src/ssl/prf_sha256.c src/ssl/prf_sha384.c src/rsa/rsa_i31_pkcs1_vrfy.c
    src/rsa/rsa_i31_pub.c src/rsa/rsa_i62_pkcs1_vrfy.c src/rsa/rsa_i62_pub.c src/rsa/rsa_pkcs1_sig_unpad.c
    src/hash/sha1.c src/hash/sha2big.c src/hash/sha2small.c src/ssl/ssl_client.c src/ssl/ssl_engine.c src/ssl/ssl_hs_client.c
    src/ssl/ssl_rec_chapol.c src/ssl/ssl_rec_gcm.c src/rand/sysrng.c src/x509/x509_decoder.c src/x509/x509_minimal.c
""".split()
KEPT = {"stddef.h", "stdint.h", "string.h", "limits.h", "cpuid.h", "x86intrin.h"}
DROPPED = {"stdio.h", "stdlib.h", "sys/types.h", "unistd.h", "fcntl.h", "errno.h", "time.h",  # for its own randomness and clock
           "windows.h", "wincrypt.h", "intrin.h", "immintrin.h"}  # for Microsoft's compiler
SETTINGS = {"BR_USE_URANDOM": 0, "BR_USE_WIN32_RAND": 0, "BR_USE_UNIX_TIME": 0, "BR_USE_WIN32_TIME": 0,  # we give it both
            "BR_ENABLE_INTRINSICS": 1}  # some files set this before they include inner.h
QUIET = ["-Wunused-function", "-Wunused-variable", "-Wunused-parameter", "-Wconversion", "-Wsign-conversion", "-Wshadow",
         "-Wsign-compare", "-Wimplicit-fallthrough"]
TARGET = re.compile(r'\s*(?:BR_TARGETS_X86_UP|BR_TARGETS_X86_DOWN|BR_TARGET\("[^"]*"\))')
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|/\*.*?\*/|//[^\n]*|\n[ \t]*#(?:\\\n|[^\n])*|.', re.S)
DEFINE = re.compile(r"^\s*#\s*define\s+(\w+)", re.M)


class Unit:
    """One file, cut into its declarations outside of functions."""

    def __init__(self, name, text):
        self.name = name
        self.stem = os.path.splitext(os.path.basename(name))[0]
        self.pieces = []
        self.private = set()  # what it keeps to itself
        self.defined = set()  # what it defines for all
        self.announced = {}  # by number of the piece: what that declares and does not define
        self.cut(text)
        self.macros = sorted(set(DEFINE.findall("".join(self.pieces))))

    def lines(self, defined):
        """The text, without declarations of what is defined in a file that we do not have."""
        kept = (p for i, p in enumerate(self.pieces) if self.announced.get(i, "") in defined | {""})
        return re.sub(r"\n\s*\n+", "\n", "".join(kept)).strip().splitlines()

    def cut(self, text):
        text = text.replace('#ifdef __cplusplus\nextern "C" {\n#endif', "").replace("#ifdef __cplusplus\n}\n#endif", "")
        depth, piece = 0, ""
        for token in TOKEN.findall("\n" + text):
            if token.startswith(("/*", "//")):
                piece += " "
            elif token.lstrip().startswith("#"):
                token = self.directive(re.sub(r"/\*.*?(\*/|$)", "", token, flags=re.S))
                if depth == 0 and not TARGET.sub("", piece).strip():
                    self.pieces.append(piece + token)
                    piece = ""
                else:
                    piece += token
            else:
                piece += token
                depth += (token in "({[") - (token in ")}]")
                if depth == 0 and (token == ";" or (token == "}" and self.is_function(piece))):
                    self.pieces.append(self.declaration(piece))
                    piece = ""
        if depth or TARGET.sub("", piece).strip():
            sys.exit(f"bearssl: {self.name} ends within a declaration: {piece[:200]}")
        self.pieces.append(piece)

    def directive(self, line):
        m = re.match(r"\s*#\s*include\s+([<\"])(.*)[>\"]", line)
        if not m:
            return line
        if m[1] == '"' or m[2] in DROPPED:
            return "\n"
        if m[2] not in KEPT:
            sys.exit(f"bearssl: {self.name} includes <{m[2]}>, which is in no list")
        return line

    @staticmethod
    def is_function(piece):
        """Whether a piece that ends in } is a function, not the first half of a struct or an initialized object."""
        head = TARGET.sub("", re.sub(r"^\s*#.*$", "", piece[:piece.index("{")], flags=re.M))
        return head.rstrip().endswith(")") and "=" not in head

    def declaration(self, piece):
        at = 0
        while m := (TARGET.match(piece, at) or re.compile(r"\s*\n[ \t]*#[^\n]*").match(piece, at)):
            at = m.end()
        front, rest = piece[:at], piece[at:]
        space, rest = rest[:len(rest) - len(rest.lstrip())], rest.lstrip()
        if re.match(r"typedef\b", rest):
            m = re.search(r"\(\s*\*\s*(\w+)\s*\)\s*\(", rest) if "{" not in rest else None
            self.private.add((m or re.search(r"(\w+)\s*(?:\[[^]]*\]\s*)?;$", rest))[1])
        elif re.match(r"static\b", rest):
            self.private.add(self.declared(rest))
        elif not re.match(r"(struct|union|enum)\s+\w+\s*(\{.*\}\s*)?;|;", rest, re.S):
            name = self.declared(rest)
            if rest.endswith("}"):  # a macro may define one more before it, so every word counts
                self.defined.update(re.findall(r"\w+", rest[:rest.index("{")]))
            elif "=" in rest:
                self.defined.add(name)
            else:
                self.announced[len(self.pieces)] = name
            rest = "static " + re.sub(r"^extern\s+", "", rest)
        return front + space + rest

    @staticmethod
    def declared(text):
        """The name that a declaration makes."""
        m = re.search(r"(\w+)\s*(?:\(|\[|=|;)", re.sub(r"__attribute__\s*\(\(.*?\)\)", "", TARGET.sub("", text)))
        return m[1]


def source():
    """Where the sources are; fetched when they are not there yet."""
    r = subprocess.run([os.path.join(HERE, "..", "bearssl")], stdout=subprocess.PIPE, text=True)
    if r.returncode:
        sys.exit("amalgamate.py: without BearSSL's sources dist/cc.h cannot be made")
    return r.stdout.strip()


def read(folder):
    files = {}
    for name in HEADERS + SOURCES + ["LICENSE.txt"]:
        with open(os.path.join(folder, name), encoding="utf-8") as f:
            files[name] = f.read()
    digest = hashlib.sha256("".join(files.values()).encode()).hexdigest()
    if digest != DIGEST:
        sys.exit(f"bearssl: {folder} is not the BearSSL 0.6 that the lists in tools/lib/bearssl.py were made for ({digest})")
    return files


def region():
    """The region's lines, and those that end its macros."""
    files = read(source())
    headers = [Unit(n, files[n]) for n in HEADERS]
    sources = [Unit(n, files[n]) for n in SOURCES]
    defined = set().union(*(u.defined for u in headers + sources))
    public = set().union(*(u.macros for u in headers))
    out = ["/* ======== BearSSL 0.6: not ours; joined by amalgamate.py, see tools/lib/bearssl.py ========", " *"]
    out += [(" * " + l).rstrip() for l in files["LICENSE.txt"].strip().splitlines()] + [" */"]
    out += ["#pragma GCC diagnostic push"] + [f'#pragma GCC diagnostic ignored "{w}"' for w in QUIET]
    out += [f"#define {s} {v}" for s, v in SETTINGS.items()]
    for u in headers:
        out += [f"/* {u.name} */"] + u.lines(defined)
    for u in sources:
        clash = sorted(n for n in u.private if any(n in v.private for v in sources if v is not u))
        out += [f"/* {u.name} */"] + [f"#define {n} {n}_in_{u.stem}" for n in clash] + u.lines(defined)
        out += [f"#undef {n}" for n in sorted((set(u.macros) | set(clash)) - public)]
    out += ["#pragma GCC diagnostic pop", "/* ======== end of BearSSL ======== */"]
    end = ["/* ======== BearSSL's macros end ======== */"] + [f"#undef {m}" for m in sorted(public | set(SETTINGS))]
    return out, end

"""A second implementation of the keys, prefaces, records and JOIN of
blindrelay-e2e/1, written from crypto/DESIGN.md (sections 4, 5 and 6) and from
nothing else, with the primitives of python3-cryptography.

TestSecondImplementation asks it: one JSON object a line, with bytes in hex.
The answer to what it refuses is {"refused": why}.
"""

import hashlib
import hmac
import json
import random
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

NAME = b"blindrelay-e2e/1"
DATA, END = 1, 2
FIRST, FURTHER = b"\x02", b"\x03"
SUITES = {0x1301: (16, AESGCM), 0x1302: (32, AESGCM), 0x1303: (32, ChaCha20Poly1305)}


class Refused(Exception):
    pass


# Section 4: keys.


def context(pin_m, pin_d):
    return hashlib.sha256(NAME + b" ctx\0" + pin_m + pin_d).digest()


def x(secret, label, c, n):
    return HKDFExpand(SHA256(), n, NAME + b" " + label + b"\0" + c).derive(secret)


def open_secret(s, suite, number, so):
    return x(s, b"open", struct.pack(">HcQ", suite, b"D", number) + so, 32)


def accept_secret(s, suite, number, so, sa):
    return x(s, b"accept", struct.pack(">HcQ", suite, b"D", number) + so + sa, 32)


def commit(secret):
    return x(secret, b"commit", b"", 32)


def carrier_mac(secret, binding, number, gone, following):
    resume = x(secret, b"resume", b"", 32)
    return x(resume, b"carrier", binding + struct.pack(">IIQ", number, gone, following), 32)


def demand_equal(got, want, what):
    if not hmac.compare_digest(got, want):
        raise Refused(what)


# Section 5: records and prefaces.


class Half:
    """Seals or opens any record of a half, by its number."""

    def __init__(self, suite, secret):
        self.suite, self.secrets = suite, [secret]

    def aead(self, seq):
        while len(self.secrets) <= seq >> 20:
            self.secrets.append(x(self.secrets[-1], b"next", b"", 32))
        size, algorithm = SUITES[self.suite]
        b = x(self.secrets[seq >> 20], b"key", b"", size + 12)
        nonce = bytes(p ^ q for p, q in zip(b[size:], bytes(4) + struct.pack(">Q", seq)))
        return algorithm(b[:size]), nonce

    def seal(self, seq, kind, content, padding):
        aead, nonce = self.aead(seq)
        inner = content + bytes([kind]) + bytes(padding)
        head = struct.pack(">H", len(inner) + 16) + struct.pack(">Q", seq)[2:]
        return head + aead.encrypt(nonce, inner, head)

    def open(self, record):
        head, body = record[:8], record[8:]
        aead, nonce = self.aead(int.from_bytes(head[2:], "big"))
        try:
            inner = aead.decrypt(nonce, body, head)
        except InvalidTag:
            raise Refused("a record does not verify") from None
        kept = inner.rstrip(b"\0")
        if not kept or len(inner) - len(kept) > 255 or kept[-1] not in (DATA, END) or len(kept) - 1 > 16384:
            raise Refused("not an inner record")
        return kept[-1], kept[:-1]


def split(b):
    """Splits bytes into whole records: number and bytes."""
    while b:
        if len(b) < 8:
            raise Refused("truncated")
        n = int.from_bytes(b[:2], "big")
        if not 17 <= n <= 16656:
            raise Refused("length of a record")
        if len(b) < 8 + n:
            raise Refused("truncated")
        yield int.from_bytes(b[2:8], "big"), b[: 8 + n]
        b = b[8 + n :]


def read_half(half, b):
    """Returns the content of a whole half that came over one carrier."""
    content, ended, empty, following = b"", False, 0, 0
    for seq, record in split(b):
        if ended:
            raise Refused("bytes after END")
        if seq != following:
            raise Refused("a record at the wrong place")
        kind, part = half.open(record)
        empty = empty + 1 if kind == DATA and not part else 0
        if empty > 32:
            raise Refused("too many empty records")
        content, ended, following = content + part, kind == END, following + 1
    if not ended:
        raise Refused("truncated")
    return content


def write_half(half, content, rng):
    """Seals content in records of random sizes, with random padding."""
    out, seq = b"", 0
    while True:
        n = rng.choice([0, 1, 15, 16, 17, 300, 5000, 16384, rng.randrange(16385)])
        part, content = content[:n], content[n:]
        last = not content and rng.random() < 0.5
        out += half.seal(seq, END if last else DATA, part, rng.choice([0, 0, 1, 254, 255, rng.randrange(256)]))
        if last:
            return out
        seq += 1


def opener_half(s, suite, b):
    """Verifies the opener's part of a preface of either kind."""
    if len(b) < 65 or b[:1] not in (FIRST, FURTHER):
        raise Refused("preface")
    number, so = int.from_bytes(b[1:9], "big"), b[9:33]
    if number >= 1 << 62:
        raise Refused("number of a stream")
    secret = open_secret(s, suite, number, so)
    demand_equal(b[33:65], commit(secret), "commit")
    return number, so, secret


def acceptor_half(s, suite, number, so, b):
    if len(b) < 57 or b[:1] not in (FIRST, FURTHER):
        raise Refused("preface")
    secret = accept_secret(s, suite, number, so, b[1:25])
    demand_equal(b[25:57], commit(secret), "commit")
    return secret


def further(first, secret, binding, number, gone, following):
    at = struct.pack(">IIQ", number, gone, following)
    return FURTHER + first[1:] + at + carrier_mac(secret, binding, number, gone, following)


def read_further(b, secret, binding):
    """Verifies what follows the commit in a further carrier's preface."""
    if len(b) != 48:
        raise Refused("preface")
    at = struct.unpack(">IIQ", b[:16])
    demand_equal(b[16:], carrier_mac(secret, binding, *at), "carrier")
    return at


# What the test asks.


def exporter(q):
    return {
        "streams": "EXPORTER-blindrelay-e2e-v1",
        "binding": "EXPORTER-blindrelay-binding-v1",
        "context": context(q["server"], q["device"]),
    }


def read(q):
    number, so, secret = opener_half(q["secret"], q["suite"], q["up"])
    if q["up"][:1] != FIRST or q["down"][:1] != FIRST:
        raise Refused("not a first carrier")
    theirs = acceptor_half(q["secret"], q["suite"], number, so, q["down"])
    return {
        "id": number,
        "said": read_half(Half(q["suite"], secret), q["up"][65:]),
        "answered": read_half(Half(q["suite"], theirs), q["down"][57:]),
    }


def write(q):
    rng = random.Random(q["seed"])
    s, suite, number = q["secret"], q["suite"], q["id"]
    so, sa = rng.randbytes(24), rng.randbytes(24)
    mine, theirs = open_secret(s, suite, number, so), accept_secret(s, suite, number, so, sa)
    up = FIRST + struct.pack(">Q", number) + so + commit(mine)
    down = FIRST + sa + commit(theirs)
    return {
        "up": up + write_half(Half(suite, mine), q["said"], rng),
        "down": down + write_half(Half(suite, theirs), q["answered"], rng),
    }


def resume(q):
    """Makes the prefaces of a further carrier from those of the first one."""
    number, so, mine = opener_half(q["secret"], q["suite"], q["up"])
    theirs = acceptor_half(q["secret"], q["suite"], number, so, q["down"])
    return {
        "up": further(q["up"], mine, q["link"], *q["asks"]),
        "down": further(q["down"], theirs, q["link"], *q["answers"]),
    }


def resumed(q):
    """Reads the prefaces of a further carrier."""
    number, so, mine = opener_half(q["secret"], q["suite"], q["up"])
    theirs = acceptor_half(q["secret"], q["suite"], number, so, q["down"])
    if q["up"][:1] != FURTHER or q["down"][:1] != FURTHER:
        raise Refused("not a further carrier")
    asks, answers = read_further(q["up"][65:], mine, q["link"]), read_further(q["down"][57:], theirs, q["link"])
    if asks[0] != answers[0] or answers[1] != 0:
        raise Refused("the answer is to another carrier")
    return {"asks": asks, "answers": answers}


def merge(q):
    """Puts a half together of the records that came over several carriers."""
    _, _, secret = opener_half(q["secret"], q["suite"], q["up"])
    half, parts = Half(q["suite"], secret), {}
    for b in q["carriers"]:
        for seq, record in split(b):
            got = half.open(record)
            if parts.setdefault(seq, got) != got:
                raise Refused("two records of one number")
    if sorted(parts) != list(range(len(parts))):
        raise Refused("a record is missing")
    return {"said": b"".join(parts[seq][1] for seq in sorted(parts))}


def seal(q):
    half = Half(q["suite"], q["secret"])
    return {"records": [half.seal(seq, DATA, str(seq).encode(), seq % 256) for seq in q["seqs"]]}


def open_all(q):
    half = Half(q["suite"], q["secret"])
    return {"contents": [half.open(record)[1] for record in q["records"]]}


def join(q):
    s = q["secret"]
    b = x(s, b"session", b"", 16) + x(s, b"join", q["link"], 32) + struct.pack(">QH", q["next"], len(q["streams"]))
    return {"payload": b + b"".join(struct.pack(">Q", number) for number in q["streams"])}


ASKED = {f.__name__: f for f in (exporter, read, write, resume, resumed, merge, seal, open_all, join)}


def unhex(v):
    if isinstance(v, str):
        return bytes.fromhex(v)
    return [unhex(e) for e in v] if isinstance(v, list) else v


def hexed(v):
    if isinstance(v, bytes):
        return v.hex()
    return [hexed(e) for e in v] if isinstance(v, (list, tuple)) else v


for line in sys.stdin:
    question = json.loads(line)
    ask = ASKED[question.pop("ask")]
    try:
        answer = ask({k: unhex(v) for k, v in question.items()})
    except Refused as e:
        answer = {"refused": str(e)}
    print(json.dumps({k: v if k in ("refused", "streams", "binding") else hexed(v) for k, v in answer.items()}), flush=True)

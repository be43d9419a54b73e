# Computes the golden texts of invite_test.go from the layout alone:
# python3 testdata/invite.py
import base64
import hashlib
import hmac
import os
import struct


def text(flags, relays):
    b = bytes([1, flags]) + bytes(range(32)) + bytes(range(0x40, 0x50)) + bytes(range(0x80, 0x90))
    b += struct.pack(">I", 1767225600) + bytes([len(relays)])
    for addr, _ in relays:
        b += bytes([len(addr)]) + addr.encode()
    if flags & 2:
        b += b"".join(pin for _, pin in relays)
    b += hashlib.sha256(b"blindrelay-invite/1\0" + b).digest()[:4]
    return "BR1:" + base64.b32encode(b).decode().rstrip("=")


none = bytes(32)
print(text(0, [("relay.example.org:4433", none)]))
print(text(3, [("a.example:1", none), ("[2001:db8::1]:443", bytes(range(0xC0, 0xE0))), ("192.0.2.7:65535", none)]))
print(text(0, [("relay.example.org:4433/443", none)]))
print(hmac.new(bytes(range(0x40, 0x50)), b"blindrelay-invite-tok/1\0", hashlib.sha256).hexdigest()[:32])

# Six words of the binding 07 07 .. 07: HKDF-SHA256 (RFC 5869) without salt.
prk = hmac.new(bytes(32), bytes([7]) * 32, hashlib.sha256).digest()
okm = hmac.new(prk, b"blindrelay-pair/1 words\x01", hashlib.sha256).digest()[:9]
words = open(os.path.join(os.path.dirname(__file__), "../../e2e/words.txt")).read().split()
print(" ".join(words[int.from_bytes(okm, "big") >> (72 - 11 * (i + 1)) & 2047] for i in range(6)))

"""Frames of the link: what was encoded is decoded; a fault is noticed and costs only its own frame."""

import random
import re
import zlib
from pathlib import Path

import pytest

from s2tdpt.golden import link
from s2tdpt.golden.link import DAMAGED, Code, Frame, FrameDecoder, Identity, Kind, encode
from s2tdpt.golden.responder import Responder

PAGE = (Path(__file__).parents[2] / "docs" / "link.md").read_text(encoding="utf-8")
IDENTITY = Identity(2, 3, 1, 3, 4, 4, 50_000_000, bytes(range(32)))


def decode(data: bytes) -> list:
    return list(FrameDecoder().feed(data))


def frames(seed: int, count: int) -> list[Frame]:
    """Frames with many flags and escapes in them."""
    rng = random.Random(seed)
    pool = [0x7E, 0x7D, 0x5E, 0x5D, *range(256)]
    return [
        Frame(
            rng.randrange(256), rng.randrange(1 << 16), bytes(rng.choices(pool, k=rng.choice((0, 1, 6, 40))))
        )
        for _ in range(count)
    ]


def test_bytes_of_the_documented_example():
    """docs/link.md shows a frame byte by byte."""
    shown = re.search(r"`(7E(?: [0-9A-F]{2})+ 7E)`", PAGE)[1]
    frame = Frame(Kind.CLASSIFY, 0x017E, bytes([0, 0x7D, 255]))
    assert encode(frame) == bytes.fromhex(shown)
    assert frame.crc == zlib.crc32(bytes.fromhex("02 7E 01 03 00 00 7D FF"))


@pytest.mark.parametrize("kind", [*Kind, *Code])
def test_numbers_are_documented(kind):
    assert re.search(rf"^\| {int(kind)} \| {kind.name} \|", PAGE, re.MULTILINE)


def test_decodes_what_was_encoded():
    sent = frames(1, 200)
    line = b"".join(encode(frame) for frame in sent)
    assert decode(line) == sent
    decoder = FrameDecoder()
    assert [event for byte in line for event in decoder.feed(bytes([byte]))] == sent
    longest = Frame(2, 3, bytes((1 << 16) - 1))
    assert decode(encode(longest)) == [longest]


def test_every_single_fault_is_noticed():
    """One bit flipped, a byte lost or repeated, anywhere: no other frame comes, and the next is whole."""
    after = Frame(Kind.HELLO, 7, b"")
    for frame in frames(2, 3):
        good = encode(frame)
        faulty = [
            good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :]
            for at in range(len(good))
            for bit in range(8)
        ]
        faulty += [good[:at] + good[at + 1 :] for at in range(len(good))]
        faulty += [good[: at + 1] + good[at:] for at in range(len(good))]
        for line in faulty:
            found = decode(line + encode(after))
            assert found[-1] == after
            assert all(event in (DAMAGED, frame) for event in found[:-1])


def test_noise_truncation_and_garbage():
    """Random bytes and cut frames before a frame cost nothing but themselves."""
    rng = random.Random(3)
    after = Frame(Kind.HELLO, 7, b"")
    for frame in frames(4, 300):
        cut = encode(frame)
        garbage = rng.randbytes(rng.randrange(40)) + cut[: rng.randrange(len(cut) - 1)]
        found = decode(garbage + encode(after))
        assert found[-1] == after and all(event is DAMAGED for event in found[:-1])
    assert decode(bytes([link.FLAG]) * 5) == []
    assert decode(bytes([link.FLAG, 1, link.ESCAPE, link.FLAG])) == [DAMAGED]
    assert decode(bytes([link.FLAG]) + bytes(70_000) + encode(after)) == [DAMAGED, after]


def test_identity_travels():
    assert Identity.unpack(IDENTITY.pack()) == IDENTITY
    assert Identity.unpack(IDENTITY.pack()[:-1]) is None
    assert Identity.unpack(b"\2" + IDENTITY.pack()[1:]) is None
    assert Identity.unpack(IDENTITY.pack().replace(b"\4\4", b"\4\5", 1)) is None


def test_responder_answers_every_request():
    responder = Responder(IDENTITY, lambda image: [*image[:3], 1])
    image = bytes([1, 9, 4, 0, 0, 0])
    asked = [
        Frame(Kind.HELLO, 1, b""),
        Frame(Kind.CLASSIFY, 2, image),
        Frame(Kind.CLASSIFY, 3, image[1:]),
        Frame(9, 4, b""),
    ]
    line = b"".join(encode(frame) for frame in asked) + bytes([1, link.FLAG])
    card, result, *errors = decode(responder.feed(line))
    assert Identity.unpack(card.payload) == IDENTITY and card.sequence == 1
    assert (result.kind, result.sequence) == (Kind.RESULT, 2)
    assert result.payload[:8] == asked[1].crc.to_bytes(4, "little") + bytes(range(4))
    assert len(result.payload) == IDENTITY.result_bytes
    assert link.unpack_result(IDENTITY, result.payload) == [1, 9, 4, 1]
    assert [(e.kind, e.sequence, e.payload[0]) for e in errors] == [
        (Kind.ERROR, 3, Code.LENGTH),
        (Kind.ERROR, 4, Code.KIND),
        (Kind.ERROR, 0, Code.DAMAGED),
    ]

"""The host against boards that answer, err, are silent or lie; and 10,000 faults on the line."""

import random

import numpy as np
import pytest

from s2tdpt.golden import link
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.link import Code, Frame, FrameDecoder, Identity, Kind, encode, pack_result
from s2tdpt.host import Accelerator, LinkError
from s2tdpt.sim.line import FaultyPort, MemoryPort
from tests.host.lines import IDENTITY, expected, infer, pictures, twin


class Scripted:
    """A port with a board that answers requests by a function of request and its number; time is virtual."""

    name, baud = "scripted", 3_000_000

    def __init__(self, answer):
        self._answer, self._decoder = answer, FrameDecoder()
        self._arrived, self._time, self.requests, self.open = b"", 0.0, [], True

    def write(self, data):
        for frame in self._decoder.feed(data):
            if frame.kind == Kind.HELLO:
                self._arrived += encode(Frame(Kind.IDENTITY, frame.sequence, IDENTITY.pack()))
            else:
                self.requests.append(frame)
                self._arrived += self._answer(frame, len(self.requests)) or b""

    def read(self, seconds):
        data, self._arrived = self._arrived, b""
        if not data:
            self._time += seconds
        return data

    def now(self):
        return self._time

    def close(self):
        self.open = False


def result(request: Frame, **changes) -> bytes:
    identity = changes.get("identity", IDENTITY)
    words = changes.get("words", infer(request.payload))
    payload = pack_result(identity, changes.get("of", request), words)
    return encode(Frame(Kind.RESULT, changes.get("sequence", request.sequence), payload))


def test_classifies():
    images = pictures(50)
    with Accelerator.open(MemoryPort(twin())) as board:
        assert board.identity == IDENTITY
        told = []
        found = board.infer(images, told.append)
        assert (np.c_[found.logits, found.classes] == expected(images)).all()
        assert found.classes.dtype == np.int64 and told == list(range(1, 51))
        assert (board.classify(images[:3]) == expected(images)[:3, -1]).all()
        assert len(board.classify(images[:0])) == 0
        assert (board.statistics.requests, board.statistics.repeats) == (53, 0)


def test_ten_thousand_faults():
    """Bits, bursts, loss, repetition, noise, cuts, old frames, resets: never a wrong result."""
    images, wanted = pictures(400, 1), expected(pictures(400, 1))
    port = MemoryPort(twin())
    line = FaultyPort(port, 1, 0.25, port.reset)
    board = Accelerator.open(line, attempts=60)
    answers = 0
    while line.faults.total() < 10_000:
        found = board.infer(images)
        assert (np.c_[found.logits, found.classes] == wanted).all()
        answers += len(images)
    assert set(line.faults) == {*FaultyPort.KINDS, "reset"} and min(line.faults.values()) > 200
    assert board.statistics.answers == answers > 10_000
    assert board.statistics.repeats > 3000


def test_the_faults_are_real(monkeypatch):
    """Without the CRC, wrong results do come through: the test above can fail."""
    monkeypatch.setattr(link.zlib, "crc32", lambda data: 0)
    images, wanted, wrong = pictures(400, 1), expected(pictures(400, 1)), 0
    board = Accelerator.open(FaultyPort(MemoryPort(twin()), 1, 0.25), attempts=60)
    for _ in range(5):
        try:
            found = board.infer(images)
        except LinkError:  # a class that does not fit its logits
            wrong += 1
        else:
            wrong += (np.c_[found.logits, found.classes] != wanted).any()
    assert wrong


def test_a_line_that_is_too_bad_is_an_error():
    line = FaultyPort(MemoryPort(twin()), 1, 0.0)
    board = Accelerator.open(line)
    line.rate = 10.0  # a fault in every chunk, however short
    with pytest.raises(
        LinkError, match=r"^the board at memory did not answer \(10 attempts, the last one: .*requests done"
    ):
        board.infer(pictures(40))


def test_a_result_of_something_else_is_no_result():
    """Old results with this sequence number, other lengths, other kinds: none is believed."""
    other = Frame(Kind.CLASSIFY, 5, pictures(1, 9)[0].tobytes())

    def answer(request, number):
        lies = [
            result(request, of=other, words=infer(other.payload)),
            result(request, sequence=(request.sequence + 9) % (1 << 16)),
            encode(Frame(Kind.RESULT, request.sequence, b"short")),
            encode(Frame(Kind.IDENTITY, request.sequence, pack_result(IDENTITY, request, [1, 2, 3, 2]))),
            encode(Frame(Kind.ERROR, request.sequence, bytes([77]))),
        ]
        random.Random(number).shuffle(lies)
        return b"".join(lies) + result(request) * 2

    board, images = Accelerator(Scripted(answer)), pictures(20)
    found = board.infer(images)
    assert (np.c_[found.logits, found.classes] == expected(images)).all()
    assert board.statistics.repeats == 0 and board.statistics.strays >= 80


def test_busy_and_damaged_requests_are_sent_again():
    def answer(request, number):
        if number % 3 == 0:
            return encode(Frame(Kind.ERROR, request.sequence, bytes([Code.BUSY])))
        if number % 7 == 0:
            return encode(Frame(Kind.ERROR, 0, bytes([Code.DAMAGED])))
        return result(request)

    port, images = Scripted(answer), pictures(40)
    board = Accelerator(port)
    found = board.infer(images)
    assert (np.c_[found.logits, found.classes] == expected(images)).all()
    assert board.statistics.refusals > 15 and port.now() < 4


@pytest.mark.parametrize(
    "answer, message",
    [
        (
            lambda r, n: None,
            "the board at scripted did not answer (10 attempts, the last one: no answer; 0 of 2 ",
        ),
        (
            lambda r, n: encode(Frame(Kind.ERROR, r.sequence, bytes([Code.LENGTH]))),
            "the last one: refused as LENGTH; 0 of 2 requests done",
        ),
        (
            lambda r, n: encode(Frame(Kind.ERROR, r.sequence, bytes([Code.BUSY]))),
            "the last one: the board is busy",
        ),
        (lambda r, n: result(r, words=[1, 3, 2, 0]), "names class 0, but class 1 has the largest logit"),
        (
            lambda r, n: result(r, identity=Identity(2, 3, 1, 3, 4, 4, 1, bytes(32))),
            "was given other parameters meanwhile",
        ),
    ],
)
def test_a_board_that_fails(answer, message):
    with pytest.raises(LinkError) as error:
        Accelerator(Scripted(answer)).infer(pictures(2))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "said, message",
    [
        (b"", "nothing answers at memory at 3000000 baud; expected a board with its bitstream loaded"),
        (
            b"\x80\xfe\x00",
            "memory sends 15 bytes that make no sense at 3000000 baud; expected a board with this",
        ),
        (encode(Frame(Kind.IDENTITY, 0, b"\2")), "what answers at memory speaks another version of the link"),
    ],
)
def test_what_is_no_board(said, message):
    class Other:
        def feed(self, data):
            return said

    port = MemoryPort(Other())
    with pytest.raises(LinkError) as error:
        Accelerator.open(port)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "images", (np.zeros((1, 3, 2, 1), np.uint8), np.zeros((2, 3, 1), np.uint8), np.zeros((1, 2, 3, 1)))
)
def test_images_of_another_shape(images):
    board = Accelerator.open(MemoryPort(twin()))
    with pytest.raises(
        UserError, match=r"^images are .*; expected uint8 \[B, 2, 3, 1\] for the network on the"
    ):
        board.infer(images)

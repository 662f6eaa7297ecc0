"""Faults on a line: each kind does what it is called, as often as it is asked for."""

import pytest

from s2tdpt.sim.line import SPAN, FaultyPort, MemoryPort

DATA = bytes(range(SPAN, 2 * SPAN))


class Wire:
    """A port that keeps what is written and hands out what it is told to."""

    name, baud = "wire", 1000

    def __init__(self):
        self.written, self.open, self.arrives = [], True, DATA

    def write(self, data):
        self.written.append(data)

    def read(self, seconds):
        return self.arrives

    def now(self):
        return 7.5

    def close(self):
        self.open = False


def one_kind(kind: str, seed: int = 3) -> FaultyPort:
    line = FaultyPort(Wire(), seed, 1.0)
    line.KINDS = (kind,)
    return line


def found(kind: str, count: int = 300) -> list[bytes]:
    line = one_kind(kind)
    chunks = [line.read(0.1) for _ in range(count)]
    assert line.faults == {kind: count}
    return chunks


def test_without_faults_it_is_the_line():
    wire = Wire()
    line = FaultyPort(wire, 1, 0.0, lambda: pytest.fail("reset"))
    for _ in range(100):
        line.write(DATA)
        assert line.read(0.1) == DATA
    assert wire.written == [DATA] * 100 and not line.faults
    assert (line.name, line.baud, line.now()) == ("wire", 1000, 7.5)
    line.close()
    assert not wire.open


def test_bits():
    """One to four bits of a chunk; two on the same place undo each other."""
    counts = set()
    for chunk in found("bits"):
        changes = [a ^ b for a, b in zip(chunk, DATA, strict=True)]
        counts.add(sum(change.bit_count() for change in changes))
    assert {1, 2, 3, 4} <= counts <= {0, 1, 2, 3, 4}


def test_bursts_and_losses():
    places, lengths = set(), set()
    for chunk in found("burst"):
        wrong = [n for n, (a, b) in enumerate(zip(chunk, DATA, strict=True)) if a != b]
        places.update(wrong)
        lengths.add(wrong[-1] - wrong[0] + 1 if wrong else 0)
    assert lengths <= {0, 1, 2, 3, 4} and 4 in lengths and places == set(range(SPAN))
    lost = {SPAN - len(chunk) for chunk in found("lost bytes")}
    assert lost == {1, 2, 3, 4}
    for chunk in found("lost bytes"):
        at = next((n for n, (a, b) in enumerate(zip(chunk, DATA, strict=False)) if a != b), len(chunk))
        assert chunk == DATA[:at] + DATA[at + SPAN - len(chunk) :]
    assert set(found("lost chunk")) == {b""}


def test_repetitions_noise_and_cuts():
    more = set()
    for chunk in found("repeated bytes"):
        extra = len(chunk) - SPAN
        more.add(extra)
        assert any(chunk == DATA[:at] + DATA[at : at + extra] + DATA[at:] for at in range(SPAN))
    assert more == {1, 2, 3, 4}
    assert set(found("repeated chunk")) == {DATA + DATA}
    sizes = {len(chunk) - SPAN for chunk in found("noise")}
    assert sizes == set(range(1, 21))
    for chunk in found("noise"):
        extra = len(chunk) - SPAN
        assert any(chunk[:at] + chunk[at + extra :] == DATA for at in range(SPAN))
    cuts = found("cut")
    assert {len(chunk) for chunk in cuts} == set(range(SPAN)) and all(
        DATA.startswith(chunk) for chunk in cuts
    )


def test_old_chunks():
    """An old chunk before the new one, of the ten that were kept last; without one, the new one twice."""
    line = one_kind("old chunk")
    wire = line._port
    assert line.read(0.1) == DATA + DATA
    seen = set()
    for number in range(600):
        wire.arrives = bytes([number % 256, number // 256]) * (SPAN // 2)
        chunk = line.read(0.1)
        assert len(chunk) == 2 * SPAN and chunk[SPAN:] == wire.arrives
        old = chunk[0] + 256 * chunk[1]
        seen.add(number - old)
    # Every fifth is kept.
    assert len(line._old) == 10 and 5 < sum(seen) / len(seen) < 80


@pytest.mark.parametrize("length, share", [(SPAN, 0.3), (4 * SPAN, 0.3), (SPAN // 4, 0.075), (1, 0.3 / SPAN)])
def test_rate(length, share):
    """Faults for every chunk; a short one has them less often."""
    line, count = FaultyPort(Wire(), 5, 0.3), 20_000
    line._port.arrives = bytes(length)
    for _ in range(count):
        line.read(0.1)
    faults = line.faults.total()
    assert abs(faults - share * count) < 5 * (share * count) ** 0.5
    assert set(line.faults) <= set(FaultyPort.KINDS) and (share < 0.1 or len(line.faults) == 9)


def test_resets_cut_what_is_written():
    wire, resets = Wire(), []
    line = FaultyPort(wire, 2, 0.5, lambda: resets.append(b"".join(wire.written)))
    line.KINDS = ("lost chunk",)
    for _ in range(2000):
        before = len(resets)
        wire.written.clear()
        line.write(DATA)
        if len(resets) > before:
            assert DATA.startswith(resets[-1]) and b"".join(wire.written) in (DATA, resets[-1])
    assert abs(len(resets) - 100) < 50 and line.faults["reset"] == len(resets)
    assert {len(part) for part in resets} >= {0, SPAN}
    assert FaultyPort(wire, 2, 1.0)._reset is None


def test_nothing_stays_nothing():
    line = FaultyPort(Wire(), 2, 1.0)
    line._port.arrives = b""
    assert [line.read(0.1) for _ in range(100)] == [b""] * 100 and not line.faults and not line._old


class Echo:
    def __init__(self):
        self.was_reset = False

    def feed(self, data):
        return data.upper()

    def reset(self):
        self.was_reset = True


def test_memory_port():
    """Waiting for what does not come takes time, what is there does not; a reset forgets it."""
    port = MemoryPort(Echo())
    port.write(b"ab")
    port.write(b"c")
    assert (port.read(1.0), port.now()) == (b"ABC", 0.0)
    assert (port.read(1.5), port.now()) == (b"", 1.5)
    assert (port.read(0.25), port.now()) == (b"", 1.75)
    port.write(b"d")
    port.reset()
    assert (port.read(1.0), port.now()) == (b"", 2.75) and port._responder.was_reset
    assert port.close() is None

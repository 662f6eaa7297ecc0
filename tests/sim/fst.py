"""A small reader of FST waveforms, enough to see whether one is whole and what its signals did.

# Ref: the format as GTKWave's `fstapi.c` reads it; blocks of types 0, 3, 4, 6 and 8.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HEADER, GEOMETRY, HIERARCHY_GZIP, HIERARCHY_LZ4, VALUES = 0, 3, 4, 6, 8


@dataclass(frozen=True)
class Waveform:
    """Names and changes of all signals.

    Parameters
    ----------
    start, end : int
        First and last time.
    names : dict[str, int]
        Signal, with its scopes in front, to its handle (from 1 on).
    changes : dict[int, list[tuple[int, str]]]
        Of every handle: times and values as strings of bits, without repeats.
    """

    start: int
    end: int
    names: dict[str, int]
    changes: dict[int, list[tuple[int, str]]]

    def at(self, name: str) -> Callable[[int], str]:
        """The value of a signal as a function of time."""
        line = self.changes[self.names[name]]
        times = [time for time, _ in line]
        return lambda time: line[bisect_right(times, time) - 1][1]


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Types and contents of the blocks; `ValueError` if the file ends inside one."""
    found, place = [], 0
    while place < len(data):
        kind, length = struct.unpack_from(">BQ", data, place)
        if length < 8 or place + 1 + length > len(data):
            raise ValueError(f"block of type {kind} at {place} is cut short")
        found.append((kind, data[place + 9 : place + 1 + length]))
        place += 1 + length
    return found


def varint(data: bytes, place: int) -> tuple[int, int]:
    """Unsigned LEB128 number and the place behind it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place


def signed_varint(data: bytes, place: int) -> tuple[int, int]:
    """Signed LEB128 number and the place behind it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return (value - (1 << shift) if byte & 64 else value), place


def lz4(data: bytes, size: int) -> bytes:
    """Decompress one LZ4 block of `size` bytes."""
    out, place = bytearray(), 0

    def length(first: int) -> int:
        nonlocal place
        total = first
        while first == 15:
            byte = data[place]
            place += 1
            total += byte
            if byte != 255:
                break
        return total

    while place < len(data):
        token = data[place]
        place += 1
        literals = length(token >> 4)
        out += data[place : place + literals]
        place += literals
        if place >= len(data):
            break
        offset = data[place] | data[place + 1] << 8
        place += 2
        assert 0 < offset <= len(out)
        for _ in range(length(token & 15) + 4):
            out.append(out[-offset])
    assert len(out) == size, (len(out), size)
    return bytes(out)


def names(path: Path) -> dict[str, int]:
    """Handle of every signal."""
    return _names(dict(blocks(path.read_bytes())))


def read(path: Path) -> Waveform:
    """Read a file that a simulation wrote with Verilator."""
    found = blocks(path.read_bytes())
    assert found[0][0] == HEADER
    start, end = struct.unpack_from(">QQ", found[0][1])
    widths = _geometry(dict(found)[GEOMETRY])
    changes: dict[int, list[tuple[int, str]]] = {}
    for kind, content in found:
        if kind == VALUES:
            _values(content, widths, changes)
    return Waveform(start, end, _names(dict(found)), changes)


def _names(found: dict[int, bytes]) -> dict[str, int]:
    if HIERARCHY_LZ4 in found:
        content = found[HIERARCHY_LZ4]
        text = lz4(content[8:], struct.unpack_from(">Q", content)[0])
    else:
        text = gzip.decompress(found[HIERARCHY_GZIP][8:])
    names, scopes, place, handle = {}, [], 0, 0

    def string(place: int) -> tuple[str, int]:
        stop = text.index(0, place)
        return text[place:stop].decode(), stop + 1

    while place < len(text):
        tag = text[place]
        place += 1
        if tag == 254:  # scope: kind, name, component
            name, place = string(place + 1)
            _, place = string(place)
            scopes.append(name)
        elif tag == 255:
            scopes.pop()
        elif tag in (252, 253):  # attribute: kind, subkind, name, argument; or its end
            if tag == 252:
                _, place = string(place + 2)
                _, place = varint(text, place)
        else:  # variable of kind `tag`: direction, name, width, handle of which it is an alias
            name, place = string(place + 1)
            _, place = varint(text, place)
            alias, place = varint(text, place)
            handle += not alias
            names[".".join([*scopes, name.split(" ")[0]])] = alias or handle
    return names


def _geometry(content: bytes) -> list[int]:
    size, count = struct.unpack_from(">QQ", content)
    raw = content[16:] if len(content) - 16 == size else zlib.decompress(content[16:])
    widths, place = [], 0
    for _ in range(count):
        width, place = varint(raw, place)
        widths.append(width)
    return widths


def _values(content: bytes, widths: list[int], changes: dict[int, list[tuple[int, str]]]) -> None:
    """One block of value changes: first values, waves, their places, times."""
    time_raw, time_packed, time_count = struct.unpack_from(">QQQ", content, len(content) - 24)
    times_at = len(content) - 24 - time_packed
    packed = content[times_at : times_at + time_packed]
    raw = packed if time_raw == time_packed else zlib.decompress(packed)
    times, place, now = [], 0, 0
    for _ in range(time_count):
        delta, place = varint(raw, place)
        now += delta
        times.append(now)
    place = 24
    first_raw, place = varint(content, place)
    first_packed, place = varint(content, place)
    _, place = varint(content, place)
    packed = content[place : place + first_packed]
    first = packed if first_raw == first_packed else zlib.decompress(packed)
    place += first_packed
    offset = 0
    for handle, width in enumerate(widths, 1):
        _note(changes, handle, times[0], first[offset : offset + width].decode())
        offset += width
    waves_count, place = varint(content, place)
    assert chr(content[place]) == "4" and waves_count <= len(widths)
    waves_at = place
    (chain,) = struct.unpack_from(">Q", content, times_at - 8)
    places = _places(content[times_at - 8 - chain : times_at - 8], len(widths))
    stops = sorted({*(p for p in places if p), times_at - 8 - chain - waves_at})
    for handle, at in enumerate(places, 1):
        if at:
            stop = stops[stops.index(at) + 1]
            _wave(content[waves_at + at : waves_at + stop], handle, widths[handle - 1], times, changes)


def _places(chain: bytes, count: int) -> list[int]:
    """Where the wave of every handle begins; 0: it has none."""
    places, place, at, alias = [], 0, 0, 0
    while place < len(chain) and len(places) < count:
        if chain[place] & 1:
            value, place = signed_varint(chain, place)
            value >>= 1
            if value > 0:
                at += value
                places.append(at)
            else:
                alias = value or alias
                places.append(places[-alias - 1])
        else:
            value, place = varint(chain, place)
            places += [0] * (value >> 1)
    return places + [0] * (count - len(places))


def _wave(packed: bytes, handle: int, width: int, times: list[int], changes) -> None:
    size, place = varint(packed, 0)
    raw = lz4(packed[place:], size) if size else packed[place:]
    place, index = 0, 0
    while place < len(raw):
        value, place = varint(raw, place)
        if width == 1:
            other = value & 1
            index += value >> (4 if other else 2)
            bits = "xzhuwl-?"[value >> 1 & 7] if other else str(value >> 1 & 1)
        else:
            index += value >> 1
            size = width if value & 1 else -(-width // 8)
            part = raw[place : place + size]
            place += size
            bits = part.decode() if value & 1 else "".join(f"{byte:08b}" for byte in part)[:width]
        _note(changes, handle, times[index], bits)


def _note(changes, handle: int, time: int, bits: str) -> None:
    line = changes.setdefault(handle, [])
    if not line or line[-1][1] != bits:
        line.append((time, bits))

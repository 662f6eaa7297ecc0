"""Reader of the recorder's files: tables of fixed-width hexadecimal lines, decoded with numpy.

No line is parsed on its own: the file is a matrix of bytes, a field is a range of its columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2tdpt.sim.wrapper import RECORDS, Ports

_NIBBLE = np.full(256, 255, dtype=np.uint8)
_NIBBLE[[ord(c) for c in "0123456789abcdef"]] = range(16)
_NIBBLE[[ord(c) for c in "ABCDEF"]] = range(10, 16)

UNKNOWN_DIGIT = 255
"""Digit value of anything that is no hexadecimal digit: x and z of a four-state simulator."""

NEVER = -1
"""Cycle of an event that did not happen."""

FIRED_BITS = 40
"""Width of the recorder's count of accumulates."""


@dataclass(frozen=True)
class Records:
    """One table of records.

    Parameters
    ----------
    cycle : numpy.ndarray
        int64 [M], clock cycle of every record.
    fields : dict[str, numpy.ndarray]
        int64 [M] by name, as in `sim.wrapper.RECORDS`; all but the data.
    bits : numpy.ndarray
        uint8 [M, W], the data, bit 0 first.
    unknown : numpy.ndarray
        bool [M]: the record holds a bit that is neither 0 nor 1.
    """

    cycle: np.ndarray
    fields: dict[str, np.ndarray]
    bits: np.ndarray
    unknown: np.ndarray

    def __len__(self) -> int:
        return len(self.cycle)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.fields[name]

    def take(self, index: np.ndarray) -> Records:
        """Records at `index` (positions or a mask), in order."""
        fields = {name: values[index] for name, values in self.fields.items()}
        return Records(self.cycle[index], fields, self.bits[index], self.unknown[index])


@dataclass(frozen=True)
class Steps:
    """When the steps of the layer program started and were complete.

    A frame begins where step 0 starts. Steps overlap, frames do not.

    Parameters
    ----------
    starts : list[numpy.ndarray]
        Of every frame: int64 [started, 2], step number and cycle, in time order.
    completes : list[numpy.ndarray]
        Of every frame: int64 [complete], cycles; entry k is that of step k.
    fired : list[int]
        Of every frame: accumulates of a lane from its first start to its last complete.
    """

    starts: list[np.ndarray]
    completes: list[np.ndarray]
    fired: list[int]

    def __len__(self) -> int:
        return len(self.starts)

    def first(self) -> np.ndarray:
        """int64 [frames], cycle in which each frame begins."""
        return np.array([start[0, 1] for start in self.starts], dtype=np.int64)

    def last(self) -> np.ndarray:
        """int64 [frames], last cycle in which something of a frame was seen to start or end."""
        ends = [
            max(int(s[-1, 1]), int(c.max(initial=0)))
            for s, c in zip(self.starts, self.completes, strict=True)
        ]
        return np.array(ends, dtype=np.int64)

    def times(self, frame: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Start and complete of every step of a frame: int64 [steps] each, `NEVER` for what did not."""
        start, complete = np.full(steps, NEVER), np.full(steps, NEVER)
        if frame < len(self):
            number, cycle = self.starts[frame].T
            known = number < steps
            start[number[known]] = cycle[known]
            done = self.completes[frame][:steps]
            complete[: len(done)] = done
        return start, complete


@dataclass(frozen=True)
class Dump:
    """Everything that the recorder wrote in one run.

    Parameters
    ----------
    steps : Steps
    records : dict[str, Records]
        By the names of `sim.wrapper.RECORDS`.
    """

    steps: Steps
    records: dict[str, Records]


def _digits(path: Path, widths: list[int]) -> list[np.ndarray]:
    """Digit columns of every field, most significant first: uint8 [M, digits]."""
    counts = [-(-width // 4) for width in widths]
    line = sum(counts) + len(counts)
    raw = np.fromfile(path, dtype=np.uint8) if path.exists() else np.zeros(0, dtype=np.uint8)
    # A run that was cut short may end in the middle of a line.
    table = _NIBBLE[raw[: len(raw) // line * line].reshape(-1, line)]
    fields, column = [], 0
    for count in counts:
        fields.append(table[:, column : column + count])
        column += count + 1
    return fields


def _integer(digits: np.ndarray) -> np.ndarray:
    """Value of digit columns of at most 60 bits, unknown digits as zero."""
    value = np.zeros(len(digits), dtype=np.int64)
    for column in range(digits.shape[1]):
        known = np.where(digits[:, column] == UNKNOWN_DIGIT, 0, digits[:, column])
        value = (value << 4) | known.astype(np.int64)
    return value


def _bits(digits: np.ndarray, width: int) -> np.ndarray:
    """Bits of digit columns, bit 0 first: uint8 [M, width]."""
    low_first = digits[:, ::-1] & 15
    bits = (low_first[:, :, None] >> np.arange(4, dtype=np.uint8)) & 1
    return bits.reshape(len(digits), 4 * digits.shape[1])[:, :width]


def read_dump(folder: Path, ports: Ports) -> Dump:
    """Read the files of a run.

    Parameters
    ----------
    folder : Path
        Working folder of the simulator.
    ports : Ports
        Of the simulated module; they give the width of every field.
    """
    records = {}
    for name, names in RECORDS.items():
        widths = [max(1, ports.width(f"probe_{name}_{field}")) for field in names]
        digits = _digits(folder / f"probe_{name}.txt", [32, *widths])
        records[name] = Records(
            cycle=_integer(digits[0]),
            fields={field: _integer(d) for field, d in zip(names[:-1], digits[1:-1], strict=True)},
            bits=_bits(digits[-1], widths[-1]),
            unknown=np.any([np.any(field == UNKNOWN_DIGIT, axis=1) for field in digits], axis=0),
        )
    return Dump(_read_steps(folder / "probe_steps.txt", max(1, ports.width("probe_step"))), records)


def _read_steps(path: Path, step_width: int) -> Steps:
    kind, cycle, step, fired = map(_integer, _digits(path, [4, 32, step_width, FIRED_BITS]))
    steps = Steps([], [], [])
    frames = np.flatnonzero((kind == 0) & (step == 0))
    # What comes before the first step 0 is kept as a frame of its own, so that it can be found fault with.
    bounds = sorted({0, *frames.tolist(), len(kind)})
    for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
        part = slice(begin, end)
        starts, completes = kind[part] == 0, kind[part] == 1
        if not starts.any():
            continue
        steps.starts.append(np.stack([step[part][starts], cycle[part][starts]], axis=1))
        steps.completes.append(cycle[part][completes])
        steps.fired.append(int(fired[part][-1] - fired[begin]))
    return steps

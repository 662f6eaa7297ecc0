"""Reader of the recorder's files: tables of fixed-width hexadecimal lines, decoded with numpy.

No line is parsed on its own: the file is a matrix of bytes, a field is a range of its columns.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2tdpt.sim.wrapper import Ports

_NIBBLE = np.full(256, 255, dtype=np.uint8)
_NIBBLE[[ord(c) for c in "0123456789abcdef"]] = range(16)
_NIBBLE[[ord(c) for c in "ABCDEF"]] = range(10, 16)

STEP_FIELD, HEAD_FIELD = 24, 32
"""Bit positions of step and head in the address of an attention record; the token is below."""

UNKNOWN_DIGIT = 255
"""Digit value of anything that is no hexadecimal digit: x and z of a four-state simulator."""


@dataclass(frozen=True)
class Records:
    """One table of records.

    Parameters
    ----------
    cycle, op : numpy.ndarray
        int64 [M], clock cycle and program step of every record.
    enable, address : numpy.ndarray
        int64 [M]; `enable` is all ones where the record has none; the address of an attention record is
        ``token | step << STEP_FIELD | head << HEAD_FIELD``.
    bits : numpy.ndarray
        uint8 [M, W], the data, bit 0 first.
    unknown : numpy.ndarray
        bool [M]: the record holds a bit that is neither 0 nor 1.
    """

    cycle: np.ndarray
    op: np.ndarray
    enable: np.ndarray
    address: np.ndarray
    bits: np.ndarray
    unknown: np.ndarray

    def __len__(self) -> int:
        return len(self.cycle)

    def take(self, index: np.ndarray) -> "Records":
        """Records at `index` (positions or a mask), in order."""
        return Records(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Steps:
    """Executions of program steps, in time order.

    Parameters
    ----------
    op : numpy.ndarray
        int64 [S], program step.
    start, done : numpy.ndarray
        int64 [S], clock cycle of the pulses; `done` is -1 for a step that never ended.
    fired : numpy.ndarray
        int64 [S, R], accumulates of every row.
    frame : numpy.ndarray
        int64 [S], number of the frame: it grows where the step number falls back.
    """

    op: np.ndarray
    start: np.ndarray
    done: np.ndarray
    fired: np.ndarray
    frame: np.ndarray

    def __len__(self) -> int:
        return len(self.op)


@dataclass(frozen=True)
class Dump:
    """Everything that the recorder wrote in one run.

    Parameters
    ----------
    steps : Steps
    spike, residual, y : Records
    protocol : list[str]
        Breaches of the start/done order, in words.
    """

    steps: Steps
    spike: Records
    residual: Records
    y: Records
    protocol: list[str]


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
        value = (value << 4) | np.where(digits[:, column] == UNKNOWN_DIGIT, 0, digits[:, column]).astype(
            np.int64
        )
    return value


def _bits(digits: np.ndarray, width: int) -> np.ndarray:
    """Bits of digit columns, bit 0 first: uint8 [M, width]."""
    low_first = digits[:, ::-1] & 15
    bits = (low_first[:, :, None] >> np.arange(4, dtype=np.uint8)) & 1
    return bits.reshape(len(digits), 4 * digits.shape[1])[:, :width].astype(np.uint8)


def _unknown(*fields: np.ndarray) -> np.ndarray:
    return np.any([np.any(field == UNKNOWN_DIGIT, axis=1) for field in fields], axis=0)


def read_dump(folder: Path, ports: Ports) -> Dump:
    """Read the four files of a run.

    Parameters
    ----------
    folder : Path
        Working folder of the simulator.
    ports : Ports
        Of the simulated module; they give the width of every field.
    """

    def width(name: str) -> int:
        return max(1, ports.width("probe_" + name))

    op = width("op")
    steps, protocol = _read_steps(folder / "probe_ops.txt", op, width("acc"))
    tables = {}
    for name, keys in (
        ("spike", ("spike_en", "spike_addr")),
        ("u", ("u_addr",)),
        ("y", ("y_token", "y_t", "y_head")),
    ):
        data = width(f"{name}_data")
        fields = _digits(folder / f"probe_{name}.txt", [32, op, *map(width, keys), data])
        values = {key: _integer(digits) for key, digits in zip(keys, fields[2:-1], strict=True)}
        if name == "y":
            address = values["y_token"] | values["y_t"] << STEP_FIELD | values["y_head"] << HEAD_FIELD
        else:
            address = values[f"{name}_addr"]
        tables[name] = Records(
            cycle=_integer(fields[0]),
            op=_integer(fields[1]),
            enable=values.get("spike_en", np.full(len(address), -1, dtype=np.int64)),
            address=address,
            bits=_bits(fields[-1], data),
            unknown=_unknown(*fields),
        )
    return Dump(steps, tables["spike"], tables["u"], tables["y"], protocol)


def _read_steps(path: Path, op_width: int, rows: int) -> tuple[Steps, list[str]]:
    kind, cycle, op, fired = _digits(path, [4, 32, op_width, 32 * rows])
    is_done = kind[:, 0] == 1
    cycles, ops = _integer(cycle), _integer(op)
    firings = fired.reshape(len(fired), rows, 8)[:, ::-1]  # row 0 holds the low digits
    counts = np.stack([_integer(firings[:, row]) for row in range(rows)], axis=1)
    protocol = []
    starts = np.flatnonzero(~is_done)
    done = np.full(len(starts), -1, dtype=np.int64)
    total = np.zeros((len(starts), rows), dtype=np.int64)
    for number, line in enumerate(starts):
        following = line + 1
        if following < len(is_done) and is_done[following]:
            if ops[following] != ops[line]:
                protocol.append(
                    f"step {ops[line]} started in cycle {cycles[line]} but step {ops[following]} ended"
                )
            done[number], total[number] = cycles[following], counts[following]
        elif following < len(is_done):
            protocol.append(
                f"step {ops[following]} started in cycle {cycles[following]} inside step {ops[line]}"
            )
    if np.count_nonzero(is_done) > np.count_nonzero(done >= 0):
        protocol.append("a step ended that was not running")
    order = ops[starts]
    falls = np.zeros(len(starts), dtype=np.int64)
    falls[1:] = order[1:] <= order[:-1]
    return Steps(order, cycles[starts], done, total, np.cumsum(falls)), protocol

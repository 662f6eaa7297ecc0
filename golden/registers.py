"""The control and status registers as a program sees them. Twin of `hw.bus.registers`.

`Registers` is what the bus reads and writes at any moment; what happens beside it (a byte arrives, an image
begins or is complete) is told by calls, in the order of the hardware's cycles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s2tdpt.golden import register_map as names
from s2tdpt.golden.register_map import MAP, WORD_BITS, WORD_BYTES, Access, Field, Register

__all__ = ["Constants", "FrameGate", "Registers", "config_hash"]

LARGEST = (1 << WORD_BITS) - 1


def config_hash(network: Mapping[str, Any], machine: Mapping[str, Any], parameters: str) -> bytes:
    """What CONFIG_HASH holds: SHA-256 of the sections of the manifest as JSON, keys in order, without blanks.

    Parameters
    ----------
    network, machine : mapping
        The configurations, as in the manifest.
    parameters : str
        SHA-256 of the parameters (`Params.checksum`).
    """
    content = {"network": network, "machine": machine, "parameters": parameters}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).digest()


@dataclass(frozen=True)
class Constants:
    """What belongs to a design.

    Attributes
    ----------
    frame_bytes, result_words, result_word_bytes : int
    config_hash : bytes
        32 bytes.
    """

    frame_bytes: int
    result_words: int
    result_word_bytes: int
    config_hash: bytes

    def word(self, register: Register, word: int) -> int:
        """Value of a register whose reset value is the design's."""
        if register is names.CONFIG_HASH:
            return int.from_bytes(self.config_hash[WORD_BYTES * word :][:WORD_BYTES], "big")
        return {
            names.FRAME_BYTES: self.frame_bytes,
            names.RESULT_WORDS: self.result_words,
            names.RESULT_WORD_BYTES: self.result_word_bytes,
        }[register]


class FrameGate:
    """Lets images in: all of them while `enable`, one for every START, and each to its end.

    Attributes
    ----------
    enable, pending, receiving : bool
    """

    def __init__(self):
        self.enable = self.pending = self.receiving = False

    @property
    def open(self) -> bool:
        """Whether a byte may pass."""
        return self.enable or self.pending or self.receiving

    def cycle(self, valid: bool, ready: bool, last: bool, start: bool = False) -> bool:
        """A cycle in which a byte is offered, or not; returns whether it passes."""
        begins = self.open and valid
        if start:
            self.pending = True
        elif begins and not self.receiving:
            self.pending = False
        if begins:
            self.receiving = not (ready and last)
        return begins and ready


class Registers:
    """The block.

    Parameters
    ----------
    constants : Constants
    """

    def __init__(self, constants: Constants):
        self._constants = constants
        self.gate = FrameGate()
        self.busy = False
        self.frames = self.cycles = self.short_frames = self.long_frames = 0
        self.error_weights = False
        self._short = self._long = False

    def read(self, address: int) -> tuple[int, bool]:
        """Value, and whether there is a register; the two lowest bits of an address mean nothing."""
        found = MAP.at(address)
        if found is None:
            return 0, False
        register, word = found
        return sum(self._field(register, word, field) << field.low for field in register.fields), True

    def write(self, address: int, value: int, strobe: int = 0xF) -> tuple[bool, bool]:
        """Whether that is a register to be written, and whether an image is let in by it.

        Parameters
        ----------
        strobe : int
            Bit i: byte i counts.
        """
        found = MAP.at(address)
        if found is None or not found[0].writable:
            return False, False
        if strobe & 1:
            self.gate.enable = bool(value & names.ENABLE.mask)
        return True, bool(strobe & 1 and value & names.START.mask)

    def complete(self, cycles: int) -> None:
        """An image is computed."""
        self.frames = self.frames + 1 & LARGEST
        self.cycles = min(cycles, LARGEST)

    def drop(self, short: bool) -> None:
        """An image is dropped: too short, or too long."""
        if short:
            self.short_frames, self._short = self.short_frames + 1 & LARGEST, True
        else:
            self.long_frames, self._long = self.long_frames + 1 & LARGEST, True

    def _field(self, register: Register, word: int, field: Field) -> int:
        if field.access is Access.PULSE:
            return 0
        if field.reset is None:
            return self._constants.word(register, word)
        state = {
            (names.CONTROL, names.ENABLE): self.gate.enable,
            (names.STATUS, names.BUSY): self.busy,
            (names.STATUS, names.RECEIVING): self.gate.receiving,
            (names.STATUS, names.PENDING): self.gate.pending,
            (names.STATUS, names.ERROR_SHORT): self._short,
            (names.STATUS, names.ERROR_LONG): self._long,
            (names.STATUS, names.ERROR_WEIGHTS): self.error_weights,
            (names.FRAMES, names.FRAMES.fields[0]): self.frames,
            (names.CYCLES, names.CYCLES.fields[0]): self.cycles,
            (names.SHORT_FRAMES, names.SHORT_FRAMES.fields[0]): self.short_frames,
            (names.LONG_FRAMES, names.LONG_FRAMES.fields[0]): self.long_frames,
        }
        return int(state.get((register, field), field.reset))

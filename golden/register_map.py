"""The control and status registers of an accelerator, described once.

The hardware (`hw.bus.registers`), its twin (`golden.registers`), the C header, the Python driver and the page
(`golden.register_texts`) are made from `MAP`; ``MAP.model_dump_json()`` is the description for other tools.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic import Field as Limited

__all__ = ["MAP", "Access", "Field", "Register", "RegisterMap"]

WORD_BYTES, WORD_BITS = 4, 32
"""Of a register."""

Name = Annotated[str, Limited(pattern=r"^[A-Z][A-Z0-9_]{0,31}$")]
Sentence = Annotated[str, Limited(pattern=r"^[^|\"\\\n]{1,200}$")]


class Access(StrEnum):
    """What the bus may do with a field. PULSE: writing 1 does something once; it reads 0."""

    READ = "read"
    WRITE = "read-write"
    PULSE = "pulse"


class Field(BaseModel):
    """Bits of a register.

    Attributes
    ----------
    name : str
        Capitals, digits, underscores; unique within its register.
    low, width : int
        Lowest bit and number of bits.
    access : Access
    reset : int or None
        Value after reset, which is the value of a field that never changes; None: it belongs to the design.
    description : str
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    low: Annotated[int, Limited(ge=0, lt=WORD_BITS)]
    width: Annotated[int, Limited(ge=1, le=WORD_BITS)]
    access: Access = Access.READ
    reset: Annotated[int, Limited(ge=0)] | None = 0
    description: Sentence

    @property
    def mask(self) -> int:
        """Its bits within the register."""
        return (1 << self.width) - 1 << self.low


class Register(BaseModel):
    """A word of 32 bits, or several that follow each other.

    Attributes
    ----------
    name : str
        Unique within the map.
    offset : int
        Bytes from the start of the block, a multiple of 4.
    words : int
        So many of them, alike, 4 bytes apart.
    fields : tuple of Field
        Bits of no field read 0 and are ignored when written.
    description : str
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    offset: Annotated[int, Limited(ge=0, multiple_of=WORD_BYTES)]
    words: Annotated[int, Limited(ge=1, le=64)] = 1
    fields: Annotated[tuple[Field, ...], Limited(min_length=1)]
    description: Sentence

    @model_validator(mode="after")
    def _apart(self) -> Register:
        used, names = 0, set()
        for field in self.fields:
            if field.mask >> WORD_BITS or used & field.mask or field.name in names:
                raise ValueError(
                    f"{self.name}.{field.name} has bits {field.low} to {field.low + field.width - 1}; "
                    f"expected free ones of 0 to {WORD_BITS - 1} and a name of its own; move or rename it"
                )
            if field.reset is not None and field.reset >> field.width:
                raise ValueError(
                    f"{self.name}.{field.name} is {field.reset} after reset; expected at most {field.width} "
                    "bits; change one of them"
                )
            used, names = used | field.mask, names | {field.name}
        return self

    @property
    def writable(self) -> bool:
        """Whether a write does anything."""
        return any(field.access is not Access.READ for field in self.fields)

    @property
    def whole(self) -> bool:
        """Whether its one field is the register: it then goes by the register's name."""
        return len(self.fields) == 1 and self.fields[0].width == WORD_BITS


class RegisterMap(BaseModel):
    """All registers of the block.

    Attributes
    ----------
    name : str
        Prefix of names in C.
    registers : tuple of Register
        In the order of their offsets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    registers: Annotated[tuple[Register, ...], Limited(min_length=1)]

    @model_validator(mode="after")
    def _in_order(self) -> RegisterMap:
        end, names = 0, set()
        for register in self.registers:
            if register.offset < end or register.name in names:
                raise ValueError(
                    f"{register.name} is at {register.offset:#x}; expected {end:#x} or more and a name of "
                    "its own; move or rename it"
                )
            end, names = register.offset + WORD_BYTES * register.words, names | {register.name}
        return self

    @property
    def address_bits(self) -> int:
        """Bits of a byte address within the block."""
        last = self.registers[-1]
        return (last.offset + WORD_BYTES * last.words - 1).bit_length()

    def at(self, address: int) -> tuple[Register, int] | None:
        """Register at a byte address, and which of its words; None where there is none."""
        address %= 1 << self.address_bits
        for register in self.registers:
            word = address // WORD_BYTES - register.offset // WORD_BYTES
            if 0 <= word < register.words:
                return register, word
        return None


def _value(description: str, reset: int | None = 0) -> tuple[Field, ...]:
    """The one field of a register that is a number."""
    return (Field(name="VALUE", low=0, width=WORD_BITS, reset=reset, description=description),)


MAGIC = int.from_bytes(b"S2TD", "big")
MAJOR, MINOR = 1, 0
"""Version of the map: another major number means that a driver must not go on."""

ENABLE = Field(name="ENABLE", low=0, width=1, access=Access.WRITE, description="images are taken")
START = Field(name="START", low=1, width=1, access=Access.PULSE, description="take one image more")
BUSY = Field(name="BUSY", low=0, width=1, description="an image is computed or its result sent")
RECEIVING = Field(name="RECEIVING", low=1, width=1, description="an image has begun to arrive")
PENDING = Field(name="PENDING", low=2, width=1, description="a START waits for its image")
ERROR_SHORT = Field(name="ERROR_SHORT", low=8, width=1, description="the port error_short")
ERROR_LONG = Field(name="ERROR_LONG", low=9, width=1, description="the port error_long")
ERROR_WEIGHTS = Field(name="ERROR_WEIGHTS", low=10, width=1, description="the port error_weights, or 0")

ID = Register(name="ID", offset=0x00, fields=_value("S2TD in ASCII", MAGIC), description="what this is")
VERSION = Register(
    name="VERSION",
    offset=0x04,
    fields=(
        Field(
            name="MINOR",
            low=0,
            width=16,
            reset=MINOR,
            description="rises when registers are added",
        ),
        Field(name="MAJOR", low=16, width=16, reset=MAJOR, description="rises with any other change"),
    ),
    description="of the register map",
)
CONTROL = Register(name="CONTROL", offset=0x08, fields=(ENABLE, START), description="which images are taken")
STATUS = Register(
    name="STATUS",
    offset=0x0C,
    fields=(BUSY, RECEIVING, PENDING, ERROR_SHORT, ERROR_LONG, ERROR_WEIGHTS),
    description="what goes on; the errors stay until reset",
)
FRAMES = Register(
    name="FRAMES", offset=0x10, fields=_value("modulo 2^32"), description="images computed since reset"
)
CYCLES = Register(
    name="CYCLES",
    offset=0x14,
    fields=_value("at most 2^32 - 1"),
    description="cycles of the last image computed, from its first start to its last write",
)
SHORT_FRAMES = Register(
    name="SHORT_FRAMES", offset=0x18, fields=_value("modulo 2^32"), description="images dropped as too short"
)
LONG_FRAMES = Register(
    name="LONG_FRAMES", offset=0x1C, fields=_value("modulo 2^32"), description="images dropped as too long"
)
FRAME_BYTES = Register(
    name="FRAME_BYTES", offset=0x20, fields=_value("bytes", None), description="size of an image"
)
RESULT_WORDS = Register(
    name="RESULT_WORDS",
    offset=0x24,
    fields=_value("logits, and one for the class", None),
    description="size of a result",
)
RESULT_WORD_BYTES = Register(
    name="RESULT_WORD_BYTES", offset=0x28, fields=_value("4 or 8", None), description="bytes of such a word"
)
CONFIG_HASH = Register(
    name="CONFIG_HASH",
    offset=0x40,
    words=8,
    fields=_value("first bytes first, the first of a word highest", None),
    description="SHA-256 of network, machine and parameters",
)

MAP = RegisterMap(
    name="S2TDPT",
    registers=(
        *(ID, VERSION, CONTROL, STATUS, FRAMES, CYCLES, SHORT_FRAMES, LONG_FRAMES),
        *(FRAME_BYTES, RESULT_WORDS, RESULT_WORD_BYTES, CONFIG_HASH),
    ),
)
"""The registers of the accelerator."""

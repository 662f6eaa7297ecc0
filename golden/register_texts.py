"""What is made from a register map: a C header, a driver in Python, a page of documentation."""

from __future__ import annotations

from collections.abc import Iterator

from s2tdpt.golden.register_map import ID, MAJOR, VERSION, WORD_BITS, Access, Field, Register, RegisterMap

__all__ = ["c_header", "page", "python_driver"]

_MADE = "Made from the register map of s2tdpt (golden/register_map.py); do not edit."


def _fields(registers: RegisterMap) -> Iterator[tuple[Register, Field, str]]:
    """Every field with its full name: that of its register alone if it is all of it."""
    for register in registers.registers:
        for field in register.fields:
            yield register, field, register.name if register.whole else f"{register.name}_{field.name}"


# --- C ------------------------------------------------------------------------------------------------

_C_HEAD = """\
/* Registers of an accelerator. {made} */
#ifndef {name}_REGISTERS_H
#define {name}_REGISTERS_H

#include <stdint.h>

/* Bits of a byte address within the block. */
#define {name}_ADDRESS_BITS {bits}

static inline uint32_t {prefix}_read(const volatile void *base, uint32_t offset)
{{
    return *(const volatile uint32_t *)((const volatile char *)base + offset);
}}

static inline void {prefix}_write(volatile void *base, uint32_t offset, uint32_t value)
{{
    *(volatile uint32_t *)((volatile char *)base + offset) = value;
}}
"""

_C_GET = """\
static inline uint32_t {prefix}_get_{field}(const volatile void *base)
{{
    return ({prefix}_read(base, {register}) & {name}_MASK) >> {name}_LOW;
}}
"""

_C_SET = """\
static inline void {prefix}_set_{field}(volatile void *base, uint32_t value)
{{
    uint32_t others = {prefix}_read(base, {register}) & ~{name}_MASK;
    {prefix}_write(base, {register}, others | ((value << {name}_LOW) & {name}_MASK));
}}
"""

_C_PULSE = """\
static inline void {prefix}_{field}(volatile void *base)
{{
    {prefix}_write(base, {register}, {prefix}_read(base, {register}) | {name}_MASK);
}}
"""


def c_header(registers: RegisterMap) -> str:
    """Offsets, masks and accessors in C99."""
    prefix = registers.name.lower()
    parts = [_C_HEAD.format(made=_MADE, name=registers.name, prefix=prefix, bits=registers.address_bits)]
    for register in registers.registers:
        name = f"{registers.name}_{register.name}"
        lines = [f"/* {register.description} */", f"#define {name} 0x{register.offset:02x}u"]
        if register.words > 1:
            lines.append(f"#define {name}_WORDS {register.words}u")
        parts.append("\n".join(lines) + "\n")
    for register, field, full in _fields(registers):
        name = f"{registers.name}_{full}"
        lines = [
            f"/* {register.name}: {field.description} */",
            f"#define {name}_LOW {field.low}u",
            f"#define {name}_MASK 0x{field.mask:08x}u",
        ]
        if field.reset is not None:
            lines.append(f"#define {name}_RESET 0x{field.reset:08x}u")
        parts.append("\n".join(lines) + "\n")
        words = dict(
            prefix=prefix, field=full.lower(), register=f"{registers.name}_{register.name}", name=name
        )
        if field.access is Access.PULSE:
            parts.append(_C_PULSE.format(**words))
        elif register.words == 1:
            parts.append(_C_GET.format(**words))
        if field.access is Access.WRITE:
            parts.append(_C_SET.format(**words))
    parts.append("#endif\n")
    return "\n".join(parts)


# --- Python -------------------------------------------------------------------------------------------

_PY_HEAD = '''\
"""Driver of the registers of an accelerator, without any dependency.

{made}
"""


class Registers:
    """The registers behind a bus.

    Parameters
    ----------
    bus : object
        With ``read(offset)``, which gives a word of 32 bits, and ``write(offset, value)``, as PYNQ's `MMIO`.

    Raises
    ------
    RuntimeError
        There are no registers of this map.
    """

    def __init__(self, bus):
        self._bus = bus
        if self.id != {id:#x} or self.version_major != {major}:
            raise RuntimeError(
                f"ID is {{self.id:#x}}, version {{self.version_major}}; expected {id:#x}, version {major}; "
                "check the address and the version of the driver"
            )

    def _get(self, offset, low, width):
        return self._bus.read(offset) >> low & (1 << width) - 1

    def _set(self, offset, low, width, value):
        mask = (1 << width) - 1 << low
        self._bus.write(offset, self._bus.read(offset) & ~mask | int(value) << low & mask)
'''

_PY_GET = '''
    @property
    def {name}(self):
        """{description}."""
        return {value}
'''

_PY_SET = """
    @{name}.setter
    def {name}(self, value):
        self._set({place}, value)
"""

_PY_PULSE = '''
    def {name}(self):
        """{description}."""
        self._set({place}, 1)
'''


def python_driver(registers: RegisterMap) -> str:
    """A module with the class ``Registers``: a property or a method for every field."""
    magic = ID.fields[0].reset
    parts = [_PY_HEAD.format(made=_MADE, id=magic, major=MAJOR)]
    for register, field, full in _fields(registers):
        name = full.lower()
        place = f"0x{register.offset:02X}, {field.low}, {field.width}"
        text = f"{register.description}: {field.description}"
        description = text[0].upper() + text[1:]
        if field.access is Access.PULSE:
            parts.append(_PY_PULSE.format(name=name, description=description, place=place))
            continue
        value = f"self._get({place})"
        if register.words > 1:
            stop = register.offset + 4 * register.words
            value = (
                f"tuple(self._bus.read(offset) for offset in range({register.offset:#04x}, {stop:#04x}, 4))"
            )
        elif field.width == 1:
            value = f"bool({value})"
        parts.append(_PY_GET.format(name=name, description=description, value=value))
        if field.access is Access.WRITE:
            parts.append(_PY_SET.format(name=name, place=place))
    return "".join(parts)


# --- documentation ------------------------------------------------------------------------------------

_PAGE_HEAD = """\
# Registers

<!-- {made} This page: python -m s2tdpt.scripts.registers -->

`s2tdpt generate --registers` gives the accelerator a block of control and status registers on AXI4-Lite,
the ports `s_axi_*` ([interface](interface.md#registers)), and the package a C header, a driver in Python
without any dependency (`s2tdpt_registers.py`; `s2tdpt.host.Registers` is the same) and this map as
`registers.json`. Version {major}.{minor}.

Words have 32 bits, addresses {bits}; the two lowest bits of an address mean nothing, and what is above the
{bits} is not looked at. Bits without a field read 0. A read of no register, and a write of none that can be
written, is answered with SLVERR and does nothing. A byte of CONTROL whose strobe is low keeps its value.

After reset no image is taken: `s_axis_tready` is low. While ENABLE is 1 images are taken as they come;
START lets one more in, the next that begins (not more than one waits). An image that has begun to arrive is
taken to its end, whatever is written. FRAMES and CYCLES change together, in the cycle in which the first
word of the result becomes valid; CYCLES is exactly what the cycle model says (`s2tdpt cycles`). Counters
and errors are cleared by reset alone.

CONFIG_HASH is the SHA-256 of a JSON object with the keys `machine`, `network` (both as in the
[manifest](files.md#folder-of-s2tdpt-generate)) and `parameters` (the SHA-256 there), keys in order at every
level, without blanks. The manifest's `registers` has it as `config_hash`, in hexadecimal. With streamed
weights it names the parameters that the hardware was generated from, whatever is streamed.

| offset | register | meaning |
|---|---|---|
"""


def page(registers: RegisterMap) -> str:
    """The page docs/registers.md."""
    minor = VERSION.fields[0].reset
    lines = [_PAGE_HEAD.format(made=_MADE, bits=registers.address_bits, major=MAJOR, minor=minor)]
    for register in registers.registers:
        last = register.offset + 4 * (register.words - 1)
        place = f"0x{register.offset:02x}" + (f" .. 0x{last:02x}" if register.words > 1 else "")
        lines.append(f"| {place} | `{register.name}` | {register.description} |\n")
    lines.append("\n| field | bits | access | after reset | meaning |\n|---|---|---|---|---|\n")
    for register, field, full in _fields(registers):
        high = field.low + field.width - 1
        bits = f"{high} .. {field.low}" if field.width > 1 else str(high)
        reset = "of the design" if field.reset is None else _number(field.reset)
        name = full if register.whole else f"{register.name}.{field.name}"
        lines.append(f"| `{name}` | {bits} | {field.access} | {reset} | {field.description} |\n")
    return "".join(lines)


def _number(value: int) -> str:
    return str(value) if value < 1 << WORD_BITS // 2 else f"{value:#x}"

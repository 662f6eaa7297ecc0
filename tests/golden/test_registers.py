"""The register map, what is made from it, and the twin that it describes."""

import ctypes
import hashlib
import importlib.util
import json
import re
import subprocess

import pytest
from pydantic import ValidationError

from s2tdpt.golden import register_map as names
from s2tdpt.golden.register_map import MAP, Access, Field, Register, RegisterMap
from s2tdpt.golden.register_texts import c_header, page, python_driver
from s2tdpt.golden.registers import Constants, FrameGate, Registers, config_hash
from s2tdpt.host.registers import Registers as Driver
from s2tdpt.scripts import registers as writer

CONSTANTS = Constants(64, 11, 4, bytes(range(32)))
DRIFT = "{} is not what the register map makes; write it again: python -m s2tdpt.scripts.registers"


def drifted(root) -> list[str]:
    """Committed files that differ from the map, in words."""
    files = writer.made_files().items()
    return [DRIFT.format(name) for name, text in files if (root / name).read_text(encoding="utf-8") != text]


def test_committed_files_are_those_of_the_map():
    assert drifted(writer.ROOT) == []


def moved(register, **changes) -> RegisterMap:
    """The map with one register altered."""
    altered = Register.model_validate(register.model_dump() | changes)
    return RegisterMap(
        name=MAP.name, registers=tuple(altered if other is register else other for other in MAP.registers)
    )


@pytest.mark.parametrize(
    "altered",
    [
        moved(names.RESULT_WORD_BYTES, offset=0x2C),
        moved(names.CONTROL, fields=(names.ENABLE,)),
        moved(names.CYCLES, description="cycles"),
    ],
)
def test_a_drift_of_the_map_is_caught(monkeypatch, altered):
    monkeypatch.setattr(writer, "MAP", altered)
    assert drifted(writer.ROOT) == [DRIFT.format("docs/registers.md"), DRIFT.format("host/registers.py")]
    assert c_header(altered) != c_header(MAP)


def test_a_drift_of_a_file_is_caught(monkeypatch, tmp_path):
    monkeypatch.setattr(writer, "ROOT", tmp_path)
    for name in ("docs", "host"):
        (tmp_path / name).mkdir()
    writer.main()
    assert drifted(tmp_path) == []
    path = tmp_path / "host" / "registers.py"
    path.write_text(path.read_text().replace("0x14", "0x18", 1))
    assert drifted(tmp_path) == [DRIFT.format("host/registers.py")]


def test_map_as_json():
    text = MAP.model_dump_json()
    assert RegisterMap.model_validate_json(text) == MAP
    found = {register["name"]: register for register in json.loads(text)["registers"]}
    assert found["CONTROL"]["fields"][1]["access"] == "pulse"
    assert MAP.address_bits == 7
    with pytest.raises(ValidationError):
        MAP.registers[0].offset = 4


def word(name="A", offset=0, **changes):
    fields = changes.pop("fields", (Field(name="F", low=0, width=4, description="f"),))
    return Register(name=name, offset=offset, fields=fields, description="r", **changes)


BAD_MAPS = {
    r"A.F has bits 30 to 33; expected free ones of 0 to 31 and a name of its own": lambda: word(
        fields=(Field(name="F", low=30, width=4, description="f"),)
    ),
    r"A.G has bits 2 to 2; expected free ones": lambda: word(
        fields=(
            Field(name="F", low=0, width=4, description="f"),
            Field(name="G", low=2, width=1, description="g"),
        )
    ),
    r"A.F has bits 8 to 8; expected free ones": lambda: word(
        fields=(
            Field(name="F", low=0, width=4, description="f"),
            Field(name="F", low=8, width=1, description="g"),
        )
    ),
    r"A.F is 16 after reset; expected at most 4 bits": lambda: word(
        fields=(Field(name="F", low=0, width=4, reset=16, description="f"),)
    ),
    r"B is at 0x0; expected 0x8 or more and a name of its own": lambda: RegisterMap(
        name="M", registers=(word(words=2), word("B"))
    ),
    r"A is at 0x4; expected 0x4 or more and a name of its own": lambda: RegisterMap(
        name="M", registers=(word(), word(offset=4))
    ),
    r"multiple of 4": lambda: word(offset=6),
    r"should match pattern": lambda: word("lower"),
    r"at least 1 item": lambda: word(fields=()),
}


@pytest.mark.parametrize("message", BAD_MAPS)
def test_a_map_that_cannot_be(message):
    with pytest.raises(ValidationError, match=message):
        BAD_MAPS[message]()


def test_addresses():
    assert MAP.at(names.CONFIG_HASH.offset + 4 * 7 + 3) == (names.CONFIG_HASH, 7)
    assert MAP.at(0x60) is None and MAP.at(0x2C) is None
    assert MAP.at(0x84) == (names.VERSION, 0)  # the block is 128 bytes


def test_twin_reads_and_writes():
    twin = Registers(CONSTANTS)
    assert twin.read(names.ID.offset) == (0x53325444, True)
    assert twin.read(names.VERSION.offset) == (1 << 16, True)
    assert twin.read(names.CONFIG_HASH.offset + 4) == (0x04050607, True)
    assert twin.read(0x2C) == (0, False)
    assert twin.write(names.FRAMES.offset, 1) == (False, False)
    assert twin.write(0x2C, 1) == (False, False)
    assert twin.write(names.CONTROL.offset, 3, 0b1110) == (True, False)
    assert twin.read(names.CONTROL.offset) == (0, True)
    assert twin.write(names.CONTROL.offset, 3) == (True, True)
    assert twin.read(names.CONTROL.offset) == (1, True)
    twin.complete(1 << 33)
    assert twin.read(names.CYCLES.offset) == (2**32 - 1, True)
    twin.frames = 2**32 - 1
    twin.complete(5)
    assert (twin.frames, twin.cycles) == (0, 5)


def test_gate_lets_one_image_in():
    gate = FrameGate()
    assert not gate.cycle(True, True, False)
    assert not gate.cycle(True, True, False, start=True)  # from the next cycle on
    assert gate.pending and not gate.receiving
    assert not gate.cycle(True, False, False) and gate.receiving and not gate.pending
    assert gate.cycle(True, True, False) and gate.cycle(True, True, True)
    assert not gate.receiving and not gate.cycle(True, True, False)


def test_hash_is_that_of_the_page():
    digest = config_hash({"b": 1, "a": [1, 2]}, {"name": "m"}, "00")
    text = '{"machine":{"name":"m"},"network":{"a":[1,2],"b":1},"parameters":"00"}'
    assert digest == hashlib.sha256(text.encode()).digest()


# --- what is made --------------------------------------------------------------------------------


class TwinBus:
    """The twin as a driver's bus."""

    def __init__(self, twin):
        self.twin = twin

    def read(self, offset):
        value, okay = self.twin.read(offset)
        assert okay
        return value

    def write(self, offset, value):
        okay, start = self.twin.write(offset, value)
        assert okay
        self.twin.gate.cycle(False, False, False, start)


def test_driver_speaks_to_the_twin():
    twin = Registers(CONSTANTS)
    driver = Driver(TwinBus(twin))
    assert (driver.frame_bytes, driver.result_words, driver.result_word_bytes) == (64, 11, 4)
    assert b"".join(value.to_bytes(4, "big") for value in driver.config_hash) == CONSTANTS.config_hash
    driver.control_start()
    assert twin.gate.pending and driver.status_pending and not driver.control_enable
    driver.control_enable = True
    assert driver.control_enable is True and twin.gate.enable
    driver.control_start()
    assert driver.control_enable  # which a pulse leaves as it is
    driver.control_enable = False
    assert not twin.gate.enable
    twin.complete(1234)
    twin.drop(True)
    twin.drop(False)
    assert (driver.frames, driver.cycles, driver.short_frames, driver.long_frames) == (1, 1234, 1, 1)
    assert driver.status_error_short is driver.status_error_long is True


def test_driver_names_every_field():
    for register in MAP.registers:
        for field in register.fields:
            name = register.name if register.whole else f"{register.name}_{field.name}"
            member = getattr(Driver, name.lower())
            assert callable(member) == (field.access is Access.PULSE)
            assert member.__doc__
            if field.access is not Access.PULSE:
                assert (member.fset is not None) == (field.access is Access.WRITE)


def test_driver_refuses_another_block(tmp_path):
    class Nothing:
        def read(self, offset):
            return 0

    with pytest.raises(RuntimeError) as error:
        Driver(Nothing())
    assert str(error.value) == (
        "ID is 0x0, version 0; expected 0x53325444, version 1; "
        "check the address and the version of the driver"
    )
    path = tmp_path / "alone.py"
    path.write_text(python_driver(MAP))
    spec = importlib.util.spec_from_file_location("alone", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.Registers(TwinBus(Registers(CONSTANTS))).frames == 0


def compiled(folder, header=None):
    """The accessors of the header as a library, called through a plain array of words."""
    (folder / "s2tdpt_registers.h").write_text(header or c_header(MAP))
    lines = ['#include "s2tdpt_registers.h"']
    for register in MAP.registers:
        for field in register.fields:
            full = (register.name if register.whole else f"{register.name}_{field.name}").lower()
            if field.access is Access.PULSE:
                lines.append(f"void pulse_{full}(void *b) {{ s2tdpt_{full}(b); }}")
            elif register.words == 1:
                lines.append(f"uint32_t get_{full}(void *b) {{ return s2tdpt_get_{full}(b); }}")
            if field.access is Access.WRITE:
                lines.append(f"void set_{full}(void *b, uint32_t v) {{ s2tdpt_set_{full}(b, v); }}")
    (folder / "use.c").write_text("\n".join(lines) + "\n")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", "use.so", "use.c"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "use.so"))


def agrees(library) -> bool:
    """Whether every accessor reads and writes the bits of the map."""
    words = (ctypes.c_uint32 * (1 << MAP.address_bits - 2))()
    for register in MAP.registers:
        for field in register.fields:
            full = (register.name if register.whole else f"{register.name}_{field.name}").lower()
            at, largest = register.offset // 4, (1 << field.width) - 1
            if field.access is Access.PULSE:
                words[at] = 0
                getattr(library, f"pulse_{full}")(words)
                if words[at] != field.mask:
                    return False
                continue
            if register.words == 1:
                read = getattr(library, f"get_{full}")
                read.restype = ctypes.c_uint32
                words[at] = field.mask
                if read(words) != largest:
                    return False
                words[at] = ~field.mask & 0xFFFFFFFF
                if read(words) != 0:
                    return False
            if field.access is Access.WRITE:
                words[at] = 0
                getattr(library, f"set_{full}")(words, 0xFFFFFFFF)
                if words[at] != field.mask:
                    return False
    return True


def test_header_agrees_with_the_map(tmp_path):
    assert agrees(compiled(tmp_path))


def test_a_header_with_another_offset_is_noticed(tmp_path):
    text = c_header(MAP)
    altered = re.sub(r"(#define S2TDPT_CYCLES) 0x14u", r"\1 0x18u", text)
    assert altered != text and not agrees(compiled(tmp_path, altered))


def test_page_lists_everything():
    text = page(MAP)
    for register in MAP.registers:
        assert f"| `{register.name}` |" in text
        for field in register.fields:
            assert register.whole or f"| `{register.name}.{field.name}` |" in text

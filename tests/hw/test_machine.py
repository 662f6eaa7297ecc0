"""Machines: every message whole, named ones load."""

import json

import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.plan.machine import DEFAULT_MACHINE, Machine, load_machine, machine_from, named_machines

FIELDS = "name, lanes, banks, post_lanes, queue, attention_steps, weight_memory"


@pytest.mark.parametrize(
    "fields, problem",
    [
        ({"banks": 0}, "banks is 0; expected greater than or equal to 1; correct the value"),
        ({"banks": 32}, "banks is 32; expected less than or equal to 16; correct the value"),
        (
            {"lanes": 12, "banks": 8, "post_lanes": 4},
            "banks 8 does not divide lanes 12; expected a divisor of lanes; change banks or lanes",
        ),
        (
            {"lanes": 12, "banks": 2, "post_lanes": 5},
            "post_lanes 5 does not divide lanes 12; expected a divisor of lanes; change post_lanes or lanes",
        ),
        ({"lanes": 0}, "lanes is 0; expected greater than or equal to 1; correct the value"),
        ({"lanes": 513}, "lanes is 513; expected less than or equal to 512; correct the value"),
        ({"lanes": "64"}, "lanes is '64'; expected a valid integer; correct the value"),
        ({"lanes": 4.5}, "lanes is 4.5; expected a valid integer; correct the value"),
        ({"queue": 3}, "queue is 3; expected 2, 4, 8 or 16; correct the value"),
        (
            {"attention_steps": 9},
            "attention_steps is 9; expected less than or equal to 8; correct the value",
        ),
        ({"weight_memory": "ram"}, "weight_memory is 'ram'; expected 'rom' or 'stream'; correct the value"),
        ({"rows": 2}, f"unknown field 'rows'; expected only {FIELDS}; remove it or correct its spelling"),
    ],
)
def test_messages(fields, problem):
    with pytest.raises(UserError) as error:
        machine_from(fields, "mine.json")
    assert str(error.value) == f"machine mine.json: {problem}"


@pytest.mark.parametrize("name", ["", "-a", "a b", "x" * 65, "ä"])
def test_names(name):
    with pytest.raises(UserError, match=r"^machine m: name is .*; correct the value$"):
        machine_from({"name": name}, "m")


def test_derived_sizes():
    machine = Machine(lanes=24, banks=3, post_lanes=4)
    assert (machine.subgroups, machine.slice_channels) == (6, 8)
    with pytest.raises(ValueError, match="frozen"):
        machine.lanes = 8


def test_named_machines_load():
    assert DEFAULT_MACHINE in named_machines()
    for name in named_machines():
        assert load_machine(name).name == name


def test_machine_from_a_file(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"name": "m", "lanes": 8, "banks": 2, "post_lanes": 4}))
    assert load_machine(path) == Machine(name="m", lanes=8, banks=2, post_lanes=4)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{", "no JSON at line 1, column 2"),
        ("\udcff", "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('{"lanes": 8, "lanes": 4}', "a key stands twice in an object"),
    ],
    ids=["open", "no text", "deep", "twice"],
)
def test_corrupt_json(tmp_path, text, reason):
    path = tmp_path / "m.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as error:
        load_machine(path)
    assert str(error.value) == (
        f"{path} is not valid JSON ({reason}); expected an object of machine fields; correct the file"
    )


def test_json_that_is_no_object(tmp_path):
    path = tmp_path / "m.json"
    path.write_text("[1]")
    with pytest.raises(UserError) as error:
        load_machine(path)
    assert str(error.value) == (
        f"machine {path} is no JSON object; expected an object of fields; correct the file"
    )


def test_unknown_name():
    with pytest.raises(UserError) as error:
        load_machine("digit")
    assert str(error.value) == (
        f"no machine 'digit'; expected one of {', '.join(named_machines())} or the path of a JSON file; "
        "check the spelling"
    )

"""The folder of `s2tdpt generate`: complete, reproducible, accepted as it is shipped, or absent."""

import hashlib
import json
import re

import pytest

from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import random_params
from s2tdpt.hw.bus.axi import ResultSender
from s2tdpt.hw.package import folder as package
from s2tdpt.hw.package.constraints import constraint_files
from s2tdpt.hw.package.folder import describe, instantiation, write_package
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.tools.external import ToolError, find_tool, run_tool, versions
from s2tdpt.hw.top import Accelerator
from s2tdpt.hw.verilog import Port, lint
from tests.hw.test_core import CASES

SENDER = {
    *("sender.sv", "sender.f", "sender_inst.sv", "sender.sdc", "sender.lpf", "sender.core"),
    *("lint.vlt", "manifest.json"),
}


def make_package(folder, **options):
    return write_package(folder, ResultSender(10, 4, 24), "sender", manifest={"note": {"a": 1}}, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_package_is_complete_and_reproducible(tmp_path):
    one, two = make_package(tmp_path / "one"), make_package(tmp_path / "two")
    files = contents(one)
    assert files == contents(two)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert set(files) == SENDER
    manifest = json.loads(files["manifest.json"])
    assert list(manifest) == ["format", "version", "top", "note", "ports", "files", "tools"]
    assert manifest["files"] == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "manifest.json"
    }
    assert {"name": "tdata", "direction": "output", "width": 32} in manifest["ports"]
    assert manifest["tools"] == versions(("s2tdpt", "amaranth", "yosys")) and None not in manifest["tools"]
    lint([one / "sender.sv"], "sender")


@pytest.mark.parametrize("options", [{}, {"probes": True}, {"weights": "stream"}], ids=lambda o: "".join(o))
def test_package_as_shipped(tmp_path, options):
    """The commands of docs/files.md, in the folder: no warning, no error, and no port but those asked for."""
    network, machine = CASES["streamed" if "weights" in options else "two_banks"]
    probes = options.get("probes", False)
    folder = package.generate(random_params(network, 0), machine, tmp_path / "made", "top", probes=probes)
    lint_words = ["--lint-only", "-Wall", "--top-module", "top", "lint.vlt", "-F", "top.f"]
    assert "%Warning" not in run_tool("verilator", lint_words, cwd=folder)
    script = "read_verilog_file_list -F top.f; hierarchy -check -top top; proc; check -assert"
    assert "Warning" not in run_tool("yosys", ["-p", script], cwd=folder)
    run_tool("iverilog", ["-g2012", "-t", "null", "-c", "top.f"], cwd=folder)
    names = {path.name for path in folder.iterdir()}
    assert ("weight_stream.hex" in names) == ("weights" in options)
    assert {line.strip() for line in (folder / "top.f").read_text().splitlines()} == {"top.sv"}
    template = (folder / "top_inst.sv").read_text()
    assert ("probe_" in template) == ("probe_" in (folder / "top.sv").read_text().split(");")[0]) == probes
    manifest = json.loads((folder / "manifest.json").read_text())
    assert "verilator" not in json.dumps(manifest)


def test_simulator_is_not_part_of_the_package(tmp_path, monkeypatch):
    """The same bytes with another simulator or none."""
    one = contents(make_package(tmp_path / "one"))
    find = find_tool.__wrapped__

    def without(name):
        if name in ("verilator", "iverilog", "g++", "nextpnr-ecp5"):
            raise ToolError(f"{name} was not found; it is needed; install it with: nothing")
        return find(name)

    monkeypatch.setattr("s2tdpt.hw.tools.external.find_tool", without)
    assert contents(make_package(tmp_path / "two")) == one


def test_output_that_cannot_be_told_leaves_no_package(tmp_path):
    told = []
    make_package(tmp_path / "package", tell=told.append)
    assert [line.split()[0] for line in told] == [str(tmp_path / "package" / name) for name in sorted(SENDER)]
    before = contents(tmp_path / "package")

    def full(line):
        raise OSError(28, "No space left on device")

    for folder, force in (("new", False), ("package", True)):
        with pytest.raises(OSError, match="No space left"):
            make_package(tmp_path / folder, tell=full, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["package"]
    assert contents(tmp_path / "package") == before


@pytest.mark.parametrize("name", ["two_banks", "streamed"])
def test_constraints_name_every_port(name):
    network, machine = CASES[name]
    accelerator = Accelerator(random_params(network, 0), machine)
    directions = {port: direction.name.lower() for port, (_, direction) in accelerator.ports().items()}
    ports = [Port(port, directions[port], len(value)) for port, (value, _) in accelerator.ports().items()]
    files = constraint_files("top", ports, 80.0)
    assert list(files) == ["top.sdc", "top.lpf"]
    assert files["top.lpf"].splitlines()[1:] == ['FREQUENCY PORT "aclk" 80 MHZ;']
    _, clock, *delays = files["top.sdc"].splitlines()
    assert clock == "create_clock -name aclk -period 12.5 [get_ports aclk]"
    named = {}
    for line in delays:
        found = re.fullmatch(
            r"set_(input|output)_delay 2\.5 -clock aclk \[get_ports (?:(\w+)|\{(\w+)\[\*\]\})\]", line
        )
        named[found[2] or found[3]] = found[1]
    assert {"aclk": "input", **named} == directions
    assert constraint_files("top", [Port("y", "output", 1)]) == {}
    for frequency in (0, -1, float("nan"), float("inf"), 1e9):
        with pytest.raises(UserError, match="expected 0.001 to 100000; choose"):
            constraint_files("top", ports, frequency)


def test_instantiation_template_compiles(tmp_path):
    folder = make_package(tmp_path / "package")
    template = (folder / "sender_inst.sv").read_text()
    (tmp_path / "user.sv").write_text(f"module user;\n{template}endmodule\n")
    output = run_tool(
        "iverilog",
        ["-g2012", "-Wall", "-t", "null", "-s", "user", "user.sv", folder / "sender.sv"],
        cwd=tmp_path,
    )
    assert "warning" not in output  # Icarus warns of a port of another width
    narrow = template.replace("[31:0] tdata;", "[30:0] tdata;")
    (tmp_path / "user.sv").write_text(f"module user;\n{narrow}endmodule\n")
    output = run_tool(
        "iverilog",
        ["-g2012", "-Wall", "-t", "null", "-s", "user", "user.sv", folder / "sender.sv"],
        cwd=tmp_path,
    )
    assert "warning" in output


def test_instantiation_text():
    text = instantiation("top", [Port("clk", "input", 1), Port("tdata", "output", 8)])
    assert (
        text
        == """\
// Instantiation template of top.

wire          clk;     // input
wire    [7:0] tdata;   // output

top u_top (
  .clk   (clk),
  .tdata (tdata)
);
"""
    )


def test_existing_folder_is_kept(tmp_path):
    folder = make_package(tmp_path / "package")
    (folder / "mine").write_text("mine")
    with pytest.raises(UserError) as error:
        make_package(folder)
    assert str(error.value) == (f"{folder} exists; expected a new folder; choose another name or use --force")
    assert (folder / "mine").exists()
    make_package(folder, force=True)
    assert set(contents(folder)) == SENDER
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


@pytest.mark.parametrize("text", [None, "not json", "[]", '{"format": "other"}'])
def test_foreign_folder_is_never_replaced(tmp_path, text):
    folder = tmp_path / "mine"
    folder.mkdir()
    if text is not None:
        (folder / "manifest.json").write_text(text)
    before = contents(folder)
    with pytest.raises(UserError, match="is not a generated package; only such a folder is replaced"):
        make_package(folder, force=True)
    assert contents(folder) == before


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "package", tmp_path / "absent" / "package"):
        with pytest.raises(UserError, match=f"^cannot write {folder}: .*; choose another folder$"):
            make_package(folder)


@pytest.mark.parametrize("force", [False, True])
def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch, force):
    folder = tmp_path / "package"
    if force:
        make_package(folder)
    before = contents(folder) if force else None

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package.Path, "chmod", full)
    with pytest.raises(UserError) as error:
        make_package(folder, force=force)
    assert str(error.value) == (
        f"cannot write {folder}: No space left on device; expected a writable place; choose another folder"
    )
    assert [path.name for path in tmp_path.iterdir()] == (["package"] if force else [])
    assert not force or contents(folder) == before


@pytest.mark.parametrize("name", ["", "1st", "a-b", "a b", "é", "module", "x" * 65])
def test_bad_module_name(tmp_path, name):
    with pytest.raises(UserError, match="cannot be a module name; expected a letter"):
        write_package(tmp_path / "package", None, name)


def test_description_of_an_accelerator():
    accelerator = Accelerator(random_params(load_config("digits"), seed=1), Machine())
    sections = json.loads(json.dumps(describe(accelerator)))
    assert list(sections) == ["network", "machine", "parameters", "widths", "program"]
    assert sections["network"]["name"] == "digits"
    assert sections["machine"]["lanes"] == 32
    assert sections["parameters"]["sha256"] == accelerator.params.checksum()
    steps = sections["program"]["steps"]
    assert [step["index"] for step in steps] == list(range(len(accelerator.program.steps)))
    assert (steps[0]["name"], steps[-1]["name"]) == ("sps.0", "head")

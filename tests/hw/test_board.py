"""Boards, PLLs, and the way to a bitstream with stand-ins for the slow tools."""

import hashlib
import json
import re

import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import random_params
from s2tdpt.hw.board import bitstream
from s2tdpt.hw.board.bitstream import board_top, build_bitstream
from s2tdpt.hw.board.description import BOARD_DIRECTORY, load_board, memory_fit, named_boards, wiring_of
from s2tdpt.hw.board.pll import ecp5_pll, gowin_pll, ice40_pll
from s2tdpt.hw.board.serial import SerialAccelerator, SerialLine
from s2tdpt.hw.estimate.memory_plan import plan_of
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.verilog import emit, lint
from s2tdpt.sim.cases import network

MACHINE = Machine(lanes=4, banks=2, post_lanes=2)
PARAMS = random_params(network(), 3)


def test_boards():
    """Each is named as its file, and its pins are those of its schematic."""
    assert named_boards() == ("icebreaker", "tangnano9k", "ulx3s-85f")
    sites = {}
    for name in named_boards():
        board = load_board(name)
        wiring = wiring_of(board)
        assert board.name == name and board.baud * 8 <= board.frequency * 1e6
        sites[name] = " ".join(f"{pin.port}={'~' * pin.inverted}{pin.site}" for pin in wiring.pins)
    assert sites == {
        "icebreaker": "clk_pin=35 rx=6 tx=9 life=~37 fault=~11",
        "tangnano9k": "clk_pin=52 rx=18 tx=17 life=~10 fault=~11",
        "ulx3s-85f": "clk_pin=G2 rx=M1 tx=L4 life=B2 fault=C2 high_0=L2",
    }
    wiring = wiring_of(load_board("ulx3s-85f"))
    assert (wiring.device, wiring.package, wiring.clock) == ("85k", "CABGA381", 25.0)


def test_memories_of_a_board():
    plan = plan_of(PARAMS, MACHINE)
    assert str(memory_fit(load_board("ulx3s-85f"), plan)) == f"fits: {plan.blocks} of 208 block RAMs"
    assert str(memory_fit(load_board("icebreaker"), plan)).startswith("may fit: ")
    small = load_board("ulx3s-85f").model_copy(update={"block_rams": 1})
    assert memory_fit(small, plan).over == plan.blocks - 1
    words = f"over by {plan.blocks - 1}: {plan.blocks} of 1 block RAMs"
    assert str(memory_fit(small, plan)) == words


@pytest.mark.parametrize(
    "change, message",
    [
        ({"family": "spartan"}, "family is 'spartan'; expected one of ecp5, ice40, gowin"),
        ({"luts": 0}, "luts: Input should be greater than or equal to 1"),
        ({"colour": 1}, "colour: Extra inputs are not permitted"),
        (
            {"platform": "amaranth_boards.nowhere:Board"},
            "no amaranth_boards.nowhere:Board in amaranth-boards",
        ),
        ({"life": {"name": "lamp"}}, "expected a resource of amaranth_boards.ulx3s"),
        ({"life": {"name": "esp32", "part": "x"}}, "esp32 has no part 'x'"),
    ],
)
def test_bad_boards(tmp_path, change, message):
    fields = json.loads((BOARD_DIRECTORY / "ulx3s-85f.json").read_text())
    (tmp_path / "board.json").write_text(json.dumps(fields | change))
    with pytest.raises(UserError) as error:
        wiring_of(load_board(tmp_path / "board.json"))
    assert message in str(error.value)
    with pytest.raises(
        UserError, match="^no board 'nothing'; expected one of icebreaker, tangnano9k, ulx3s-85f or"
    ):
        load_board("nothing")


def number(text: str, name: str) -> int:
    """A parameter of an instance."""
    return int(text.split(f".{name}(")[1].split(")")[0].rpartition("'d")[2])


def test_plls_keep_to_their_limits():
    """Every wanted frequency: never above it, within the ranges of the data sheet, and near it."""
    for wanted in [*range(6, 200), 80.5, 33.3]:
        pll = ecp5_pll(25.0, wanted)
        detector = 25 / number(pll.text, "CLKI_DIV")
        out = detector * number(pll.text, "CLKFB_DIV")
        assert pll.megahertz == pytest.approx(out) and wanted - 3.125 < out <= wanted * 1.000001
        assert 3.125 <= detector <= 400 and 400 <= out * number(pll.text, "CLKOP_DIV") <= 800
    for wanted in range(10, 200):
        pll = ice40_pll(12.0, wanted)
        oscillator = 12 / (number(pll.text, "DIVR") + 1) * (number(pll.text, "DIVF") + 1)
        out = oscillator / (1 << number(pll.text, "DIVQ"))
        assert pll.megahertz == pytest.approx(out) and 0.9 * wanted < out <= wanted
        assert 533 <= oscillator <= 1066 and number(pll.text, "FILTER_RANGE") == 1
    for wanted in range(5, 200):
        pll = gowin_pll(27.0, wanted)
        detector = 27 / (number(pll.text, "IDIV_SEL") + 1)
        out = detector * (number(pll.text, "FBDIV_SEL") + 1)
        assert pll.megahertz == pytest.approx(out) and wanted - 3 <= out <= wanted * 1.000001
        assert detector >= 3 and 400 <= out * number(pll.text, "ODIV_SEL") <= 1200
    with pytest.raises(
        UserError, match="^the PLL of an iCE40 makes no clock of 3 MHz or less from 12 MHz; expected"
    ):
        ice40_pll(12.0, 3)


def test_verilog_of_the_board_is_clean(tmp_path):
    """Top and core under the linter, with an empty PLL and a buffer that is a wire."""
    board = load_board("ulx3s-85f")
    wiring = wiring_of(board)
    core = SerialAccelerator(PARAMS, MACHINE, SerialLine(clock=75_000_000, baud=board.baud))
    top = board_top(board, wiring, ecp5_pll(25.0, 75.0))
    settings, pins = top.split("EHXPLLL #(")[1].split(") pll (")
    parameters = ", ".join(f"parameter {name} = 0" for name in re.findall(r"\.(\w+)\(", settings))
    inputs = set(re.findall(r"\.(\w+)\(", pins.split(");")[0])) - {"CLKOP", "LOCK"}
    listed = ", ".join(f"input {name}" for name in sorted(inputs))
    stub = "/* verilator lint_off UNUSEDPARAM */\n/* verilator lint_off UNUSEDSIGNAL */\n"
    stub += f"module EHXPLLL #({parameters}) ({listed}, output CLKOP, output LOCK);\n"
    stub += "  assign CLKOP = CLKI;\n  assign LOCK = 1'b1;\nendmodule\n"
    stub += "module DCCA(input CLKI, input CE, output CLKO);\n  assign CLKO = CLKI;\nendmodule\n"
    (tmp_path / "design.sv").write_text(emit(core, bitstream.SERIAL, core.ports()) + top + stub)
    lint([tmp_path / "design.sv"], bitstream.TOP)


class Tools:
    """Stand-ins: place and route reaches `fmax`, one number a run."""

    def __init__(self, *fmax: float):
        self.fmax, self.runs = list(fmax), []

    def __call__(self, tool, arguments, *, cwd, log):
        self.runs.append(tool)
        log.write_text("said something")
        if tool.startswith("nextpnr"):
            clock = {"clk": {"achieved": self.fmax.pop(0), "constraint": 90}}
            counts = {"TRELLIS_COMB": {"used": 7, "available": 100}}
            (cwd / "report.json").write_text(json.dumps({"fmax": clock, "utilization": counts}))
        if tool == "ecppack":
            (cwd / "design.bit").write_bytes(b"bits")
        return ""


@pytest.fixture
def tools(monkeypatch, tmp_path):
    """Installs `Tools` and an empty cache."""
    monkeypatch.setenv("S2TDPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bitstream, "emit", lambda core, name, ports: f"module {name} {core._line}")

    def install(*fmax):
        stand_in = Tools(*fmax)
        monkeypatch.setattr(bitstream, "run_tool", stand_in)
        return stand_in

    return install


def test_the_clock_is_one_that_was_proved(tools):
    """75 MHz are tried, 61 reached, so the next try is below 61, and holds. Then the cache answers."""
    board, steps = load_board("ulx3s-85f"), ["yosys", "nextpnr-ecp5", "ecppack"]
    stand_in = tools(61.0, 60.0)
    made = build_bitstream(PARAMS, MACHINE, board)
    assert stand_in.runs == steps * 2
    assert 57 < made.line.clock / 1e6 <= 61 * 0.98 and made.fmax == 60.0 and not made.cached
    assert (made.folder / "design.bit").read_bytes() == b"bits"
    manifest = made.manifest()
    assert manifest["parameters"] == PARAMS.checksum() and manifest["used"] == {"lut": 7}
    assert manifest["sha256"] == hashlib.sha256(b"bits").hexdigest()
    stand_in = tools()
    again = build_bitstream(PARAMS, MACHINE, board)
    assert again.cached and stand_in.runs == [] and again.manifest() == manifest
    stand_in = tools(80.0)
    assert build_bitstream(PARAMS, MACHINE, board, seed=2).seed == 2 and stand_in.runs == steps


def test_a_clock_that_is_never_reached(tools, tmp_path):
    tools(60.0, 50.0, 30.0)
    with pytest.raises(
        UserError, match=r"reaches 30.00 MHz on ulx3s-85f, not the [\d.]+ of its PLL; expected a clock"
    ):
        build_bitstream(PARAMS, MACHINE, load_board("ulx3s-85f"))
    with pytest.raises(
        UserError, match="^12.5 MHz is too slow for 3000000 baud on ulx3s-85f; expected 8 cycles a bit"
    ):
        build_bitstream(PARAMS, MACHINE, load_board("ulx3s-85f"), frequency=12.5)


@pytest.mark.parametrize("stop", (KeyboardInterrupt, SystemExit))
def test_an_interrupted_build_leaves_nothing(tools, monkeypatch, tmp_path, stop):
    tools()

    def interrupted(*_, **__):
        raise stop

    monkeypatch.setattr(bitstream, "run_tool", interrupted)
    with pytest.raises(stop):
        build_bitstream(PARAMS, MACHINE, load_board("ulx3s-85f"))
    assert list((tmp_path / "cache" / "bitstreams").iterdir()) == []


STAND_IN = f"""\
module {bitstream.SERIAL}(input clk, input rst, input rx, output tx, output life, output fault);
  reg [23:0] count = 0;
  always @(posedge clk) count <= rst ? 24'd0 : count + 24'd1;
  assign tx = rx;
  assign life = count[23];
  assign fault = rst;
endmodule
"""


@pytest.mark.wide
@pytest.mark.parametrize("name", named_boards())
def test_tools_make_a_bitstream(name, monkeypatch, tmp_path):
    """The real tools of every family, PLL and pins included, with a counter in place of the accelerator."""
    monkeypatch.setenv("S2TDPT_CACHE", str(tmp_path))
    monkeypatch.setattr(bitstream, "emit", lambda core, name, ports: STAND_IN)
    board = load_board(name)
    made = build_bitstream(PARAMS, MACHINE, board)
    assert made.fmax >= made.line.clock / 1e6 and made.line.clock == pytest.approx(
        board.frequency * 1e6, rel=0.05
    )
    assert (made.folder / made.file).stat().st_size > 10_000
    assert 5 < made.used["lut"] < 300 and made.available["lut"] == board.luts

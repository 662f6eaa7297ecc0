"""Synthesis reports of a tiny design whose size is known, and the constraint templates."""

import gzip
import io
import json
import re

import pytest
from amaranth.hdl import ClockDomain, ClockSignal, Module, ResetSignal, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from rich.console import Console

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.netlist.synthesis import Report, synthesize
from s2tdpt.hw.package.constraints import constraint_files
from s2tdpt.hw.tools.external import ToolError, run_tool
from s2tdpt.hw.verilog import Port, emit

# The least that Yosys and its ABC accept. A flip-flop is larger than all the gates of the tests together.
LIBERTY = """\
library (tiny) {
  cell (INV) { area : 1; pin (A) { direction : input; } pin (Y) { direction : output; function : "A'"; } }
  cell (BUF) { area : 2; pin (A) { direction : input; } pin (Y) { direction : output; function : "A"; } }
  cell (NAND) {
    area : 2;
    pin (A) { direction : input; } pin (B) { direction : input; }
    pin (Y) { direction : output; function : "(A B)'"; }
  }
  cell (NOR) {
    area : 2;
    pin (A) { direction : input; } pin (B) { direction : input; }
    pin (Y) { direction : output; function : "(A+B)'"; }
  }
  cell (DFF) {
    area : 1024;
    ff (IQ, IQN) { clocked_on : "C"; next_state : "D"; }
    pin (C) { direction : input; clock : true; }
    pin (D) { direction : input; }
    pin (Q) { direction : output; function : "IQ"; }
  }
}
"""


class Tiny(wiring.Component):
    """A counter of 9 bits that walks through a RAM of 512 x 16 bits and increments its words."""

    def __init__(self):
        super().__init__({"aclk": In(1), "aresetn": In(1), "en": In(1), "data": Out(16)})

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain()
        m.d.comb += [ClockSignal().eq(self.aclk), ResetSignal().eq(~self.aresetn)]
        count = Signal(9)
        m.submodules.ram = ram = memory.Memory(shape=16, depth=512, init=range(512))
        read, write = ram.read_port(), ram.write_port()
        m.d.sync += count.eq(count + self.en)
        m.d.comb += [
            read.addr.eq(count),
            self.data.eq(read.data),
            write.addr.eq(count),
            write.data.eq(read.data + 1),
            write.en.eq(self.en),
        ]
        return m


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Verilog of `Tiny` in a file."""
    path = tmp_path_factory.mktemp("synthesis") / "tiny.sv"
    path.write_text(emit(Tiny(), "tiny"))
    return path


def test_ecp5(tiny, tmp_path):
    lpf = tmp_path / "tiny.lpf"
    lpf.write_text(constraint_files("tiny", [Port("aclk", "input", 1)])["tiny.lpf"])
    report = synthesize(tiny, "tiny", seeds=(1, 7), lpf=lpf, log_folder=tmp_path / "logs")
    assert (report.top, report.target) == ("tiny", "ecp5-85k")
    assert report.used | {"lut": 0} == {"lut": 0, "ff": 9, "lutram": 0, "bram": 1, "dsp": 0}
    assert 20 < report.used["lut"] < 60
    assert report.available == {"lut": 83640, "ff": 83640, "lutram": 10455, "bram": 208, "dsp": 156}
    assert list(report.fmax) == [1, 7] and all(50 < mhz < 600 for mhz in report.fmax.values())
    path = report.critical_path  # from the memory through the incrementer into the memory
    assert path["from"].startswith("ram") and path["to"].startswith("ram") and path["nets"]
    assert min(report.fmax.values()) == pytest.approx(1000 / (path["logic"] + path["routing"]), rel=0.01)
    assert report.frequency == 50.0  # of the constraint file, so its clock was found
    assert list(report.seconds) == ["synth_ecp5", "nextpnr_seed1", "nextpnr_seed7"]
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [
        "nextpnr_seed1.log",
        "nextpnr_seed7.log",
        "synth_ecp5.log",
    ]
    assert json.loads(json.dumps(report.as_dict()))["fmax_median"] == report.fmax_median


def test_a_kept_folder_saves_what_is_done(tiny, tmp_path, monkeypatch):
    """Only steps run whose input, arguments or tool are new."""
    work, ran = tmp_path / "work", []

    def run(name, *arguments, **options):
        ran.append(name)
        return run_tool(name, *arguments, **options)

    monkeypatch.setattr("s2tdpt.hw.netlist.synthesis_run.run_tool", run)
    first = synthesize(tiny, "tiny", seeds=(1,), work=work)
    assert ran == ["yosys", "nextpnr-ecp5"]
    more = synthesize(tiny, "tiny", seeds=(1, 7), work=work)
    assert ran == ["yosys", "nextpnr-ecp5", "nextpnr-ecp5"]
    assert (more.fmax[1], more.used, more.seconds["synth_ecp5"]) == (
        first.fmax[1],
        first.used,
        first.seconds["synth_ecp5"],
    )
    assert synthesize(tiny, "tiny", seeds=(7, 1), work=work).fmax == more.fmax
    assert len(ran) == 3
    synthesize(tiny, "tiny", seeds=(7,), frequency=60, work=work)  # what is asked for counts
    assert ran[3:] == ["nextpnr-ecp5"]
    other = tmp_path / "other.sv"
    other.write_text("// changed\n" + tiny.read_text())
    assert synthesize(other, "tiny", seeds=(7,), work=work).used == more.used
    # The netlist may come out the same, file names and lines apart.
    assert ran[4:5] == ["yosys"]


def test_a_step_that_fails_is_not_kept(tiny, tmp_path, monkeypatch):
    def stopped(name, *arguments, **options):
        raise ToolError("stopped")

    work = tmp_path / "work"
    with monkeypatch.context() as patch:
        patch.setattr("s2tdpt.hw.netlist.synthesis_run.run_tool", stopped)
        with pytest.raises(ToolError, match="^stopped$"):
            synthesize(tiny, "tiny", seeds=(1,), work=work)
    assert not (work / "synth_ecp5.step.json").exists()
    assert synthesize(tiny, "tiny", seeds=(1,), work=work).fmax


def test_cell_library(tiny, tmp_path):
    """The memory as a macro, and as flip-flops when the limit allows it."""
    path = tmp_path / "tiny.lib.gz"
    path.write_bytes(gzip.compress(LIBERTY.encode()))
    report = synthesize(tiny, "tiny", target="liberty", liberty=path)
    assert (report.used["ff"], report.used["macro_bits"]) == (9, 512 * 16)
    assert report.macros == {"ram": 512 * 16}
    gates = report.area - 9 * 1024
    assert report.used["cells"] - 9 <= gates <= 2 * (report.used["cells"] - 9)
    assert report.fmax_median is None
    path = tmp_path / "tiny.lib"
    path.write_text(LIBERTY)
    assert synthesize(tiny, "tiny", target="liberty", liberty=path).used == report.used


def test_cell_library_small_memory_becomes_logic(tmp_path):
    path = tmp_path / "small.sv"
    path.write_text("""
module small(input clk, input we, input [1:0] a, input [3:0] d, output [3:0] q);
  reg [3:0] mem [3:0];
  always @(posedge clk) if (we) mem[a] <= d;
  assign q = mem[a];
endmodule
""")
    library = tmp_path / "tiny.lib"
    library.write_text(LIBERTY)
    report = synthesize(path, "small", target="liberty", liberty=library)
    assert (report.used["ff"], report.used["macro_bits"]) == (16, 0)


def test_median_and_table():
    report = Report(
        "top",
        "ecp5-85k",
        {"lut": 1200},
        {"lut": 83640},
        {1: 60.0, 2: 50.0, 3: 52.5},
        50.0,
        {"from": "a.Q", "to": "b.D", "logic": 9.5, "routing": 10.25, "nets": ["n"]},
        seconds={"synth": 1.5, "place": 2.0},
    )
    assert report.fmax_median == 52.5
    console = Console(width=200, file=io.StringIO())
    console.print(report.table())
    rows = [re.findall(r"[\w,.]+(?: [\w,.]+)*", line) for line in console.file.getvalue().splitlines()]
    for row in (
        ["top on ecp5", "85k"],
        ["lut", "1,200", "83,640"],
        ["Fmax, seed 2", "50.0 MHz"],
        ["Fmax, median", "52.5 MHz"],
        ["run time", "4 s"],
    ):
        assert row in rows
    assert report.table().caption == "slowest path: a.Q to b.D, 9.5 ns logic, 10.25 ns routing"


@pytest.mark.parametrize(
    "options,message",
    [
        (
            {"target": "ice40"},
            "Unknown target 'ice40'; expected one of ecp5-25k, ecp5-45k, ecp5-85k, liberty; choose one",
        ),
        (
            {"target": "liberty"},
            "Target 'liberty' needs a Liberty file; expected a path to one; give it with the target",
        ),
        (
            {"liberty": "x.lib"},
            "Target 'ecp5-85k' takes no Liberty file; expected the target 'liberty'; leave one of them out",
        ),
        ({"seeds": ()}, "No placement seed given; expected at least one; name a seed such as 1"),
    ],
)
def test_wrong_arguments(tiny, options, message):
    with pytest.raises(UserError) as error:
        synthesize(tiny, "tiny", **options)
    assert str(error.value) == message


def test_unreadable_files(tiny, tmp_path):
    with pytest.raises(UserError, match="^Cannot read .*absent.sv: .*; check the path$"):
        synthesize(tmp_path / "absent.sv", "tiny")
    (tmp_path / "broken.lib.gz").write_text("no gzip")
    message = "not a whole gzip file; expected a Liberty file; check the path"
    with pytest.raises(UserError, match=f"^no cell library .*broken.lib.gz: {message}$"):
        synthesize(tiny, "tiny", target="liberty", liberty=tmp_path / "broken.lib.gz")


def test_wrong_top_is_one_line(tiny):
    with pytest.raises(UserError, match="^yosys failed with exit code 1: ERROR: Module `other' not found!$"):
        synthesize(tiny, "other")

"""Port reader, bench top and stall patterns."""

import itertools
import re
from pathlib import Path

import pytest

import s2tdpt.sim.wrapper
from s2tdpt.golden.errors import UserError
from s2tdpt.sim.stalls import PATTERNS, pauses
from s2tdpt.sim.wrapper import bench_top, observed_ports, read_ports
from tests.sim import standin

YOSYS_STYLE = (
    """
(* top = 1 *)
module other(x);
  input x;
endmodule
module accelerator(aclk, s_axis_tdata);
  input aclk;
  wire aclk;
  input [7:0] s_axis_tdata;
  wire [7:0] s_axis_tdata;
  // output [3:0] not_a_port;
"""
    + "\n".join(
        f"  output {name};"
        for name in (
            "s_axis_tvalid s_axis_tready s_axis_tlast m_axis_tdata m_axis_tvalid m_axis_tready m_axis_tlast "
            "aresetn error_short error_long busy probe_step probe_start probe_complete probe_fired"
        ).split()
    )
    + """
  output signed [127:0] probe_piece_spikes;
endmodule
"""
)


def test_reads_ports_of_the_named_module_only():
    ports = read_ports(YOSYS_STYLE, "accelerator")
    assert ports.inputs == {"aclk": 1, "s_axis_tdata": 8}
    assert ports.width("probe_piece_spikes") == 128
    assert ports.width("not_a_port") == 0
    assert not ports.has_weight_stream


def test_unknown_module_and_missing_port():
    with pytest.raises(UserError, match="^the Verilog text has no module named accel; "):
        read_ports(YOSYS_STYLE, "accel")
    with pytest.raises(UserError, match=r"^module other lacks the port\(s\) aclk, aresetn, "):
        read_ports(YOSYS_STYLE, "other")


def test_absent_observation_fields_are_tied_to_zero():
    text = bench_top(read_ports(YOSYS_STYLE, "accelerator"))
    assert ".y_en_i('0)" in text
    assert ".piece_spikes_i(probe_piece_spikes)" in text
    assert ".PIECE_SPIKES(128)" in text and ".Y_DATA(1)" in text


def test_recorder_knows_every_port_of_the_records():
    text = Path(s2tdpt.sim.wrapper.__file__).with_name("probe.sv").read_text()
    for name in observed_ports():
        assert len(re.findall(rf"\b{name}_i\b", text)) >= 2, name  # declared and used


def test_every_functional_port_is_public_and_nothing_else():
    text = bench_top(read_ports(standin.verilog(), standin.MODULE))
    for line in text.splitlines():
        assert ("public_flat_rw" in line) == line.strip().startswith(("input wire", "output wire"))


def test_patterns_are_reproducible_and_independent():
    for pattern in PATTERNS[1:]:
        first = list(itertools.islice(pauses(pattern, 3, "source"), 4000))
        assert first == list(itertools.islice(pauses(pattern, 3, "source"), 4000))
        assert first != list(itertools.islice(pauses(pattern, 3, "sink"), 4000))
        assert first != list(itertools.islice(pauses(pattern, 4, "source"), 4000))
        share = sum(first) / len(first)
        low, high = {"random": (0.45, 0.55), "bursty": (0.35, 0.65), "starved": (0.875, 0.875)}[pattern]
        assert low <= share <= high
    assert pauses("none", 0, "source") is None


def test_runs_and_windows_of_the_patterns():
    """Runs of every length from 1 to 24 and no other; an open cycle in every window of eight, anywhere."""
    found = list(itertools.islice(pauses("bursty", 1, "source"), 20_000))
    runs = [len(list(run)) for _, run in itertools.groupby(found)][:-1]
    assert set(runs) == set(range(1, 25)) and found[0] is False
    found = list(itertools.islice(pauses("starved", 1, "source"), 8000))
    windows = [found[n : n + 8] for n in range(0, 8000, 8)]
    assert {window.count(False) for window in windows} == {1}
    assert {window.index(False) for window in windows} == set(range(8))


def test_unknown_pattern():
    with pytest.raises(
        UserError, match="^unknown stall pattern 'odd'; expected one of none, random, bursty, starved$"
    ):
        pauses("odd", 0, "source")

"""The bench top: ports of a Verilog module read from its text, and the wrapper that joins it to the recorder.

The widths are taken from the emitted Verilog itself, not from the generator's objects, so that what is
simulated is what was written, and so that any module with the same port names (a hand-written stand-in, a
synthesised netlist) fits in the same bench.
"""

import re
from dataclasses import dataclass

from s2tdpt.golden.errors import UserError

BENCH = "s2tdpt_bench"
"""Module name of the bench top."""

RECORDS = {
    "piece": ("step", "position", "piece", "spikes"),
    "piece_u": ("step", "address", "data"),
    "layers": ("address", "subgroup", "final", "spikes"),
    "attention": ("address", "subgroup", "final", "spikes"),
    "y": ("head", "token", "step", "data"),
}
"""Records of the observation port: prefix of the ports, and the fields that `probe.sv` writes, in order; a
port ``probe_PREFIX_en`` says in which cycles there is one."""

STEP_PORTS = ("start", "step", "complete", "fired")
"""Ports that tell when steps start and end, and how many accumulates of a lane there are."""

_STREAMS = tuple(
    f"{bus}_{signal}" for bus in ("s_axis", "m_axis") for signal in ("tdata", "tvalid", "tready", "tlast")
)
_REQUIRED = (*("aclk", "aresetn", *_STREAMS, "error_short", "error_long", "busy"),)
_PORT = re.compile(  # one declaration a line, as Yosys writes them
    r"\b(input|output)\b\s+(?:wire\b|reg\b|logic\b)?\s*(?:signed\b)?\s*(?:\[(\d+):(\d+)\])?\s*(\w+)"
)


@dataclass(frozen=True)
class Ports:
    """Ports of one Verilog module.

    Parameters
    ----------
    module : str
        Name of the module.
    inputs, outputs : dict[str, int]
        Width in bits of every port, in the order of the text.
    """

    module: str
    inputs: dict[str, int]
    outputs: dict[str, int]

    def width(self, name: str) -> int:
        """Width of a port in bits, 0 when the module has no such port (a field of zero bits is not
        emitted)."""
        return self.inputs.get(name) or self.outputs.get(name) or 0

    @property
    def observed(self) -> bool:
        """Whether the module has the observation ports; a synthesised netlist has none."""
        return all(f"probe_{name}" in self.outputs for name in STEP_PORTS)

    @property
    def has_weight_stream(self) -> bool:
        """Whether the weights arrive over their own AXI4-Stream input."""
        return "s_axis_weights_tdata" in self.inputs


def read_ports(verilog: str, module: str) -> Ports:
    """Port names, directions and widths of `module` in Verilog text.

    Parameters
    ----------
    verilog : str
        Source text; header style (ANSI or not) does not matter.
    module : str
        Name of the module.

    Raises
    ------
    UserError
        The module is not in the text, or a port of the accelerator's interface is missing.
    """
    found = re.search(
        rf"^\s*module\s+\\?{re.escape(module)}\b.*?^\s*endmodule", verilog, re.DOTALL | re.MULTILINE
    )
    if found is None:
        raise UserError(
            f"the Verilog text has no module named {module}; give the file that s2tdpt generate wrote"
        )
    inputs: dict[str, int] = {}
    outputs: dict[str, int] = {}
    body = re.sub(r"\(\*.*?\*\)|/\*.*?\*/|//[^\n]*", " ", found.group(0), flags=re.DOTALL)
    for direction, high, low, name in _PORT.findall(body):
        width = int(high) - int(low) + 1 if high else 1
        (inputs if direction == "input" else outputs)[name] = width
    ports = Ports(module, inputs, outputs)
    missing = [name for name in _REQUIRED if not ports.width(name)]
    if missing:
        raise UserError(
            f"module {module} lacks the port(s) {', '.join(missing)}; "
            "co-simulation needs the ports that s2tdpt generate writes"
        )
    return ports


def _range(width: int) -> str:
    return f"[{width - 1}:0] " if width > 1 else ""


def observed_ports() -> list[str]:
    """Names of all ports that the recorder knows, without ``probe_``."""
    records = [f"{prefix}_{field}" for prefix, fields in RECORDS.items() for field in ("en", *fields)]
    return [*STEP_PORTS, *records]


def bench_top(ports: Ports) -> str:
    """SystemVerilog text of the bench top for a module.

    All functional ports of the module become ports of the bench (public to the simulator's procedural
    interface, and nothing else is, which keeps the simulator free to optimise); the observation port goes to
    ``s2tdpt_probe``. A port that the module does not have reads as zero there.
    ``record`` enables the recording of tensors. ``wave`` is high while a waveform is wanted: from the start
    of step ``wave_first`` to the end of step ``wave_last``.

    Parameters
    ----------
    ports : Ports
        From `read_ports`.
    """
    public = "/*verilator public_flat_rw*/"
    inside = [name for name in ports.outputs if name.startswith("probe_")]
    header = [f"    input wire record {public}"]
    header += [f"    input wire [31:0] {name} {public}" for name in ("wave_first", "wave_last")]
    for name, width in ports.inputs.items():
        header.append(f"    input wire {_range(width)}{name} {public}")
    for name, width in ports.outputs.items():
        if name not in inside:
            header.append(f"    output wire {_range(width)}{name} {public}")
    for name, width in (("bench_cycle", 32), ("bench_violations", 32), ("bench_step", 32), ("wave", 1)):
        header.append(f"    output wire {_range(width)}{name} {public}")
    lines = [f"module {BENCH} (", ",\n".join(header), ");"]
    lines += [f"    wire {_range(ports.outputs[name])}{name};" for name in inside]
    lines.append(f"    {ports.module} dut (")
    lines.append(",\n".join(f"        .{name}({name})" for name in [*ports.inputs, *ports.outputs]))
    lines.append("    );")
    lines += [
        *_recorder(ports),
        f"    s2tdpt_stream_check #(.WIDTH({ports.outputs['m_axis_tdata']})) check (",
    ]
    lines.append("        .clk(aclk), .rst_n(aresetn), .valid(m_axis_tvalid), .ready(m_axis_tready),")
    lines.append("        .last(m_axis_tlast), .data(m_axis_tdata), .violations(bench_violations)")
    lines += ["    );", "endmodule"]
    return "\n".join(lines) + "\n"


def _recorder(ports: Ports) -> list[str]:
    """Instance of the recorder; its parameters are the widths of the ports, in capitals."""
    names = [name for name in observed_ports() if not name.endswith("_en")]
    widths = [f"        .{name.upper()}({max(1, ports.width('probe_' + name))})" for name in names]
    joined = ["        .clk(aclk)", "        .rst_n(aresetn)", "        .cycle(bench_cycle)"]
    joined += [f"        .{name}({name})" for name in ("record", "wave_first", "wave_last", "wave")]
    joined.append("        .current(bench_step)")
    for name in observed_ports():
        present = ports.width("probe_" + name)
        joined.append(f"        .{name}_i({'probe_' + name if present else chr(39) + '0'})")
    head, tail = "    s2tdpt_probe #(", "    ) probe ("
    return [head, ",\n".join(widths), tail, ",\n".join(joined), "    );"]

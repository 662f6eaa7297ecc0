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

_OBSERVED = (
    "op",
    "start",
    "done",
    "acc",
    "spike_en",
    "spike_addr",
    "spike_data",
    "u_en",
    "u_addr",
    "u_data",
    "y_en",
    "y_token",
    "y_t",
    "y_head",
    "y_data",
)
_PARAMETERS = {
    "OP": "op",
    "ROWS": "acc",
    "SPIKE_EN": "spike_en",
    "SPIKE_ADDR": "spike_addr",
    "SPIKE_DATA": "spike_data",
    "U_ADDR": "u_addr",
    "U_DATA": "u_data",
    "Y_TOKEN": "y_token",
    "Y_STEP": "y_t",
    "Y_HEAD": "y_head",
    "Y_DATA": "y_data",
}
_REQUIRED = (
    "aclk",
    "aresetn",
    "s_axis_tdata",
    "s_axis_tvalid",
    "s_axis_tready",
    "s_axis_tlast",
    "m_axis_tdata",
    "m_axis_tvalid",
    "m_axis_tready",
    "m_axis_tlast",
    "error_short",
    "error_long",
    "busy",
    "probe_op",
    "probe_start",
    "probe_done",
    "probe_acc",
)
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
            "co-simulation needs the AXI4-Stream and observation ports that s2tdpt generate writes"
        )
    return ports


def _range(width: int) -> str:
    return f"[{width - 1}:0] " if width > 1 else ""


def bench_top(ports: Ports) -> str:
    """SystemVerilog text of the bench top for a module.

    All functional ports of the module become ports of the bench (public to the simulator's procedural
    interface, and nothing else is, which keeps the simulator free to optimise); the observation port goes to
    ``s2tdpt_probe``.
    ``record`` enables the recording of tensors.

    Parameters
    ----------
    ports : Ports
        From `read_ports`.
    """
    public = "/*verilator public_flat_rw*/"
    inside = [name for name in ports.outputs if name.startswith("probe_") and name not in ("probe_op",)]
    header = [f"    input wire record {public}"]
    for name, width in ports.inputs.items():
        header.append(f"    input wire {_range(width)}{name} {public}")
    for name, width in ports.outputs.items():
        if name not in inside:
            header.append(f"    output wire {_range(width)}{name} {public}")
    header.append(f"    output wire [31:0] bench_cycle {public}")
    header.append(f"    output wire [31:0] bench_violations {public}")
    lines = [f"module {BENCH} (", ",\n".join(header), ");"]
    for name in inside:
        lines.append(f"    wire {_range(ports.outputs[name])}{name};")
    names = [*ports.inputs, *ports.outputs]
    lines.append(f"    {ports.module} dut (")
    lines.append(",\n".join(f"        .{name}({name})" for name in names))
    lines.append("    );")
    lines.append("    s2tdpt_probe #(")
    lines.append(
        ",\n".join(f"        .{p}({max(1, ports.width('probe_' + name))})" for p, name in _PARAMETERS.items())
    )
    lines.append("    ) probe (")
    joined = ["        .clk(aclk)", "        .record(record)", "        .cycle(bench_cycle)"]
    for name in _OBSERVED:
        present = ports.width("probe_" + name)
        joined.append(f"        .{name}({'probe_' + name if present else chr(39) + '0'})")
    lines.append(",\n".join(joined))
    lines.append("    );")
    lines.append(f"    s2tdpt_stream_check #(.WIDTH({ports.outputs['m_axis_tdata']})) check (")
    lines.append("        .clk(aclk), .rst_n(aresetn), .valid(m_axis_tvalid), .ready(m_axis_tready),")
    lines.append("        .last(m_axis_tlast), .data(m_axis_tdata), .violations(bench_violations)")
    lines.append("    );")
    lines.append("endmodule")
    return "\n".join(lines) + "\n"

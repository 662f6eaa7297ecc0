"""A stand-in for the accelerator: the same ports, but it plays a script of observation records.

It takes frames (and complains of wrong lengths), plays one scripted line a cycle for every frame, and sends
scripted results. Tests write the script from known tensors, so the harness is proven without any generated
hardware, and a fault is planted by changing one line.
"""

from __future__ import annotations

from pathlib import Path
from string import Template

import numpy as np

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.trace import trace_shapes
from s2tdpt.hw.blocks.pool import OrPool
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Port, Program, Sink, Step, Trace
from s2tdpt.hw.plan.schedule import build_program

MODULE = "standin"
NETWORK = NetworkConfig(
    name="standin",
    image_height=4,
    image_width=3,
    image_channels=1,
    num_classes=3,
    timesteps=3,
    sps_channels=(6, 6),
    sps_pool=(False, True),
    depth=1,
    heads=2,
    mlp_ratio=1,
)
"""12 positions, then 4 tokens of 6 channels in 2 heads: of every 4 slots of a head, the last is free."""

MACHINE = Machine(lanes=4, banks=1, post_lanes=2)
PIXELS, CLASSES, STEPS, TOKENS = 12, 3, 3, 4
HEADS, HEAD_DIM, LANES, POST = 2, 3, 4, 2
U_BITS, Y_BITS = 7, 5

FIELDS = {
    "end": 1,
    "start": 1,
    "step": 5,
    "complete": 1,
    "fired": 2,
    "piece_en": 1,
    "piece_step": 5,
    "piece_position": 4,
    "piece_piece": 2,
    "piece_spikes": POST * STEPS,
    "piece_u_en": 1,
    "piece_u_step": 5,
    "piece_u_address": 4,
    "piece_u_data": POST * STEPS * U_BITS,
    "layers_en": 1,
    "layers_address": 5,
    "layers_subgroup": 1,
    "layers_final": 1,
    "layers_spikes": POST * STEPS,
    "attention_en": 1,
    "attention_address": 5,
    "attention_subgroup": 1,
    "attention_final": 1,
    "attention_spikes": POST * STEPS,
    "y_en": 1,
    "y_head": 1,
    "y_token": 2,
    "y_step": 2,
    "y_data": HEAD_DIM * Y_BITS,
}
"""Script fields, most significant first."""

PULSES = ("start", "complete", "piece_en", "piece_u_en", "layers_en", "attention_en", "y_en")

Line = dict[str, int]
"""One cycle of the script, by field name; fields not named are zero."""


_TEXT = Template("""
module $module(aclk, aresetn, s_axis_tdata, s_axis_tvalid, s_axis_tready, s_axis_tlast, m_axis_tdata,
m_axis_tvalid,
  m_axis_tready, m_axis_tlast, error_short, error_long, busy, $names);
  input aclk;
  input aresetn;
  input [7:0] s_axis_tdata;
  input s_axis_tvalid;
  output s_axis_tready;
  input s_axis_tlast;
  output [31:0] m_axis_tdata;
  output m_axis_tvalid;
  input m_axis_tready;
  output m_axis_tlast;
  output reg error_short;
  output reg error_long;
  output busy;
$ports
  reg [$top:0] script [0:4095];
  reg [31:0] result [0:255];
  reg [11:0] position;
  reg [7:0] sent, count, words;
  reg [$top:0] line;
  reg pending, playing, sending, flicker, long_frame;
  initial begin
    $$readmemh("script.hex", script);
    $$readmemh("result.hex", result);
  end
  assign s_axis_tready = $ready;
  assign m_axis_tvalid = sending$valid;
  assign m_axis_tlast = words == $classes;
  assign m_axis_tdata = $data;
  assign busy = pending;
$wires
  always @(posedge aclk) begin
    flicker <= !flicker;
    if (!aresetn) begin
      position <= 0; sent <= 0; count <= 0; words <= 0; pending <= 0; playing <= 0; sending <= 0; flicker <=
      0; error_short <= 0; error_long <= 0; long_frame <= 0; line <= 0;
    end else begin
      if (s_axis_tvalid && s_axis_tready) begin
        count <= s_axis_tlast ? 0 : count + 1;
        if (s_axis_tlast && count == $last) pending <= 1;
        if (s_axis_tlast && count < $last) error_short <= 1;
        if (s_axis_tlast && count > $last) error_long <= 1;
      end
      if (pending && !sending) begin
        line <= script[position];
        position <= position + 1;
        playing <= 1;
        if (playing && line[$top]) begin
          playing <= 0;
          position <= position;
          sending <= 1;
          words <= 0;
        end
      end
      if (sending && m_axis_tvalid && m_axis_tready) begin
        sent <= sent + 1;
        words <= words + 1;
        if (words == $classes) begin
          sending <= 0;
          pending <= 0;
        end
      end
    end
  end
endmodule
""")
"""The module; what is missing depends on the fields and on what is tampered with."""


def verilog(tamper: str = "") -> str:
    """Text of the stand-in; `tamper` "unstable" makes it break the AXI4-Stream rule, "deaf" never take a
    pixel, "endless" send no result."""
    width = sum(FIELDS.values())
    ports, wires, offset = [], [], width
    for name, bits in FIELDS.items():
        offset -= bits
        if name == "end":
            continue
        ports.append(f"  output [{bits - 1}:0] probe_{name};" if bits > 1 else f"  output probe_{name};")
        gate = " & playing" if name in PULSES else " & {2{playing}}" if name == "fired" else ""
        wires.append(f"  assign probe_{name} = line[{offset + bits - 1}:{offset}]{gate};")
    names = ", ".join(f"probe_{name}" for name in FIELDS if name != "end")
    data = "result[sent] ^ {31'd0, flicker}" if tamper == "unstable" else "result[sent]"
    ready = "1'b0" if tamper == "deaf" else "!pending"
    return _TEXT.substitute(
        module=MODULE,
        names=names,
        ports="\n".join(ports),
        wires="\n".join(wires),
        top=width - 1,
        last=PIXELS - 1,
        classes=CLASSES,
        data=data,
        ready=ready,
        valid=" & 1'b0" if tamper == "endless" else "",
    )


def program() -> Program:
    """Layer program of the network that the stand-in pretends to compute."""
    return build_program(NETWORK, MACHINE, head_sum_bits=9)


def random_tensors(frames: int, seed: int) -> dict[str, np.ndarray]:
    """Tensors of every traced name of `program`, [B, T, N, C], over their whole ranges."""
    rng = np.random.default_rng(seed)
    shapes = trace_shapes(NETWORK)
    tensors = {}
    for step in program().steps:
        for trace in step.traces:
            size = (frames, *shapes[trace.tensor])
            low, high = {Port.RESIDUAL: (-(1 << U_BITS - 1), 1 << U_BITS - 1), Port.Y: (0, 1 << Y_BITS)}.get(
                trace.port, (0, 2)
            )
            if trace.tensor not in tensors:
                tensors[trace.tensor] = rng.integers(low, high, size)
    return tensors


class Script:
    """Lines of one frame, in the order of the cycles; records of several kinds may share a line."""

    def __init__(self):
        self.lines: list[Line] = []

    def put(self, cycle: int, **fields: int) -> None:
        """Add fields to a cycle."""
        while len(self.lines) <= cycle:
            self.lines.append({})
        line = self.lines[cycle]
        assert not line.keys() & fields.keys(), (cycle, line, fields)
        line.update(fields)


def script(tensors: dict[str, np.ndarray]) -> list[list[Line]]:
    """Script of every frame; written in the plain words of the interface, channel by channel."""
    return [
        _frame({name: value[frame] for name, value in tensors.items()})
        for frame in range(len(tensors["sps.u"]))
    ]


def _frame(tensors: dict[str, np.ndarray]) -> list[Line]:
    """A step starts while the one before still drains, its records come a few cycles later."""
    written, cycle = Script(), 1
    for number, step in enumerate(program().steps):
        written.put(cycle, start=1, step=number)
        written.put(cycle + 1, fired=2)
        written.put(cycle + 2, fired=1)
        begin = cycle + 4
        end = _step(written, begin, number, step, tensors)
        attends = [t for t in step.traces if t.port is Port.Y]
        if attends:
            end = _attention(written, end + 3, step, tensors)
        written.put(end, complete=1)
        # Whoever reads the attention's output waits for it; others start before this one has ended.
        cycle = end + 2 if attends else end - OrPool.delay
    written.put(len(written.lines), end=1)
    return written.lines


def _step(written: Script, begin: int, number: int, step: Step, tensors: dict[str, np.ndarray]) -> int:
    """Pieces of a step, one a cycle; returns the cycle of its last write."""
    pieces = step.subgroups(MACHINE)
    spikes = next((t for t in step.traces if t.port is Port.PIECE), None)
    pooled = next((t for t in step.traces if t.port is Port.WRITE and step.pooled), None)
    numbers = next((t for t in step.traces if t.port is Port.RESIDUAL), None)
    cycle = begin
    for place in range(step.positions):
        for subgroup in range(pieces):
            piece = step.group * (LANES // POST) + subgroup
            if spikes is not None:
                bits = _word(tensors[spikes.tensor], spikes, place, piece, 1)
                written.put(
                    cycle,
                    piece_en=1,
                    piece_step=number,
                    piece_position=place,
                    piece_piece=piece,
                    piece_spikes=bits,
                )
            if numbers is not None:
                data = _word(tensors[numbers.tensor], numbers, place, piece, U_BITS)
                written.put(
                    cycle - 1,
                    piece_u_en=1,
                    piece_u_step=number,
                    piece_u_address=place * 3 + piece,
                    piece_u_data=data,
                )
            x, y = place % step.width, place // step.width
            if pooled is not None:
                # The window of an output position ends with its last column of its last row.
                if (x % 2 or x == step.width - 1) and (y % 2 or y == step.height - 1):
                    _write(
                        written, cycle + OrPool.delay, "layers", pooled, tensors, y // 2 * 2 + x // 2, piece
                    )
            elif spikes is not None and step.sink in (Sink.SPIKES, Sink.RESIDUAL):
                _write(written, cycle + OrPool.delay, "layers", spikes, tensors, place, piece)
            cycle += 1
    return cycle - 1 + OrPool.delay


def _attention(written: Script, cycle: int, step: Step, tensors: dict[str, np.ndarray]) -> int:
    """Sums and output of both heads; returns the cycle of the last write."""
    attn = next(t for t in step.traces if t.port is Port.WRITE)
    for head in range(HEADS):
        for token in range(TOKENS):
            for t in range(STEPS):
                sums = tensors["block.0.y"][t, token, head * HEAD_DIM : (head + 1) * HEAD_DIM]
                data = sum(int(value) << i * Y_BITS for i, value in enumerate(sums))
                written.put(cycle, y_en=1, y_head=head, y_token=token, y_step=t, y_data=data)
                cycle += 1
            for part in range(2):
                _write(written, cycle + part, "attention", attn, tensors, token, head * 2 + part)
    return cycle + 1


def _write(written: Script, cycle: int, port: str, trace: Trace, tensors, place: int, piece: int) -> None:
    """A piece into the spike memory: word `base + place * words + group`."""
    heads = trace.packing.head_dim is not None
    fields = {
        "en": 1,
        "address": trace.base + place * 2 + piece // 2,
        "subgroup": piece % 2,
        "final": int(piece == (3 if heads else 2)),
        "spikes": _word(tensors[trace.tensor], trace, place, piece, 1),
    }
    written.put(cycle, **{f"{port}_{name}": value for name, value in fields.items()})


def _word(values: np.ndarray, trace: Trace, place: int, piece: int, bits: int) -> int:
    """Values of a piece [T, N, C], lane by lane, the steps of a lane side by side."""
    word = 0
    for lane in range(POST):
        slot = piece * POST + lane
        channel = slot
        if trace.packing.head_dim is not None:
            # Heads start at multiples of `POST`, so a head of three channels takes four slots.
            head, inside = divmod(slot, 4)
            channel = head * HEAD_DIM + inside if inside < HEAD_DIM else values.shape[2]
        for t in range(STEPS):
            value = int(values[t, place, channel]) if channel < values.shape[2] else 0
            word |= (value & (1 << bits) - 1) << (lane * STEPS + t) * bits
    return word


def line_word(line: Line) -> int:
    """A line as the stand-in reads it."""
    value = 0
    for name, bits in FIELDS.items():
        part = line.get(name, 0)
        assert 0 <= part < 1 << bits, (name, part)
        value = value << bits | part
    return value


def write_script(folder: Path, frames: list[list[Line]], results: list[list[int]]) -> None:
    """Put script and results where the stand-in reads them, and fill the memories up."""
    words = [line_word(line) for lines in frames for line in lines]
    digits = -(-sum(FIELDS.values()) // 4)
    folder.mkdir(parents=True, exist_ok=True)
    assert len(words) <= 4096
    padded = words + [0] * (4096 - len(words))
    (folder / "script.hex").write_text("\n".join(f"{word:0{digits}x}" for word in padded) + "\n")
    flat = [word & 0xFFFFFFFF for words in results for word in words]
    flat += [0] * (256 - len(flat))
    (folder / "result.hex").write_text("\n".join(f"{word:08x}" for word in flat) + "\n")

"""A stand-in for the accelerator: the same ports, but it plays a script of observation records.

It takes frames (and complains of wrong lengths), plays one scripted line a cycle for every frame, and sends
scripted results. Tests write the script from known tensors, so the harness is proven without any generated
hardware, and a fault is planted by changing one line.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2tdpt.hw.layout import Packing
from s2tdpt.hw.schedule import Operation, TraceMap

MODULE = "standin"
PIXELS = 6
CLASSES = 3

FIELDS = {
    "end": 1,
    "start": 1,
    "done": 1,
    "op": 3,
    "acc": 2,
    "spike_en": 2,
    "spike_addr": 5,
    "spike_data": 12,
    "u_en": 1,
    "u_addr": 5,
    "u_data": 14,
    "y_en": 1,
    "y_token": 2,
    "y_t": 2,
    "y_data": 10,
}
"""Script fields, most significant first. Four lanes, two post lanes, three steps, two rows, 7-bit U, 5-bit
Y."""

LANES, POST, STEPS, TOKENS, HEADS, HEAD_DIM, UW, YW = 4, 2, 3, 4, 1, 2, 7, 5


def verilog(tamper: str = "") -> str:
    """Text of the stand-in; `tamper` "unstable" makes it break the AXI4-Stream rule, "deaf" never take a
    pixel."""
    width = sum(FIELDS.values())
    ports, wires, offset = [], [], width
    for name, bits in FIELDS.items():
        offset -= bits
        if name == "end":
            continue
        ports.append(f"  output [{bits - 1}:0] probe_{name};" if bits > 1 else f"  output probe_{name};")
        gate = "playing" if name in ("start", "done", "u_en", "y_en") else f"{{{bits}{{playing}}}}"
        wires.append(f"  assign probe_{name} = line[{offset + bits - 1}:{offset}] & {gate};")
    names = ", ".join(f"probe_{name}" for name in FIELDS if name != "end")
    data = "result[sent] ^ {31'd0, flicker}" if tamper == "unstable" else "result[sent]"
    ready = "1'b0" if tamper == "deaf" else "!pending"
    return f"""
module {MODULE}(aclk, aresetn, s_axis_tdata, s_axis_tvalid, s_axis_tready, s_axis_tlast, m_axis_tdata,
m_axis_tvalid,
  m_axis_tready, m_axis_tlast, error_short, error_long, busy, {names});
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
{chr(10).join(ports)}
  reg [{width - 1}:0] script [0:4095];
  reg [31:0] result [0:255];
  reg [11:0] position;
  reg [7:0] sent, count, words;
  reg [{width - 1}:0] line;
  reg pending, playing, sending, flicker, long_frame;
  initial begin
    $readmemh("script.hex", script);
    $readmemh("result.hex", result);
  end
  assign s_axis_tready = {ready};
  assign m_axis_tvalid = sending;
  assign m_axis_tlast = words == {CLASSES};
  assign m_axis_tdata = {data};
  assign busy = pending;
{chr(10).join(wires)}
  always @(posedge aclk) begin
    flicker <= !flicker;
    if (!aresetn) begin
      position <= 0; sent <= 0; count <= 0; words <= 0; pending <= 0; playing <= 0; sending <= 0; flicker <=
      0; error_short <= 0; error_long <= 0; long_frame <= 0; line <= 0;
    end else begin
      if (s_axis_tvalid && s_axis_tready) begin
        count <= s_axis_tlast ? 0 : count + 1;
        if (s_axis_tlast && count == {PIXELS - 1}) pending <= 1;
        if (s_axis_tlast && count < {PIXELS - 1}) error_short <= 1;
        if (s_axis_tlast && count > {PIXELS - 1}) error_long <= 1;
      end
      if (pending && !sending) begin
        line <= script[position];
        position <= position + 1;
        playing <= 1;
        if (playing && line[{width - 1}]) begin
          playing <= 0;
          position <= position;
          sending <= 1;
          words <= 0;
        end
      end
      if (sending && m_axis_tready) begin
        sent <= sent + 1;
        words <= words + 1;
        if (words == {CLASSES}) begin
          sending <= 0;
          pending <= 0;
        end
      end
    end
  end
endmodule
"""


def program() -> tuple[Operation, ...]:
    """Three steps: spikes of 6 channels, attention of one head, and a residual writer with its spikes."""
    plain, heads = Packing(6, LANES), Packing(2, LANES, HEAD_DIM)
    return (
        Operation(
            "sps.0",
            "accumulate",
            2,
            2,
            packing_in=plain,
            packing_out=plain,
            trace=(TraceMap("sps.0.spikes", "spike", 3, TOKENS, 2, 6, plain),),
        ),
        Operation(
            "block.0.attention",
            "attention",
            1,
            TOKENS,
            packing_in=heads,
            trace=(
                TraceMap("block.0.y", "y", 0, TOKENS, 1, 2, heads),
                TraceMap("block.0.attn", "spike", 20, TOKENS, 1, 2, heads),
            ),
        ),
        Operation(
            "block.0.proj",
            "accumulate",
            1,
            TOKENS,
            sink="residual",
            packing_in=heads,
            packing_out=heads,
            trace=(
                TraceMap("block.0.u_attn", "residual", 0, TOKENS, 1, 2, Packing(2, LANES)),
                TraceMap("block.0.mlp_in", "spike", 12, TOKENS, 1, 2, Packing(2, LANES)),
            ),
        ),
    )


def random_tensors(frames: int, seed: int) -> dict[str, np.ndarray]:
    """Tensors of every trace name of `program`, [B, T, N, C], over their whole ranges."""
    rng = np.random.default_rng(seed)
    shape = (frames, STEPS, TOKENS)
    return {
        "sps.0.spikes": rng.integers(0, 2, (*shape, 6), dtype=np.uint8),
        "block.0.y": rng.integers(0, 1 << YW, (*shape, 2)),
        "block.0.attn": rng.integers(0, 2, (*shape, 2), dtype=np.uint8),
        "block.0.u_attn": rng.integers(-(1 << UW - 1), 1 << UW - 1, (*shape, 2)),
        "block.0.mlp_in": rng.integers(0, 2, (*shape, 2), dtype=np.uint8),
    }


@dataclass
class Line:
    """One cycle of the script, by field name; fields not named are zero."""

    fields: dict[str, int]

    def word(self) -> int:
        value = 0
        for name, bits in FIELDS.items():
            part = self.fields.get(name, 0)
            assert 0 <= part < 1 << bits, (name, part)
            value = value << bits | part
        return value


def script(tensors: dict[str, np.ndarray]) -> list[list[Line]]:
    """Script of every frame; written in the plain words of the interface, channel by channel."""
    frames = []
    for frame in range(len(tensors["sps.0.spikes"])):
        lines: list[Line] = []
        for number, op in enumerate(program()):
            lines.append(Line({"op": number, "start": 1}))
            lines.append(Line({"op": number, "acc": 3}))
            lines.append(Line({"op": number, "acc": 1}))
            for trace in op.trace:
                values = tensors[trace.tensor][frame]
                write = {"spike": _spike_lines, "residual": _residual_lines, "y": _y_lines}[trace.memory]
                lines += write(number, trace, values)
            lines.append(Line({"op": number, "done": 1}))
        lines.append(Line({"op": number, "end": 1}))
        frames.append(lines)
    return frames


def _slot(trace: TraceMap, channel: int) -> tuple[int, int]:
    if trace.packing.head_dim is None:
        return channel // LANES, channel % LANES
    per_word = LANES // HEAD_DIM
    head = channel // HEAD_DIM
    return head // per_word, head % per_word * HEAD_DIM + channel % HEAD_DIM


def _spike_lines(op: int, trace: TraceMap, values: np.ndarray) -> list[Line]:
    lines = []
    for token in range(trace.positions):
        words = [0] * trace.groups
        for channel in range(trace.channels):
            group, lane = _slot(trace, channel)
            for step in range(STEPS):
                words[group] |= int(values[step, token, channel]) << (lane * STEPS + step)
        for group, word in enumerate(words):
            address = trace.base + token * trace.groups + group
            low, full = (1 << POST * STEPS) - 1, (1 << LANES * STEPS) - 1
            # The two halves of a word come one after the other; the half that is not enabled holds garbage.
            lines.append(
                Line({"op": op, "spike_en": 1, "spike_addr": address, "spike_data": word & low | full & ~low})
            )
            lines.append(
                Line({"op": op, "spike_en": 2, "spike_addr": address, "spike_data": word & ~low | 5})
            )
    return lines


def _residual_lines(op: int, trace: TraceMap, values: np.ndarray) -> list[Line]:
    lines = []
    for token in range(trace.positions):
        for step in range(STEPS):
            word = sum((int(values[step, token, i]) & (1 << UW) - 1) << i * UW for i in range(POST))
            address = (token * trace.groups * (LANES // POST)) * STEPS + step
            lines.append(Line({"op": op, "u_en": 1, "u_addr": address, "u_data": word}))
    return lines


def _y_lines(op: int, trace: TraceMap, values: np.ndarray) -> list[Line]:
    return [
        Line(
            {
                "op": op,
                "y_en": 1,
                "y_token": token,
                "y_t": step,
                "y_data": sum(int(values[step, token, i]) << i * YW for i in range(HEAD_DIM)),
            }
        )
        for token in range(TOKENS)
        for step in range(STEPS)
    ]


def write_script(folder: Path, frames: list[list[Line]], results: list[list[int]]) -> None:
    """Put script and results where the stand-in reads them, and fill the memories up."""
    words = [line.word() for lines in frames for line in lines]
    digits = -(-sum(FIELDS.values()) // 4)
    folder.mkdir(parents=True, exist_ok=True)
    padded = words + [0] * (4096 - len(words))
    (folder / "script.hex").write_text("\n".join(f"{word:0{digits}x}" for word in padded) + "\n")
    flat = [word & 0xFFFFFFFF for words in results for word in words]
    flat += [0] * (256 - len(flat))
    (folder / "result.hex").write_text("\n".join(f"{word:08x}" for word in flat) + "\n")

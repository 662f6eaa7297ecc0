"""A testbench in plain Verilog: plays one image to a generated accelerator and checks the result.

Logits and class are those of the golden model, and the cycle in which the last word is taken is that of the
cycle model. It needs nothing but a simulator of Verilog: it is for those who take the package into a system
of their own. Co-simulation (`s2tdpt cosim`) looks at every tensor instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.samples import sample_images
from s2tdpt.hw.arrival import TileArrival, stream_shape
from s2tdpt.hw.cycles import FrameModel
from s2tdpt.hw.images import tile_beats

if TYPE_CHECKING:
    from s2tdpt.hw.top import Accelerator

__all__ = ["IMAGE", "RESULT", "WEIGHTS", "chosen_image", "testbench_files"]

IMAGE, RESULT, WEIGHTS = "image.hex", "result.hex", "weight_stream.hex"
"""Memory files (``$readmemh``): bytes of the image, words of the result, beats of the weight stream."""

RESET_CYCLES = 8
"""Cycles of reset; as many follow before anything is sent."""

EXTRA_CYCLES = 32
"""Cycles after the result in which no other word may come."""


def chosen_image(config: NetworkConfig, image: np.ndarray | None = None) -> np.ndarray:
    """The image that is played: the given one, or the first sample that fits, or else noise.

    Returns
    -------
    ndarray
        uint8 [H, W, C], always the same.

    Raises
    ------
    UserError
        The image has another shape or type than the network's.
    """
    shape = (config.image_height, config.image_width, config.image_channels)
    if image is None:
        found = sample_images(config)
        noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        return noise if found is None else found[0][0]
    if image.shape != shape or image.dtype != np.uint8:
        raise UserError(
            f"the image of the testbench is {image.dtype} {list(image.shape)}; expected uint8 {list(shape)}; "
            "give another one"
        )
    return image


def testbench_files(accelerator: Accelerator, name: str, image: np.ndarray) -> dict[str, str]:
    """Text of the testbench ``{name}_tb.sv`` and of the memories that it reads, by file name.

    Those of a weight stream are not among them: they belong to the package whether or not it is simulated.

    Parameters
    ----------
    accelerator : Accelerator
        Not elaborated yet.
    name : str
        Its module.
    image : ndarray
        Of `chosen_image`.
    """
    golden = GoldenNetwork(accelerator.params).trace(image[None])
    trace = {tensor: value.numpy()[0] for tensor, value in golden.items()}
    bits = len(accelerator.core.results.tdata)
    words = [logit % (1 << bits) for logit in trace["head.logits"].tolist()] + [int(trace["head.class"])]
    last_word = _last_word(accelerator, image, trace)
    return {
        f"{name}_tb.sv": _text(accelerator, name, image.size, len(words), last_word),
        IMAGE: "".join(f"{byte:02x}\n" for byte in image.reshape(-1).tolist()),
        RESULT: "".join(f"{word:0{bits // 4}x}\n" for word in words),
    }


def _last_word(accelerator: Accelerator, image: np.ndarray, trace: dict[str, np.ndarray]) -> int:
    """Cycle in which the last word is taken; the first byte and the first beat of weights are of cycle 0."""
    program = accelerator.program
    streamed = program.machine.weight_memory == "stream"
    arrival = TileArrival(stream_shape(program, accelerator.widths), 0) if streamed else None
    frame = FrameModel(program, arrival).frame({**trace, "pixels": image}, go=image.size)
    return frame.start + frame.total + 2 + program.network.num_classes


def _text(accelerator: Accelerator, name: str, image_bytes: int, words: int, last_word: int) -> str:
    """The testbench."""
    ports = accelerator.ports()
    streamed = "s_axis_weights_tdata" in ports
    sections = [
        _HEAD.format(
            name=name,
            bytes=image_bytes,
            words=words,
            high=len(accelerator.core.results.tdata) - 1,
            last_word=last_word,
            limit=2 * last_word + 1000,
            image=IMAGE,
            result=RESULT,
        )
    ]
    if streamed:
        beats = sum(tile_beats(accelerator.program, accelerator.widths))
        high = len(ports["s_axis_weights_tdata"][0]) - 1
        sections.append(_WEIGHTS.format(beats=beats, high=high, file=WEIGHTS))
    sections.append(_instance(ports, name))
    sections.append(_PLAY.format(weights_error=" || error_weights" if streamed else ""))
    sections.append(_MAIN.format(reset=RESET_CYCLES, extra=EXTRA_CYCLES))
    return "\n".join(sections)


def _instance(ports, name: str) -> str:
    """The accelerator; what the testbench does not look at stays open."""
    looked_at = ("aclk", "aresetn", "s_axis_", "m_axis_", "error_")
    pins = [f"    .{port}({port if port.startswith(looked_at) else ''})" for port in sorted(ports)]
    return "\n".join([f"  {name} dut (", ",\n".join(pins), "  );", ""])


_HEAD = """\
// {name}_tb: plays one image to {name} and checks logits, class and cycles.
// PASS or FAIL is printed; FAIL ends with $fatal.

module {name}_tb;
  localparam integer BYTES = {bytes};  // of the image
  localparam integer WORDS = {words};  // of the result: logits, then the class
  localparam integer LAST_WORD = {last_word};  // its cycle, by the cycle model; the first byte is of cycle 0
  localparam integer LIMIT = {limit};  // cycles after which the watchdog gives up

  reg [7:0] image [0:BYTES-1];
  reg [{high}:0] result [0:WORDS-1];
  initial begin
    $readmemh("{image}", image);
    $readmemh("{result}", result);
  end

  reg aclk = 1'b0;
  always #5 aclk = ~aclk;

  reg aresetn = 1'b0;
  reg playing = 1'b0;
  integer cycle = 0;  // since the first byte was offered
  integer sent = 0;  // bytes
  integer got = 0;  // words
  integer faults = 0;

  wire s_axis_tready;
  wire s_axis_tvalid = playing && sent < BYTES;
  wire s_axis_tlast = sent == BYTES - 1;
  wire [7:0] s_axis_tdata = image[sent < BYTES ? sent : 0];
  wire m_axis_tvalid, m_axis_tlast;
  wire m_axis_tready = 1'b1;
  wire [{high}:0] m_axis_tdata;
  wire error_short, error_long;
"""

_WEIGHTS = """\
  localparam integer BEATS = {beats};  // of the weight stream, for one image
  reg [{high}:0] weights [0:BEATS-1];
  initial $readmemh("{file}", weights);
  integer streamed = 0;  // beats
  wire s_axis_weights_tready, error_weights;
  wire s_axis_weights_tvalid = playing && streamed < BEATS;
  wire s_axis_weights_tlast = streamed == BEATS - 1;
  wire [{high}:0] s_axis_weights_tdata = weights[streamed < BEATS ? streamed : 0];
  always @(posedge aclk)
    if (s_axis_weights_tvalid && s_axis_weights_tready) streamed <= streamed + 1;
"""

_PLAY = """\
  always @(posedge aclk) begin
    if (playing) cycle <= cycle + 1;
    if (s_axis_tvalid && s_axis_tready) sent <= sent + 1;
    if (m_axis_tvalid !== 1'b0 && aresetn) begin
      got <= got + 1;
      if (got >= WORDS) begin
        $display("FAIL: a word too many, %0d", $signed(m_axis_tdata));
        faults <= faults + 1;
      end else if (m_axis_tdata !== result[got] || m_axis_tlast !== (got == WORDS - 1)) begin
        $display("FAIL: word %0d is %0d, tlast %b; expected %0d, tlast %b", got, $signed(m_axis_tdata),
                 m_axis_tlast, $signed(result[got]), got == WORDS - 1);
        faults <= faults + 1;
      end
      if (got == WORDS - 1 && cycle != LAST_WORD) begin
        $display("FAIL: the last word was taken in cycle %0d; expected %0d", cycle, LAST_WORD);
        faults <= faults + 1;
      end
    end
    if (cycle == LIMIT) begin
      $display("FAIL: %0d of %0d words after %0d cycles", got, WORDS, cycle);
      $fatal(1);
    end
  end

  wire errors = error_short || error_long{weights_error};
"""

_MAIN = """\
  initial begin
    // What is driven here changes with the falling edge, far from the one that counts.
    repeat ({reset}) @(negedge aclk);
    aresetn = 1'b1;
    repeat ({reset}) @(negedge aclk);
    playing = 1'b1;
    wait (got >= WORDS);
    repeat ({extra}) @(negedge aclk);
    if (faults != 0 || errors !== 1'b0) begin
      $display("FAIL: %0d differences, error flags: %b", faults, errors);
      $fatal(1);
    end
    $display("PASS: %0d words as expected, the last one in cycle %0d", WORDS, LAST_WORD);
    $finish;
  end
endmodule
"""

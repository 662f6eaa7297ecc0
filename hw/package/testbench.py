"""A testbench in plain Verilog: plays one image to a generated accelerator and checks the result.

Logits and class are those of the golden model, and the cycle in which the last word is taken is that of the
cycle model. It needs nothing but a simulator of Verilog: it is for those who take the package into a system
of their own. Co-simulation (`s2tdpt cosim`) looks at every tensor instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from s2tdpt.golden import register_map as names
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.register_map import MAP, WORD_BYTES
from s2tdpt.golden.samples import sample_images
from s2tdpt.hw.blocks.images import tile_beats
from s2tdpt.hw.estimate.arrival import TileArrival, stream_shape
from s2tdpt.hw.estimate.cycles import FrameCycles, FrameModel

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
    frame = _frame(accelerator, image, trace)
    return {
        f"{name}_tb.sv": _text(accelerator, name, image.size, len(words), frame),
        IMAGE: "".join(f"{byte:02x}\n" for byte in image.reshape(-1).tolist()),
        RESULT: "".join(f"{word:0{bits // 4}x}\n" for word in words),
    }


def _frame(accelerator: Accelerator, image: np.ndarray, trace: dict[str, np.ndarray]) -> FrameCycles:
    """What the cycle model says; the first byte of the image and the first beat of weights are of cycle 0."""
    program = accelerator.program
    streamed = program.machine.weight_memory == "stream"
    arrival = TileArrival(stream_shape(program, accelerator.widths), 0) if streamed else None
    return FrameModel(program, arrival).frame({**trace, "pixels": image}, go=image.size)


def _text(accelerator: Accelerator, name: str, image_bytes: int, words: int, frame: FrameCycles) -> str:
    """The testbench."""
    last_word = frame.start + frame.total + 1 + words
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
    enabled = checked = ""
    if accelerator.registers:
        sections.append(_REGISTERS.format(address=MAP.address_bits - 1))
        enabled, checked = _register_calls(accelerator, frame.total)
    sections.append(_instance(ports, name))
    sections.append(_PLAY.format(weights_error=" || error_weights" if streamed else ""))
    sections.append(_MAIN.format(reset=RESET_CYCLES, extra=EXTRA_CYCLES, enabled=enabled, checked=checked))
    return "\n".join(sections)


def _instance(ports, name: str) -> str:
    """The accelerator; what the testbench does not look at stays open."""
    looked_at = ("aclk", "aresetn", "s_axi", "m_axis_", "error_")
    pins = [f"    .{port}({port if port.startswith(looked_at) else ''})" for port in sorted(ports)]
    return "\n".join([f"  {name} dut (", ",\n".join(pins), "  );", ""])


def _register_calls(accelerator: Accelerator, cycles: int) -> tuple[str, str]:
    """What is written before the image is sent, and what is read behind its result."""
    constants = accelerator.constants
    expected = [
        *((names.ID, 0, names.MAGIC), (names.FRAMES, 0, 1), (names.CYCLES, 0, cycles), (names.STATUS, 0, 0)),
        *((register, 0, 0) for register in (names.SHORT_FRAMES, names.LONG_FRAMES)),
        *(
            (names.CONFIG_HASH, i, constants.word(names.CONFIG_HASH, i))
            for i in range(names.CONFIG_HASH.words)
        ),
    ]
    enabled = f"    write_register({names.CONTROL.offset}, {names.ENABLE.mask});\n"
    reads = [
        f"    check_register({register.offset + WORD_BYTES * word}, 32'h{value:08x});\n"
        for register, word, value in expected
    ]
    return enabled, "".join(reads)


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
  integer faults = 0;  // of the result
  integer differences = 0;  // of everything

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

_REGISTERS = """\
  reg [{address}:0] s_axi_awaddr = 0, s_axi_araddr = 0;
  reg [31:0] s_axi_wdata = 0;
  reg s_axi_awvalid = 1'b0, s_axi_wvalid = 1'b0, s_axi_arvalid = 1'b0;
  wire [2:0] s_axi_awprot = 3'd0, s_axi_arprot = 3'd0;
  wire [3:0] s_axi_wstrb = 4'hf;
  wire s_axi_bready = 1'b1, s_axi_rready = 1'b1;
  wire s_axi_awready, s_axi_wready, s_axi_bvalid, s_axi_arready, s_axi_rvalid;
  wire [1:0] s_axi_bresp, s_axi_rresp;
  wire [31:0] s_axi_rdata;

  // One transfer at a time, so that the accelerator is always ready for it.
  task write_register(input [{address}:0] address, input [31:0] value);
    begin
      s_axi_awaddr = address;
      s_axi_wdata = value;
      s_axi_awvalid = 1'b1;
      s_axi_wvalid = 1'b1;
      @(negedge aclk);
      s_axi_awvalid = 1'b0;
      s_axi_wvalid = 1'b0;
      while (s_axi_bvalid !== 1'b1) @(negedge aclk);
      if (s_axi_bresp !== 2'd0) begin
        $display("FAIL: writing register %0h is answered with %0d", address, s_axi_bresp);
        differences = differences + 1;
      end
      @(negedge aclk);
    end
  endtask

  task check_register(input [{address}:0] address, input [31:0] expected);
    begin
      s_axi_araddr = address;
      s_axi_arvalid = 1'b1;
      @(negedge aclk);
      s_axi_arvalid = 1'b0;
      while (s_axi_rvalid !== 1'b1) @(negedge aclk);
      if (s_axi_rresp !== 2'd0 || s_axi_rdata !== expected) begin
        $display("FAIL: register %0h is %0h, answer %0d; expected %0h", address, s_axi_rdata,
                 s_axi_rresp, expected);
        differences = differences + 1;
      end
      @(negedge aclk);
    end
  endtask
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
{enabled}    playing = 1'b1;
    wait (got >= WORDS);
    repeat ({extra}) @(negedge aclk);
{checked}    differences = differences + faults;
    if (differences != 0 || errors !== 1'b0) begin
      $display("FAIL: %0d differences, error flags: %b", differences, errors);
      $fatal(1);
    end
    $display("PASS: %0d words as expected, the last one in cycle %0d", WORDS, LAST_WORD);
    $finish;
  end
endmodule
"""

"""A generated accelerator in a PYNQ overlay: images over an AXI DMA, registers over AXI4-Lite.

    from pynq_overlay import open_overlay

    accelerator = open_overlay("s2tdpt.bit", "build/digits")   # the folder of `s2tdpt generate --registers`
    classes = accelerator.classify(images)                     # uint8 [B, H, W, C] to int64 [B]

In the block design, M_AXIS_MM2S of the DMA (8 bits) goes to s_axis, m_axis to its S_AXIS_S2MM (32 or 64
bits), and the ports s_axi_* to an AXI interconnect. Weights are on chip.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
from pynq import MMIO, Overlay, allocate

ADDRESS_SPACE = 0x1000


def open_overlay(bitstream, package, core="s2tdpt", dma="axi_dma_0"):
    """Load a bitstream; `core` and `dma` are the names of the cells in its block design."""
    overlay = Overlay(bitstream)
    mmio = MMIO(overlay.ip_dict[core]["phys_addr"], ADDRESS_SPACE)
    return Accelerator(mmio, getattr(overlay, dma), package)


def load_driver(package):
    """The class ``Registers`` of a package."""
    spec = importlib.util.spec_from_file_location("s2tdpt_registers", package / "s2tdpt_registers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Registers


class Accelerator:
    """Classifies images, one at a time, and believes no result that the registers do not confirm.

    Parameters
    ----------
    mmio : object
        ``read(offset)`` and ``write(offset, value)`` of the registers.
    dma : object
        ``sendchannel`` and ``recvchannel`` with ``transfer(buffer)`` and ``wait()``.
    package : path
        Folder of `s2tdpt generate`, of which ``manifest.json`` and ``s2tdpt_registers.py`` are read.

    Attributes
    ----------
    cycles : list of int
        Clock cycles of every image of the last call.

    Raises
    ------
    RuntimeError
        The hardware was generated from something else.
    """

    def __init__(self, mmio, dma, package):
        package = Path(package)
        manifest = json.loads((package / "manifest.json").read_text())
        self.registers, self._dma = load_driver(package)(mmio), dma
        found = b"".join(word.to_bytes(4, "big") for word in self.registers.config_hash).hex()
        if found != manifest["registers"]["config_hash"]:
            raise RuntimeError(
                f"the hardware is {found[:16]}, the package {manifest['registers']['config_hash'][:16]}; "
                "expected the same; load the bitstream that was made from this package"
            )
        network = manifest["network"]
        self.shape = tuple(network[f"image_{side}"] for side in ("height", "width", "channels"))
        word = {4: np.int32, 8: np.int64}[self.registers.result_word_bytes]
        self._image = allocate((self.registers.frame_bytes,), dtype=np.uint8)
        self._result = allocate((self.registers.result_words,), dtype=word)
        self.cycles = []

    def classify(self, images):
        """Classes of images, int64 [B]."""
        return np.array([logits.argmax() for logits in self.infer(images)], np.int64)

    def infer(self, images):
        """Logits of images, int64 [B, classes].

        Raises
        ------
        ValueError
            Images of another shape or type.
        RuntimeError
            An image was dropped, or a result is none.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            expected = ", ".join(map(str, ("B", *self.shape)))
            raise ValueError(f"images are {images.dtype} {list(images.shape)}; expected uint8 [{expected}]")
        self.cycles = []
        logits = [self._one(image) for image in images]
        return np.array(logits, np.int64).reshape(len(images), self.registers.result_words - 1)

    def _one(self, image):
        registers = self.registers
        before = registers.frames, registers.short_frames, registers.long_frames
        self._image[:] = image.reshape(-1)
        registers.control_start()
        self._dma.recvchannel.transfer(self._result)
        self._dma.sendchannel.transfer(self._image)
        self._dma.sendchannel.wait()
        self._dma.recvchannel.wait()
        after = registers.frames, registers.short_frames, registers.long_frames
        counted = [(new - old) % 2**32 for old, new in zip(before, after, strict=True)]
        if counted != [1, 0, 0]:
            raise RuntimeError(
                f"{counted[0]} images computed, {counted[1]} too short, {counted[2]} too long; "
                "expected 1, 0, 0; check the DMA's width and its TLAST"
            )
        *logits, winner = self._result.tolist()
        if winner != logits.index(max(logits)):
            raise RuntimeError(f"class {winner} is not that of the largest logit; check the result's width")
        self.cycles.append(registers.cycles)
        return logits

"""The host's end of the serial link: a board that classifies, and nothing but what it really said.

    from s2tdpt.host import Accelerator

    with Accelerator.open("/dev/ttyUSB0") as board:
        classes = board.classify(images)            # uint8 [B, h, w, C] to int64 [B]

docs/link.md says what passes over the line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2tdpt.golden.exports import lazy

if TYPE_CHECKING:
    from s2tdpt.host.accelerator import Accelerator, Inference
    from s2tdpt.host.exchange import LinkError, Statistics
    from s2tdpt.host.port import Port, SerialPort
    from s2tdpt.host.registers import Registers

__all__ = ["Accelerator", "Inference", "LinkError", "Port", "Registers", "SerialPort", "Statistics"]

_MODULES = {
    "Accelerator": "accelerator",
    "Inference": "accelerator",
    "LinkError": "exchange",
    "Port": "port",
    "Registers": "registers",
    "SerialPort": "port",
    "Statistics": "exchange",
}

__getattr__ = lazy(__name__, _MODULES)

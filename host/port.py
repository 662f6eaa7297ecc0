"""What bytes go through: a serial port, or anything else that behaves like one."""

from __future__ import annotations

import errno
import os
import time
from typing import Protocol

import serial
from serial.tools import list_ports

from s2tdpt.golden.errors import UserError

POLL = 0.02
"""Seconds of a single wait of the operating system."""

WRITE_TIMEOUT = 5.0
"""Seconds after which a port that takes no bytes counts as dead."""


class PortError(UserError):
    """A port cannot be opened, or has stopped working."""


class Port(Protocol):
    """A line to a board, as the host uses it. Errors are `PortError`."""

    name: str
    baud: int

    def write(self, data: bytes) -> None:
        """Send bytes, or put them where they will be sent from."""

    def read(self, seconds: float) -> bytes:
        """What has arrived; nothing only after so many seconds without a byte."""

    def now(self) -> float:
        """Seconds from some moment on, as the port's waiting counts them."""

    def close(self) -> None:
        """Give the line back; may be called twice."""


class SerialPort:
    """A serial port of the operating system, for this program alone.

    Parameters
    ----------
    name : str
        Such as ``/dev/ttyUSB0`` or ``COM3``.
    baud : int

    Raises
    ------
    PortError
        No such port, no permission, or another program has it.
    """

    def __init__(self, name: str, baud: int):
        self.name, self.baud = name, baud
        try:
            self._serial = serial.Serial(
                name, baud, timeout=POLL, write_timeout=WRITE_TIMEOUT, exclusive=os.name == "posix" or None
            )
            self._serial.reset_input_buffer()
        except ValueError as error:  # a baud rate that the port does not know
            raise PortError(
                f"{name} cannot run at {baud} baud ({error}); expected the baud rate of the board; choose "
                "--baud"
            ) from None
        except Exception as error:  # termios.error is no OSError
            raise _not_opened(name, error) from None

    def write(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except Exception as error:
            raise self._gone(error) from None

    def read(self, seconds: float) -> bytes:
        end = self.now() + seconds
        try:
            while True:
                data = self._serial.read(max(1, self._serial.in_waiting))
                if data or self.now() >= end:
                    return data
        except Exception as error:
            raise self._gone(error) from None

    def now(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        self._serial.close()

    def _gone(self, error: Exception) -> PortError:
        return PortError(
            f"the port {self.name} does not work any more ({error}); expected a board that stays plugged in; "
            "check the cable and try again"
        )


def _not_opened(name: str, error: Exception) -> PortError:
    """In words, why a port could not be opened."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV) or "FileNotFoundError" in str(error):
        found = ", ".join(sorted(port.device for port in list_ports.comports())) or "none at present"
        return PortError(
            f"no port {name}; expected a serial port of this computer ({found}); plug the board in or check "
            "the name"
        )
    if number == errno.EACCES or "PermissionError" in str(error):
        return PortError(
            f"no permission to use {name}; expected a port that you may read and write; join its group "
            "(often dialout) or close the program that has it"
        )
    if number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "lock" in str(error):
        return PortError(f"{name} is busy; expected a port that no other program uses; close that program")
    if number == errno.ENOTTY or "Inappropriate ioctl" in str(error):
        return PortError(f"{name} is no serial port; expected one; check the name")
    reason = getattr(error, "strerror", None) or error
    return PortError(f"cannot open {name} ({reason}); expected a serial port; check the name")

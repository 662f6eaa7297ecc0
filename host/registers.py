"""Driver of the registers of an accelerator, without any dependency.

Made from the register map of s2tdpt (golden/register_map.py); do not edit.
"""


class Registers:
    """The registers behind a bus.

    Parameters
    ----------
    bus : object
        With ``read(offset)``, which gives a word of 32 bits, and ``write(offset, value)``, as PYNQ's `MMIO`.

    Raises
    ------
    RuntimeError
        There are no registers of this map.
    """

    def __init__(self, bus):
        self._bus = bus
        if self.id != 0x53325444 or self.version_major != 1:
            raise RuntimeError(
                f"ID is {self.id:#x}, version {self.version_major}; expected 0x53325444, version 1; "
                "check the address and the version of the driver"
            )

    def _get(self, offset, low, width):
        return self._bus.read(offset) >> low & (1 << width) - 1

    def _set(self, offset, low, width, value):
        mask = (1 << width) - 1 << low
        self._bus.write(offset, self._bus.read(offset) & ~mask | int(value) << low & mask)

    @property
    def id(self):
        """What this is: S2TD in ASCII."""
        return self._get(0x00, 0, 32)

    @property
    def version_minor(self):
        """Of the register map: rises when registers are added."""
        return self._get(0x04, 0, 16)

    @property
    def version_major(self):
        """Of the register map: rises with any other change."""
        return self._get(0x04, 16, 16)

    @property
    def control_enable(self):
        """Which images are taken: images are taken."""
        return bool(self._get(0x08, 0, 1))

    @control_enable.setter
    def control_enable(self, value):
        self._set(0x08, 0, 1, value)

    def control_start(self):
        """Which images are taken: take one image more."""
        self._set(0x08, 1, 1, 1)

    @property
    def status_busy(self):
        """What goes on; the errors stay until reset: an image is computed or its result sent."""
        return bool(self._get(0x0C, 0, 1))

    @property
    def status_receiving(self):
        """What goes on; the errors stay until reset: an image has begun to arrive."""
        return bool(self._get(0x0C, 1, 1))

    @property
    def status_pending(self):
        """What goes on; the errors stay until reset: a START waits for its image."""
        return bool(self._get(0x0C, 2, 1))

    @property
    def status_error_short(self):
        """What goes on; the errors stay until reset: the port error_short."""
        return bool(self._get(0x0C, 8, 1))

    @property
    def status_error_long(self):
        """What goes on; the errors stay until reset: the port error_long."""
        return bool(self._get(0x0C, 9, 1))

    @property
    def status_error_weights(self):
        """What goes on; the errors stay until reset: the port error_weights, or 0."""
        return bool(self._get(0x0C, 10, 1))

    @property
    def frames(self):
        """Images computed since reset: modulo 2^32."""
        return self._get(0x10, 0, 32)

    @property
    def cycles(self):
        """Cycles of the last image computed, from its first start to its last write: at most 2^32 - 1."""
        return self._get(0x14, 0, 32)

    @property
    def short_frames(self):
        """Images dropped as too short: modulo 2^32."""
        return self._get(0x18, 0, 32)

    @property
    def long_frames(self):
        """Images dropped as too long: modulo 2^32."""
        return self._get(0x1C, 0, 32)

    @property
    def frame_bytes(self):
        """Size of an image: bytes."""
        return self._get(0x20, 0, 32)

    @property
    def result_words(self):
        """Size of a result: logits, and one for the class."""
        return self._get(0x24, 0, 32)

    @property
    def result_word_bytes(self):
        """Bytes of such a word: 4 or 8."""
        return self._get(0x28, 0, 32)

    @property
    def config_hash(self):
        """SHA-256 of network, machine and parameters: first bytes first, the first of a word highest."""
        return tuple(self._bus.read(offset) for offset in range(0x40, 0x60, 4))

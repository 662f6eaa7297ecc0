"""On a board: clocks, pins, the serial link, bitstreams."""

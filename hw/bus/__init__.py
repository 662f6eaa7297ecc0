"""The ends of the accelerator: AXI4-Stream, and registers on AXI4-Lite."""

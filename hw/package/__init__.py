"""What `s2tdpt generate` writes beside the Verilog."""

# AMD Vivado, out-of-context run of the accelerator; times in nanoseconds.
create_clock -name aclk -period 20.0 [get_ports aclk]

set_input_delay 4.0 -clock aclk [get_ports {aresetn s_axis_tdata* s_axis_tvalid s_axis_tlast m_axis_tready}]
set_output_delay 4.0 -clock aclk [get_ports {s_axis_tready m_axis_tdata* m_axis_tvalid m_axis_tlast}]
set_output_delay 4.0 -clock aclk [get_ports {error_short error_long busy}]

# With streamed weights also:
# set_input_delay 4.0 -clock aclk [get_ports {s_axis_weights_tdata* s_axis_weights_tvalid s_axis_weights_tlast}]
# set_output_delay 4.0 -clock aclk [get_ports {s_axis_weights_tready error_weights}]

# For simulation only.
set_false_path -to [get_ports probe_*]

// Recorder of the accelerator's observation port.
//
// Writes every record of the port to four text files in the working folder, with the clock cycle in front,
// so that the Python side of the bench sleeps while the network runs. Every line of a file has the same
// length (%h prints all the digits of a vector), so the files are read back as a table of bytes, without
// parsing line by line.
//
//   probe_ops.txt    "s cycle op fired"    s = 0 start, 1 done; fired = accumulates of every row since start
//   probe_spike.txt  "cycle op enable address data"
//   probe_u.txt      "cycle op address data"
//   probe_y.txt      "cycle op token step head data"
//
// ops are always recorded, the other three only while `record` is high.
module s2tdpt_probe #(
    parameter OP = 1,
    parameter ROWS = 1,
    parameter SPIKE_EN = 1,
    parameter SPIKE_ADDR = 1,
    parameter SPIKE_DATA = 1,
    parameter U_ADDR = 1,
    parameter U_DATA = 1,
    parameter Y_TOKEN = 1,
    parameter Y_STEP = 1,
    parameter Y_HEAD = 1,
    parameter Y_DATA = 1
) (
    input wire                  clk,
    input wire                  record,
    input wire [OP-1:0]         op,
    input wire                  start,
    input wire                  done,
    input wire [ROWS-1:0]       acc,
    input wire [SPIKE_EN-1:0]   spike_en,
    input wire [SPIKE_ADDR-1:0] spike_addr,
    input wire [SPIKE_DATA-1:0] spike_data,
    input wire                  u_en,
    input wire [U_ADDR-1:0]     u_addr,
    input wire [U_DATA-1:0]     u_data,
    input wire                  y_en,
    input wire [Y_TOKEN-1:0]    y_token,
    input wire [Y_STEP-1:0]     y_t,
    input wire [Y_HEAD-1:0]     y_head,
    input wire [Y_DATA-1:0]     y_data,
    output reg [31:0]           cycle
);
    reg [ROWS*32-1:0] fired;
    integer ops_file, spike_file, u_file, y_file, r;

    initial begin
        cycle = 0;
        fired = 0;
        ops_file = $fopen("probe_ops.txt", "w");
        spike_file = $fopen("probe_spike.txt", "w");
        u_file = $fopen("probe_u.txt", "w");
        y_file = $fopen("probe_y.txt", "w");
    end

    // One process in a fixed order: a firing in the cycle of `done` still belongs to the operation that ends.
    always @(posedge clk) begin
        for (r = 0; r < ROWS; r = r + 1)
            if (acc[r]) fired[r*32 +: 32] = fired[r*32 +: 32] + 1;
        if (done) $fwrite(ops_file, "1 %h %h %h\n", cycle, op, fired);
        if (start) begin
            fired = 0;
            $fwrite(ops_file, "0 %h %h %h\n", cycle, op, fired);
        end
        if (record) begin
            if (|spike_en) $fwrite(spike_file, "%h %h %h %h %h\n", cycle, op, spike_en, spike_addr, spike_data);
            if (u_en) $fwrite(u_file, "%h %h %h %h\n", cycle, op, u_addr, u_data);
            if (y_en) $fwrite(y_file, "%h %h %h %h %h %h\n", cycle, op, y_token, y_t, y_head, y_data);
        end
        cycle = cycle + 1;
    end
endmodule

// AXI4-Stream rule that a receiver relies on: once valid, a beat waits unchanged until it is taken.
module s2tdpt_stream_check #(
    parameter WIDTH = 1
) (
    input wire             clk,
    input wire             rst_n,
    input wire             valid,
    input wire             ready,
    input wire             last,
    input wire [WIDTH-1:0] data,
    output reg [31:0]      violations
);
    reg waiting;
    reg [WIDTH:0] held;

    initial begin
        violations = 0;
        waiting = 0;
        held = 0;
    end

    always @(posedge clk) begin
        if (rst_n && waiting && !(valid === 1'b1 && {last, data} === held)) violations <= violations + 1;
        waiting <= rst_n && (valid === 1'b1) && !ready;
        held <= {last, data};
    end
endmodule

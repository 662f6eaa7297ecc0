// Recorder of the accelerator's observation port.
//
// Writes every record of the port to a text file of its kind in the working folder, with the clock cycle in
// front, so that the Python side of the bench sleeps while the network runs. Every line of a file has the
// same length (%h prints all the digits of a vector), so the files are read back as a table of bytes,
// without parsing line by line.
//
//   probe_steps.txt      "kind cycle step fired"   kind 0: a step starts; 1: the oldest one is complete;
//                                                  fired: accumulates of a lane since reset, this cycle's too
//   probe_piece.txt      "cycle step position piece spikes"
//   probe_piece_u.txt    "cycle step address data"
//   probe_layers.txt     "cycle address subgroup final spikes"
//   probe_attention.txt  "cycle address subgroup final spikes"
//   probe_y.txt          "cycle head token step data"
//
// Steps are always recorded, the others only while `record` is high.
module s2tdpt_probe #(
    parameter STEP = 1,
    parameter START = 1,
    parameter COMPLETE = 1,
    parameter FIRED = 1,
    parameter PIECE_STEP = 1,
    parameter PIECE_POSITION = 1,
    parameter PIECE_PIECE = 1,
    parameter PIECE_SPIKES = 1,
    parameter PIECE_U_STEP = 1,
    parameter PIECE_U_ADDRESS = 1,
    parameter PIECE_U_DATA = 1,
    parameter LAYERS_ADDRESS = 1,
    parameter LAYERS_SUBGROUP = 1,
    parameter LAYERS_FINAL = 1,
    parameter LAYERS_SPIKES = 1,
    parameter ATTENTION_ADDRESS = 1,
    parameter ATTENTION_SUBGROUP = 1,
    parameter ATTENTION_FINAL = 1,
    parameter ATTENTION_SPIKES = 1,
    parameter Y_HEAD = 1,
    parameter Y_TOKEN = 1,
    parameter Y_STEP = 1,
    parameter Y_DATA = 1
) (
    input wire                          clk,
    input wire                          rst_n,
    input wire                          record,
    input wire [31:0]                   wave_first,
    input wire [31:0]                   wave_last,
    output reg                          wave,
    output reg [31:0]                   cycle,
    output reg [31:0]                   current,
    input wire                          start_i,
    input wire [STEP-1:0]               step_i,
    input wire                          complete_i,
    input wire [FIRED-1:0]              fired_i,
    input wire                          piece_en_i,
    input wire [PIECE_STEP-1:0]         piece_step_i,
    input wire [PIECE_POSITION-1:0]     piece_position_i,
    input wire [PIECE_PIECE-1:0]        piece_piece_i,
    input wire [PIECE_SPIKES-1:0]       piece_spikes_i,
    input wire                          piece_u_en_i,
    input wire [PIECE_U_STEP-1:0]       piece_u_step_i,
    input wire [PIECE_U_ADDRESS-1:0]    piece_u_address_i,
    input wire [PIECE_U_DATA-1:0]       piece_u_data_i,
    input wire                          layers_en_i,
    input wire [LAYERS_ADDRESS-1:0]     layers_address_i,
    input wire [LAYERS_SUBGROUP-1:0]    layers_subgroup_i,
    input wire [LAYERS_FINAL-1:0]       layers_final_i,
    input wire [LAYERS_SPIKES-1:0]      layers_spikes_i,
    input wire                          attention_en_i,
    input wire [ATTENTION_ADDRESS-1:0]  attention_address_i,
    input wire [ATTENTION_SUBGROUP-1:0] attention_subgroup_i,
    input wire [ATTENTION_FINAL-1:0]    attention_final_i,
    input wire [ATTENTION_SPIKES-1:0]   attention_spikes_i,
    input wire                          y_en_i,
    input wire [Y_HEAD-1:0]             y_head_i,
    input wire [Y_TOKEN-1:0]            y_token_i,
    input wire [Y_STEP-1:0]             y_step_i,
    input wire [Y_DATA-1:0]             y_data_i
);
    reg [39:0] fired;
    reg [31:0] ended;  // number of the step that completes next
    integer steps_file, piece_file, u_file, layers_file, attention_file, y_file;

    initial begin
        cycle = 0;
        fired = 0;
        current = 0;
        ended = 0;
        wave = 0;
        steps_file = $fopen("probe_steps.txt", "w");
        piece_file = $fopen("probe_piece.txt", "w");
        u_file = $fopen("probe_piece_u.txt", "w");
        layers_file = $fopen("probe_layers.txt", "w");
        attention_file = $fopen("probe_attention.txt", "w");
        y_file = $fopen("probe_y.txt", "w");
    end

`ifdef __ICARUS__
    // Verilator's main program looks at `wave` itself.
    always @(wave)
        if ($test$plusargs("dumpfile_path")) begin
            if (wave) $dumpon;
            else $dumpoff;
        end
`endif

    // One process in a fixed order: a step that completes in a cycle is older than one that starts in it.
    always @(posedge clk) begin
        if (rst_n) fired = fired + {{(40-FIRED){1'b0}}, fired_i};
        if (complete_i) begin
            $fwrite(steps_file, "1 %h %h %h\n", cycle, step_i, fired);
            if (ended == wave_last) wave = 0;
            ended = ended + 1;
        end
        if (start_i) begin
            $fwrite(steps_file, "0 %h %h %h\n", cycle, step_i, fired);
            current = {{(32-STEP){1'b0}}, step_i};
            if (current == 0) ended = 0;
            if (current == wave_first) wave = 1;
        end
        if (wave_first == 32'hffffffff) wave = 1;  // no range: everything
        if (record) begin
            if (piece_en_i)
                $fwrite(piece_file, "%h %h %h %h %h\n", cycle, piece_step_i, piece_position_i, piece_piece_i,
                        piece_spikes_i);
            if (piece_u_en_i)
                $fwrite(u_file, "%h %h %h %h\n", cycle, piece_u_step_i, piece_u_address_i, piece_u_data_i);
            if (layers_en_i)
                $fwrite(layers_file, "%h %h %h %h %h\n", cycle, layers_address_i, layers_subgroup_i,
                        layers_final_i, layers_spikes_i);
            if (attention_en_i)
                $fwrite(attention_file, "%h %h %h %h %h\n", cycle, attention_address_i,
                        attention_subgroup_i, attention_final_i, attention_spikes_i);
            if (y_en_i)
                $fwrite(y_file, "%h %h %h %h %h\n", cycle, y_head_i, y_token_i, y_step_i, y_data_i);
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

// Block RAM of the ECP5 as Yosys uses it: contents, 1 to 36 bits a word, no output registers.
//
// Yosys' own library has the ports of this cell and no model. Written from the cell's use in Yosys' memory map
// (techlibs/lattice/brams_16kd.txt) and from Lattice's FPGA-TN-02204 (memory usage guide). A word that one port
// writes while the other one reads it is unknown on the device: here it reads inverted, so that nothing can
// depend on it unnoticed. Words of 1, 2 and 4 bits share the lower eight of nine.
module DP16KD #(
    parameter DATA_WIDTH_A = 18,
    parameter REGMODE_A = "NOREG",
    parameter CSDECODE_A = "0b000",
    parameter WRITEMODE_A = "NORMAL",
    parameter CLKAMUX = "CLKA",
    parameter DATA_WIDTH_B = 18,
    parameter REGMODE_B = "NOREG",
    parameter CSDECODE_B = "0b000",
    parameter WRITEMODE_B = "NORMAL",
    parameter CLKBMUX = "CLKB",
    parameter RESETMODE = "SYNC",
    parameter ASYNC_RESET_RELEASE = "SYNC",
    parameter GSR = "DISABLED",
    parameter [319:0] INITVAL_00 = 320'h0,
    parameter [319:0] INITVAL_01 = 320'h0,
    parameter [319:0] INITVAL_02 = 320'h0,
    parameter [319:0] INITVAL_03 = 320'h0,
    parameter [319:0] INITVAL_04 = 320'h0,
    parameter [319:0] INITVAL_05 = 320'h0,
    parameter [319:0] INITVAL_06 = 320'h0,
    parameter [319:0] INITVAL_07 = 320'h0,
    parameter [319:0] INITVAL_08 = 320'h0,
    parameter [319:0] INITVAL_09 = 320'h0,
    parameter [319:0] INITVAL_0A = 320'h0,
    parameter [319:0] INITVAL_0B = 320'h0,
    parameter [319:0] INITVAL_0C = 320'h0,
    parameter [319:0] INITVAL_0D = 320'h0,
    parameter [319:0] INITVAL_0E = 320'h0,
    parameter [319:0] INITVAL_0F = 320'h0,
    parameter [319:0] INITVAL_10 = 320'h0,
    parameter [319:0] INITVAL_11 = 320'h0,
    parameter [319:0] INITVAL_12 = 320'h0,
    parameter [319:0] INITVAL_13 = 320'h0,
    parameter [319:0] INITVAL_14 = 320'h0,
    parameter [319:0] INITVAL_15 = 320'h0,
    parameter [319:0] INITVAL_16 = 320'h0,
    parameter [319:0] INITVAL_17 = 320'h0,
    parameter [319:0] INITVAL_18 = 320'h0,
    parameter [319:0] INITVAL_19 = 320'h0,
    parameter [319:0] INITVAL_1A = 320'h0,
    parameter [319:0] INITVAL_1B = 320'h0,
    parameter [319:0] INITVAL_1C = 320'h0,
    parameter [319:0] INITVAL_1D = 320'h0,
    parameter [319:0] INITVAL_1E = 320'h0,
    parameter [319:0] INITVAL_1F = 320'h0,
    parameter [319:0] INITVAL_20 = 320'h0,
    parameter [319:0] INITVAL_21 = 320'h0,
    parameter [319:0] INITVAL_22 = 320'h0,
    parameter [319:0] INITVAL_23 = 320'h0,
    parameter [319:0] INITVAL_24 = 320'h0,
    parameter [319:0] INITVAL_25 = 320'h0,
    parameter [319:0] INITVAL_26 = 320'h0,
    parameter [319:0] INITVAL_27 = 320'h0,
    parameter [319:0] INITVAL_28 = 320'h0,
    parameter [319:0] INITVAL_29 = 320'h0,
    parameter [319:0] INITVAL_2A = 320'h0,
    parameter [319:0] INITVAL_2B = 320'h0,
    parameter [319:0] INITVAL_2C = 320'h0,
    parameter [319:0] INITVAL_2D = 320'h0,
    parameter [319:0] INITVAL_2E = 320'h0,
    parameter [319:0] INITVAL_2F = 320'h0,
    parameter [319:0] INITVAL_30 = 320'h0,
    parameter [319:0] INITVAL_31 = 320'h0,
    parameter [319:0] INITVAL_32 = 320'h0,
    parameter [319:0] INITVAL_33 = 320'h0,
    parameter [319:0] INITVAL_34 = 320'h0,
    parameter [319:0] INITVAL_35 = 320'h0,
    parameter [319:0] INITVAL_36 = 320'h0,
    parameter [319:0] INITVAL_37 = 320'h0,
    parameter [319:0] INITVAL_38 = 320'h0,
    parameter [319:0] INITVAL_39 = 320'h0,
    parameter [319:0] INITVAL_3A = 320'h0,
    parameter [319:0] INITVAL_3B = 320'h0,
    parameter [319:0] INITVAL_3C = 320'h0,
    parameter [319:0] INITVAL_3D = 320'h0,
    parameter [319:0] INITVAL_3E = 320'h0,
    parameter [319:0] INITVAL_3F = 320'h0
) (
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
);
    generate
        if (REGMODE_A != "NOREG" || REGMODE_B != "NOREG")
            DP16KD_in_a_form_without_a_model refused();
    endgenerate

    reg [8:0] mem [0:2047];
    localparam [64*320-1:0] CONTENTS = {INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30, INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28, INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08, INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00};
    integer i;
    initial
        for (i = 0; i < 1024; i = i + 1) begin
            mem[2 * i] = CONTENTS[20 * i +: 9];
            mem[2 * i + 1] = CONTENTS[20 * i + 9 +: 9];
        end

    wire [13:0] ad_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire clk_a = CLKAMUX == "INV" ? ~CLKA : CLKA;
    wire [13:0] ad_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    wire clk_b = CLKBMUX == "INV" ? ~CLKB : CLKB;
    // With 36 bits a word both ports' data belong to one of them: A writes, B reads.
    wire [35:0] di_a, di_b;
    wire [17:0] half_a = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
    wire [17:0] half_b = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};
    assign di_a = {half_b, half_a};
    assign di_b = {18'b0, half_b};
    reg [35:0] do_a, do_b;

    // Words of 9 bits that port A takes, one to four from base_a on, and which of them it writes.
    wire [10:0] base_a = DATA_WIDTH_A == 36 ? {ad_a[13:5], 2'b0} : DATA_WIDTH_A == 18 ? {ad_a[13:4], 1'b0} : ad_a[13:3];
    wire [3:0] enable_a = DATA_WIDTH_A == 36 ? ad_a[3:0] : DATA_WIDTH_A == 18 ? {2'b0, ad_a[1:0]} : 4'b1;
    // Bits of such a word that it takes, from offset_a on.
    wire [2:0] offset_a = DATA_WIDTH_A == 4 ? {ad_a[2], 2'b0} : DATA_WIDTH_A == 2 ? {ad_a[2:1], 1'b0} : DATA_WIDTH_A == 1 ? ad_a[2:0] : 3'b0;
    wire [8:0] mask_a = DATA_WIDTH_A < 9 ? ((9'b1 << DATA_WIDTH_A) - 9'b1) << offset_a : 9'h1ff;
    wire blocked_a = RESETMODE == "SYNC" && RSTA;
    wire [3:0] write_a = CEA && WEA && !blocked_a ? enable_a : 4'b0;
    // Words of 9 bits that port B takes, one to four from base_b on, and which of them it writes.
    wire [10:0] base_b = DATA_WIDTH_B == 36 ? {ad_b[13:5], 2'b0} : DATA_WIDTH_B == 18 ? {ad_b[13:4], 1'b0} : ad_b[13:3];
    wire [3:0] enable_b = DATA_WIDTH_B == 36 ? ad_b[3:0] : DATA_WIDTH_B == 18 ? {2'b0, ad_b[1:0]} : 4'b1;
    // Bits of such a word that it takes, from offset_b on.
    wire [2:0] offset_b = DATA_WIDTH_B == 4 ? {ad_b[2], 2'b0} : DATA_WIDTH_B == 2 ? {ad_b[2:1], 1'b0} : DATA_WIDTH_B == 1 ? ad_b[2:0] : 3'b0;
    wire [8:0] mask_b = DATA_WIDTH_B < 9 ? ((9'b1 << DATA_WIDTH_B) - 9'b1) << offset_b : 9'h1ff;
    wire blocked_b = RESETMODE == "SYNC" && RSTB;
    wire [3:0] write_b = CEB && WEB && !blocked_b ? enable_b : 4'b0;

    // The address of a port that never writes is unknown in a ROM: such a port must hit nothing.
    genvar k;
    generate
        for (k = 0; k < (DATA_WIDTH_A + 8) / 9; k = k + 1) begin : word_a
            wire [10:0] place = base_a + k;
            wire [10:0] from_b = place - base_b;
            wire hit = write_b != 4'b0 && from_b < (DATA_WIDTH_B + 8) / 9 && write_b[from_b[1:0]];
            wire [8:0] fresh = di_a[9 * k +: 9] << offset_a;
            wire [8:0] before = mem[place] ^ (hit ? mask_b : 9'b0);
            wire through = write_a[k] && WRITEMODE_A == "WRITETHROUGH";
            wire [8:0] seen = ((through ? fresh : before) & mask_a) >> offset_a;
            if (DATA_WIDTH_A < 9) begin : part
                always @(posedge clk_a)
                    if (write_a[k])
                        mem[place] <= (fresh & mask_a) | (mem[place] & ~mask_a);
            end else begin : whole
                always @(posedge clk_a)
                    if (write_a[k])
                        mem[place] <= fresh;
            end
            if (RESETMODE == "SYNC") begin : rest
                always @(posedge clk_a)
                    if (RSTA)
                        do_a[9 * k +: 9] <= 9'b0;
                    else if (CEA && !(WEA && WRITEMODE_A == "NORMAL"))
                        do_a[9 * k +: 9] <= seen;
            end else begin : rest
                always @(posedge clk_a or posedge RSTA)
                    if (RSTA)
                        do_a[9 * k +: 9] <= 9'b0;
                    else if (CEA && !(WEA && WRITEMODE_A == "NORMAL"))
                        do_a[9 * k +: 9] <= seen;
            end
            initial do_a[9 * k +: 9] = 9'b0;
        end
        for (k = 0; k < (DATA_WIDTH_B + 8) / 9; k = k + 1) begin : word_b
            wire [10:0] place = base_b + k;
            wire [10:0] from_a = place - base_a;
            wire hit = write_a != 4'b0 && from_a < (DATA_WIDTH_A + 8) / 9 && write_a[from_a[1:0]];
            wire [8:0] fresh = di_b[9 * k +: 9] << offset_b;
            wire [8:0] before = mem[place] ^ (hit ? mask_a : 9'b0);
            wire through = write_b[k] && WRITEMODE_B == "WRITETHROUGH";
            wire [8:0] seen = ((through ? fresh : before) & mask_b) >> offset_b;
            if (DATA_WIDTH_B < 9) begin : part
                always @(posedge clk_b)
                    if (write_b[k])
                        mem[place] <= (fresh & mask_b) | (mem[place] & ~mask_b);
            end else begin : whole
                always @(posedge clk_b)
                    if (write_b[k])
                        mem[place] <= fresh;
            end
            if (RESETMODE == "SYNC") begin : rest
                always @(posedge clk_b)
                    if (RSTB)
                        do_b[9 * k +: 9] <= 9'b0;
                    else if (CEB && !(WEB && WRITEMODE_B == "NORMAL"))
                        do_b[9 * k +: 9] <= seen;
            end else begin : rest
                always @(posedge clk_b or posedge RSTB)
                    if (RSTB)
                        do_b[9 * k +: 9] <= 9'b0;
                    else if (CEB && !(WEB && WRITEMODE_B == "NORMAL"))
                        do_b[9 * k +: 9] <= seen;
            end
            initial do_b[9 * k +: 9] = 9'b0;
        end
    endgenerate

    wire [17:0] out_a = DATA_WIDTH_B == 36 ? do_b[17:0] : do_a[17:0];
    wire [17:0] out_b = DATA_WIDTH_B == 36 ? do_b[35:18] : do_b[17:0];
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} = out_a;
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} = out_b;
endmodule

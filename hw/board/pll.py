"""Clocks from PLLs: the fastest frequency that is not above what place and route proved, as plain Verilog.

The limits are those of the data sheets; in each family the smallest dividers and, for the ECP5 and Gowin, the
oscillator in the middle of its range.

References
----------
Lattice FPGA-TN-02200 (ECP5), FPGA-TN-02052 (iCE40), Gowin UG286 (rPLL, GW1N-9C: oscillator 400 to 1200 MHz).
"""

from __future__ import annotations

from dataclasses import dataclass

from s2tdpt.golden.errors import UserError


@dataclass(frozen=True)
class Pll:
    """A PLL's setting.

    Attributes
    ----------
    megahertz : float
        What comes out.
    text : str
        The instance: from ``clk_pin`` to ``clk`` and ``locked``.
    """

    megahertz: float
    text: str


def _best(kind: str, source: float, wanted: float, settings) -> tuple:
    """The setting of the highest frequency that is not above `wanted`; the first of equals."""
    fitting = [setting for setting in settings if setting[0] <= wanted * (1 + 1e-9)]
    if not fitting:
        raise UserError(
            f"the PLL of {kind} makes no clock of {wanted:.3g} MHz or less from {source:g} MHz; expected a "
            "higher frequency; choose a smaller machine, or give --frequency"
        )
    return max(fitting, key=lambda setting: (setting[0], -setting[1]))


def ecp5_pll(source: float, wanted: float) -> Pll:
    """EHXPLLL: phase detector 3.125 to 400 MHz, oscillator 400 to 800 MHz, as near 600 as can be."""
    settings = []
    for divide in range(1, 129):
        if not 3.125 <= source / divide <= 400:
            continue
        for multiply in range(1, 81):
            out = source / divide * multiply
            shift = max(1, min(128, round(600 / out)))
            if 400 <= out * shift <= 800:
                settings.append((out, divide, multiply, shift))
    out, divide, multiply, shift = _best("an ECP5", source, wanted, settings)
    return Pll(
        out,
        f"""\
  // {source:g} MHz / {divide} * {multiply} = {out:.6g} MHz; oscillator {out * shift:.6g} MHz
  (* FREQUENCY_PIN_CLKI="{source:.6f}", FREQUENCY_PIN_CLKOP="{out:.6f}" *)
  (* ICP_CURRENT="12", LPF_RESISTOR="8", MFG_ENABLE_FILTEROPAMP="1", MFG_GMCREF_SEL="2" *)
  EHXPLLL #(
    .PLLRST_ENA("DISABLED"), .INTFB_WAKE("DISABLED"), .STDBY_ENABLE("DISABLED"), .DPHASE_SOURCE("DISABLED"),
    .OUTDIVIDER_MUXA("DIVA"), .OUTDIVIDER_MUXB("DIVB"), .OUTDIVIDER_MUXC("DIVC"), .OUTDIVIDER_MUXD("DIVD"),
    .CLKI_DIV({divide}), .CLKFB_DIV({multiply}), .FEEDBK_PATH("CLKOP"),
    .CLKOP_ENABLE("ENABLED"), .CLKOP_DIV({shift}), .CLKOP_CPHASE({shift // 2}), .CLKOP_FPHASE(0)
  ) pll (
    .CLKI(clk_pin), .CLKFB(clk), .CLKOP(clk), .LOCK(locked), .RST(1'b0), .STDBY(1'b0), .PHASESEL0(1'b0),
    .PHASESEL1(1'b0), .PHASEDIR(1'b1), .PHASESTEP(1'b1), .PHASELOADREG(1'b1), .PLLWAKESYNC(1'b0),
    .ENCLKOP(1'b0)
  );
""",
    )


ICE40_FILTERS = ((17, 1), (26, 2), (44, 3), (66, 4), (101, 5), (133, 6))
"""MHz of the phase detector up to which a filter setting is meant."""


def ice40_pll(source: float, wanted: float) -> Pll:
    """SB_PLL40_PAD: phase detector 10 to 133 MHz, oscillator 533 to 1066 MHz."""
    settings = []
    for divide in range(16):
        detector = source / (divide + 1)
        if not 10 <= detector <= 133:
            continue
        for multiply in range(128):
            if 533 <= detector * (multiply + 1) <= 1066:
                settings += [
                    (detector * (multiply + 1) / (1 << shift), divide, multiply, shift)
                    for shift in range(1, 7)
                ]
    out, divide, multiply, shift = _best("an iCE40", source, wanted, settings)
    chosen = next(number for limit, number in ICE40_FILTERS if source / (divide + 1) <= limit)
    return Pll(
        out,
        f"""\
  // {source:g} MHz / {divide + 1} * {multiply + 1} / {1 << shift} = {out:.6g} MHz
  SB_PLL40_PAD #(
    .FEEDBACK_PATH("SIMPLE"), .DIVR(4'd{divide}), .DIVF(7'd{multiply}), .DIVQ(3'd{shift}),
    .FILTER_RANGE(3'd{chosen})
  ) pll (
    .PACKAGEPIN(clk_pin), .PLLOUTGLOBAL(clk), .LOCK(locked), .RESETB(1'b1), .BYPASS(1'b0)
  );
""",
    )


GOWIN_DIVIDERS = (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)


def gowin_pll(source: float, wanted: float) -> Pll:
    """rPLL of a GW1N-9C: phase detector 3 to 400 MHz, oscillator 400 to 1200 MHz, as near 800 as can be."""
    settings = []
    for divide in range(64):
        if not 3 <= source / (divide + 1) <= 400:
            continue
        for multiply in range(64):
            out = source / (divide + 1) * (multiply + 1)
            able = [shift for shift in GOWIN_DIVIDERS if 400 <= out * shift <= 1200]
            if able:
                settings.append((out, divide, multiply, min(able, key=lambda s: abs(out * s - 800))))
    out, divide, multiply, shift = _best("a GW1N-9C", source, wanted, settings)
    return Pll(
        out,
        f"""\
  // {source:g} MHz / {divide + 1} * {multiply + 1} = {out:.6g} MHz; oscillator {out * shift:.6g} MHz
  rPLL #(
    .DEVICE("GW1NR-9C"), .FCLKIN("{source:g}"), .IDIV_SEL({divide}), .FBDIV_SEL({multiply}),
    .ODIV_SEL({shift}), .DYN_IDIV_SEL("false"), .DYN_FBDIV_SEL("false"), .DYN_ODIV_SEL("false"),
    .PSDA_SEL("0000"),
    .DYN_DA_EN("false"), .DUTYDA_SEL("1000"), .CLKFB_SEL("internal"), .CLKOUT_BYPASS("false"),
    .CLKOUTP_BYPASS("false"), .CLKOUTD_BYPASS("false"), .DYN_SDIV_SEL(2), .CLKOUTD_SRC("CLKOUT"),
    .CLKOUTD3_SRC("CLKOUT")
  ) pll (
    .CLKIN(clk_pin), .CLKOUT(clk), .LOCK(locked), .CLKFB(1'b0), .RESET(1'b0), .RESET_P(1'b0), .FBDSEL(6'b0),
    .IDSEL(6'b0), .ODSEL(6'b0), .PSDA(4'b0), .DUTYDA(4'b0), .FDLY(4'b0)
  );
""",
    )

"""Contracts are built that nothing proves, to see their checks; that is no fault."""


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore::amaranth.hdl.UnusedElaboratable")

"""Constructor tests build components that nothing elaborates; that is no fault."""


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore::amaranth.hdl.UnusedElaboratable")

"""Are the tests good enough? Mutants of the hardware and of the checkers, each run by the tests that cover
it.
"""

"""Figures without simulation or synthesis: cycles, accesses, energy, logic, memory; search for machines."""

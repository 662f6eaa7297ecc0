"""The blocks of the machine, from the walk over the events to the spikes that are written back."""

"""The layer program: from a network and a machine to what runs when, how wide and from where."""

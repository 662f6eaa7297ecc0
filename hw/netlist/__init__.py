"""After synthesis: place and route, cells of a library, their simulation and their power."""

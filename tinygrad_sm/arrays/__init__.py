"""Arrays that are not NumPy's: what kinds there are, and how each runs the table of primitives."""

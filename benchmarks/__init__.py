"""How fast and how accurate tinygrad_sm is, next to every peer that is installed."""

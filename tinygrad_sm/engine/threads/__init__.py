"""Large operations on several threads."""

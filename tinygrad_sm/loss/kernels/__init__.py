"""The closed form on plain arrays, computed so that speed costs no digits."""

"""The engine: read primitive.py, rules.py, node.py and sweep.py, in this order."""

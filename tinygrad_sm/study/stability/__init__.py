"""The stability lab: where each form of softmax-cross-entropy leaves the truth, and at which node.

Three sweeps of three logits meet the three ways to break: large logits (the range of exp), a right
class far ahead (1 − p cancels), a right class far behind (p underflows). Every form runs on the
same logits and is held against `exact`, which shares no code with any of them. Numbers only; the
pictures are in `viz.lab`.
"""

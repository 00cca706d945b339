"""The stability lab: where each form of softmax-cross-entropy leaves the truth, and at which node.

Three sweeps of three logits meet the three ways to break: large logits (the range of exp), a right
class far ahead (1 − p cancels), a right class far behind (p underflows). Every form runs on the
same logits and is held against `exact`, which shares no code with any of them. Numbers only; the
pictures are in `viz.lab`.
"""

from tinygrad_sm.study.stability.causes import Cause
from tinygrad_sm.study.stability.forms import FLOOR, FORMS, Form
from tinygrad_sm.study.stability.report import (
    TOLERANCE,
    Band,
    FormReport,
    Report,
    SweepReport,
    stability,
)
from tinygrad_sm.study.stability.sweeps import SWEEPS, Sweep
from tinygrad_sm.study.stability.truth import DTYPES, STATES, Exact, exact
from tinygrad_sm.study.stability.two_losses import ConfidentlyWrong, confidently_wrong

__all__ = [
    "DTYPES",
    "FLOOR",
    "FORMS",
    "STATES",
    "SWEEPS",
    "TOLERANCE",
    "Band",
    "Cause",
    "ConfidentlyWrong",
    "Exact",
    "Form",
    "FormReport",
    "Report",
    "Sweep",
    "SweepReport",
    "confidently_wrong",
    "exact",
    "stability",
]

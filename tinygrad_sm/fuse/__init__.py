"""Fusion: find the composite of softmax and cross-entropy in any graph, and rewrite it."""

from tinygrad_sm.fuse.fusing import fuse, fusing
from tinygrad_sm.fuse.patterns import AlmostRule, Const, Either, Match, Maybe, Number, Op, Rule, Var
from tinygrad_sm.fuse.result import FuseResult, NearMiss, Rewrite
from tinygrad_sm.fuse.rules import RULES

__all__ = [
    "RULES",
    "AlmostRule",
    "Const",
    "Either",
    "FuseResult",
    "Match",
    "Maybe",
    "NearMiss",
    "Number",
    "Op",
    "Rewrite",
    "Rule",
    "Var",
    "fuse",
    "fusing",
]

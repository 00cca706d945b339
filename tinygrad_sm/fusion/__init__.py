"""Fusion: find the composite of softmax and cross-entropy in any graph, and rewrite it.

Where to start reading: the rules, then what carries them out, in the order in which it happens.

    rules        what becomes what, and why: softmax, log_softmax, logsumexp, the loss, a layer
    algebra      the plain algebra that brings what people write into the form of those rules
    patterns     what a rule is made of, and the small matcher
    vocabulary   the words that rules are written in, and how they are computed
    loss_node    the fused loss, from what the rules found out about its targets
    snapshot     a recorded graph, parted in structure and data
    terms        the structure as terms; equal terms are one object
    rewriting    the loop that applies rules until none fits
    extraction   from the rewritten terms to instructions: what stays, is done again, is made
    plan         what was found, and carrying the instructions out
    missed       what stayed although a single thing kept a rule from fitting
    result       what `fuse` returns: the new output, the rewrites, the near misses
    front        `fuse` and `fusing`, and the plans that are remembered from graph to graph

Inside `fusing` naive code is not even computed where it is replaced: see `engine.later`.
"""

from tinygrad_sm.fusion.front import fuse, fusing
from tinygrad_sm.fusion.patterns import Const, Either, Number, Op, Rule, Var, maybe
from tinygrad_sm.fusion.result import FuseResult, NearMiss, Rewrite
from tinygrad_sm.fusion.rules import RULES

__all__ = [
    "RULES",
    "Const",
    "Either",
    "FuseResult",
    "NearMiss",
    "Number",
    "Op",
    "Rewrite",
    "Rule",
    "Var",
    "fuse",
    "fusing",
    "maybe",
]

"""A tiny reverse-mode autograd engine about the gradient of softmax + cross-entropy."""

import builtins
from typing import TYPE_CHECKING

from tinygrad_sm.arrays.elements import precise, symbols
from tinygrad_sm.arrays.jaxpr import from_jax
from tinygrad_sm.arrays.kinds import Kind, def_kind
from tinygrad_sm.engine.derivatives import hessian, jacobian
from tinygrad_sm.engine.gradients import grad
from tinygrad_sm.engine.more import *
from tinygrad_sm.engine.primitive import def_primitive
from tinygrad_sm.engine.rules import *
from tinygrad_sm.engine.scopes import group, no_grad
from tinygrad_sm.engine.shapes import *
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.threads.pool import set_threads
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.engine.view import Graph, graph
from tinygrad_sm.errors import GradientWarning, LossWarning, TinygradError
from tinygrad_sm.fusion import FuseResult, fuse, fusing
from tinygrad_sm.loss.composite import composite_cross_entropy
from tinygrad_sm.loss.fused import SoftmaxWithLoss, cross_entropy, cross_entropy_with_gradient
from tinygrad_sm.loss.kernels.choosing import kernel, set_kernel, warm_up
from tinygrad_sm.loss.linear import linear_cross_entropy
from tinygrad_sm.loss.probabilities import log_softmax, logsumexp, softmax
from tinygrad_sm.notebook import shown_by as _shown_by
from tinygrad_sm.study.check import GradcheckReport, gradcheck
from tinygrad_sm.study.comparing import compare
from tinygrad_sm.study.comparison import Comparison
from tinygrad_sm.study.diagnose import Breakdown, first_breakdown

# written out, since type checkers read no further
__all__ = [
    "BackwardTrace",
    "Breakdown",
    "Comparison",
    "FuseResult",
    "GradcheckReport",
    "GradientWarning",
    "Graph",
    "Kind",
    "LossWarning",
    "SoftmaxWithLoss",
    "Tensor",
    "TinygradError",
    "compare",
    "composite_cross_entropy",
    "cross_entropy",
    "cross_entropy_with_gradient",
    "def_kind",
    "def_primitive",
    "first_breakdown",
    "from_jax",
    "fuse",
    "fusing",
    "grad",
    "gradcheck",
    "graph",
    "group",
    "hessian",
    "jacobian",
    "kernel",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "no_grad",
    "precise",
    "set_kernel",
    "set_threads",
    "softmax",
    "symbols",
    "warm_up",
]
__all__ += [  # the table
    "abs", "add", "astype", "broadcast_to", "concatenate", "div", "exp", "expand_dims",
    "getitem", "log", "log1p", "matmul", "max", "maximum", "mean", "minimum", "mul", "neg",
    "pow", "relu", "reshape", "scatter", "sigmoid", "sqrt", "stack", "sub", "sum", "sum_to",
    "take_along_axis", "tanh", "transpose", "where",
]  # fmt: skip
__all__ += [  # NumPy's other functions
    "append", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
    "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "clip", "column_stack", "copy",
    "cos", "cosh", "cumsum", "deg2rad", "diag", "diagonal", "diff", "dot", "dsplit", "dstack",
    "einsum", "exp2", "expm1", "flip", "fliplr", "flipud", "hsplit", "hstack", "hypot", "inner",
    "log2", "log10", "logaddexp", "min", "moveaxis", "nan_to_num", "norm", "outer", "prod",
    "rad2deg", "ravel", "reciprocal", "repeat", "roll", "rot90", "sin", "sinh", "sort", "split",
    "square", "squeeze", "std", "swapaxes", "take", "tan", "tensordot", "tile", "trace", "tril",
    "triu", "var", "vsplit", "vstack",
]  # fmt: skip
if not TYPE_CHECKING:  # `*` leaves Python's own names alone: write tg.sum, tg.max, tg.abs, tg.pow
    __all__ = [name for name in __all__ if not hasattr(builtins, name)]


def _bundle(result: object) -> dict[str, str]:
    from viz.notebooks import bundle  # noqa: PLC0415  only a notebook needs pictures

    return bundle(result)


_shown_by(_bundle)

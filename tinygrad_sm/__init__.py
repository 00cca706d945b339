"""A tiny reverse-mode autograd engine about the gradient of softmax + cross-entropy."""

from tinygrad_sm import more, primitives
from tinygrad_sm.backward import BackwardTrace, grad, hessian, jacobian
from tinygrad_sm.check import GradcheckReport, gradcheck
from tinygrad_sm.compare import compare
from tinygrad_sm.comparison import Comparison
from tinygrad_sm.diagnose import Breakdown, first_breakdown
from tinygrad_sm.dispatch import def_primitive
from tinygrad_sm.errors import LossWarning, TinygradError
from tinygrad_sm.fuse import FuseResult, fuse, fusing
from tinygrad_sm.graph import Graph, graph
from tinygrad_sm.loss.composite import composite_cross_entropy
from tinygrad_sm.loss.linear import linear_cross_entropy
from tinygrad_sm.loss.softmax import log_softmax, logsumexp, softmax
from tinygrad_sm.loss.softmax_with_loss import SoftmaxWithLoss, cross_entropy
from tinygrad_sm.loss.with_gradient import cross_entropy_with_gradient
from tinygrad_sm.more import *
from tinygrad_sm.pool import set_threads
from tinygrad_sm.primitives import *
from tinygrad_sm.tensor import Tensor, group, no_grad

__all__ = [
    "BackwardTrace",
    "Breakdown",
    "Comparison",
    "FuseResult",
    "GradcheckReport",
    "Graph",
    "LossWarning",
    "SoftmaxWithLoss",
    "Tensor",
    "TinygradError",
    "compare",
    "composite_cross_entropy",
    "cross_entropy",
    "cross_entropy_with_gradient",
    "def_primitive",
    "first_breakdown",
    "fuse",
    "fusing",
    "grad",
    "gradcheck",
    "graph",
    "group",
    "hessian",
    "jacobian",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "no_grad",
    "set_threads",
    "softmax",
]
__all__ += primitives.__all__
__all__ += more.__all__

"""What users ask of the sweep: `backward` and `grad`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

import numpy as np

from tinygrad_sm.arrays.kinds import kind_for
from tinygrad_sm.engine import memory
from tinygrad_sm.engine.node import Recorded, leaf
from tinygrad_sm.engine.sweep import Cotangents, Pulled, fitted, newest_first, pull, sweep_back
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.errors import GradientWarning, InvalidTypeError, InvalidValueError

_ndarray = np.ndarray
GROWTH = 20
"""Passes in a row that each go on through more old results, before backward warns."""
_grown = (0, 0)  # how many old results the last pass had, how often in a row there were more

before_sweep: ContextVar[Callable[[Any], Any] | None] = ContextVar("before_sweep", default=None)
"""What `backward` puts in the place of an output before it sweeps, if anything: see `fusing`."""
stand_ins: ContextVar[tuple[Any, Any] | None] = ContextVar("stand_ins", default=None)
"""Another `pull` and another `add` for every sweep, if any: see `tinygrad_sm.study.mistakes`."""


def backward(
    output: Any, gradient: Any = None, *, create_graph: bool = False, trace: bool = False
) -> BackwardTrace | None:
    """Do what `Tensor.backward` says."""
    given = output
    replace = before_sweep.get()
    if replace is not None and given.requires_grad:
        output = replace(given)
    seed = _seed(output, gradient, create_graph)
    traced = BackwardTrace(output) if trace else None
    cotangents = _swept(output, seed, traced)
    if output is not given:  # the one that the caller holds took part, too
        cotangents[given] = seed
    _check_growth(memory.add_to_grads(cotangents), stacklevel=4)
    return traced


def _swept(output: Any, seed: Any, traced: BackwardTrace | None = None) -> Cotangents:
    nodes, cotangents = newest_first(output), {output: seed}
    memory.check_unchanged(nodes)
    pull, add = stand_ins.get() or (pulled, memory.add_up)
    sweep_back(nodes, cotangents, traced.recording(pull) if traced else pull, add)
    return cotangents


def _seed(output: Any, gradient: Any, create_graph: bool) -> Any:
    """The cotangent to start from; raises before any work is done if there is none."""
    if not output.requires_grad:
        raise InvalidTypeError(
            "backward needs an output that depends on a Tensor with requires_grad=True; "
            "this one does not"
        )
    if gradient is None:
        if output._array.size != 1:
            raise InvalidValueError(
                f"backward from an output of shape {output.shape} needs gradient, an array of "
                "that shape; only an output with one element starts from 1"
            )
        like = output._array
        plain = type(like) is np.ndarray and not like.ndim  # as nearly always
        gradient = np.array(1.0, like.dtype) if plain else kind_for(like).ones(like)
    elif not (isinstance(gradient, Recorded) and create_graph):
        gradient = memory.floats(gradient, output.dtype, what="gradient", like=output._array)
    if gradient.shape != output.shape:
        raise InvalidValueError(
            f"gradient must have the output's shape {output.shape}; got {gradient.shape}"
        )
    if create_graph and not isinstance(gradient, Recorded):
        gradient = leaf(output._kind, gradient)
    return gradient


def _check_growth(again: int, stacklevel: int) -> None:
    """Warn if each of many passes went on through all that the ones before had gone through.

    `again` counts the computed Tensors of a pass that had a gradient before, or that are older than
    all that is asked for: none in a usual training loop, as many in each pass through a graph that
    several losses share, and always more if parameters are rebound to what was computed of them.
    """
    global _grown
    last, times = _grown
    _grown = (again, times + 1 if again > last else 0)
    if times == GROWTH:
        warnings.warn(
            f"the graph that backward goes through has grown in each of {GROWTH} passes: "
            "w = w - step records all steps for ever; write `with tg.no_grad(): w -= step`, "
            "or detach() what is kept from one step to the next",
            GradientWarning,
            stacklevel=stacklevel,
        )


def grad(
    output: Any,
    inputs: Any,
    gradient: Any = None,
    *,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> Any:
    """Return the gradient of `output` with respect to `inputs`, and touch no `.grad`.

    Args:
        output: a Tensor; if it has more than one element, `gradient` is needed.
        inputs: a Tensor, leaf or not, or a sequence of them.
        gradient: the cotangent of `output`, of its shape.
        create_graph: return Tensors that can be differentiated again.
        allow_unused: return zeros for an input that `output` does not depend on (the gradient,
            and jax's answer; torch's is None); without it that is an error, as in torch, since it
            is mostly a mistake.

    Returns:
        An array of the input's shape and dtype (a Tensor with `create_graph`), or a list of them.

    Raises:
        InvalidTypeError: `output` or an input is not a Tensor, or nothing requires a gradient.
        InvalidValueError: `gradient` is missing or has the wrong shape, or `output` does not
            depend on an input.
        ChangedDataError: data was changed in place after it was used.
    """
    single = isinstance(inputs, Recorded)
    if not single and not isinstance(inputs, Iterable):
        raise InvalidTypeError(
            f"grad: inputs must be a Tensor or a sequence of them; got {type(inputs).__name__}"
        )
    wanted: list[Any] = [inputs] if single else list(inputs)
    for i, x in enumerate((output, *wanted)):
        if not isinstance(x, Recorded):
            what = "output" if i == 0 else f"input {i}"
            raise InvalidTypeError(f"grad: {what} must be a Tensor; got {type(x).__name__}")
    seed = _seed(output, gradient, create_graph)
    cotangents = _swept(output, seed)
    if not create_graph and wanted:  # else the steps so far may be meant to be differentiated
        oldest = min(x._id for x in wanted)
        older = sum(node._id < oldest and node._first is not None for node in cotangents)
        _check_growth(older, stacklevel=3)
    found: list[Any] = []
    for i, x in enumerate(wanted, 1):
        if x in cotangents:
            found.append(cotangents[x] if create_graph else memory.handed_out(cotangents, x))
        elif allow_unused:
            g = kind_for(x._array).zeros(x._array)
            found.append(leaf(output._kind, g) if create_graph else g)
        else:
            name = "" if x.name is None else f" {x.name!r}"
            raise InvalidValueError(
                f"grad: output does not depend on input {i},{name} of shape {x.shape}, by "
                "recorded operations; allow_unused=True gives zeros"
            )
    return found[0] if single else found


def pulled(node: Any, g: Any) -> Iterable[Pulled]:
    """Return what `pull` yields; where a node has one or two operands, by a shorter way."""
    operation, x, y = node._operation, node._first, node._second
    if operation.more or operation.values is not None or type(g) is not _ndarray:
        return pull(node, g)
    if x is None:
        return ()
    primitive, params = operation.primitive, operation.params
    a, b, wanted = x, y, []
    if isinstance(x, Recorded):
        a = x._array
        if x.requires_grad:
            wanted.append((0, x))
    if y is not None and isinstance(y, Recorded):
        b = y._array
        if y.requires_grad:
            wanted.append((1, y))
    values = (g, node._array, a) if y is None else (g, node._array, a, b)
    vjps = primitive._vjps if primitive.arity else primitive.vjps(len(values) - 2)
    edges = []
    for i, operand in wanted:
        vjp = vjps[i]
        if vjp is None:
            continue
        c = vjp(*values, **params) if params else vjp(*values)
        like = operand._array
        if type(c) is not _ndarray or c.shape != like.shape or c.dtype is not like.dtype:
            if c is None:
                continue
            c = fitted(c, node, i, operand, like=g)
        edges.append((i, operand, c))
    return edges

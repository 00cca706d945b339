"""A JAX function as our graph: the operations that JAX records of it (its jaxpr) run by our table.

What depends on no Tensor is computed by JAX. An operation that only moves elements is asked where
each came from, and becomes an index. One that the table lacks stays JAX's: a node of its name, with
JAX's own vjp. Loops and branches are followed as the numbers at hand have it.
"""

from __future__ import annotations

import importlib
import inspect
import string
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from tinygrad_sm.engine import more, rules, shapes
from tinygrad_sm.engine.primitive import Primitive
from tinygrad_sm.engine.scopes import group
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, shown

Params = Mapping[str, Any]

# What each operation of JAX is here: called with its parameters, then its arguments ---------------


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, x: function(x, axis=tuple(int(i) for i in params["axes"]))


def _positive(params: Params, x: Any) -> Any:
    """|x|, which is x where all are positive: logsumexp asks for it of a sum of exponentials."""
    return x if (_values(x) > 0).all() else rules.abs(x)


def _extreme(function: Callable[..., Any], neutral: float) -> Callable[..., Any]:
    """max(x, −inf) and min(x, inf) are x."""

    def rule(params: Params, x: Any, y: Any) -> Any:
        for one, other in ((x, y), (y, x)):
            if not isinstance(one, Tensor) and np.ndim(one) == 0 and one == neutral:
                return other
        return function(x, y)

    return rule


def _chosen(params: Params, which: Any, *cases: Any) -> Any:
    """The case whose number `which` says, element by element; a truth value says 0 or 1."""
    number = np.asarray(which).astype(int)
    for i, case in enumerate(cases):
        if (number == i).all():
            return case
    found = cases[0]
    for i, case in enumerate(cases[1:], 1):
        found = rules.where(number == i, case, found)
    return found


def _spread_out(params: Params, x: Any, *rest: Any) -> Any:
    shape = tuple(params["shape"])
    kept = [1] * len(shape)
    for axis, n in zip(params["broadcast_dimensions"], x.shape, strict=True):
        kept[axis] = n
    x = x if x.shape == tuple(kept) else shapes.reshape(x, tuple(kept))
    return x if x.shape == shape else shapes.broadcast_to(x, shape)


def _converted(params: Params, x: Any) -> Any:
    dtype = np.dtype(params["new_dtype"])
    if dtype.kind != "f":
        raise InvalidTypeError(f"from_jax: f computes in {dtype}, which NumPy does not have")
    return x if x.dtype == dtype else shapes.astype(x, dtype)


def _sliced(params: Params, x: Any) -> Any:
    steps = params["strides"] or [1] * x.ndim
    return x[tuple(map(slice, params["start_indices"], params["limit_indices"], steps))]


def _multiplied(params: Params, x: Any, y: Any) -> Any:
    """Any product of matrices, in the words of einsum; of two plain ones, in its own.

    Where it only adds up products of elements, as a loss does, it is written so.
    """
    (over_x, over_y), (batch_x, batch_y) = params["dimension_numbers"]
    if (x.ndim, y.ndim, tuple(over_x), tuple(over_y)) == (2, 2, (1,), (0,)):
        return x @ y
    letters = iter(string.ascii_letters)
    of_x, of_y = [next(letters) for _ in x.shape], [next(letters) for _ in y.shape]
    for i, j in zip([*over_x, *batch_x], [*over_y, *batch_y], strict=True):
        of_y[j] = of_x[i]
    if of_x == of_y and list(batch_x) == sorted(batch_x):
        return rules.sum(x * y, axis=tuple(over_x))
    batch = [of_x[i] for i in batch_x]
    free = [c for c in [*of_x, *of_y] if (c in of_x) != (c in of_y)]
    return more.einsum(f"{''.join(of_x)},{''.join(of_y)}->{''.join(batch + free)}", x, y)


def _running_sum(params: Params, x: Any) -> Any:
    axis = params["axis"]
    if not params["reverse"]:
        return more.cumsum(x, axis=axis)
    return more.flip(more.cumsum(more.flip(x, axis=axis), axis=axis), axis=axis)


RULES: dict[str, Callable[..., Any]] = {
    "abs": _positive,
    "broadcast_in_dim": _spread_out,
    "clamp": lambda params, low, x, high: more.clip(x, low, high),
    "concatenate": lambda params, *xs: shapes.concatenate(xs, axis=params["dimension"]),
    "convert_element_type": _converted,
    "copy": lambda params, x: x,
    "cumsum": _running_sum,
    "dot_general": _multiplied,
    "integer_pow": lambda params, x: x * x if params["y"] == 2 else x ** params["y"],
    "max": _extreme(rules.maximum, -np.inf),
    "min": _extreme(rules.minimum, np.inf),
    "reduce_max": _reduced(rules.max),
    "reduce_min": _reduced(more.min),
    "reduce_prod": _reduced(more.prod),
    "reduce_sum": _reduced(rules.sum),
    "reshape": lambda params, x: shapes.reshape(x, tuple(params["new_sizes"])),
    "rsqrt": lambda params, x: 1 / rules.sqrt(x),
    "select_n": _chosen,
    "slice": _sliced,
    "square": lambda params, x: x * x,
    "squeeze": lambda params, x: more.squeeze(x, axis=tuple(map(int, params["dimensions"]))),
    "transpose": lambda params, x: shapes.transpose(x, tuple(params["permutation"])),
}
"""Operations that have a rule here, called with their parameters and then their arguments."""
SAME: dict[str, Callable[..., Any]] = {
    "add": rules.add, "add_any": rules.add, "sub": rules.sub, "mul": rules.mul,
    "div": rules.div, "neg": rules.neg, "pow": rules.pow, "exp": rules.exp, "log": rules.log,
    "log1p": rules.log1p, "sqrt": rules.sqrt, "tanh": rules.tanh, "logistic": rules.sigmoid,
    "exp2": more.exp2, "expm1": more.expm1, "sin": more.sin, "cos": more.cos, "tan": more.tan,
    "asin": more.arcsin, "acos": more.arccos, "atan": more.arctan, "atan2": more.arctan2,
    "sinh": more.sinh, "cosh": more.cosh, "asinh": more.arcsinh, "acosh": more.arccosh,
    "atanh": more.arctanh, "logaddexp": more.logaddexp,
}  # fmt: skip
"""Operations that are rows of the table, by JAX's name."""
CUSTOM: dict[str, Callable[..., Any]] = {"relu": rules.relu}
"""Functions whose derivative JAX is told apart: its relu has the slope 0 at 0."""
MOVES = {"dynamic_slice", "gather", "pad", "rev", "split"}
"""Operations that only move elements of their first argument."""
PLACES = 2**24
"""Elements from which on float32 does not number each."""


# Following a jaxpr --------------------------------------------------------------------------------


def _values(x: Any) -> Any:
    return x.numpy() if isinstance(x, Tensor) else x


def _followed(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Run the operations of a jaxpr on Tensors and arrays; what it returns."""
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if hasattr(variable, "val") else known[variable]

    for equation in jaxpr.eqns:
        given = [read(variable) for variable in equation.invars]
        known.update(zip(equation.outvars, _done(equation, given), strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _closed(jaxpr: Any, args: Sequence[Any]) -> list[Any]:
    """`_followed`, of a jaxpr with its constants."""
    return _followed(getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ()), args)


def _done(equation: Any, args: list[Any]) -> list[Any]:
    """What one operation makes of its arguments."""
    name, params = equation.primitive.name, equation.params
    if not any(isinstance(x, Tensor) for x in args):
        return _by_jax(equation)(*args)
    if name in ("cond", "while", "scan"):
        return FLOW[name](params, args)
    inner = params.get("jaxpr") or params.get("call_jaxpr")
    if inner is not None and not name.startswith("custom_vjp"):
        called = params.get("name", "_")
        if called in CUSTOM and len(args) == 1:
            return [CUSTOM[called](*args)]
        with nullcontext() if called.startswith(("_", "<")) else group(called):
            return _closed(inner, args)
    floating = [out.aval.dtype.kind not in "biu" for out in equation.outvars]
    if name == "stop_gradient" or not any(floating):
        return _by_jax(equation)(*map(_values, args))
    ours = [x if isinstance(x, Tensor) else np.asarray(x) for x in args]
    if name in RULES or name in SAME:
        return [RULES[name](params, *ours) if name in RULES else SAME[name](*ours)]
    if name in MOVES and isinstance(args[0], Tensor) and args[0].size < PLACES:
        return _moved(equation, ours)
    return [
        _row(equation, i)(*ours) if floats else _by_jax(equation)(*map(_values, args))[i]
        for i, floats in enumerate(floating)
    ]


def _branch(params: Params, args: list[Any]) -> list[Any]:
    which, *rest = args
    return _closed(params["branches"][int(_values(which))], rest)


def _loop(params: Params, args: list[Any]) -> list[Any]:
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    test, body, carry = args[:first], args[first:second], args[second:]
    while _values(_closed(params["cond_jaxpr"], [*test, *carry])[0]):
        carry = _closed(params["body_jaxpr"], [*body, *carry])
    return carry


def _scan(params: Params, args: list[Any]) -> list[Any]:
    first, second = params["num_consts"], params["num_consts"] + params["num_carry"]
    consts, carry, rows = args[:first], args[first:second], args[second:]
    found: list[list[Any]] = []
    numbers = range(params["length"])
    for i in reversed(numbers) if params["reverse"] else numbers:
        done = _closed(params["jaxpr"], [*consts, *carry, *[x[i] for x in rows]])
        carry = done[: second - first]
        found.append(done[second - first :])
    stacks = zip(*(reversed(found) if params["reverse"] else found), strict=True)
    return [*carry, *[shapes.stack(list(each)) for each in stacks]]


FLOW = {"cond": _branch, "while": _loop, "scan": _scan}


# Operations that stay JAX's -----------------------------------------------------------------------


def _by_jax(equation: Any) -> Callable[..., list[Any]]:
    """One operation alone, as JAX computes it."""
    primitive = equation.primitive
    params = primitive.get_bind_params(equation.params)

    def run(*args: Any) -> list[Any]:
        found = primitive.bind(*args, **params)
        return list(found) if primitive.multiple_results else [found]

    return run


def _moved(equation: Any, args: list[Any]) -> list[Any]:
    """What picks elements, as an index: JAX moves their numbers, and NaN where it fills."""
    x, *rest = args
    params, numbered = equation.params, np.arange(x.size, dtype=np.float32).reshape(x.shape)
    fill = params.get("fill_value")
    if equation.primitive.name == "gather":
        equation = equation.replace(params={**params, "fill_value": np.nan})
    elif equation.primitive.name == "pad":
        fill, rest = rest[0], [np.float32(np.nan)]
    return [
        _picked(x, np.asarray(places), np.nan if fill is None else fill)
        for places in _by_jax(equation)(numbered, *rest)
    ]


def _picked(x: Any, places: np.ndarray, fill: Any) -> Any:
    """Elements of x by their number; `fill` where there is no number."""
    filled = np.isnan(places)
    numbers = np.where(filled, 0, places).astype(np.intp)
    if np.array_equal(numbers.ravel(), np.arange(x.size)) and not filled.any():
        return shapes.reshape(x, places.shape)
    flat = numbers[tuple(0 if n == 1 else slice(None) for n in places.shape)]
    found = shapes.reshape(x[np.unravel_index(flat, x.shape)], places.shape)
    return rules.where(filled, fill, found) if filled.any() else found


def _row(equation: Any, i: int) -> Primitive:
    """The i-th result of an operation as a primitive of its name, differentiated by JAX."""
    jax = importlib.import_module("jax")
    run = _by_jax(equation)
    name = equation.params.get("name") or equation.primitive.name
    if name.startswith("custom_vjp"):
        name = equation.params["call_jaxpr"].jaxpr.debug_info.func_name

    def forward(*args: Any) -> np.ndarray:
        return np.asarray(run(*args)[i])

    def vjp(k: int, g: Any, out: Any, *args: Any) -> Any:
        if isinstance(g, Tensor) or any(isinstance(x, Tensor) for x in args):
            raise InvalidTypeError(
                f"from_jax: {name} has no second derivative here, since its vjp is JAX's own"
            )
        _, pull = jax.vjp(lambda x: run(*args[:k], x, *args[k + 1 :])[i], args[k])
        return np.asarray(pull(jax.numpy.asarray(g, out.dtype))[0])

    return Primitive(
        name, forward, (vjp,), variadic=True, integers=True,
        kind=None, linear=False, analytic=False, notation=None,
    )  # fmt: skip


# What users call ----------------------------------------------------------------------------------


def from_jax(f: Callable[..., Any], *args: Any) -> Tensor:
    """Return what a JAX function computes as the output of a graph of ours.

    The graph can be differentiated, drawn, diagnosed and searched for the loss like any other:
    ``tg.fuse(tg.from_jax(loss, logits))``. Operations inside a jitted function are a group of its
    name. A rule of `jax.custom_vjp` is kept, as a node of its own; of `jax.custom_jvp` the
    operations are shown, and differentiated as they stand.

    Args:
        f: a function that `jax.grad` could take: it returns one floating-point array.
        args: its arguments, arrays or trees of them (dicts, lists, …). A Tensor is a leaf as it
            is; other arrays of floats become leaves, named as in `f`. They are computed with in
            the dtype that JAX gives them: float32, unless JAX is told otherwise.

    Raises:
        InvalidTypeError: JAX is missing, `f` is no function, an argument is no array, or `f`
            returns no floating-point array or computes in a dtype that NumPy does not have.
        InvalidValueError: what `f` returns does not depend on the arrays of floats.

    Example:
        >>> import jax, numpy as np
        >>> def loss(logits):
        ...     return -jax.nn.log_softmax(logits)[0]
        >>> L = from_jax(loss, np.array([2.0, 1.0, 0.1]))
        >>> L.backward()
    """
    try:
        jax = importlib.import_module("jax")
    except ImportError as error:
        raise InvalidTypeError(
            "from_jax needs the package jax, which is not installed: "
            "python -m pip install 'tinygrad_sm[jax]'"
        ) from error
    if not callable(f):
        raise InvalidTypeError(f"from_jax: f must be a function of JAX's arrays; got {shown(f)}")
    given, tree = jax.tree_util.tree_flatten_with_path(args)
    arrays = [np.asarray(_values(x)) for _, x in given]
    for array in arrays:
        if array.dtype.kind not in "biuf":
            raise InvalidTypeError(
                f"from_jax: args must be arrays of real numbers; got one of dtype {array.dtype}"
            )
    placed = jax.tree_util.tree_unflatten(tree, arrays)
    closed, out = jax.make_jaxpr(f, return_shape=True)(*placed)
    outputs = jax.tree_util.tree_leaves(out)
    if len(outputs) != 1 or np.dtype(outputs[0].dtype).kind != "f":
        kinds = ", ".join(str(x.dtype) for x in outputs) or "nothing"
        raise InvalidTypeError(f"from_jax: f must return one array of floats; it returns {kinds}")
    names = _argument_names(f, len(args))
    leaves = [
        x if isinstance(x, Tensor) else _leaf(array, variable.aval.dtype, names[path[0].idx], path)
        for (path, x), array, variable in zip(given, arrays, closed.jaxpr.invars, strict=True)
    ]
    (found,) = _closed(closed, leaves)
    if not isinstance(found, Tensor):
        raise InvalidValueError(
            "from_jax: what f returns must depend on an argument that is an array of floats"
        )
    return found


def _leaf(array: np.ndarray, dtype: Any, name: str, path: Any) -> Any:
    """An argument: a Tensor, if it holds floats."""
    if dtype.kind != "f":
        return array.astype(dtype)
    keystr = importlib.import_module("jax").tree_util.keystr
    return Tensor(array.astype(dtype), name=name + keystr(path[1:]))


def _argument_names(f: Callable[..., Any], count: int) -> list[str]:
    """The names that a function gives its first arguments; numbers for what it does not name."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    named = [x.name for x in parameters if x.kind is not x.VAR_POSITIONAL][:count]
    return named + [f"argument {i + 1}" for i in range(len(named), count)]

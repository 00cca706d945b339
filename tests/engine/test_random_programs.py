"""Random graphs of all primitives, against finite differences and against torch."""

from dataclasses import dataclass
from typing import Any

import finite_differences as fd
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices, broadcastable_shapes

import tinygrad_sm as tg
from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine import shapes
from tinygrad_sm.engine.primitive import TABLE

# Programs: a list of steps, each an operation on values made before -------------------------------


@dataclass
class Step:
    op: str
    inputs: tuple[int, ...]
    params: dict[str, Any]
    constant: Any = None  # a condition or indices

    def run(self, values, ops):
        arrays = [values[i] for i in self.inputs]
        if self.op == "where":
            return ops["where"](self.constant, *arrays)
        if self.op == "take_along_axis":
            return ops["take_along_axis"](arrays[0], self.constant, **self.params)
        return ops[self.op](*arrays, **self.params)


@dataclass
class Program:
    leaves: list[np.ndarray]
    steps: list[Step]

    def run(self, leaves, ops):
        """All values, the last being the program's result."""
        values = list(leaves)
        for step in self.steps:
            values.append(step.run(values, ops))
        return values


# Operations kept in the range where finite differences are good: no overflow, no poles
BOUNDED = {
    "exp": lambda x: p.exp(p.tanh(x)),
    "log": lambda x: p.log(p.exp(p.tanh(x)) + 0.5),
    "log1p": lambda x: p.log1p(p.tanh(x) * p.tanh(x)),
    "sqrt": lambda x: p.sqrt(1 + p.tanh(x) * p.tanh(x)),
    "div": lambda x, y: x / (1.5 + p.tanh(y)),
    "pow": lambda x, y: (1.5 + p.tanh(x)) ** p.tanh(y),
}
UNARY = ["neg", "exp", "log", "log1p", "sqrt", "tanh", "sigmoid", "relu", "abs"]
BINARY = ["add", "sub", "mul", "div", "pow", "maximum", "minimum"]
SHAPING = ["reshape", "transpose", "broadcast_to", "getitem", "scatter", "take_along_axis"]
REDUCING = ["sum", "mean", "max"]
JOINING = ["concatenate", "where", "matmul"]
OPS = [*UNARY, *BINARY, *SHAPING, *REDUCING, *JOINING]
TENSOR_OPS = {name: BOUNDED.get(name, TABLE[name]) for name in OPS}


def test_random_graphs_draw_every_primitive():
    assert set(OPS) | {"astype"} == {
        n for n, row in TABLE.items() if row in [*vars(p).values(), *vars(shapes).values()]
    }


@st.composite
def numbers(draw, shape):
    """Generic numbers, so that ties and kinks have probability zero."""
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).normal(size=shape)


def axes_of(draw, shape):
    ndim = len(shape)
    axes = st.none() if ndim == 0 else st.one_of(
        st.none(),
        st.integers(-ndim, ndim - 1),
        st.lists(st.integers(0, ndim - 1), unique=True, max_size=ndim).map(tuple),
    )  # fmt: skip
    return {"axis": draw(axes), "keepdims": draw(st.booleans())}


def shaping(draw, op, i, shape):
    ndim = len(shape)
    if op == "reshape":
        to = draw(st.sampled_from([(-1,), (*shape, 1), (1, *shape), shape[::-1]]))
        return Step(op, (i,), {"shape": to if 0 not in shape or -1 not in to else (0,)})
    if op == "transpose":
        axes = draw(st.one_of(st.none(), st.permutations(range(ndim)).map(tuple)))
        return Step(op, (i,), {"axes": axes})
    if op == "broadcast_to":
        lead = draw(st.lists(st.integers(0, 2), max_size=1))
        return Step(op, (i,), {"shape": (*lead, *(draw(st.integers(0, 3)) if n == 1 else n
                                                  for n in shape))})  # fmt: skip
    if op == "getitem":
        if ndim and shape[0] and draw(st.booleans()):
            rows = draw(st.lists(st.integers(-shape[0], shape[0] - 1), max_size=4))
            return Step(op, (i,), {"index": np.array(rows, np.intp)})
        return Step(op, (i,), {"index": draw(basic_indices(shape, allow_newaxis=True))})
    if op == "scatter":
        n = shape[0] if ndim else 0
        if not ndim:
            return Step(op, (i,), {"index": (1,), "shape": (3,)})
        rows = draw(st.lists(st.integers(-3, 2), min_size=n, max_size=n))
        return Step(op, (i,), {"index": np.array(rows, np.intp), "shape": (3, *shape[1:])})
    if not ndim or 0 in shape:
        return Step("neg", (i,), {})
    axis = draw(st.integers(-ndim, ndim - 1))
    picks = list(shape)
    picks[axis] = draw(st.integers(0, 3))
    size = int(np.prod(picks))
    flat = draw(st.lists(st.integers(0, shape[axis] - 1), min_size=size, max_size=size))
    return Step(op, (i,), {"axis": axis}, np.array(flat, np.intp).reshape(picks))


def joining(draw, op, shapes, i):
    shape = shapes[i]
    same = [j for j, other in enumerate(shapes) if other == shape]
    if op == "concatenate" and shape:
        others = draw(st.lists(st.sampled_from(same), min_size=1, max_size=3))
        axis = draw(st.integers(-len(shape), len(shape) - 1))
        return Step("_join", (i, *others), {"axis": axis})
    if op == "matmul" and shape:
        fits = [j for j, other in enumerate(shapes) if len(other) in (1, 2)
                and other[0] == shape[-1]]  # fmt: skip
        if fits:
            return Step(op, (i, draw(st.sampled_from(fits))), {})
    mask = np.array(draw(st.lists(st.booleans(), min_size=max(1, int(np.prod(shape))),
                                  max_size=max(1, int(np.prod(shape))))))  # fmt: skip
    mask = mask[: int(np.prod(shape))].reshape(shape)
    return Step("where", (i, draw(st.sampled_from(same))), {}, mask)


@st.composite
def programs(draw):
    shape = draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    leaf_shapes = [shape]
    others = st.lists(broadcastable_shapes(shape, max_dims=3, max_side=3), max_size=2)
    leaf_shapes += draw(others)
    leaves = [draw(numbers(s)) for s in leaf_shapes]
    program = Program(leaves, [])
    shapes = [a.shape for a in leaves]
    values = [np.zeros(s) for s in shapes]
    for _ in range(draw(st.integers(1, 8))):
        i = draw(st.integers(0, len(shapes) - 1))
        op = draw(st.sampled_from(OPS))
        if op in UNARY:
            step = Step(op, (i,), {})
        elif op in SHAPING:
            step = shaping(draw, op, i, shapes[i])
        elif op in REDUCING:
            step = Step("sum" if 0 in shapes[i] else op, (i,), axes_of(draw, shapes[i]))
        elif op in JOINING:
            step = joining(draw, op, shapes, i)
        else:
            fits = [j for j, s in enumerate(shapes) if fit(shapes[i], s)]
            step = Step(op, (i, draw(st.sampled_from(fits))), {})
        with np.errstate(all="ignore"):
            value = np.asarray(step.run(values, PLAIN))
        if value.size > 200:
            continue
        program.steps.append(step)
        shapes.append(value.shape)
        values.append(value)
    return program


def fit(a, b):
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return False
    return True


PLAIN = TENSOR_OPS | {"_join": lambda *xs, axis: tg.concatenate(xs, axis=axis)}


def result(values):
    """Every value takes part in the result, so that no step is idle."""
    return sum(((v * v).sum() * 0.1 + v.sum() for v in values), 0 * values[0].sum())


# Against finite differences -----------------------------------------------------------------------


@given(programs(), st.sampled_from([np.float64, np.float32]))
def test_against_finite_differences(program, dtype):
    leaves = [tg.Tensor(a, dtype=dtype) for a in program.leaves]
    values = program.run(leaves, PLAIN)
    assert all(v.dtype == dtype for v in values)
    grads = tg.grad(result(values), leaves, allow_unused=True)
    longs = [a.numpy().astype(fd.LONG) for a in leaves]
    for g, x in zip(grads, leaves, strict=True):
        assert (g.shape, g.dtype) == (x.shape, x.dtype)

    steps = [np.cos(np.arange(a.size)).reshape(a.shape) for a in longs]
    found = sum(np.sum(g.astype(float) * s) for g, s in zip(grads, steps, strict=True))
    f = lambda *xs: result(program.run(xs, PLAIN))  # noqa: E731
    expected = fd.along(f, longs, steps)
    scale = 1 + sum(np.sum(np.abs(g)) for g in grads)
    slack = 1e3 * float(np.finfo(dtype).eps) * size_of(values)
    if has_kinks(program):  # a kink within the step is rare, and no error of the engine
        sides = [one_sided(f, longs, steps, sign) for sign in (1, -1)]
        slack += abs(sides[0] - sides[1]) if abs(sides[0] - sides[1]) > 1e-2 * scale else 0
    assert abs(found - expected) <= 1e-7 * scale + slack


def size_of(values):
    return 1 + sum(float(np.sum(np.abs(v.numpy()) ** 2)) for v in values)


def has_kinks(program):
    return any(s.op in ("relu", "abs", "max", "maximum", "minimum") for s in program.steps)


def one_sided(f, arrays, steps, sign):
    h = fd.LONG(sign) * fd.EPS ** (1 / 5)
    moved = [a + h * s for a, s in zip(arrays, steps, strict=True)]
    return float((f(*moved) - f(*arrays)) / h)


@given(programs())
def test_second_derivatives_against_differences_of_gradients(program):
    if has_kinks(program):
        return
    steps = [np.sin(1 + np.arange(a.size)).reshape(a.shape) for a in program.leaves]

    def slope(arrays, create_graph):
        leaves = [tg.Tensor(a) for a in arrays]
        grads = tg.grad(
            result(program.run(leaves, PLAIN)), leaves, create_graph=create_graph, allow_unused=True
        )
        return leaves, sum(((g * s).sum() for g, s in zip(grads, steps, strict=True)), 0.0)

    leaves, along = slope(program.leaves, True)
    second = (
        tg.grad(along, leaves, allow_unused=True)
        if along.requires_grad
        else [np.zeros(a.shape) for a in leaves]
    )
    found = sum(np.sum(h * s) for h, s in zip(second, steps, strict=True))
    h = 1e-4
    ends = [
        slope([a + t * s for a, s in zip(program.leaves, steps, strict=True)], False)[1]
        for t in (2 * h, h, -h, -2 * h)
    ]
    expected = (8 * (ends[1] - ends[2]) - (ends[0] - ends[3])) / (12 * h)
    size = 1 + max(abs(e) for e in ends) + sum(np.sum(np.abs(x)) for x in second)
    assert abs(found - expected) <= 1e-6 * size


@given(programs())
def test_contributions_add_up_to_the_cotangent(program):
    leaves = [tg.Tensor(a) for a in program.leaves]
    out = result(program.run(leaves, PLAIN))
    trace = out.backward(trace=True)
    for step in trace.steps:
        tensor = step.node.tensor
        values = [c.value for c in trace.contributions(tensor)]
        assert all(v.shape == tensor.shape for v in values)
        if tensor is not out:
            np.testing.assert_allclose(sum(values[1:], values[0]), step.cotangent, atol=1e-300)
        np.testing.assert_array_equal(tensor.grad, step.cotangent)
    for x in leaves:
        np.testing.assert_array_equal(x.grad, tg.grad(out, x))
    ids = [step.node.id for step in trace.steps]
    assert ids == sorted(ids, reverse=True)


@given(programs())
def test_a_second_backward_doubles(program):
    leaves = [tg.Tensor(a) for a in program.leaves]
    out = result(program.run(leaves, PLAIN))
    out.backward()
    tensors = [n.tensor for n in tg.graph(out).nodes if n.tensor is not None]
    once = [None if t.grad is None else t.grad.copy() for t in tensors]
    out.backward()
    for t, g in zip(tensors, once, strict=True):
        if g is not None:
            np.testing.assert_array_equal(t.grad, 2 * g)


# Against torch ------------------------------------------------------------------------------------


def torch_ops(torch):
    def reduced(name):
        def run(x, axis=None, keepdims=False):
            axes = tuple(range(x.ndim)) if axis is None else axis
            axes = (axes,) if isinstance(axes, int) else axes
            if not axes:
                return x * 1
            function = torch.amax if name == "max" else getattr(torch, name)
            return function(x, dim=axes, keepdim=keepdims)

        return run

    def scattered(x, index, shape):
        z = torch.zeros(shape, dtype=x.dtype)
        rows = torch.as_tensor(np.asarray(index[0] if isinstance(index, tuple) else index) % 3)
        return z.index_put((rows,), x, accumulate=True)

    def picked(x, index):
        """NumPy's basic indexing, for steps below zero too: by the positions that it reads."""
        flat = np.arange(x.numel()).reshape(tuple(x.shape))[index]
        return x.reshape(-1)[torch.as_tensor(np.array(flat, order="C"))].reshape(np.shape(flat))

    bounded = lambda x: torch.tanh(x)  # noqa: E731
    return {
        "add": torch.add, "sub": torch.sub, "mul": torch.mul, "neg": torch.neg,
        "maximum": torch.maximum, "minimum": torch.minimum, "tanh": torch.tanh,
        "sigmoid": torch.sigmoid, "relu": torch.relu, "abs": torch.abs,
        "exp": lambda x: torch.exp(bounded(x)),
        "log": lambda x: torch.log(torch.exp(bounded(x)) + 0.5),
        "log1p": lambda x: torch.log1p(bounded(x) * bounded(x)),
        "sqrt": lambda x: torch.sqrt(1 + bounded(x) * bounded(x)),
        "div": lambda x, y: x / (1.5 + bounded(y)),
        "pow": lambda x, y: (1.5 + bounded(x)) ** bounded(y),
        "sum": reduced("sum"), "mean": reduced("mean"), "max": reduced("max"),
        "reshape": lambda x, shape: x.reshape(shape),
        "transpose": lambda x, axes: x.permute(axes or tuple(range(x.ndim))[::-1]),
        "broadcast_to": lambda x, shape: torch.broadcast_to(x, shape),
        "getitem": picked, "scatter": scattered, "matmul": torch.matmul,
        "take_along_axis": lambda x, i, axis: torch.take_along_dim(x, torch.as_tensor(i), axis),
        "where": lambda c, x, y: torch.where(torch.as_tensor(c), x, y),
        "_join": lambda *xs, axis: torch.cat(xs, dim=axis),
    }  # fmt: skip


@given(programs())
def test_against_torch(program):
    torch = pytest.importorskip("torch")
    leaves = [tg.Tensor(a) for a in program.leaves]
    values = program.run(leaves, PLAIN)
    grads = tg.grad(result(values), leaves, allow_unused=True)
    theirs = [torch.tensor(a, requires_grad=True) for a in program.leaves]
    their_values = program.run(theirs, torch_ops(torch))
    for v, w in zip(values, their_values, strict=True):
        np.testing.assert_allclose(v.numpy(), w.detach().numpy(), rtol=1e-9, atol=1e-9)
    total = result(their_values)
    their_grads = torch.autograd.grad(total, theirs)
    scale = size_of(values)
    for g, h in zip(grads, their_grads, strict=True):
        np.testing.assert_allclose(g, h.numpy(), rtol=1e-9, atol=1e-12 * scale)

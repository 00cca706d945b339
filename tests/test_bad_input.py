"""Bad input: each call is one exception of a fitting type, with one sentence. Add rows at will."""

import numpy as np
import pytest

import tinygrad_sm as tg


def x(*shape):
    return tg.Tensor(np.ones(shape or (2, 3)), name="x")


def assign(t, **attributes):
    for name, value in attributes.items():
        setattr(t, name, value)


def define(*args, **kwargs):
    tg.def_primitive("never defined", *args, **kwargs)


def loss(**options):
    return tg.cross_entropy(x(), [0, 1], **options)


ENGINE = [
    # what a Tensor is made of
    ("a name that is no text", lambda: tg.Tensor(1.0, name=5), TypeError, "name must be text"),
    ("a group that is no text", lambda: tg.group(3).__enter__(), TypeError, "name must be text"),
    ("jacobian of no function", lambda: tg.jacobian(3, 1.0), TypeError, "f must be a function"),
    ("hessian of no function", lambda: tg.hessian(3, 1.0), TypeError, "f must be a function"),
    ("concatenate a number", lambda: tg.concatenate(3), TypeError, "must be a sequence"),
    ("concatenate a scalar", lambda: tg.concatenate(tg.Tensor(1.0)), TypeError, "be a sequence"),
    ("layer option", lambda: tg.SoftmaxWithLoss(foo=1), TypeError, "'foo' is none of them"),
    ("ragged lists", lambda: tg.Tensor([[1, 2], [3]]), ValueError, "data must be rectangular"),
    ("text", lambda: tg.Tensor("abc"), TypeError, "data must be real numbers; got str 'abc'"),
    ("list of text", lambda: tg.Tensor(["1", "2"]), TypeError, "data must be real numbers"),
    ("None", lambda: tg.Tensor(None), TypeError, "objects made from NoneType"),
    ("an object", lambda: tg.Tensor(object()), TypeError, "data must be real numbers"),
    ("a dict", lambda: tg.Tensor({"a": 1}), TypeError, "objects made from dict"),
    ("list with None", lambda: tg.Tensor([1.0, None]), TypeError, "objects made from list"),
    ("complex", lambda: tg.Tensor([1j]), TypeError, "data must be real numbers"),
    ("dates", lambda: tg.Tensor(np.array(["2020"], "M8[Y]")), TypeError, "dtype datetime64"),
    ("list of Tensors", lambda: tg.Tensor([x(), x()]), TypeError, "the gradient would be lost"),
    ("integer dtype", lambda: tg.Tensor(1, dtype=int), TypeError, "dtype must be a floating-point"),
    ("unknown dtype", lambda: tg.Tensor(1, dtype="f99"), TypeError, "dtype must be .* got 'f99'"),
    ("astype integer", lambda: x().astype(int), TypeError, "dtype must be a floating-point"),
    # operands
    ("Tensor + text", lambda: x() + "a", TypeError, "add: argument 2 must be a number.* str 'a'"),
    ("None * Tensor", lambda: None * x(), TypeError, "mul: argument 1 must be .* NoneType None"),
    ("Tensor * complex", lambda: x() * 1j, TypeError, "mul: argument 2 must be .* complex 1j"),
    ("object array", lambda: x() * np.array([None]), TypeError, "an array of dtype object"),
    ("ragged operand", lambda: x() - [[1], [2, 3]], ValueError, "argument 2 must be rectangular"),
    ("shapes", lambda: x() * np.ones(4), ValueError, r"mul of shape \(2, 3\), \(4,\) is not poss"),
    ("matmul shapes", lambda: x() @ np.ones(4), ValueError, r"matmul of shape \(2, 3\), \(4,\)"),
    ("matmul 0-d", lambda: x() @ 2.0, ValueError, r"matmul of shape \(2, 3\), \(\)"),
    ("truth of many", lambda: bool(x()), ValueError, "ambiguous"),
    ("length of 0-d", lambda: len(tg.Tensor(1.0)), TypeError, "unsized"),
    ("item of many", lambda: x().item(), ValueError, r"exactly one element; the shape is \(2, 3\)"),
    ("float of many", lambda: float(x()), ValueError, "exactly one element"),
    # parameters of operations
    ("too few arguments", lambda: tg.add(x()), TypeError, "add takes 2 array arguments, but 1 pos"),
    ("too many arguments", lambda: tg.exp(x(), x()), TypeError, "exp takes 1 array argument, but"),
    ("no arguments", lambda: tg.sum(), TypeError, "sum takes 1 array argument and the parameters"),
    ("unknown parameter", lambda: tg.sum(x(), axs=1), TypeError, "sum does not take .*'axs'.*axis"),
    ("parameter twice", lambda: tg.sum(x(), 1, axis=1), TypeError, "sum was given .* 'axis' twice"),
    ("missing parameter", lambda: tg.reshape(x()), TypeError, "missing .*'shape'"),
    ("axis out of range", lambda: x().sum(axis=2), ValueError, "axis 2 is out of bounds"),
    ("axis twice", lambda: x().sum(axis=(0, 0)), ValueError, "duplicate value in 'axis'"),
    ("fractional axis", lambda: x().mean(axis=0.5), TypeError, "mean of shape"),
    ("max of nothing", lambda: x(0, 3).max(), ValueError, "max of shape .*zero-size"),
    ("reshape", lambda: x().reshape(4), ValueError, r"cannot reshape array of size 6 .*\(4,\)"),
    ("transpose", lambda: x().transpose(0, 0), ValueError, "transpose of shape .*repeated axis"),
    ("broadcast_to", lambda: tg.broadcast_to(x(), (3, 2)), ValueError, "broadcast_to of shape"),
    ("concatenate none", lambda: tg.concatenate([]), ValueError, "concatenate: arrays is empty"),
    ("concatenate shapes", lambda: tg.concatenate([x(), x(2, 2)]), ValueError, "must match"),
    ("concatenate axis", lambda: tg.concatenate([x()], axis=None), TypeError, "concatenate of"),
    ("stack shapes", lambda: tg.stack([x(), x(2, 2)]), ValueError, "must match"),
    ("expand_dims", lambda: tg.expand_dims(x(), 7), ValueError, "axis must be an integer from -3"),
    ("expand_dims tuple", lambda: np.expand_dims(x(), (0, 1)), ValueError, "must be an integer"),
    ("where of two", lambda: tg.where(True, x()), TypeError, "where takes 3 array arguments"),
    ("take_along_axis", lambda: tg.take_along_axis(x(), np.zeros((2, 1))), IndexError, "integer"),
    ("flat take", lambda: tg.take_along_axis(x(), np.array([0]), None), TypeError, "take_along"),
    # indices
    ("index too large", lambda: x()[5], IndexError, "index 5 is out of bounds for axis 0"),
    ("too many indices", lambda: x()[0, 0, 0], IndexError, "too many indices"),
    ("index is text", lambda: x()["a"], IndexError, "getitem of shape"),
    ("index is a fraction", lambda: x()[0.5], IndexError, "getitem of shape"),
    ("index is a Tensor", lambda: x()[x()], TypeError, "an index must be .* got a Tensor"),
    ("index has a Tensor", lambda: x()[0, x()], TypeError, "an index must be .* got a Tensor"),
    ("ragged index", lambda: x()[[[0], [0, 1]]], ValueError, "an index must be rectangular"),
    ("mask of another shape", lambda: x()[np.ones(5, bool)], IndexError, "boolean index"),
    # data and grad
    ("data of a result", lambda: assign(x() * 2, data=0), TypeError, "by 'mul' cannot be set"),
    ("data shape", lambda: assign(x(), data=np.ones(3)), ValueError, r"keep the shape \(2, 3\)"),
    ("data is text", lambda: assign(x(), data="a"), TypeError, "data must be real numbers"),
    ("grad shape", lambda: assign(x(), grad=np.ones(3)), ValueError, "grad must have the data's"),
    ("grad is text", lambda: assign(x(), grad="a"), TypeError, "grad must be real numbers"),
    ("copy of a result", lambda: (x() * 2).__reduce__(), TypeError, "by 'mul' cannot be cop"),
    # backward, grad and the rest
    ("backward of many", lambda: x().backward(), ValueError, r"shape \(2, 3\) needs gradient"),
    ("backward of none", lambda: x(0).sum(axis=()).backward(), ValueError, "needs gradient"),
    ("gradient shape", lambda: x().backward(np.ones(2)), ValueError, r"output's shape \(2, 3\)"),
    ("gradient is text", lambda: x().backward("a"), TypeError, "gradient must be real numbers"),
    ("ragged gradient", lambda: x().backward([[1], [1, 2]]), ValueError, "gradient must be rect"),
    ("complex gradient", lambda: x().backward(1j), TypeError, "gradient must be real numbers"),
    ("backward of a constant", lambda: x().detach().backward(), TypeError, "requires_grad=True"),
    ("grad of an array", lambda: tg.grad(np.ones(1), x()), TypeError, "output must be a Tensor"),
    ("grad for an array", lambda: tg.grad(x().sum(), [1.0]), TypeError, "input 1 must be a"),
    ("grad for a number", lambda: tg.grad(x().sum(), 3), TypeError, "a Tensor or a sequence"),
    ("grad of many", lambda: tg.grad(x(), x()), ValueError, "needs gradient"),
    ("jacobian of an array", lambda: tg.jacobian(np.exp, "a"), TypeError, "real numbers"),
    ("jacobian, detached", lambda: tg.jacobian(lambda t: t.numpy(), 1.0), TypeError, "must return"),
    ("hessian of many", lambda: tg.hessian(tg.exp, [1.0, 2.0]), ValueError, "needs gradient"),
    ("graph of an array", lambda: tg.graph(np.ones(2)), TypeError, "must be a Tensor; got nd"),
    ("stranger in a graph", lambda: tg.graph(x()).node_of(x()), ValueError, "shape .* took no"),
    ("array in a graph", lambda: tg.graph(x()).node_of(1), TypeError, "must be a Tensor; got int"),
    ("name taken", lambda: tg.def_primitive("exp", np.exp, None), ValueError, "'exp' is taken"),
    ("no vjps", lambda: define(np.exp), TypeError, "needs a vjp for each argument"),
    ("name is no text", lambda: tg.def_primitive(3, np.exp, None), TypeError, "name must be a str"),
    ("no forward", lambda: define(3, None), TypeError, "forward of 'never defined' must be a func"),
    ("vjp is a number", lambda: define(np.exp, 3), TypeError, "vjp 0 of 'never .* None; got int"),
    ("two for all", lambda: define(np.exp, len, len, variadic=True), TypeError, "one vjp .*got 2"),
    ("none for all", lambda: define(np.exp, None, variadic=True), TypeError, "one vjp .* got None"),
    ("plus nothing", lambda: tg.Tensor(1.0) + None, TypeError, "add: argument 2 must be a number"),
    ("to no power", lambda: tg.Tensor(1.0) ** None, TypeError, "pow: argument 2 must be a number"),
    ("no such kind", lambda: define(np.exp, None, kind="x"), ValueError, "kind .* one of elementw"),
    ("compare longdouble", lambda: tg.compare(np.ones(3, "g"), 0), TypeError, "float16, float32"),
    ("no such form", lambda: tg.compare([1.0, 2.0], 0, form="x"), ValueError, "form must be one"),
    ("gradcheck of a number", lambda: tg.gradcheck(3, 1.0), TypeError, "must be a func.* got int"),
    ("no direction", lambda: tg.gradcheck(tg.exp, 1.0, directions=0), ValueError, "at least 1"),
    ("gradcheck order", lambda: tg.gradcheck(tg.exp, 1.0, order=3), ValueError, "must be 1 or 2"),
    ("gradcheck of integers", lambda: tg.gradcheck(tg.add, [1, 2]), TypeError, "no input can"),
    ("gradcheck, detached", lambda: tg.gradcheck(lambda t: t.numpy(), 1.0), TypeError, "ndarray"),
    ("gradcheck ragged", lambda: tg.gradcheck(tg.exp, [[[1.0], [1, 2]]]), ValueError, "rectang"),
]  # fmt: skip

HUGE = -(10**5000)  # Python prints no such number
ENGINE += [
    ("huge threads", lambda: tg.set_threads(HUGE), ValueError, "got an unprintable int"),
    ("huge axis", lambda: loss(axis=HUGE), ValueError, "axis must lie between -2 and 1"),
    ("huge temperature", lambda: loss(temperature=HUGE), ValueError, "must be positive and finite"),
    ("huge smoothing", lambda: loss(label_smoothing=HUGE), ValueError, r"must lie in \[0, 1\]"),
    ("huge order", lambda: tg.gradcheck(tg.exp, 1.0, order=HUGE), ValueError, "must be 1 or 2"),
    ("huge expand_dims", lambda: tg.expand_dims(x(), HUGE), ValueError, "must be an integer from"),
    ("huge chunk", lambda: tg.linear_cross_entropy(x(), x(), [0, 1], chunk_rows=HUGE), ValueError,
     "chunk_rows must be at least 1; got an unprintable int"),
    ("a long form", lambda: tg.compare([1.0], 0, form="x" * 10**6), ValueError, "x{79}…$"),
]  # fmt: skip

BUILT_IN = {"truth of many", "length of 0-d"}  # NumPy's and Python's own words


@pytest.mark.parametrize(
    ("call", "exception", "sentence"), [row[1:] for row in ENGINE], ids=[row[0] for row in ENGINE]
)
def test_bad_input(call, exception, sentence, request):
    with pytest.raises(exception, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)
    if request.node.callspec.id not in BUILT_IN:
        assert isinstance(caught.value, tg.TinygradError)


def test_ids_are_unique():
    ids = [row[0] for row in ENGINE]
    assert len(set(ids)) == len(ids)

"""Kinds of arrays: one that a user registers, and what is of no kind."""

import subprocess
import sys
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest

import tinygrad_sm as tg
import viz
from tinygrad_sm.arrays.kinds import KINDS
from tinygrad_sm.loss.composite import FORMS


class Counted(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that counts what NumPy is asked to do with it; any other that follows NEP 13, 18."""

    calls: ClassVar = Counter()

    def __init__(self, x):
        self.x = x

    def __getattr__(self, name):  # shape, dtype, astype…
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.x, name)

    def astype(self, dtype):
        return Counted(self.x.astype(dtype))

    def copy(self):
        return Counted(self.x.copy())

    def __getitem__(self, index):
        return Counted(self.x[bare(index)])

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if any(isinstance(x, tg.Tensor) for x in inputs):
            return NotImplemented
        self.calls[ufunc.__name__] += 1
        return Counted(getattr(ufunc, method)(*map(bare, inputs), **kwargs))

    def __array_function__(self, function, types, args, kwargs):
        self.calls[function.__name__] += 1
        found = function(*map(bare, args), **kwargs)
        return Counted(found) if isinstance(found, (np.ndarray, np.generic)) else found


def bare(x):
    if isinstance(x, (list, tuple)):
        return type(x)(map(bare, x))
    return x.x if isinstance(x, Counted) else x


@pytest.fixture(autouse=True)
def registered():
    """What the documentation shows: the kind of a user's own array."""

    class OfCounted(tg.Kind):
        name = "counted arrays"

        def plain(self, array):
            return array.x

        def show(self, array):
            return f"counted {array.x}"

        def pick(self, per_class, index):
            return Counted(per_class[index.x])

    before = dict(KINDS)
    tg.def_kind(Counted, OfCounted())
    Counted.calls.clear()
    yield
    KINDS.clear()
    KINDS.update(before)


ROWS = np.array([[2.0, 1.0, 0.1], [-1.0, 0.5, 3.0]])
SOFT = np.array([[1.0, 0.0, 0.0], [0.25, 0.5, 0.25]])
LOSSES = [pytest.param(lambda a, y, f=f, **o: tg.composite_cross_entropy(a, y, form=f, **o), id=f)
          for f in FORMS] + [pytest.param(tg.cross_entropy, id="fused")]  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", [
    {}, {"reduction": "sum"}, {"weight": [1.0, 2.0, 0.5], "label_smoothing": 0.1, "temperature": 2},
], ids=str)  # fmt: skip
def test_the_loss_of_a_users_array(loss, options):
    t, plain = tg.Tensor(Counted(ROWS)), tg.Tensor(ROWS)
    loss(t, SOFT, **options).backward()
    tg.cross_entropy(plain, SOFT, **options).backward()
    assert isinstance(t.grad, Counted)
    np.testing.assert_allclose(t.grad.x, plain.grad, rtol=1e-13, atol=1e-16)
    assert Counted.calls["exp"] >= 1


@pytest.mark.parametrize("loss", LOSSES)
def test_its_second_derivatives(loss):
    found = tg.hessian(lambda x: loss(x, SOFT), Counted(ROWS))
    right = tg.hessian(lambda x: tg.cross_entropy(x, SOFT), ROWS)
    np.testing.assert_allclose(found.x, right, atol=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
def test_labels_of_that_kind_as_lazy_ones_would_be(loss):
    t, plain = tg.Tensor(Counted(ROWS)), tg.Tensor(ROWS)
    options = {"weight": [1.0, 2.0, 0.5], "ignore_index": 5}
    value = tg.cross_entropy(t, Counted(np.array([2, 5])), **options)
    value.backward()
    right = tg.cross_entropy(plain, np.array([2, 5]), **options)
    right.backward()
    assert value.item() == pytest.approx(right.item(), rel=1e-14)
    np.testing.assert_allclose(t.grad.x, plain.grad, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", [SOFT, Counted(SOFT), Counted(np.array([2, 0]))], ids=str)
def test_its_loss_is_found_and_fused(form, target):
    t, plain = tg.Tensor(Counted(ROWS)), tg.Tensor(ROWS)
    found = tg.fuse(tg.composite_cross_entropy(t, target, form=form, reduction="sum"))
    assert "SoftmaxWithLoss" in [node.op for node in tg.graph(found.output).nodes]
    found.output.backward()
    tg.cross_entropy(plain, bare(target), reduction="sum").backward()
    np.testing.assert_allclose(t.grad.x, plain.grad, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("target", [np.array([2, 0]), SOFT], ids=["labels", "soft"])
def test_the_linear_layer_and_the_loss_with_its_gradient(target):
    weight = np.array([[1.0, 0.5, -1.0], [0.0, 2.0, 1.0], [-0.5, 0.25, 0.0]])
    t, w, plain = tg.Tensor(Counted(ROWS)), tg.Tensor(weight), tg.Tensor(ROWS)
    bias = [0.5, -0.5, 1.0]
    if target.ndim == 1:
        tg.linear_cross_entropy(t, w, target, bias=bias).backward()
        tg.linear_cross_entropy(plain, weight, target, bias=bias).backward()
        np.testing.assert_allclose(bare(t.grad), plain.grad, rtol=1e-13)
    loss, gradient = tg.cross_entropy_with_gradient(Counted(ROWS), target)
    right, expected = tg.cross_entropy_with_gradient(ROWS, target)
    assert loss.item() == pytest.approx(right.item(), rel=1e-14)
    np.testing.assert_allclose(gradient.x, expected, rtol=1e-13)
    layer = tg.SoftmaxWithLoss()
    layer.forward(Counted(ROWS), target)
    np.testing.assert_allclose(bare(layer.backward(2.0)), 2 * expected, rtol=1e-13)
    np.testing.assert_allclose(bare(layer.y), tg.softmax(ROWS), rtol=1e-13)


def change(t):
    with tg.no_grad():
        t -= 1.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (change, "data of a Tensor of counted arrays cannot be changed"),
        (lambda t: setattr(t, "data", ROWS), "data of a Tensor of counted arrays cannot be"),
        (lambda t: tg.compare(t, [0, 1]), "numbers of NumPy's.*got counted arrays"),
        (
            lambda t: tg.cross_entropy_with_gradient(t.data, [0, 1], out=ROWS.copy()),
            "out is for NumPy's logits; got Counted",
        ),
    ],
)
def test_what_only_numpys_arrays_can_is_refused(wrong, words):
    with pytest.raises(tg.TinygradError, match=words):
        wrong(tg.Tensor(Counted(ROWS)))


def test_how_it_is_shown_and_what_it_gives():
    t = tg.Tensor(Counted(np.array([1.0, 2.0])), name="c")
    y = (t * t).sum()
    assert repr(t) == "Tensor(counted [1. 2.], shape=(2,), dtype=float64, name='c')"
    assert isinstance(t.data, Counted)
    assert isinstance(y.data, Counted)
    assert type(t.numpy()) is np.ndarray
    assert y.item() == 5.0
    assert y.requires_grad
    assert "5" in viz.draw(y.backward(trace=True)).render("svg").decode()


def test_a_class_derived_from_it_is_of_the_kind():
    class More(Counted):
        pass

    t = tg.Tensor(More(np.ones(2)))
    tg.exp(t).sum().backward()
    np.testing.assert_allclose(t.grad.x, np.exp([1.0, 1.0]))


def test_an_own_way_to_run_a_primitive_and_its_vjp():
    class OfTenfold(tg.Kind):
        forwards = {"exp": lambda x: Counted(10 * x.x)}  # noqa: RUF012
        vjps = {"exp": (lambda g, y, x: g * 10.0,)}  # noqa: RUF012

    tg.def_kind(Counted, OfTenfold())
    t = tg.Tensor(Counted(np.ones(2)))
    y = tg.exp(t)
    y.sum().backward()
    assert list(y.data.x) == list(t.grad.x) == [10.0, 10.0]


def test_a_large_one_is_not_dealt_out():
    n = 2**19
    t = tg.Tensor(Counted(np.full(n, 2.0)))
    (t * t / (t + 1.0)).sum().backward()
    np.testing.assert_allclose(t.grad.x, np.full(n, 8 / 9))


@pytest.mark.parametrize(
    ("types", "kind", "words"),
    [
        (np.ndarray, tg.Kind(), "types must be classes of arrays"),
        (3, tg.Kind(), "types must be classes of arrays; got 3"),
        (Counted, tg.Kind, "kind must be a Kind; got type"),
    ],
)
def test_what_def_kind_refuses(types, kind, words):
    with pytest.raises(tg.TinygradError, match=words):
        tg.def_kind(types, kind)


def test_integers_and_others_of_a_kind():
    assert tg.Tensor(Counted(np.array([1, 2]))).dtype == np.float64
    assert tg.Tensor(Counted(np.ones(2)), dtype="float32").dtype == np.float32
    with pytest.raises(TypeError, match="real numbers; got counted arrays of dtype complex128"):
        tg.Tensor(Counted(np.array([1j])))


# What is of no kind -------------------------------------------------------------------------------


def test_what_cannot_be_read_is_one_sentence():
    class Foreign:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("it lives elsewhere")

    with pytest.raises(TypeError, match="data cannot be read as an array: it lives elsewhere"):
        tg.Tensor(Foreign())


def test_a_torch_tensor_that_requires_a_gradient():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"data requires a gradient of torch's.*detach"):
        tg.Tensor(torch.ones(2, requires_grad=True))
    assert tg.Tensor(torch.ones(2)).dtype == np.float32


def test_bfloat16_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"data must be .*bfloat16.*float32"):
        tg.Tensor(torch.ones(2, dtype=torch.bfloat16))


def test_numpys_bfloat16_is_refused():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(TypeError, match=r"data must be .*bfloat16"):
        tg.Tensor(np.ones(2, ml_dtypes.bfloat16))


def test_sparse_arrays_are_refused():
    sparse = pytest.importorskip("scipy.sparse")
    for make in (sparse.csr_matrix, sparse.coo_array):
        with pytest.raises(TypeError, match=r"data is sparse.*toarray"):
            tg.Tensor(make(np.eye(2)))
        with pytest.raises(TypeError, match=r"target is sparse.*toarray"):
            tg.cross_entropy(ROWS, make(SOFT))
        with pytest.raises(TypeError, match=r"argument 2 is sparse.*toarray"):
            tg.mul(tg.Tensor(np.ones((2, 2))), make(np.eye(2)))


def test_pydatas_sparse_arrays_are_refused():
    sparse = pytest.importorskip("sparse")
    with pytest.raises(TypeError, match=r"data is sparse.*todense"):
        tg.Tensor(sparse.COO(np.eye(2)))


def test_reductions_with_dtype_none_as_xarray_asks_for_them():
    t = tg.Tensor(ROWS)
    for total in (np.sum(t, dtype=None), t.sum(dtype=None), np.sum(t, axis=1, dtype=None).sum()):
        assert total.requires_grad
    xarray = pytest.importorskip("xarray")
    inside = xarray.DataArray(t, dims=("row", "class"))
    total = inside.sum(skipna=False)
    total.data.backward()
    np.testing.assert_array_equal(t.grad, np.ones((2, 3)))


def test_importing_brings_numpy_alone_and_a_kind_comes_when_it_is_met():
    program = (
        "import sys, tinygrad_sm as tg\n"
        "print([m for m in ('sympy', 'mpmath', 'dask', 'jax') if m in sys.modules])\n"
        "tg.Tensor([1.0, 2.0]).sum().backward()\n"
        "print('sympy' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


@pytest.mark.parametrize("package", ["sympy", "mpmath"])
def test_a_missing_package_is_one_sentence(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TypeError, match=rf"needs the package {package}.*tinygrad_sm\[symbolic\]"):
        tg.symbols("a", 3) if package == "sympy" else tg.precise(1.0)

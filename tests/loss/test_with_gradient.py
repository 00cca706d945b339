"""`cross_entropy_with_gradient`: loss and gradient of plain arrays, in the caller's own memory."""

import tracemalloc

import numpy as np
import pytest

import tinygrad_sm as tg

RNG = np.random.default_rng(5)
SHAPES = [((4, 5), -1), ((4, 200), 1), ((5, 4), 0), ((2, 3, 7), 1), ((6,), 0), ((2, 3, 7), -1)]


def target_of(kind, shape, axis):
    rows = shape[: axis % len(shape)] + shape[axis % len(shape) + 1 :]
    if kind == "index":
        return RNG.integers(0, shape[axis], rows)
    return RNG.random(shape)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("kind", ["index", "soft"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "longdouble"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_what_backward_gives(shape, axis, kind, dtype, reduction):
    a = RNG.standard_normal(shape).astype(dtype)
    y = target_of(kind, shape, axis)
    options = {"axis": axis, "reduction": reduction, "temperature": 2.0, "label_smoothing": 0.1}
    t = tg.Tensor(a)
    expected = tg.cross_entropy(t, y, **options)
    expected.backward(np.ones(expected.shape))
    before = a.copy()
    loss, gradient = tg.cross_entropy_with_gradient(a, y, **options)
    assert np.array_equal(a, before)
    for out in (np.full_like(a, np.nan), a):
        again, same = tg.cross_entropy_with_gradient(a, y, out=out, **options)
        assert same is out
        assert np.array_equal(same, gradient)
        assert np.array_equal(again, loss)
    assert type(loss) is type(gradient) is np.ndarray
    assert loss.dtype == gradient.dtype == a.dtype
    assert np.array_equal(loss, expected.numpy())
    assert np.array_equal(gradient, t.grad)


def test_numbers_that_are_no_floats_are_taken():
    loss, gradient = tg.cross_entropy_with_gradient([[1, 2]], [0])
    assert loss == pytest.approx(np.log1p(np.e))
    assert gradient.dtype == np.float64


@pytest.mark.parametrize("in_place", [False, True])
def test_nothing_of_the_logits_size_is_allocated(in_place):
    a = RNG.standard_normal((4000, 1000)).astype(np.float32)
    y, out = RNG.integers(0, 1000, 4000), np.empty_like(a)
    tg.cross_entropy_with_gradient(a, y, out=out)  # the threads' own buffers stay
    tracemalloc.start()
    tg.cross_entropy_with_gradient(a, y, out=a if in_place else out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < a.nbytes / 5


def test_logits_in_a_file_and_their_gradient_in_another(tmp_path):
    """As for logits that are larger than the memory: what is not needed now stays in the files."""
    a = RNG.standard_normal((2000, 1000)).astype(np.float32)
    y = RNG.integers(0, 1000, 2000)
    a.tofile(tmp_path / "logits")
    logits = np.memmap(tmp_path / "logits", np.float32, "r", shape=a.shape)
    out = np.memmap(tmp_path / "gradient", np.float32, "w+", shape=a.shape)
    right, gradient = tg.cross_entropy_with_gradient(a, y)
    tracemalloc.start()
    loss, same = tg.cross_entropy_with_gradient(logits, y, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert same is out
    assert loss == right
    out.flush()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "gradient", np.float32), gradient.ravel())
    assert peak < a.nbytes / 8


def test_a_mask_allocates_nothing_of_the_logits_size_either():
    a = RNG.standard_normal((2000, 500)).astype(np.float32)
    a[3, 4], y = -np.inf, np.zeros(2000, int)
    tg.cross_entropy_with_gradient(a.copy(), y, out=np.empty_like(a))
    tracemalloc.start()
    tg.cross_entropy_with_gradient(a, y, out=a)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < a.nbytes / 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_failure_leaves_out_alone(bad):
    a = RNG.standard_normal((300, 400))
    a[299, 7] = bad
    before, out = a.copy(), np.full_like(a, 3.0)
    for each in (a, out):
        with pytest.raises(tg.TinygradError, match="row 299 of the logits holds NaN or"):
            tg.cross_entropy_with_gradient(a, np.zeros(300, int), out=each)
    assert np.array_equal(a, before, equal_nan=True)
    assert (out == 3.0).all()


def test_masks_are_no_failure():
    a = np.array([[0.0, -np.inf, 1.0]])
    loss, gradient = tg.cross_entropy_with_gradient(a, [0], out=a)
    assert loss == pytest.approx(np.log1p(np.e))
    assert gradient is a
    assert a[0, 1] == 0.0


A = np.zeros((3, 4))
READ_ONLY = np.zeros((3, 4))
READ_ONLY.setflags(write=False)


@pytest.mark.parametrize(
    ("error", "out", "match"),
    [
        (TypeError, [[0.0]], "out must be an array; got list"),
        (ValueError, np.zeros((3, 3)), r"shape \(3, 4\) and dtype float64; got \(3, 3\)"),
        (ValueError, np.zeros((3, 4), "f4"), "got .* float32"),
        (ValueError, READ_ONLY, "out must be writeable"),
        (ValueError, A[::-1], "share no memory"),
        (ValueError, np.lib.stride_tricks.as_strided(np.zeros(9), (3, 4), (16, 8)), "itself"),
    ],
)
def test_an_out_that_does_not_fit(error, out, match):
    with pytest.raises(error, match=match):
        tg.cross_entropy_with_gradient(A, [0, 1, 2], out=out)
    assert (A == 0.0).all()


def test_out_and_logits_may_be_parts_of_one_array():
    big = RNG.standard_normal((6, 10))
    for first, second in ((big[:, :5], big[:, 5:]), (big[::2, ::2], big[1::2, ::-2])):
        expected = tg.cross_entropy_with_gradient(first.copy(), [0] * len(first))[1]
        assert np.array_equal(
            tg.cross_entropy_with_gradient(first, [0] * len(first), out=second)[1], expected
        )


def test_out_is_not_the_target():
    y = np.full((3, 4), 0.25)
    with pytest.raises(ValueError, match="out must not share memory with target"):
        tg.cross_entropy_with_gradient(A, y, out=y)
    assert (y == 0.25).all()


@pytest.mark.parametrize("which", ["logits", "target"])
def test_tensors_have_backward(which):
    arguments = {"logits": A, "target": np.full((3, 4), 0.25)}
    arguments[which] = tg.Tensor(arguments[which])
    with pytest.raises(TypeError, match=f"{which} must be a plain array"):
        tg.cross_entropy_with_gradient(**arguments)

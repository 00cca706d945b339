"""Dask's arrays in a Tensor: lazy to the end; the oracle is the engine on NumPy's arrays."""

import os
import signal
import time
import warnings
from itertools import product

import numpy as np
import pytest

import tinygrad_sm as tg
from benchmarks.exact import DISTRIBUTIONS, FAMILIES, exact_cross_entropy

dask = pytest.importorskip("dask", reason="needs the extra dask")
da = pytest.importorskip("dask.array", reason="needs the extra dask")
from dask.callbacks import Callback  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 7)) * 5
LABELS = np.arange(20) % 7
SOFT = RNG.dirichlet(np.ones(7), 20)
CHUNKS = [(5, 7), (6, 4), (20, 2)]
OPTIONS = [
    {}, {"weight": np.arange(1, 8.0)}, {"reduction": "none"}, {"reduction": "sum"},
    {"ignore_index": 3, "label_smoothing": 0.1, "temperature": 2.0},
]  # fmt: skip
FORMS = ("naive", "shifted", "logsumexp", "fused")


class Computations(Callback):
    """Counts how often something is computed."""

    count = 0

    def _start(self, dsk):
        self.count += 1


def loss_of(form, a, target, **options):
    if form == "fused":
        return tg.cross_entropy(a, target, **options)
    return tg.composite_cross_entropy(a, target, form=form, **options)


def found(form, logits, target, **options):
    a = tg.Tensor(logits)
    loss = loss_of(form, a, target, **options)
    loss.backward(np.ones(loss.shape) if loss.ndim else None)
    return loss.data, a.grad


@pytest.mark.parametrize("lazy_labels", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_computed_before_it_is_asked_for(form, options, lazy_labels):
    wanted = found("fused", X, LABELS, **options)
    for chunks in CHUNKS:
        target = da.from_array(LABELS, chunks=4) if lazy_labels else LABELS
        with Computations() as seen:
            loss, gradient = found(form, da.from_array(X, chunks=chunks), target, **options)
        assert seen.count == 0
        assert isinstance(gradient, da.Array)
        loss, gradient = dask.compute(loss, gradient)
        np.testing.assert_allclose(loss, wanted[0], rtol=1e-12)
        np.testing.assert_allclose(gradient, wanted[1], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_fused_node_is_as_near_as_the_eager_one(dtype):
    plain = (X * 30).astype(dtype)
    masked = plain.copy()
    masked[3, 2] = -np.inf
    for options, target in product(
        ({}, {"reduction": "none"}, {"temperature": 0.7}), (LABELS, SOFT)
    ):
        x = masked if target is LABELS else plain
        wanted = found("fused", x, target, **options)
        for chunks in CHUNKS:
            lazy = found("fused", da.from_array(x, chunks=chunks), target, **options)
            for ours, eager in zip(dask.compute(*lazy), wanted, strict=True):
                np.testing.assert_array_almost_equal_nulp(ours, eager, nulp=5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("family", [*FAMILIES, *DISTRIBUTIONS], ids=lambda family: family.name)
def test_every_chunking_keeps_the_promise_for_hard_logits(family, dtype):
    """Against 60 digits: at most 5 units in the last place, as without chunks."""
    rng = np.random.default_rng(8)
    x, target = family.sample(rng, 12, 50)
    x = x.astype(dtype)
    smoothing = getattr(family, "smoothing", 0.0)
    target = target if target.ndim == 1 else target.astype(dtype)
    truth = exact_cross_entropy(x, target, smoothing)
    for chunks in [(5, 50), (12, 20), (7, (1, 48, 1)), (12, 5)]:
        lazy = da.from_array(x, chunks=chunks)
        loss, gradient = dask.compute(
            *found("fused", lazy, target, reduction="none", label_smoothing=smoothing)
        )
        errors = truth.errors(loss, gradient)
        assert max(errors.loss, errors.right_class, errors.other_classes) <= 5, chunks


@pytest.mark.parametrize("chunks", [(100, 400), (100, 100), (4000, 10)])
def test_a_chunk_takes_four_tasks_at_most(chunks):
    read = da.from_array(np.zeros((4000, 400)), chunks=chunks, inline_array=False)
    lazy = dask.optimize(*found("fused", read, np.arange(4000) % 400))
    tasks = set().union(*[x.__dask_graph__() for x in lazy])
    assert len(tasks) <= 4 * read.npartitions


def test_the_number_of_workers_changes_no_bit():
    x = RNG.normal(size=(1000, 50))
    results = []
    for workers in (1, 4):
        with dask.config.set(scheduler="threads", num_workers=workers):
            lazy = found("fused", da.from_array(x, chunks=(300, 20)), np.arange(1000) % 50)
            results.append(dask.compute(*lazy))
    for one, four in zip(*results, strict=True):
        np.testing.assert_array_equal(one, four)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [*OPTIONS, {"soft": True}], ids=str)
def test_chunks_of_rows_have_the_bits_of_the_eager_node(dtype, options):
    x = (RNG.normal(size=(50, 700)) * RNG.choice([1, 30, 1000], (50, 1))).astype(dtype)
    options = {**options, **({"weight": np.arange(1, 701.0)} if "weight" in options else {})}
    soft = options.pop("soft", False)
    target = RNG.dirichlet(np.ones(700), 50).astype(dtype) if soft else np.arange(50) * 13
    _, wanted = found("fused", x, target, **options)
    for rows in (1, 7, 50):
        _, gradient = found("fused", da.from_array(x, chunks=(rows, -1)), target, **options)
        np.testing.assert_array_equal(gradient.compute(), wanted)


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_no_bit():
    distributed = pytest.importorskip("distributed", reason="needs Dask's distributed")
    x = RNG.normal(size=(4000, 500))
    labels = np.arange(4000) % 500
    lazy = da.from_array(x, chunks=(50, 500)).map_blocks(slowly)
    loss, gradient = found("fused", lazy, labels)
    wanted = found("fused", x, labels)
    with (
        warnings.catch_warnings(action="ignore"),  # sockets of the one that dies
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        waiting = client.compute([loss, gradient])
        time.sleep(0.5)  # in the middle: 80 chunks take two seconds
        victim = next(iter(client.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        found_loss, found_gradient = client.gather(waiting)
        assert victim not in client.run(os.getpid).values()
    np.testing.assert_array_equal(found_gradient, wanted[1])
    assert found_loss == pytest.approx(float(wanted[0]), rel=1e-15)


def slowly(block):
    time.sleep(0.05)
    return block


def test_class_axis_and_more_axes():
    x = RNG.normal(size=(3, 5, 4))
    labels = RNG.integers(0, 5, (3, 4))
    for form in FORMS:
        ours = found(form, da.from_array(x, chunks=(2, 3, 2)), labels, axis=1)
        for lazy, eager in zip(dask.compute(*ours), found("fused", x, labels, axis=1), strict=True):
            np.testing.assert_allclose(lazy, eager, rtol=1e-12, atol=1e-15)


def test_a_linear_classifier_on_rows_larger_than_memory():
    x, w, b = RNG.normal(size=(20, 3)), RNG.normal(size=(3, 7)), np.zeros(7)
    gradients = []
    for rows in (x, da.from_array(x, chunks=(6, 3))):
        weights, bias = tg.Tensor(w), tg.Tensor(b)
        tg.cross_entropy(tg.Tensor(rows, requires_grad=False) @ weights + bias, LABELS).backward()
        gradients.append(dask.compute(weights.grad, bias.grad))
    for eager, lazy in zip(*gradients, strict=True):
        np.testing.assert_allclose(lazy, eager, rtol=1e-12, atol=1e-15)


def test_a_composite_is_fused_without_computing():
    a = tg.Tensor(da.from_array(X, chunks=(6, 4)))
    with Computations() as seen:
        result = tg.fuse(tg.composite_cross_entropy(a, LABELS))
        result.output.backward()
    assert seen.count == 0
    assert "SoftmaxWithLoss" in [node.op for node in tg.graph(result.output).nodes]
    _, wanted = found("fused", da.from_array(X, chunks=(6, 4)), LABELS)
    np.testing.assert_array_equal(a.grad.compute(), wanted.compute())
    np.testing.assert_array_almost_equal_nulp(wanted.compute(), found("fused", X, LABELS)[1], 5)


def test_what_is_wrong_is_told_with_its_row_when_it_is_computed():
    labels = LABELS.copy()
    labels[13] = 7
    loss, _ = found("naive", da.from_array(X, chunks=5), da.from_array(labels, chunks=5))
    with pytest.raises(tg.TinygradError, match=r"from 0 to 6 .*got 7 at \(13,\)"):
        loss.compute()
    x = X.copy()
    x[11, 3] = np.nan
    loss, _ = found("fused", da.from_array(x, chunks=(5, 3)), LABELS)
    with pytest.raises(tg.TinygradError, match="11"):
        loss.compute()


def test_unknown_shapes_are_refused():
    x = da.from_array(X, chunks=5)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        tg.Tensor(x[x[:, 0] > 0])


def test_it_says_that_it_waits():
    with Computations() as seen:
        assert "dask.array" in repr(tg.Tensor(da.from_array(X, chunks=5)))
    assert seen.count == 0

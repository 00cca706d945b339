"""The accuracy table: the exact reference, the distances, and what is made of them."""

import json
import math

import mpmath
import numpy as np
import pytest

from benchmarks import accuracy
from benchmarks.exact import DISTRIBUTIONS, FAMILIES, Errors, exact_cross_entropy
from benchmarks.peers import PEERS, Ours, Peer

SIZES = {2: 3, 5: 8}


@pytest.fixture(scope="module")
def results():
    forms = accuracy.forms_of(Ours(1), [])
    return [
        each
        for dtype in accuracy.DTYPES
        for family in (*FAMILIES, *DISTRIBUTIONS)
        for each in accuracy.measure(forms, family, dtype, SIZES)
    ]


def by_definition(row, target):
    """Loss and gradient as mpmath's own numbers, straight from the formulas."""
    with mpmath.workdps(400):  # enough that cancellation does no harm
        e = [mpmath.exp(mpmath.mpf(float(x))) if np.isfinite(x) else mpmath.mpf(0) for x in row]
        p = [x / mpmath.fsum(e) for x in e]
        return -mpmath.log(p[target]), [x - (j == target) for j, x in enumerate(p)]


@pytest.mark.parametrize("dtype", accuracy.DTYPES)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_reference_is_the_definition(family, dtype):
    logits, target = family.sample(np.random.default_rng(0), 7, 4)
    logits = np.clip(logits, -np.inf, 900).astype(dtype)
    truth = exact_cross_entropy(logits, target)
    for i, (row, t) in enumerate(zip(logits, target, strict=True)):
        if np.ptp(row[np.isfinite(row)]) > 800:
            continue  # 400 digits are not enough for the definition
        loss, gradient = by_definition(row, t)
        exact = [(truth.loss, i), *((truth.gradient, (i, j)) for j in range(4))]
        for (numbers, at), expected in zip(exact, [loss, *gradient], strict=True):
            nearest, rest, unit = (
                mpmath.mpf(float(x[at])) for x in (numbers.nearest, numbers.rest, numbers.unit)
            )
            assert abs((nearest - expected) / unit + rest) < 1e-9
            assert abs(rest) <= 0.5


@pytest.mark.parametrize("family", DISTRIBUTIONS, ids=lambda family: family.name)
def test_the_reference_is_the_definition_for_distributions(family):
    logits, target = family.sample(np.random.default_rng(0), 7, 4)
    logits = np.clip(logits, -300, 300)
    truth = exact_cross_entropy(logits, target, family.smoothing)
    for i, row in enumerate(logits):
        with mpmath.workdps(400):
            epsilon = mpmath.mpf(family.smoothing)
            y = target[i] if target.ndim > 1 else np.arange(4) == target[i]
            q = [(1 - epsilon) * mpmath.mpf(float(x)) + epsilon / 4 for x in y]
            e = [mpmath.exp(mpmath.mpf(float(x))) for x in row]
            p = [x / mpmath.fsum(e) for x in e]
            s = mpmath.fsum(q)
            exact = [-mpmath.fsum(x * mpmath.log(z) for x, z in zip(q, p, strict=True))]
            exact += [s * z - x for x, z in zip(q, p, strict=True)]
            found = [(truth.loss, i), *((truth.gradient, (i, j)) for j in range(4))]
            for j, ((numbers, at), expected) in enumerate(zip(found, exact, strict=True)):
                nearest, rest, unit = (
                    mpmath.mpf(float(x[at])) for x in (numbers.nearest, numbers.rest, numbers.unit)
                )
                assert abs((nearest - expected) / unit + rest) < 1e-9
                if j:
                    one = max(s * p[j - 1], q[j - 1])
                    other = max(s * (1 - p[j - 1]), s - q[j - 1])
                    assert unit == np.spacing(float(min(one, other)))


@pytest.mark.parametrize("dtype", accuracy.DTYPES)
def test_an_ulp_is_the_spacing_and_no_finer_than_that_of_denormals(dtype):
    info = np.finfo(dtype)
    truth = exact_cross_entropy(np.array([[0.0, 0.0], [0.0, -1e4]], dtype), np.array([0, 0]))
    assert truth.gradient.unit[0, 1] == np.spacing(info.dtype.type(0.5))
    assert truth.gradient.unit[1, 1] == info.smallest_subnormal
    half = np.array([[-0.5, np.nextafter(info.dtype.type(0.5), 1)], [0.0, 0.0]], dtype)
    assert truth.gradient.ulps(half).max() == 1.0


def test_what_is_not_a_number_is_infinitely_far_off():
    truth = exact_cross_entropy(np.array([[0.0, 0.0]]), np.array([0]))
    assert math.isnan(truth.errors(np.array([np.nan]), np.array([[-0.5, 0.5]])).loss)
    assert truth.errors(np.array([np.inf]), np.array([[-0.5, np.inf]])).other_classes == math.inf


def test_every_form_is_measured_on_every_family_in_every_dtype(results):
    forms = len(accuracy.forms_of(Ours(1), []))
    assert len(results) == forms * (len(FAMILIES) + len(DISTRIBUTIONS)) * len(accuracy.DTYPES)


def test_a_peer_that_knows_classes_only_is_left_out():
    for peer in PEERS:
        if peer is Ours or peer.by_row is Peer.by_row or not peer.installed():
            continue
        found = peer(1).by_row(np.zeros((1, 2)), np.array([0]), label_smoothing=0.5)
        assert found is None or found[1].tolist() == [[-0.25, 0.25]]


def test_the_fused_node_keeps_its_promise_here(results):
    assert "within the promised" in accuracy.verdict(results)


def test_the_textbook_form_breaks_where_it_should(results):
    scale = {(r.form, r.dtype): r.errors for r in results if r.family == "scale 1e4"}
    assert not math.isfinite(scale["naive composite", "float64"].loss)


@pytest.mark.parametrize(
    ("error", "text"),
    [(0.5, "0.5"), (447.0, "447.0"), (2e14, "2e14"), (2.0**52, "all"), (math.inf, "inf"),
     (math.nan, "NaN")],
)  # fmt: skip
def test_errors_as_text(error, text):
    assert accuracy.in_ulps(error, "float64") == text


def test_the_worse_of_two_is_nan_if_one_is():
    worst = accuracy.worse(Errors(1.0, 5.0, math.nan), Errors(2.0, 3.0, 1.0))
    assert (worst.loss, worst.right_class, math.isnan(worst.other_classes)) == (2.0, 5.0, True)


def test_the_json_is_valid_and_the_markdown_has_all_tables(results):
    parsed = json.loads(accuracy.as_json(results, {"tinygrad_sm": "1"}, SIZES))
    assert len(parsed["results"]) == len(results)
    text = accuracy.as_markdown(results).decode()
    assert text.count("| form |") == 14
    assert "| fused, numpy |" in text

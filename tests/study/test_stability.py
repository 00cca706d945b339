"""The stability lab: its reference, its verdicts, the nodes it blames, and its command."""

import json
import math
import runpy
import subprocess
import sys
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import mpmath
import numpy as np
import pytest

from tinygrad_sm.cli.entry import run
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError
from tinygrad_sm.study.stability.forms import FLOOR, FORMS, computed
from tinygrad_sm.study.stability.report import Report, _closed, survey
from tinygrad_sm.study.stability.sweeps import SWEEPS
from tinygrad_sm.study.stability.truth import DTYPES, LOST, OK, STATES, ZERO, Judge, exact
from tinygrad_sm.study.stability.two_losses import confidently_wrong

FORM = {form.name: form for form in FORMS}
SWEEP = {sweep.name: sweep for sweep in SWEEPS}
EXAMPLE = Path(__file__).parents[2] / "examples" / "06_confidently_wrong.py"


lab = lru_cache(survey)  # a report is never changed


@pytest.fixture(params=DTYPES)
def report(request) -> Report:
    return lab(request.param)


def logits_at(report: Report, sweep: str, x: float) -> np.ndarray:
    return SWEEP[sweep].logits(x, report.dtype)


def gradient_at(report: Report, sweep: str, form: str, x: float) -> np.ndarray:
    logits = logits_at(report, sweep, x)
    return computed(FORM[form], logits, SWEEP[sweep].target)[1][0]


# The reference ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        ((2.0, 1.0, 0.1), 0),
        ((37.43, 0.0), 0),
        ((745.0, 0.0, -1.0), 0),
        ((0.0, 1000.0, 999.0), 0),
        ((1e4, 5e3, 500.0), 1),
        ((-3e-300, 0.0, 5e-324), 2),
        (tuple(np.random.default_rng(0).normal(0, 30, 50)), 7),
    ],
)
def test_the_reference_agrees_with_mpmath(logits, target):
    found = exact(tuple(map(float, logits)), target)
    with mpmath.workdps(400):
        e = [mpmath.exp(mpmath.mpf(float(x)) - max(logits)) for x in logits]
        total = mpmath.fsum(e)
        loss = mpmath.log(total / e[target])
        gradient = [x / total - (i == target) for i, x in enumerate(e)]
        for ours, theirs in zip((found.loss, *found.gradient), (loss, *gradient), strict=True):
            # beyond 400 digits mpmath's own p − 1 and log p have nothing left to compare with
            assert abs(mpmath.mpf(str(ours)) - theirs) <= mpmath.mpf(10) ** -50 * abs(theirs)


def test_the_reference_of_two_equal_logits_is_known():
    found = exact((5.0, 5.0), 1)
    assert float(found.loss) == math.log(2)
    assert [float(g) for g in found.gradient] == [0.5, -0.5]


# The forms ----------------------------------------------------------------------------------------


def test_the_textbook_form_is_the_articles_code_to_the_last_bit():
    a = np.random.default_rng(1).normal(0, 5, (20, 7))
    found = computed(FORM["textbook"], a, 3)[1]
    for row, ours in zip(a, found, strict=True):
        prob = np.exp(row) / np.sum(np.exp(row))
        da = np.copy(prob)
        da[3] -= 1
        np.testing.assert_array_equal(ours, da)


def test_the_clipped_form_passes_no_gradient_below_the_floor():
    p_t = np.array([1e-14, 1e-16])
    a = np.stack([np.log(p_t), np.zeros(2)], axis=1)
    losses, gradient = computed(FORM["clipped"], a, 0)
    np.testing.assert_allclose(gradient, [[-1, 1], [0, 0]], rtol=1e-12)
    np.testing.assert_allclose(losses, -np.log([1e-14, FLOOR]), rtol=1e-12)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_all_forms_agree_where_nothing_breaks(form):
    a = np.random.default_rng(2).normal(0, 2, (10, 4))
    for row, loss, gradient in zip(a, *computed(form, a, 2), strict=True):
        truth = exact(tuple(row.tolist()), 2)
        np.testing.assert_allclose(loss, float(truth.loss), rtol=1e-13)
        np.testing.assert_allclose(gradient, [float(g) for g in truth.gradient], rtol=1e-12)


# The judgement ------------------------------------------------------------------------------------


def test_a_zero_is_wrong_only_where_the_truth_is_representable():
    judge = Judge("float64", 1e-3)
    truth = exact((40.0, 0.0), 0).gradient[0]
    assert judge.state(0.0, truth) == ZERO
    assert judge.state(float(truth), truth) == OK
    assert judge.state(float(truth) * 1.01, truth) == LOST
    assert judge.state(0.0, exact((746.0, 0.0), 0).gradient[0]) == OK


def test_digits_missing_from_a_denormal_truth_are_forgiven_within_5_ulp():
    judge = Judge("float64", 1e-3)
    truth = exact((743.0, 0.0), 0).gradient[0]  # 8 times the smallest double
    smallest = np.finfo(np.float64).smallest_subnormal
    assert judge.state(float(truth) + 4 * smallest, truth) == OK
    assert judge.state(float(truth) + 7 * smallest, truth) == LOST


def test_inf_and_nan_are_states_of_their_own():
    judge = Judge("float32", 1e-3)
    truth = exact((1.0, 0.0), 0).loss
    assert [STATES[judge.state(x, truth)] for x in (math.inf, -math.inf, math.nan)] == [
        "inf",
        "inf",
        "NaN",
    ]


def test_a_lucky_rounding_between_broken_ones_is_broken_too():
    states = np.array([0, 0, 1, 0, 1, 2, 1, 2, 0, 0])
    assert _closed(states).tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 0, 0]


# What is found ------------------------------------------------------------------------------------


def test_the_fused_node_never_breaks(report):
    for swept in report.sweeps:
        fused = swept.form("fused")
        assert [band.state for band in (*fused.gradient, *fused.loss)] == ["ok", "ok"]
        assert np.nanmax(fused.ulps) <= 5
        assert not np.isnan(fused.ulps).any()


def test_naive_breaks_first_at_exp_where_the_largest_logit_overflows(report):
    for form in ("naive", "textbook"):
        broke = report.sweep("scale").form(form).broke
        assert broke is not None
        assert (broke.state, broke.cause.op, broke.cause.phase) == ("NaN", "exp", "forward")
        assert "overflowed" in broke.cause.text
        largest = logits_at(report, "scale", broke.start).max()
        with np.errstate(over="ignore"):
            assert np.isinf(np.exp(largest))
            assert np.isfinite(np.exp(largest * largest.dtype.type(1 - 1e-6)))


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 709.78), ("float32", 88.72)])
def test_the_limits_of_exp_are_the_ones_in_the_books(dtype, limit):
    broke = lab(dtype).sweep("scale").form("naive").broke
    assert broke is not None
    assert limit < broke.start < limit + 0.01


def test_shifted_breaks_at_the_logarithm_of_a_probability_that_underflowed(report):
    broke = report.sweep("scale").form("shifted").broke
    assert broke is not None
    assert (broke.state, broke.cause.op) == ("NaN", "log")
    assert "log(0) is -inf" in broke.cause.text
    assert "class 2, which is not even the right one" in broke.cause.text
    assert "0/0 = NaN" in broke.cause.text
    smallest = logits_at(report, "scale", broke.start)[0, 2] - broke.start
    assert np.exp(smallest.astype(report.dtype)) == 0  # p of the third class


def test_logsumexp_survives_every_scale_and_every_wrong_prediction(report):
    for sweep in ("scale", "behind"):
        assert report.sweep(sweep).form("logsumexp").broke is None


def test_a_clipped_probability_kills_the_gradient_where_it_meets_the_floor(report):
    for name in ("scale", "behind"):
        broke = report.sweep(name).form("clipped").broke
        assert broke is not None
        assert (broke.state, broke.cause.op, broke.cause.name) == ("0", "maximum", "clipped")
        sweep = SWEEP[name]
        row = tuple(sweep.logits(broke.start, report.dtype)[0].tolist())
        p_t = 1 + exact(row, sweep.target).gradient[sweep.target]
        assert float(p_t) == pytest.approx(FLOOR, rel=1e-3)
        assert gradient_at(report, name, "clipped", broke.start)[sweep.target] == 0


@pytest.mark.parametrize("form", [form.name for form in FORMS if form.name != "fused"])
def test_every_other_form_loses_the_gradient_of_a_sure_and_right_prediction(report, form):
    lost, zero = report.sweep("ahead").form(form).gradient[1:3]
    assert (lost.state, zero.state) == ("digits lost", "0")
    assert "cancel" in lost.cause.text
    assert gradient_at(report, "ahead", form, zero.start)[0] == 0
    eps = float(np.finfo(report.dtype).eps)
    # 1 − p is lost when it nears ε/tolerance, and gone when it is below ε/2
    assert -math.log(64 * eps / 1e-3) < lost.start < -math.log(eps / 8 / 1e-3)
    assert -math.log(eps) < zero.start < -math.log(eps / 8)


def test_where_the_truth_itself_rounds_to_0_a_zero_is_right_again(report):
    last = report.sweep("ahead").form("logsumexp").gradient[-1]
    assert last.state == "ok"
    smallest = -math.log(np.finfo(report.dtype).smallest_subnormal)
    assert smallest - math.log(16) < last.start < smallest + 1


def test_a_sum_that_overflows_before_exp_does_is_found_in_less_than_a_step():
    bands = lab("float64").sweep("behind").form("textbook").gradient
    assert [band.state for band in bands] == ["ok", "0", "NaN"]
    assert bands[1].cause.op == "sum"
    limit = math.log(np.finfo(np.float64).max)
    assert bands[1].start == pytest.approx(limit - math.log(1 + math.exp(-1)), rel=1e-6)
    assert bands[2].start == pytest.approx(limit, rel=1e-6)


def test_a_wrong_prediction_makes_the_shifted_loss_infinite_after_its_gradient_was_nan(report):
    shifted = report.sweep("behind").form("shifted")
    loss = next(band for band in shifted.loss if band.state == "inf")
    assert loss.cause.text == "log(0) is -inf"
    assert loss.start > shifted.broke.start
    assert shifted.broke.cause.phase == "backward"  # 1/p overflows before p underflows


def test_the_bands_of_every_sweep_leave_no_gap(report):
    for swept in report.sweeps:
        for form in swept.forms:
            for bands in (form.gradient, form.loss):
                assert bands[0].start == 1
                assert bands[-1].stop == pytest.approx(swept.sweep.stop)
                assert all(a.stop == b.start for a, b in pairwise(bands))
                assert all(a.state != b.state for a, b in pairwise(bands))


def test_every_break_has_a_node_to_blame(report):
    for swept in report.sweeps:
        for form in swept.forms:
            for band in (*form.gradient, *form.loss):
                assert (band.cause is None) == (band.state == "ok")
                assert band.cause is None or band.cause.node is not None


def test_with_a_tolerance_of_a_few_roundings_digits_go_earlier_and_that_is_explained():
    usual = lab("float64").sweep("ahead").form("shifted").broke
    strict = lab("float64", tolerance=1e-15)
    assert strict.sweep("ahead").form("shifted").broke.start < usual.start - 10
    for swept in strict.sweeps:
        assert swept.form("fused").broke is None
        bands = [band for form in swept.forms for band in form.gradient if band.state != "ok"]
        assert all(band.cause is not None for band in bands)


def test_the_report_is_json(report):
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    naive = found["sweeps"]["scale"]["forms"]["naive"]["gradient"]
    assert [band["state"] for band in naive] == ["ok", "NaN"]
    assert naive[1]["cause"]["op"] == "exp"


# "The gradient seldom dies" -----------------------------------------------------------------------


def test_squared_error_dies_like_the_jacobian_and_cross_entropy_does_not(report):
    found = confidently_wrong([0.0, 2.0, 5.0, 30.0, 60.0], report.dtype)
    rtol = 64 * float(np.finfo(report.dtype).eps)
    for i, margin in enumerate(found.margins):
        e = [mpmath.e**x for x in (0, float(margin), float(margin) - 1)]
        prob = [x / sum(e) for x in e]
        squared = -prob[0] * ((1 - prob[0]) ** 2 + prob[1] ** 2 + prob[2] ** 2)
        assert found.squared[i, 0] == pytest.approx(float(squared), rel=rtol)
        assert found.cross[i, 0] == pytest.approx(float(prob[0] - 1), rel=rtol)
    p_t = found.probabilities[:, 0].astype(float)
    ratio = found.squared[:, 0] / (p_t * (1 - p_t))
    assert ratio[3] == pytest.approx(ratio[4], rel=1e-6)
    assert found.cross[-1, 0] == -1


def test_finite_precision_kills_the_naive_composite_and_not_the_fused_node(report):
    found = confidently_wrong([1.0, 800.0], report.dtype)
    assert np.isfinite(found.naive[0]).all()
    assert np.isnan(found.naive[1]).all()
    np.testing.assert_allclose(found.cross[1], [-1, 0.7310586, 0.2689414], rtol=1e-6)
    assert found.squared[1, 0] == 0


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda: survey("float16"),
            InvalidValueError,
            "dtype must be one of float32, float64",
        ),
        (
            lambda: survey(tolerance=0),
            InvalidValueError,
            "tolerance must lie between 0 and 1",
        ),
        (
            lambda: survey(tolerance=math.nan),
            InvalidValueError,
            "tolerance must lie between",
        ),
        (
            lambda: survey(tolerance="1"),
            InvalidTypeError,
            "tolerance must be a number; got str",
        ),
        (lambda: confidently_wrong([math.inf]), InvalidValueError, "margins must be a flat list"),
        (lambda: confidently_wrong([[1.0]]), InvalidValueError, "margins must be a flat list"),
        (lambda: confidently_wrong([1.0], "int8"), InvalidValueError, "dtype must be one of"),
    ],
)
def test_bad_arguments_are_named(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


# The command --------------------------------------------------------------------------------------


def test_the_command_names_the_node_and_the_scale(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["stability"]) == 0
    out = capsys.readouterr().out
    assert "NaN from 709.8" in out
    assert "forward pass, at node 1 'e' (exp): exp overflowed: exp(709.783)" in out


def test_the_command_prints_json(capsys):
    assert run(["stability", "--json", "--dtype", "float32"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dtype"] == "float32"
    assert set(found["sweeps"]) == {"scale", "ahead", "behind"}


def test_the_command_leaves_pictures(tmp_path, capsys):
    assert run(["stability", "-o", str(tmp_path / "new" / "out"), "--format", "png"]) == 0
    names = ["accuracy.png", "confidently-wrong.png", "stability.png"]
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == names
    assert all(name in capsys.readouterr().out for name in names[:1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tolerance", "0"], "--tolerance must lie between 0 and 1; got 0.0"),
        (["--tolerance", "nan"], "--tolerance must lie between 0 and 1; got nan"),
        (["--tolerance", "x"], "'--tolerance': 'x' is not a valid float"),
        (["--dtype", "float16"], "'--dtype': 'float16' is not one of 'float32', 'float64'"),
        (["--format", "svg,dot"], "--format must be among svg, png, pdf"),
        (["--format", ","], "--format must be among svg, png, pdf"),
        (["-o", __file__], "is not a folder to write to (is a file)"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(arguments, sentence, capsys):
    assert run(["stability", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert sentence in captured.err


def test_without_matplotlib_the_command_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(["stability", "-o", str(tmp_path / "out")]) == 2
    assert "pip install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(["stability"]) == 0  # the numbers need no pictures


def test_compare_points_to_the_lab_when_the_gradients_differ(tmp_path, capsys):
    logits = tmp_path / "logits.csv"
    logits.write_text("1000,0,0\n")
    assert run(["compare", "--logits", str(logits), "--target", "1"]) == 1
    assert "tinygrad-sm stability" in capsys.readouterr().out
    logits.write_text("2,1,0.1\n")
    assert run(["compare", "--logits", str(logits), "--target", "1"]) == 0
    assert "tinygrad-sm stability" not in capsys.readouterr().out


def test_the_numbers_do_without_matplotlib():
    code = "import sys, tinygrad_sm.study.stability.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_example_asserts_its_limits_and_leaves_the_picture(tmp_path, capsys, monkeypatch):
    picture = tmp_path / "wrong.svg"
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "-o", str(picture)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "exp overflowed: exp(750)" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"<?xml")

"""The options of the losses: declared once, shown to everyone, and refused in one sentence."""

import inspect
import pydoc
import re

import pytest

import tinygrad_sm as tg
from tinygrad_sm.loss.options import DEFAULTS, LossOptions, RowOptions

TAKES_ALL = [
    tg.cross_entropy,
    tg.composite_cross_entropy,
    tg.cross_entropy_with_gradient,
    tg.compare,
    tg.SoftmaxWithLoss,
]


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {x.name: x.default for x in parameters if x.kind is x.KEYWORD_ONLY}


def test_what_type_checkers_see_is_what_is_checked():
    assert LossOptions.__optional_keys__ == DEFAULTS.keys()
    assert RowOptions.__optional_keys__ == DEFAULTS.keys() - {"weight", "axis"}


@pytest.mark.parametrize("function", TAKES_ALL)
def test_a_signature_shows_every_option_with_its_default(function):
    assert DEFAULTS.items() <= defaults(function).items()


def test_the_signature_of_the_linear_loss_shows_its_own():
    own = {"bias": None, "class_weight": None, "chunk_rows": None}
    rows = {name: DEFAULTS[name] for name in RowOptions.__optional_keys__}
    assert defaults(tg.linear_cross_entropy) == own | rows


@pytest.mark.parametrize("function", TAKES_ALL)
def test_help_says_what_every_option_means(function):
    text = pydoc.plain(pydoc.render_doc(function))
    for name, default in DEFAULTS.items():
        assert f"{name}={default!r}" in text
        assert re.search(f"\n[ |]*{name}: [^\n]{{10}}", text)
    in_a_line = re.sub(r"[\s|]+", " ", text)  # 3.14 has a line for each option
    assert "weight=None, ignore_index=-100" in in_a_line


CALLS = {
    "cross_entropy": (tg.cross_entropy, [1.0, 2.0], 0),
    "composite_cross_entropy": (tg.composite_cross_entropy, [1.0, 2.0], 0),
    "cross_entropy_with_gradient": (tg.cross_entropy_with_gradient, [1.0, 2.0], 0),
    "compare": (tg.compare, [1.0, 2.0], 0),
    "linear_cross_entropy": (tg.linear_cross_entropy, [1.0], [[1.0], [2.0]], 0),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("wrong", ["temprature", "logit", "shape"])
def test_an_unknown_option_is_one_clear_sentence(name, wrong):
    function, *arguments = CALLS[name]
    with pytest.raises(
        TypeError, match=f"^{name} takes the options .*; '{wrong}' is none of them$"
    ) as caught:
        function(*arguments, **{wrong: 1})
    assert isinstance(caught.value, tg.TinygradError)
    assert "reduction" in str(caught.value)


def test_the_linear_loss_has_no_axis():
    with pytest.raises(TypeError, match=r"^linear_cross_entropy takes .*; 'axis' is none of them$"):
        tg.linear_cross_entropy([1.0], [[1.0], [2.0]], 0, axis=0)


@pytest.mark.parametrize("wrong", ["logits", "foo"])
def test_the_layer_refuses_when_it_is_made(wrong):
    with pytest.raises(TypeError, match=f"'{wrong}' is none of them"):
        tg.SoftmaxWithLoss(**{wrong: 1})

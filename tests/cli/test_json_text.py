"""JSON that is printed piece by piece: the same text, and no piece grows with the input."""

import json

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.cli.json_text import _pieces, print_json
from tinygrad_sm.study.plain import jsonable

SHAPES = [
    (),
    (0,),
    (3,),
    (20_001,),
    (20_001, 2),
    (10_001, 1, 2),
    (3, 10_001),
    (2, 2, 10_001),
    (2, 0),
    (1, 10_001),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_pieces_are_the_text(shape, capsys):
    array = np.random.default_rng(0).normal(size=shape)
    if array.size > 1:
        array.flat[:: max(array.size // 7, 1)] = np.nan
        array.flat[-1] = -np.inf
    value = {
        "a": array,
        "b": {"c": array, "d": "고", "e": None, "f": True},
        "g": [1, np.inf],
        "h": {},
    }
    print_json(value)
    text = capsys.readouterr().out
    assert text == json.dumps(jsonable(value), ensure_ascii=False) + "\n"
    assert "NaN" not in text.replace('"NaN"', "")
    assert np.shape(json.loads(text)["a"]) == shape


@pytest.mark.parametrize("shape", [(100_000, 3), (300_000,), (2, 2, 90_000)])
def test_no_piece_grows_with_the_array(shape):
    sizes = [len(piece) for piece in _pieces({"a": np.random.default_rng(0).normal(size=shape)})]
    assert max(sizes) < 25 * 10_000 + 2
    assert len(sizes) > 3


def test_a_comparison_is_printed_as_its_dict(capsys):
    found = tg.compare(np.random.default_rng(0).normal(size=(5000, 3)), np.zeros(5000, int))
    print_json(found.figures())
    assert json.loads(capsys.readouterr().out) == found.to_dict()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64, np.bool_])
def test_numbers_of_every_dtype(dtype):
    assert jsonable(np.ones(2, dtype)) == [1.0, 1.0]
    assert jsonable(dtype(1)) == 1.0
    assert json.dumps(jsonable({"a": [dtype(0)]})) == '{"a": [0.0]}'

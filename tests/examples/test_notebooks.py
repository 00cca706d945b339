"""The notebooks run, and what they show is what they show today."""

import pytest

pytest.importorskip("nbclient", reason="needs the extra notebooks")
pytest.importorskip("ipykernel", reason="needs the extra notebooks")

import nbformat

from docs.run_notebooks import EXAMPLES, executed

NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
pytestmark = pytest.mark.filterwarnings("default")  # of the packages that run a kernel


def shown(notebook):
    """What its code cells print and return, as text; and which of them show a picture."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            yield output.get("text") or data["text/plain"], "image/svg+xml" in data


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_shows_what_it_shows(path):
    kept = list(shown(nbformat.read(path, as_version=4)))
    assert list(shown(executed(path))) == kept, "run python docs/run_notebooks.py"
    assert len(kept) > 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_short_and_asks(path):
    cells = nbformat.read(path, as_version=4).cells
    assert len(cells) <= 20
    text = "\n".join(cell.source for cell in cells)
    assert "**Your turn.**" in text
    assert len(text.split()) < 500
    assert "http" not in text


RIGHT = {
    "01_chain_rule_on_a_diamond": ["-4.0"],
    "02_from_exp_to_p_minus_y": ["[1 / 3, 1 / 3, -2 / 3]", "[0.333, 0.333, -0.667]"],
    "03_where_numbers_break": ["1000.0"],
}
WRONG = {
    "01_chain_rule_on_a_diamond": ("4.0", "not yet"),
    "02_from_exp_to_p_minus_y": ("[0, 0, -2 / 3]", "not yet: Only the diagonal path"),
    "03_where_numbers_break": ("0.0", "not yet"),
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_question_at_its_end_knows_the_answer(path, capsys):
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    imports = "import numpy as np\nimport tinygrad_sm as tg\n"
    assert "prediction = ..." in cells[-1]
    for prediction in [*RIGHT[path.stem], WRONG[path.stem][0]]:
        exec(imports + cells[-1].replace("prediction = ...", f"prediction = {prediction}"), {})
    *right, wrong = capsys.readouterr().out.splitlines()
    assert set(right) == {"right"}
    assert wrong.startswith(WRONG[path.stem][1])

"""Each example runs as a script, as a reader would run it, and its output holds what matters."""

import csv
import os
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.cli.inputs import shipped_logits

ROOT = Path(__file__).parents[2]
IRIS = ROOT / "examples" / "data" / "iris.csv"
SHIPPED = ROOT / "tinygrad_sm" / "data" / "iris_logits.csv"
NUMBER = r"\d\.\d+(?:e[-+]\d+)?"


def run(example: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{example}.py"), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def output_of(example: str, folder: Path, *arguments: str) -> str:
    done = run(example, folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where gradient_descent.py was run."""
    return tmp_path_factory.mktemp("gradient_descent")


@pytest.fixture(scope="module")
def output(folder):
    """What it printed there."""
    return output_of("05_gradient_descent", folder, "--write-logits", "logits.csv")


@pytest.fixture(scope="module")
def steps(output):
    """Columns: step, composite loss, fused loss, difference of losses, of parameters."""
    line = rf"^ *(\d+) +({NUMBER}) +({NUMBER}) +({NUMBER}) +({NUMBER})$"
    return np.array(re.findall(line, output, re.M), dtype=float)


@pytest.fixture(scope="module")
def flowers():
    with IRIS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestGradientDescent:
    def test_both_losses_fall_alike(self, steps):
        assert steps[:, 0].tolist() == [0, 1, 2, 5, 10, 20, 50, 100, 200]
        assert steps[0, 1:3] == pytest.approx(np.log(3))
        assert (np.diff(steps[:, 1]) < 0).all()
        assert (np.diff(steps[:, 2]) < 0).all()
        assert (steps[:, 3] < 1e-14).all()
        assert (steps[:, 4] < 1e-13).all()

    def test_it_learns(self, output, steps):
        assert steps[-1, 2] < 0.15
        assert "146 of 150, 97.3%" in output

    def test_leaves_a_picture_of_each_last_step(self, output, folder):
        drawn = {}
        for name in ("composite", "fused"):
            path = folder / "out" / f"gradient_descent_{name}.svg"
            assert str(path.relative_to(folder)) in output
            drawn[name] = " ".join(ET.parse(path).getroot().itertext())
        assert "exp(a)" in drawn["composite"]
        assert "SoftmaxWithLoss" in drawn["fused"]
        assert not list(folder.rglob("*.part"))

    def test_makes_the_shipped_logits_byte_for_byte(self, output, folder):
        assert (folder / "logits.csv").read_bytes() == SHIPPED.read_bytes()

    @pytest.mark.parametrize(
        ("rate", "sentence"),
        [("3000", "the composite's loss is nan, .*"), ("1e308", "logits must be finite, .*")],
    )
    def test_parameters_that_run_away_are_said(self, tmp_path, rate, sentence):
        done = run("05_gradient_descent", tmp_path, "--learning-rate", rate)
        assert done.returncode == 1
        assert re.fullmatch(rf"step 1: {sentence} a smaller --learning-rate.*\n", done.stderr)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--steps", "0"],
            ["--steps", "many"],
            ["--learning-rate", "nan"],
            ["--learning-rate", "-1"],
            ["--write-logits", "."],
            ["--write-logits", "nowhere/logits.csv"],
            ["--output", "a_file"],
            ["--unknown"],
        ],
    )
    def test_a_bad_argument_is_one_sentence_and_nothing_written(self, tmp_path, arguments):
        (tmp_path / "a_file").write_text("kept")
        done = run("05_gradient_descent", tmp_path, *arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert re.fullmatch(r"05_gradient_descent\.py: .+\n", done.stderr)
        assert [path.name for path in tmp_path.iterdir()] == ["a_file"]

    def test_a_picture_that_cannot_be_written_is_one_sentence(self, tmp_path):
        (tmp_path / "out" / "gradient_descent_composite.svg").mkdir(parents=True)
        done = run("05_gradient_descent", tmp_path, "--steps", "1")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_walkthrough(tmp_path):
    output = output_of("04_walkthrough", tmp_path)
    for fact in (
        r"p = e / s +\[0\.659, 0\.242, 0\.099\]",
        r"i = j:.*p_1 \(1 − p_1\) +0\.225",
        r"i ≠ j:.*−p_1 p_2 +-0\.160",
        r"numerator: +−y +\[-1\.000, +0\.000, +0\.000\]",
        r"denominator: +\+p·Σy +\[0\.659, 0\.242, 0\.099\]",
        r"p − y +\[-0\.341, +0\.242, +0\.099\]",
        r"Σy·p − y +\[ ?0\.318, -0\.515, +0\.197\]",
        r"graph: SoftmaxWithLoss$",
    ):
        assert re.search(fact, output, re.M), fact
    assert output.rstrip().endswith("is what the derivation says.")


@pytest.fixture(scope="module")
def walk():
    """The walkthrough's `main`, to be run in this process."""
    return runpy.run_path(str(ROOT / "examples" / "04_walkthrough.py"))["main"]


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 100.0])
def test_walkthrough_takes_any_logits(walk, scale, monkeypatch, capsys):
    random = np.random.default_rng(0)
    for classes in range(2, 7):
        logits = ",".join(map(str, random.normal(0, scale, classes).tolist()))
        target = str(random.integers(classes))
        monkeypatch.setattr(sys, "argv", ["walk", f"--logits={logits}", "--target", target])
        walk()
        assert capsys.readouterr().out.rstrip().endswith("is what the derivation says.")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--logits", "1000,0,0"], "must lie nearer to 0 and to each other"),
        (["--logits=-800,0"], "must lie nearer to 0"),
        (["--logits", "1,nan"], "must lie nearer to 0"),
        (["--logits", "a,b"], "must be numbers with commas, such as 2,1,0.1; got 'a,b'"),
        (["--logits", "1"], "must be at least two"),
        (["--target", "3"], "--target must be from 0 to 2; got 3"),
    ],
)
def test_walkthrough_says_what_it_cannot_walk(walk, arguments, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["walk", *arguments])
    with pytest.raises(SystemExit) as ended:
        walk()
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert sentence in err


def test_the_readme_has_every_example_in_the_order_of_the_numbers():
    examples = ROOT / "examples"
    listed = re.findall(r"\]\((\w+\.(?:py|ipynb))\)", (examples / "README.md").read_text("utf-8"))
    there = [p.name for p in examples.iterdir() if p.suffix in (".py", ".ipynb")]
    assert sorted(listed) == sorted(there)
    numbered = [name for name in listed if name[0].isdigit()]
    assert numbered == sorted(numbered)
    assert [int(name[:2]) for name in numbered] == list(range(1, len(numbered) + 1))


def test_second_derivative(tmp_path):
    output = output_of("07_second_derivative", tmp_path)
    p = tg.softmax([2.0, 1.0, 0.1])
    assert str((np.diag(p) - np.outer(p, p)).round(3)) in output
    assert "eigenvalues: [0. " in output


def test_new_primitive(tmp_path):
    output = output_of("08_new_primitive", tmp_path)
    assert "gradcheck passed" in output
    assert "2 wrong" in output


def test_write_a_rule(tmp_path):
    done = run("09_write_a_rule", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "became one node, softplus_of_a_rule" in done.stdout
    assert "the added number is not 1" in done.stdout
    assert "does not lower the cost" in done.stdout


class TestData:
    def test_fifty_of_each_species(self, flowers):
        species = [flower["species"] for flower in flowers]
        assert species == ["setosa"] * 50 + ["versicolor"] * 50 + ["virginica"] * 50

    def test_fishers_values_where_a_common_copy_is_wrong(self, flowers):
        assert list(flowers[34].values()) == ["4.9", "3.1", "1.5", "0.2", "setosa"]
        assert list(flowers[37].values()) == ["4.9", "3.6", "1.4", "0.1", "setosa"]

    def test_the_means_that_the_literature_gives(self, flowers):
        table = np.array([list(flower.values())[:4] for flower in flowers], dtype=float)
        assert table.mean(axis=0) == pytest.approx([5.8433, 3.0573, 3.7580, 1.1993], abs=5e-5)

    def test_shipped_logits_are_what_their_text_says(self):
        logits, target = shipped_logits()
        assert logits.shape == (150, 3)
        assert logits.dtype == np.float64
        assert target.dtype == np.int64
        assert target.tolist() == [0] * 50 + [1] * 50 + [2] * 50
        assert (logits.argmax(axis=-1) == target).sum() == 146
        assert tg.cross_entropy(logits, target) == pytest.approx(0.1236, abs=5e-5)

    def test_every_data_file_has_its_text_beside_it(self):
        for path in (IRIS, SHIPPED):
            text = path.with_suffix(".md").read_text(encoding="utf-8")
            assert "Fisher" in text
            assert "icence" in text


# Slides -------------------------------------------------------------------------------------------


def test_slides_of_ones_own_function(tmp_path):
    out = output_of("10_slides", tmp_path, "slides.svg")
    assert out.splitlines()[0] == "the inputs"
    assert "backward 7 of 7: the gradient of w" in out
    assert out.endswith("slides.svg\n")
    assert "@keyframes" in (tmp_path / "slides.svg").read_text(encoding="utf-8")


def test_larger_than_memory(tmp_path):
    pytest.importorskip("dask", reason="needs the extra dask")
    out = output_of("11_larger_than_memory", tmp_path)
    first, second = re.findall(r"loss after 60 steps: (\S+)", out)
    assert first == second
    assert float(re.search(r"in memory: (\S+)", out)[1]) < 1e-14
    assert int(re.search(r"(\d+)% named right", out)[1]) >= 90

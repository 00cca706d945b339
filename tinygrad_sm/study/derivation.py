"""The textbook's derivation of p − y, line by line, each line held against the graph.

A line is an equation about nodes and edges of the naive composite. Its left side is what the engine
found there: a value, a local derivative, a cotangent or a contribution; the right sides are what is
on paper. They are compared twice: as formulas (`symbolic`), and as numbers of 50 digits, with the
logits and the target that were given. What a line shows is what was compared (`equations`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tinygrad_sm.arrays.elements import home_of, precise, symbols
from tinygrad_sm.engine.gradients import grad
from tinygrad_sm.engine.intake import float_array
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.view import Graph, Node, graph
from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.loss.composite import composite_cross_entropy
from tinygrad_sm.loss.fused import cross_entropy
from tinygrad_sm.loss.options import task_of
from tinygrad_sm.study.equations import Formula, Plain
from tinygrad_sm.study.symbolic import same_formulas
from tinygrad_sm.texts import texts

DIGITS = 50
_LOST = 5  # of them, to rounding
_MOST_CLASSES = 50  # nobody reads more
_MOST_SYMBOLS = 4  # classes of the formulas; more say nothing new
_ONE = 1e-6  # how far the sum of a distribution may be from 1
_SHOWN = 6  # classes whose numbers are listed

_SUM_Y = "sum(y[j] for j in classes)"
ASSUMES_ONE = ("one", "textbook")
"""The line that holds only where Σy = 1."""
LINES = (
    ("forward", "exp", "e[i] = exp(a[i])", "e"),
    ("forward", "sum", "s = sum(e[j] for j in classes)", "s"),
    ("forward", "softmax", "p[i] = e[i] / s", "p"),
    ("forward", "loss", "L = -sum(y[j] * log(p[j]) for j in classes)", "log mul sum L"),
    ("local", "exp", "de_da[i, i] = e[i]", "e>a"),
    ("local", "sum", "ds_de[i] = 1", "s>e"),
    ("local", "numerator", "dp_de[i, i] = 1 / s", "p>e"),
    ("local", "denominator", "dp_ds[j] = -e[j] / s ** 2 = -p[j] / s", "p>s"),
    ("local", "log", "dlogp_dp[j, j] = 1 / p[j]", "log>p"),
    ("local", "loss", "dL_dlogp[j] = -y[j]", "mul>log"),
    ("jacobian", "same",
     "dp_da[i, i] = (1 / s - p[i] / s) * e[i] = p[i] * (1 - p[i])", "p>e p>s e>a"),
    ("jacobian", "other", "dp_da[j, i] = -p[j] / s * e[i] = -p[j] * p[i]", "p>s s>e e>a"),
    ("paper", "chain", "dL_da[i] = sum(-y[j] / p[j] * dp_da[j, i] for j in classes)", "log>p p"),
    ("paper", "cases",
     "dL_da[i] = -y[i] * (1 - p[i]) + sum(y[j] * p[i] for j in classes if j != i)", "a"),
    ("paper", "split", f"dL_da[i] = -y[i] + p[i] * {_SUM_Y}", "a"),
    ("graph", "arrives", "dL_dp[j] = -y[j] / p[j]", "log>p"),
    ("graph", "numerator", "dL_de_via_p[i] = dL_dp[i] / s = -y[i] / e[i]", "p>e"),
    ("graph", "denominator",
     f"dL_ds = -sum(dL_dp[j] * p[j] for j in classes) / s = {_SUM_Y} / s", "p>s"),
    ("graph", "spreads", f"dL_de_via_s[i] = {_SUM_Y} / s", "s>e"),
    ("graph", "meet", "dL_de[i] = dL_de_via_p[i] + dL_de_via_s[i]", "e"),
    ("graph", "first", "dL_de_via_p[i] * e[i] = -y[i]", "p>e e>a"),
    ("graph", "second",
     f"dL_de_via_s[i] * e[i] = {_SUM_Y} * exp(a[i]) / sum(exp(a[j]) for j in classes)"
     f" = p[i] * {_SUM_Y}", "s>e e>a"),
    ("graph", "total", f"dL_da[i] = -y[i] + p[i] * {_SUM_Y}", "e>a a"),
    (*ASSUMES_ONE, "dL_da[i] = p[i] - y[i]", "a"),
    ("one", "fused", f"dL_da_via_F[i] = {_SUM_Y} * p[i] - y[i]", "SoftmaxWithLoss"),
)  # fmt: skip
"""Section and name of each line, its equation, and the nodes and edges (consumer > operand)."""

_TOTAL = "sum(exp(a[j]) for j in classes)"
PLACES = {
    "a": "a[i]", "e": "exp(a[i])", "s": _TOTAL, "p": f"exp(a[i]) / {_TOTAL}", "log": "log(p[i])",
    "mul": "y[i] * log(p[i])", "sum": "sum(y[j] * log(p[j]) for j in classes)",
    "L": "-sum(y[j] * log(p[j]) for j in classes)",
    "∂L": "1", "∂sum": "-1", "∂mul": "-1", "∂log": "-y[i]", "∂p": "-y[i] / p[i]",
    "∂s": f"{_SUM_Y} / {_TOTAL}", "∂e": f"-y[i] / exp(a[i]) + {_SUM_Y} / {_TOTAL}",
    "∂a": f"-y[i] + {_SUM_Y} * exp(a[i]) / {_TOTAL}",
    "L>sum": "-1", "sum>mul": "-1", "mul>log": "-y[i]", "log>p": "-y[i] / p[i]",
    "p>e": "-y[i]", "p>s": f"{_SUM_Y} / {_TOTAL}", "s>e": f"{_SUM_Y} * exp(a[i]) / {_TOTAL}",
    "e>a": f"-y[i] + {_SUM_Y} * exp(a[i]) / {_TOTAL}",
}  # fmt: skip
"""What the picture says of each node, of its gradient ∂, and of what goes back over each edge; at
e this is taken times exp(a), as it arrives at a."""


@dataclass(frozen=True, slots=True)
class Line:
    """One equation of the derivation.

    Attributes:
        section, name: which of LINES it is.
        says: what happens here, in a sentence.
        sides: the equation; the first side is what the graph holds.
        about: the nodes and edges that it is about, in words.
        numbers: what the letters stand for, the classes i and j among them.
        by_formula: whether the sides are equal for all logits and targets (where Σy = 1, if the
            line says so).
        by_number: whether they are equal for the given ones; None if these have another Σy.
    """

    section: str
    name: str
    says: str
    sides: tuple[Formula, ...]
    about: str
    numbers: Mapping[str, Any]
    by_formula: bool
    by_number: bool | None

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return self.by_formula and self.by_number is not False

    @property
    def free(self) -> list[str]:
        """Which of i and j it holds for every value of."""
        return sorted({index for side in self.sides for index in side.free})

    def equation(self, writer: Plain) -> str:
        """Return the equation in letters."""
        return " = ".join(writer.write(side) for side in self.sides)

    def in_numbers(self, writer: type[Plain]) -> str:
        """Return the right sides with numbers put in, and what they come to."""
        filled = writer(self.numbers)
        held, found = (
            filled.number(side.value(self.numbers)) for side in self.sides[:: len(self.sides) - 1]
        )
        rights = [filled.write(side) for side in self.sides[1:]]
        text = " = ".join(dict.fromkeys([*rights, found]))  # 1 = 1 says it once
        return f"{text}{filled.unequal}{held}" if found != held else text

    def classes(self) -> str:
        """Return which classes the numbers are of, e.g. ``"i = 0, j = 1"``."""
        return ", ".join(f"{index} = {self.numbers[index]}" for index in self.free)

    def listed(self, writer: type[Plain]) -> str:
        """Return the left side for every class; empty where there is but one, or too many."""
        if len(self.free) != 1 or len(self.numbers["classes"]) > _SHOWN:
            return ""
        filled = writer(self.numbers)
        values = (
            self.sides[0].value({**self.numbers, self.free[0]: k}) for k in self.numbers["classes"]
        )
        return f"({', '.join(map(filled.number, values))})"


@dataclass(frozen=True, slots=True)
class Derivation:
    """The derivation for one row of logits.

    Attributes:
        logits, target: the row, and its target as a distribution; arrays (classes,).
        digits: of how many digits the numbers are.
        lang: the language of its sentences.
        symbols: of how many classes the formulas are.
        lines: all of them, in order.
        graph: the naive composite's graph of formulas, which the lines are about.
        places: what the picture says, by the keys of PLACES; each is what the graph holds.
    """

    logits: np.ndarray
    target: np.ndarray
    digits: int
    lang: str
    symbols: int
    lines: tuple[Line, ...]
    graph: Graph
    places: Mapping[str, Formula]

    @property
    def holds(self) -> bool:
        """Whether every line does, and all that the picture says."""
        return all(line.holds for line in self.lines) and len(self.places) == len(PLACES)

    def sections(self) -> Iterator[tuple[str, list[Line]]]:
        """Yield the title of each section with its lines."""
        for section, title in texts(self.lang, "derive")["sections"].items():
            yield title, [line for line in self.lines if line.section == section]


def derive(logits: Any, target: Any, *, lang: str = "en") -> Derivation:
    """Derive the gradient of softmax-cross-entropy as the textbook does, and check every line.

    Args:
        logits: one row of 2 to 50 finite numbers: shape (classes,) or (1, classes).
        target: a class index, or a distribution of any sum; as in `cross_entropy`.
        lang: "en" or "ko".

    Raises:
        InvalidTypeError, InvalidValueError, LabelError: an argument does not fit, or SymPy or
            mpmath is missing.
    """
    a = float_array(logits, None, what="logits")
    one_row = a.size == max(a.shape, default=0)
    if not (one_row and 2 <= a.size <= _MOST_CLASSES and np.isfinite(a).all()):
        raise InvalidValueError(
            f"derive: logits must be one row of 2 to {_MOST_CLASSES} finite numbers; "
            f"got shape {a.shape}{'' if np.isfinite(a).all() else ', not all of them finite'}"
        )
    y = task_of(derive, a.shape, a.dtype, target).dense(np.float64)
    a, y = a.astype(np.float64).ravel(), np.asarray(y).ravel()
    count = min(a.size, _MOST_SYMBOLS)
    letters, general = symbols("a", count), symbols("y", count)
    digits = DIGITS + int((a.max() - a.min()) / np.log(10))  # those in which p and 1 agree
    row, numbers = precise(a, digits), precise(y, digits)
    formulas = {False: _found(letters, general), True: _found(letters, _summing_to_1(general))}
    sums_to_1 = abs(y.sum() - 1) <= _ONE
    exact = {False: _found(row, numbers)}
    exact[True] = _found(row, numbers / np.sum(numbers)) if sums_to_1 else exact[False]
    words = texts(lang, "derive")
    nodes = formulas[False]["nodes"]
    right = int(np.argmax(y))
    other = int(np.argmax(np.where(np.arange(a.size) == right, -np.inf, a)))
    lines = []
    for section, name, equation, about in LINES:
        sides = tuple(map(Formula, equation.split(" = ")))
        one = (section, name) == ASSUMES_ONE
        free = {index for side in sides for index in side.free}
        at = {"i": right, "j": other if "i" in free else right}
        lines.append(
            Line(
                section, name, words["lines"][section][name], sides,
                "; ".join(_called(place, nodes, words) for place in about.split()),
                {**exact[one], **at},
                by_formula=_equal(sides, formulas[one], _same),
                by_number=_equal(sides, exact[one], _near) if sums_to_1 or not one else None,
            )
        )  # fmt: skip
    held = formulas[False]["held"]
    shown = {place: Formula(source) for place, source in PLACES.items()}
    places = {
        place: formula
        for place, formula in shown.items()
        if _equal((formula,), formulas[False], _same, held[place])
    }
    return Derivation(a, y, digits, lang, count, tuple(lines), formulas[False]["graph"], places)


def _summing_to_1(y: Any) -> Any:
    """The target with its last element written as 1 minus the others."""
    others = y[:-1].tolist()
    return np.array([*others, 1 - sum(others)], object)


# What the graph holds -----------------------------------------------------------------------------


def _by_name(view: Graph) -> dict[str, Node]:
    return {node.name or node.op: node for node in view.nodes}


def _found(a: Any, y: Any) -> dict[str, Any]:
    """What the engine finds for a row of formulas or exact numbers, by the names of LINES."""
    logits = Tensor(a, name="a")
    trace = composite_cross_entropy(logits, y).backward(trace=True)
    assert trace is not None
    node = _by_name(trace.graph)
    arrived = {edge.consumer.name: edge.value for edge in trace.contributions(node["e"].tensor)}
    held = {name: one.value for name, one in node.items()}
    for step in trace.steps:
        own = step.node.name or step.node.op
        held[f"∂{own}"] = step.cotangent
        for edge in step.passed_on:
            x = trace.graph.nodes[step.node.inputs[edge.argument]]
            times = x.value if x.name == "e" else 1
            held[f"{own}>{x.name or x.op}"] = edge.value * times
    once_more = Tensor(a)
    fused = cross_entropy(once_more, y)
    fused.backward()
    home = home_of(a)
    return {
        "held": held, "graph": trace.graph, "nodes": {n.op: n for n in graph(fused).nodes} | node,
        "classes": range(len(a)), "exp": home.exp, "log": home.log,
        "a": a, "y": y, "e": held["e"], "s": held["s"][0], "p": held["p"], "L": held["L"].item(),
        "de_da": _local(trace.graph, node["e"], node["a"]),
        "ds_de": _local(trace.graph, node["s"], node["e"])[0],
        "dp_de": _local(trace.graph, node["p"], node["e"]),
        "dp_ds": _local(trace.graph, node["p"], node["s"])[:, 0],
        "dlogp_dp": _local(trace.graph, node["log"], node["p"]),
        "dp_da": _jacobian(node["p"].tensor, logits),
        "dL_dlogp": held["∂log"], "dL_dp": held["∂p"], "dL_ds": held["∂s"][0],
        "dL_de_via_p": arrived["p"], "dL_de_via_s": arrived["s"], "dL_de": held["∂e"],
        "dL_da": held["∂a"], "dL_da_via_F": once_more.grad,
    }  # fmt: skip


def _local(view: Graph, consumer: Node, operand: Node) -> Any:
    """∂consumer/∂operand by the vjp of this edge alone, all else held fixed."""
    assert consumer.primitive is not None
    x = Tensor(operand.value)
    given = [x if i == operand.id else view.nodes[i].value for i in consumer.inputs]
    return _jacobian(consumer.primitive(*given, **consumer.params), x)


def _jacobian(out: Tensor, x: Tensor) -> Any:
    units = np.eye(out.size).reshape(out.size, *out.shape)
    return np.stack([grad(out, x, unit) for unit in units])


def _equal(sides: tuple[Formula, ...], names: Mapping[str, Any], same: Any, held: Any = ()) -> bool:
    """Whether all sides agree for every i that they leave free, and every other j.

    With `held`, an array or a number that the graph holds, that is one more side.
    """
    free = sorted({index for side in sides for index in side.free})
    classes = names["classes"]
    for i in classes:
        for j in classes:
            if (i != j) if len(free) == 2 else (i == j):
                values = [side.value({**names, "i": i, "j": j}) for side in sides]
                if np.size(held):
                    values.append(np.ravel(held)[i if np.size(held) > 1 else 0])
                if not all(same(x, y, names) for x, y in pairwise(values)):
                    return False
    return True


def _same(x: Any, y: Any, names: Mapping[str, Any]) -> bool:
    return bool(same_formulas(x, y))


def _near(x: Any, y: Any, names: Mapping[str, Any]) -> bool:
    """Whether two numbers are equal but for the last digits of the larger terms around."""
    size = max(abs(x), abs(y), *(abs(v) for v in names["y"]))
    return bool(abs(x - y) <= size / 10 ** (DIGITS - _LOST))


def _called(place: str, nodes: Mapping[str, Node], words: Mapping[str, str]) -> str:
    """A node or an edge in words, e.g. "node 3 p", or "edge 1 → 3 (e → p)"."""
    name, _, operand = place.partition(">")
    target = nodes[name].id
    if not operand:
        return words["node"].format(id=target, name=name)
    return words["edge"].format(source=nodes[operand].id, target=target, by=operand, name=name)

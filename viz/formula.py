"""A node's formula as a reader would write it: ``e / s``, ``−Σ(y · log(p))``.

Named arguments are called by their names; of unnamed ones as much is written out as fits, so a
formula is short however large the graph is.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from operator import add
from typing import Any

import numpy as np

from tinygrad_sm.engine.primitive import Primitive
from tinygrad_sm.engine.view import CONSTANT, LEAF, Graph, Node
from viz.values import number, shortened

MOST_CHARACTERS = 26
_DEEPEST = 4
_MOST_ARGUMENTS = 4
_LONGEST_NAME = 24  # inside another node's formula
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_LONGEST_TEXT = 240  # anywhere in a picture
_LONGEST_INDEX = 16
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_SHORT_LIST = 4  # of an index that is written out

# Strength of binding: an argument that binds less strongly than its place wants parentheses.
_SUM, _PRODUCT, _POWER, _ATOM = 1, 2, 3, 4

# notation of a primitive: own strength, strength wanted of each argument
_STRENGTHS = {
    "{} + {}": (_SUM, _SUM, _PRODUCT),
    "{} − {}": (_SUM, _SUM, _PRODUCT),
    "−{}": (_SUM, _POWER),
    "{} · {}": (_PRODUCT, _PRODUCT, _POWER),
    "{} / {}": (_PRODUCT, _PRODUCT, _POWER),
    "{} @ {}": (_PRODUCT, _PRODUCT, _POWER),
    "{}^{}": (_POWER, _ATOM, _ATOM),
    "|{}|": (_ATOM, _SUM),
    "{}[{}]": (_ATOM, _ATOM, _SUM),
    "{}[{index}]": (_ATOM, _ATOM),
    "{}ᵀ": (_ATOM, _ATOM),
}
_HIDDEN_PARAMETERS = {"keepdims", "shape", "task", "saved", "chunk_rows"}


def is_loss(node: Node) -> bool:
    """Whether a node is a fused loss, which stands for a whole graph of others."""
    return node.primitive is not None and node.primitive.kind == "loss"


def primitive_of(node: Node) -> Primitive:
    """The primitive of a node that is no input."""
    assert node.primitive is not None
    return node.primitive


def target_of(graph: Graph, loss: Node) -> Node:
    """The target of a fused loss."""
    return graph.nodes[loss.inputs[primitive_of(loss).arguments.index("target")]]


def legible(text: str) -> str:
    """Cut what is too long for a picture, and replace what none can show.

    Those are control characters, what turns the direction of the text that follows, and halves of
    surrogate pairs. New lines stay; a tab becomes a space.
    """
    shown = _cut(text).replace("\r\n", "\n").replace("\t", " ")
    return "".join(map(_legible, shown))


def _cut(text: str, most: int = _LONGEST_TEXT) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def _legible(c: str) -> str:
    if c == "\n":
        return c
    if ord(c) < 0x20:
        return chr(0x2400 + ord(c))  # the picture of that control character
    if (
        unicodedata.category(c) in ("Cc", "Cs")
        or unicodedata.bidirectional(c) in _TURNING
        or ord(c) & 0xFFFE == 0xFFFE
    ):
        return "\N{REPLACEMENT CHARACTER}"
    return c


def is_number(node: Node) -> bool:
    """Whether a node is a plain number, which goes into formulas and needs no box of its own."""
    return node.op == CONSTANT and node.shape == () and node.name is None


def is_nameless(node: Node) -> bool:
    """Whether a node is an input that a name has to be made up for."""
    return not node.inputs and not node.name and not is_number(node)


class Formulas:
    """The formulas of one graph.

    Args:
        graph: the view of the graph.
        names: other names, by node id, than the nodes' own.
        silent: ids of nodes that a formula passes over to their argument.
        most: how many characters of an unnamed argument are written out.
    """

    def __init__(
        self,
        graph: Graph,
        names: Mapping[int, str] | None = None,
        silent: Collection[int] = (),
        most: int = MOST_CHARACTERS,
    ) -> None:
        self._nodes = graph.nodes
        self._most = most
        self._silent = silent
        own = {node.id: node.name for node in graph.nodes if node.name}
        named = implied_names(graph) | own | dict(names or {})
        self._names = _numbered({i: legible(name) for i, name in named.items()})

    def title(self, node: Node) -> str:
        """A node's first line, e.g. ``"p = e / s"``; the name alone if nothing computed it."""
        name = self.name(node)
        if node.op in (LEAF, CONSTANT):
            return name or f"{node.op} {letter(node)}"
        text = _cut(self._written(node, _DEEPEST)[0], 2 * _LONGEST_TEXT)
        return f"{name} = {text}" if name else text

    def name(self, node: Node) -> str:
        """What formulas call a node: its name, with a number if others have it too; or nothing."""
        return self._names.get(node.id, "")

    def _written(self, node: Node, depth: int) -> tuple[str, int]:
        """The right-hand side of a node's formula, and how strongly it binds."""
        shown = node.inputs[: _MOST_ARGUMENTS + 1]
        arguments = [self._reference(self._nodes[i], depth - 1) for i in shown]
        notation = primitive_of(node).notation
        pieces = notation.split("{}")  # around and between the arguments
        if len(pieces) == len(arguments) + 1 and not self._parameters(node, notation):
            own, *wanted = _STRENGTHS.get(notation, (_SUM, *[_ATOM] * len(arguments)))
            parts = [
                text if strength >= least else f"({text})"
                for (text, strength), least in zip(arguments, wanted, strict=True)
            ]
            pieces = [x.replace("{index}", _index(node.params.get("index"))) for x in pieces]
            return pieces[0] + "".join(map(add, parts, pieces[1:])), own
        parts = [text for text, _ in arguments[:_MOST_ARGUMENTS]]
        if len(arguments) > _MOST_ARGUMENTS:
            parts.append("…")
        parts += self._parameters(node)
        return f"{_word(node)}({', '.join(parts)})", _ATOM

    def _reference(self, node: Node, depth: int) -> tuple[str, int]:
        """How a formula refers to an argument: by name, number, or its own formula if short."""
        while node.id in self._silent:
            node = self._nodes[node.inputs[0]]
        name = self.name(node).replace("\n", "⏎")
        if name:
            return shortened(name, _LONGEST_NAME), _SUM if _is_formula(name) else _ATOM
        if is_number(node):
            text = number(node.value)
            return text, _SUM if text.startswith("−") else _ATOM
        if node.op in (LEAF, CONSTANT):
            return letter(node), _ATOM
        if depth > 0:
            text, strength = self._written(node, depth)
            if len(text) <= self._most:
                return text, strength
        return _in_short(node)

    def _parameters(self, node: Node, notation: str = "") -> list[str]:
        """The parameters that change what is computed, e.g. ``axis=1``; not those of a notation."""
        shown = []
        for name, value in node.params.items():
            if name in _HIDDEN_PARAMETERS or value is None or f"{{{name}}}" in notation:
                continue
            if name == "axis":  # a vector has no other
                usual = bool(notation) or len(self._nodes[node.inputs[0]].shape) == 1
            elif name == "axes":  # of a transpose; all reversed is what it does unasked
                usual = [i % len(value) for i in value] == [*range(len(value))][::-1]
            else:
                usual = type(value) is int and value == primitive_of(node).parameters.get(name)
            if not usual:
                shown.append(f"{name}={shortened(str(value), _LONGEST_INDEX)}")
        return shown


def _numbered(names: Mapping[int, str]) -> dict[int, str]:
    """The names by node id; those that several nodes have get numbers: L₁ + L₂ is not 2L."""
    counts = Counter(names.values())
    seen: Counter[str] = Counter()
    found = {}
    for i, name in sorted(names.items()):
        seen[name] += 1
        found[i] = name if counts[name] == 1 else f"{name}{str(seen[name]).translate(SUBSCRIPTS)}"
    return found


def _is_formula(name: str) -> bool:
    """Whether a name has an operator in it, outside of brackets, as x−μ has and f(x−μ) has not."""
    depth = 0
    for c in name:
        depth += (c in "([{") - (c in ")]}")
        if depth == 0 and (c in "*/·^@∂Σ" or unicodedata.category(c) in ("Sm", "Pd")):
            return True
    return False


def _in_short(node: Node) -> tuple[str, int]:
    """What an operation does, without its arguments: ``… / …``, ``exp(…)``."""
    notation = primitive_of(node).notation
    if notation.count("{") > 1:
        own, *_ = _STRENGTHS.get(notation, (_SUM,))
        return notation.replace("{index}", "…").replace("{}", "…"), own
    return f"{_word(node)}(…)", _ATOM


def _word(node: Node) -> str:
    """What a formula calls the operation: its sign, if that stands in front; else its name."""
    word = primitive_of(node).notation.removesuffix("{}")
    return legible(node.op if "{" in word else word)


def letter(node: Node) -> str:
    """What formulas call an input without a name."""
    return f"{'c' if node.op == CONSTANT else 'x'}{node.id}"


def implied_names(graph: Graph) -> dict[int, str]:
    """Names for constants that have none, by what they are used for.

    The target of a fused loss is called y if it is a distribution, t if class indices. What picks
    elements is called t, too; if there are several such, "index" and its number.
    """
    names = {}
    for node in graph.nodes:
        if is_loss(node) and is_nameless(target := target_of(graph, node)):
            names[target.id] = target_name(target)
    picking = [i for i in _only_indices(graph) if i not in names]
    alone = len(picking) == 1 and "t" not in {node.name for node in graph.nodes}
    return names | {i: "t" if alone else f"index {i}" for i in picking}


def target_name(target: Node) -> str:
    """t for class indices, y for a distribution."""
    return "t" if target.dtype.startswith(("int", "uint")) else "y"


def _only_indices(graph: Graph) -> list[int]:
    """Ids of unnamed constants that serve as an index and as nothing else."""
    uses: dict[int, set[bool]] = {}
    for edge in graph.edges:
        node = graph.nodes[edge.source]
        if node.op == CONSTANT and node.name is None:
            user = graph.nodes[edge.target]
            primitive = primitive_of(user)
            vjp = primitive.vjps(len(user.inputs))[edge.argument]  # an index has none
            indexes = primitive.kind == "move" and vjp is None
            uses.setdefault(edge.source, set()).add(indexes)
    return [i for i, kinds in uses.items() if kinds == {True}]


def _index(index: Any) -> str:
    parts = index if isinstance(index, tuple) else (index,)
    return shortened(", ".join(map(_index_part, parts)), _LONGEST_INDEX)


def _index_part(part: Any) -> str:
    if isinstance(part, slice):
        ends = ["" if x is None else str(x) for x in (part.start, part.stop)]
        return ":".join(ends + ([str(part.step)] if part.step is not None else []))
    if isinstance(part, (np.ndarray, range)) and np.size(part) > 1:
        elements = np.ravel(part)
        if elements.dtype.kind in "iu" and (np.diff(elements) == 1).all():
            return f"{elements[0]}…{elements[-1]}"
        if len(elements) > _SHORT_LIST:
            return "mask" if elements.dtype.kind == "b" else "t"
    return "…" if part is Ellipsis else " ".join(str(part).split())

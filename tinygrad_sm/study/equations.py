"""Formulas in Python's own words, which are computed and written down from one source.

``-y[i] / p[i] * sum(y[j] for j in classes if j != i)`` is evaluated as it stands, on formulas or on
numbers, and is written as plain text, as LaTeX, or with numbers in the place of letters. So what a
derivation shows is what was checked. A name like ``dL_de_via_p`` is a derivative: ∂L/∂e, that part
of it which comes by way of p.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np

_SUM, _SIGN, _BIG_SUM, _PRODUCT, _POWER, _ATOM = range(6)  # how strongly what is written binds
_TERMS = 4  # of a sum that is written out in numbers
_DIGITS = 4
_LOWERED = str.maketrans("0123456789ij,", "₀₁₂₃₄₅₆₇₈₉ᵢⱼ,")
_WORDS = {"logp": "log p"}  # names of what is no single letter
_SCALARS = ("L", "s")  # which have no index

Written = tuple[str, int]


class Formula:
    """One formula; its letters are looked up in what `value` and `Plain` are given.

    Attributes:
        source: the formula in Python.
        free: which of the indices i and j no sum in it binds.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.tree = ast.parse(source, mode="eval").body
        self._code = compile(source, "<formula>", "eval")
        self.free = tuple(index for index in "ij" if index in _free(self.tree))

    def value(self, names: Mapping[str, Any]) -> Any:
        """Return its value, with these meanings of its names."""
        return eval(self._code, {"__builtins__": {"sum": sum}, **names})  # of our own sources

    def __repr__(self) -> str:
        return f"Formula({self.source!r})"


def _free(tree: ast.AST) -> set[str]:
    bound = {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.comprehension) and isinstance(node.target, ast.Name)
    }
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - bound


class Plain:
    """Writes formulas as plain text.

    Args:
        numbers: what stands in the place of letters, by name; none of them, if it is None.
        vectors: leave out the indices, and write Σy for the sum over all classes.
    """

    def __init__(self, numbers: Mapping[str, Any] | None = None, *, vectors: bool = False) -> None:
        self.numbers = numbers
        self.vectors = vectors

    def write(self, formula: Formula) -> str:
        """Return a formula as text."""
        return self._any(formula.tree, {})[0]

    def number(self, x: Any) -> str:
        """Return a few digits of a number of any precision, with a true minus sign."""
        return _digits(x).replace("-", "−")

    # Signs of plain text ---------------------------------------------------------------------

    times, number_times, unequal = " · ", "·", " ≠ "
    left, right = "(", ")"

    def _inside(self, written: Written, least: int) -> str:
        text, strength = written
        return text if strength >= least else f"{self.left}{text}{self.right}"

    def _lowered(self, letter: str, index: str) -> str:
        return letter + index.translate(_LOWERED)

    def _quotient(self, above: Written, below: Written) -> Written:
        big = below[1] == _BIG_SUM  # which ends where the line does
        return (
            f"{self._inside(above, _PRODUCT)} / {below[0] if big else self._inside(below, _POWER)}",
            _PRODUCT,
        )

    def _derivative(self, of: str, by: str, via: str) -> str:
        return f"∂{of}/∂{by}" + (f"|{via}" if via else "")

    def _raised(self, base: str, exponent: str) -> str:
        return base + exponent.translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))

    def _sum(self, index: str, other: str) -> str:
        under = f"{index}≠{other}" if other else index
        return f"Σ{under.translate(_LOWERED)} "

    def _call(self, name: str, argument: Written) -> Written:
        text, strength = argument
        if name == "log" and strength == _ATOM:
            return f"log {text}", _PRODUCT
        return f"{name}{self.left}{text}{self.right}", _ATOM

    # The tree ----------------------------------------------------------------------------------

    def _any(self, tree: ast.AST, indices: Mapping[str, int]) -> Written:
        match tree:
            case ast.Constant(value):
                return str(value), _ATOM
            case ast.UnaryOp(_, operand):
                written = self._any(operand, indices)
                if written == ("0", _ATOM):
                    return written
                return f"−{self._inside(written, _BIG_SUM)}", _SIGN
            case ast.BinOp(left, op, right):
                return self._operation(op, self._any(left, indices), self._any(right, indices))
            case ast.Name(name):
                return self._letter(name, [], indices)
            case ast.Subscript(ast.Name(name), place):
                at = place.elts if isinstance(place, ast.Tuple) else [place]
                return self._letter(name, [ast.unparse(index) for index in at], indices)
            case ast.Call(_, [ast.GeneratorExp() as terms]):
                return self._over_classes(terms, indices)
            case ast.Call(ast.Name(name), [argument]):
                return self._call(name, self._any(argument, indices))
        raise NotImplementedError(ast.unparse(tree))

    def _operation(self, op: ast.operator, left: Written, right: Written) -> Written:
        match op:
            case ast.Add():
                return f"{left[0]} + {self._inside(right, _BIG_SUM)}", _SUM
            case ast.Sub():
                return f"{left[0]} − {self._inside(right, _BIG_SUM)}", _SUM
            case ast.Pow():
                return self._raised(self._inside(left, _ATOM), right[0]), _POWER
        if left[1] == _SIGN:  # (−y)/p is written −y/p
            bare = left[0][1:]
            strength = _BIG_SUM if bare.startswith(("Σ", r"\sum")) else _PRODUCT
            return f"−{self._product(op, (bare, strength), right)[0]}", _SIGN
        return self._product(op, left, right)

    def _product(self, op: ast.operator, left: Written, right: Written) -> Written:
        if isinstance(op, ast.Div):
            return self._quotient(left, right)
        sign = self.times if self.numbers is None else self.number_times
        return f"{self._inside(left, _PRODUCT)}{sign}{self._inside(right, _BIG_SUM)}", _PRODUCT

    def _letter(self, name: str, at: list[str], indices: Mapping[str, int]) -> Written:
        """A letter with its indices; in numbers, what it stands for."""
        if self.numbers is not None:
            known = {**self.numbers, **indices}
            found = known[name]
            for index in at:
                found = found[known[index]]
            text = self.number(found)
            return text, _SIGN if text[0] in "−-" else _ATOM
        at = [] if self.vectors else list(at)
        if not name.startswith("d"):
            return self._place(name, at), _ATOM
        of, by = name.removeprefix("d").split("_d")
        by, _, via = by.partition("_via_")
        return self._derivative(self._place(of, at), self._place(by, at), via), _ATOM

    def _place(self, name: str, at: list[str]) -> str:
        """A letter with the next of the indices, unless it has none."""
        word = _WORDS.get(name, name)
        return self._lowered(word, at.pop(0)) if at and name not in _SCALARS else word

    def _over_classes(self, tree: ast.GeneratorExp, indices: Mapping[str, int]) -> Written:
        (over,) = tree.generators
        assert isinstance(over.target, ast.Name)
        index = over.target.id
        other = ast.unparse(over.ifs[0]).rpartition(" ")[2] if over.ifs else ""
        if self.numbers is not None:
            classes = [k for k in self.numbers["classes"] if not other or k != self.numbers[other]]
            terms = [self._any(tree.elt, {**indices, index: k}) for k in classes[:_TERMS]]
            text = " + ".join(
                self._inside(term, _PRODUCT if k else _SIGN) for k, term in enumerate(terms)
            )
            text += " + …" if len(classes) > _TERMS else ""
            return text or "0", _SUM if len(classes) > 1 else terms[0][1] if terms else _ATOM
        body = self._any(tree.elt, indices)
        if self.vectors:
            return f"Σ{self._inside(body, _ATOM)}", _BIG_SUM
        return self._sum(index, other) + self._inside(body, _BIG_SUM), _BIG_SUM


class Latex(Plain):
    """Writes formulas as LaTeX, in mathematics mode."""

    times, number_times, unequal = r" \, ", r" \cdot ", r" \ne "
    left, right = r"\left(", r"\right)"

    def write(self, formula: Formula) -> str:
        """Return a formula as LaTeX."""
        return super().write(formula).replace("−", "-")

    def number(self, x: Any) -> str:
        """Return a few digits of a number, powers of ten written out."""
        digits, _, exponent = _digits(x).partition("e")
        power = rf" \times 10^{{{int(exponent)}}}" if exponent else ""
        return digits + power

    def _lowered(self, letter: str, index: str) -> str:
        return f"{letter}_{{{index}}}" if len(index) > 1 else f"{letter}_{index}"

    def _quotient(self, above: Written, below: Written) -> Written:
        return rf"\frac{{{above[0]}}}{{{below[0]}}}", _POWER

    def _derivative(self, of: str, by: str, via: str) -> str:
        text = rf"\frac{{\partial {of}}}{{\partial {by}}}"
        return rf"\left.{text}\right|_{{{via}}}" if via else text

    def _raised(self, base: str, exponent: str) -> str:
        return f"{base}^{{{exponent}}}"

    def _sum(self, index: str, other: str) -> str:
        return rf"\sum_{{{index} \ne {other}}} " if other else rf"\sum_{index} "

    def _call(self, name: str, argument: Written) -> Written:
        text, strength = super()._call(name, argument)
        return rf"\{text}", strength

    def _place(self, name: str, at: list[str]) -> str:
        return super()._place(name, at).replace("log ", r"\log ")


def _digits(x: Any) -> str:
    """A few digits of Python's or mpmath's number: "0.659", "5.61e-435"; −0 is 0."""
    if isinstance(x, (int, float, np.floating)):
        return f"{float(x) + 0.0:.{_DIGITS}g}"
    text: str = x.context.nstr(x, _DIGITS, strip_zeros=True)
    return text.removesuffix(".0").replace(".0e", "e")

"""When two formulas are the same: by the one form of lowest terms that each of them has.

With E_i written for exp(a_i), softmax, its derivatives and the gradient of the loss are quotients
of polynomials in the E_i and y_i, and in lowest terms a quotient has one form. So whether two
formulas are equal is decided, and not left to what a simplifier happens to find. A logarithm is
first taken apart, log(E_0/(E_0 + E_1)) = a_0 − log(E_0 + E_1), and then counts as one more letter.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


def same_formulas(left: Any, right: Any) -> np.ndarray:
    """Return where two arrays of SymPy's expressions are equal for all values; they broadcast."""
    return np.asarray(np.frompyfunc(_same, 2, 1)(left, right), bool)


def _same(left: Any, right: Any) -> bool:
    return bool(left == right or in_lowest_terms(left - right) == 0)


@cache
def in_lowest_terms(expression: Any) -> Any:
    """Return the quotient of polynomials that an expression is, E_a0 standing for exp(a0)."""
    import sympy  # noqa: PLC0415  of the extra `symbolic`

    given = sympy.sympify(expression)
    letters = {symbol: sympy.Symbol(f"E_{symbol}", positive=True) for symbol in given.free_symbols}

    def power(exponent: Any) -> Any:
        """exp(a0 − m) as E_a0 / E_m."""
        terms = (term.as_coeff_Mul() for term in sympy.Add.make_args(exponent))
        return sympy.Mul(*(letters[symbol] ** count for count, symbol in terms))

    def logarithm(argument: Any) -> Any:
        """log(E_a0 / (E_a0 + E_a1)) as a0 − log(E_a0 + E_a1), which is one more letter."""
        apart = sympy.expand_log(sympy.log(sympy.cancel(argument)), force=True)
        known = {sympy.log(letter): symbol for symbol, letter in letters.items()}
        return apart.subs(known).replace(sympy.log, lambda x: sympy.Symbol(f"log({x})"))

    rational = given.replace(sympy.exp, power).replace(sympy.log, logarithm)
    field, *_ = sympy.polys.fields.field(sorted(rational.free_symbols, key=str), sympy.QQ)
    return field.from_expr(rational).as_expr()

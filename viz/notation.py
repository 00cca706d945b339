r"""Formulas between dollar signs in names and labels: ``$\hat{y}_1$``.

A small part of LaTeX is read, the part that names are made of: letters, subscripts, superscripts,
fractions, roots, accents and the signs of `SIGNS`. What is not part of it stays text, so that a
name can never run a command of TeX. The tree that `parsed` gives is written as plain Unicode
(`in_unicode`), as LaTeX (`in_latex`), or as whatever a format needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

SIGNS: Final = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η",
    "theta": "θ", "iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ",
    "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "chi": "χ", "psi": "ψ",
    "omega": "ω", "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Pi": "Π", "Sigma": "Σ",
    "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω", "sum": "Σ", "prod": "Π", "partial": "∂", "nabla": "∇",
    "infty": "∞", "cdot": "·", "times": "×", "odot": "⊙", "top": "ᵀ", "ell": "ℓ", "pm": "±",
    "le": "≤", "ge": "≥", "ne": "≠", "approx": "≈", "in": "∈", "to": "→", "ldots": "…",
    "log": "log", "exp": "exp", "max": "max", "min": "min", "tanh": "tanh",
}  # fmt: skip
ACCENTS: Final = {"hat": "\u0302", "bar": "\u0304", "tilde": "\u0303", "dot": "\u0307"}
"""Signs above a letter, as the characters that combine with it."""
_BETWEEN = tuple("=+−/·×⊙±≤≥≠≈∈→")
_MATH = re.compile(r"\$([^$]+)\$")
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)
_LOWERED = dict(
    zip("0123456789+−-=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True)
)
_RAISED = dict(
    zip("0123456789+−-=()niT", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱᵀ", strict=True)
)  # of raised letters few are in every font


class Part(NamedTuple):
    """A piece of a formula.

    Attributes:
        kind: "letters", "word" (upright letters) or "sign" (a key of SIGNS); "row" of parts;
            "sub" and "sup" (what, below or above it), "frac" (above, below), "sqrt", or an accent
            (a key of ACCENTS).
        text: the letters, or the sign's name.
        parts: what it is made of.
    """

    kind: str
    text: str = ""
    parts: tuple[Part, ...] = ()


def split(text: str) -> Iterator[tuple[str, Part | None]]:
    """The pieces of a text, with the tree of those that are formulas."""
    for i, piece in enumerate(_MATH.split(text)):
        if piece:
            yield (f"${piece}$", parsed(piece)) if i % 2 else (piece, None)


def parsed(formula: str) -> Part:
    """Read what stands between dollar signs; what is not understood is kept as letters."""
    return _row(_TOKEN.findall(formula)[::-1], "")


def _row(tokens: list[str], end: str) -> Part:
    parts: list[Part] = []
    while tokens:
        token = tokens.pop()
        if token == end:
            break
        if token in "_^":
            what = parts.pop() if parts else Part("letters")
            parts.append(Part("sub" if token == "_" else "sup", parts=(what, _argument(tokens))))
        elif not token.isspace():
            parts.append(_part(token, tokens))
    return parts[0] if len(parts) == 1 else Part("row", parts=tuple(parts))


def _part(token: str, tokens: list[str]) -> Part:
    """What one token begins; the tokens that it takes with it are taken."""
    word = token.removeprefix("\\")
    if token == "{":
        return _row(tokens, "}")
    if token in ("\\frac", "\\sqrt", *(f"\\{accent}" for accent in ACCENTS)):
        count = 2 if word == "frac" else 1
        return Part(word, parts=tuple(_argument(tokens) for _ in range(count)))
    if token in ("\\mathrm", "\\text", "\\mathbf", "\\operatorname"):
        return Part("word", _plain(_argument(tokens)))
    if token.startswith("\\") and word in SIGNS:
        return Part("sign", word)
    return Part("letters", word if len(word) == 1 else token)


def _argument(tokens: list[str]) -> Part:
    while tokens and tokens[-1].isspace():
        tokens.pop()
    return _part(tokens.pop(), tokens) if tokens else Part("letters")


# Unicode ------------------------------------------------------------------------------------------


def in_unicode(text: str) -> str:
    """A text with its formulas written in plain characters: ``ŷ₁``."""
    return "".join(piece if tree is None else _plain(tree) for piece, tree in split(text))


def _plain(part: Part) -> str:
    inner = [_plain(x) for x in part.parts]
    if part.kind == "sub":
        return inner[0] + _small(inner[1], _LOWERED, "_")
    if part.kind == "sup":
        return inner[0] + _small(inner[1], _RAISED, "^")
    if part.kind == "frac":
        return " / ".join(x if x.isalnum() or x[:1] == "∂" else _grouped(x) for x in inner)
    if part.kind == "sqrt":
        return f"√{_grouped(inner[0])}"
    if part.kind in ACCENTS:
        return f"{inner[0][:1]}{ACCENTS[part.kind]}{inner[0][1:]}"
    if part.kind == "row":
        return "".join(map(_spaced, part.parts, inner)).replace(" (", "(").strip()
    return SIGNS[part.text] if part.kind == "sign" else part.text.replace("-", "−")


def _spaced(part: Part, text: str) -> str:
    if part.kind == "sign" and len(text) > 1:  # a function's name
        return f"{text} "
    return f" {text} " if text in _BETWEEN and part.kind in ("letters", "sign") else text


def _small(text: str, letters: dict[str, str], sign: str) -> str:
    if sign == "^" and text == "ᵀ":
        return text
    small = [letters.get(c, "") for c in text]
    return "".join(small) if all(small) else sign + _grouped(text)


def _grouped(text: str) -> str:
    return text if len(text) == 1 else f"({text})"


# LaTeX --------------------------------------------------------------------------------------------

_TEX = {sign: f"\\{name}" for name, sign in SIGNS.items() if len(sign) == 1}
_TEX |= {"ᵀ": "^{\\mathsf{T}}", "−": "-", "√": "\\surd", "⚠": "\\triangle", "‖": "\\|", "′": "'"}
_TEX |= {small: f"_{{{c.replace('−', '-')}}}" for c, small in _LOWERED.items()}
_TEX |= {small: f"^{{{c.replace('−', '-')}}}" for c, small in _RAISED.items() if c != "T"}
_ESCAPED = {
    **{c: f"\\{c}" for c in "#$%&_{}"},
    "\\": "\\textbackslash{}", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}",
    "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", '"': "\\textquotedbl{}",
    "\N{NO-BREAK SPACE}": "~",
}  # fmt: skip


def in_latex(text: str) -> str:
    """A text as LaTeX: its formulas as formulas, mathematical signs in it too, the rest escaped."""
    return "".join(
        "".join(map(_letter, piece)) if tree is None else f"${_formula(tree)}$"
        for piece, tree in split(text)
    )


def _letter(c: str) -> str:
    return f"${{}}{_TEX[c]}$" if c in _TEX else _ESCAPED.get(c, c)


def _formula(part: Part) -> str:
    inner = [_formula(x) for x in part.parts]
    if part.kind in ("sub", "sup"):
        return f"{_braced(part.parts[0])}{'_' if part.kind == 'sub' else '^'}{{{inner[1]}}}"
    if part.kind == "row":
        return " ".join(inner)
    if part.kind == "sign":
        return f"\\{part.text}"
    if part.kind == "word":
        return f"\\mathrm{{{''.join(map(_sign, part.text))}}}"
    if part.kind == "letters":
        return "".join(map(_sign, part.text))
    return f"\\{part.kind}{''.join(f'{{{x}}}' for x in inner)}"


def _braced(part: Part) -> str:
    text = _formula(part)
    return text if part.kind in ("letters", "sign") else f"{{{text}}}"


def _sign(c: str) -> str:
    """A character inside of a formula."""
    return _TEX.get(c) or (f"\\text{{{_ESCAPED[c]}}}" if c in _ESCAPED else c)

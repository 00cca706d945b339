"""What a learner reads, in each language: `en.json` and `ko.json`, nested by section.

A text may hold places such as ``{node}``, to be filled by `str.format`, or by the page's script.
Every language has the same keys and the same places; the tests compare them.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from tinygrad_sm.errors import InvalidValueError, shown

LANGUAGES = ("en", "ko")
"""English, and the language of the article that this project follows."""


def texts(lang: str, section: str) -> dict[str, Any]:
    """Return the texts of one section: strings by name, some of them grouped in a dict.

    Args:
        lang: one of LANGUAGES.
        section: a key of the file, e.g. ``"worksheet"``.

    Raises:
        InvalidValueError: there is no such language, or no such section.

    Examples:
        >>> texts("ko", "glossary")["leaf"]["term"]
        '잎(leaf)'
    """
    if lang not in LANGUAGES:
        raise InvalidValueError(f"lang must be one of {', '.join(LANGUAGES)}; got {shown(lang)}")
    sections = _read(lang)
    if section not in sections:
        raise InvalidValueError(
            f"section must be one of {', '.join(sections)}; got {shown(section)}"
        )
    found: dict[str, Any] = sections[section]
    return found


@cache
def _read(lang: str) -> dict[str, Any]:
    file = resources.files("tinygrad_sm").joinpath(f"texts/{lang}.json")
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return read

"""Every language says the same things, with the same places to fill."""

import string

import pytest

from tinygrad_sm.errors import InvalidValueError
from tinygrad_sm.texts import LANGUAGES, _read, texts


def flat(tree, path=()):
    """Every text with its path; a leaf that is no text fails."""
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from flat(inner, (*path, key))
    else:
        assert isinstance(tree, str), path
        yield path, tree


def places(text):
    return sorted({name for _, name, _, _ in string.Formatter().parse(text) if name is not None})


@pytest.mark.parametrize("lang", [lang for lang in LANGUAGES if lang != "en"])
def test_languages_have_the_same_texts_with_the_same_places(lang):
    english, other = dict(flat(_read("en"))), dict(flat(_read(lang)))
    assert list(other) == list(english)
    for path, text in other.items():
        assert text.strip(), path
        assert places(text) == places(english[path]), path


def test_korean_is_korean():
    texts_of = dict(flat(_read("ko")))
    written = [t for t in texts_of.values() if any("가" <= c <= "힣" for c in t)]
    assert len(written) > len(texts_of) / 2


def test_what_is_unknown_is_one_sentence():
    with pytest.raises(InvalidValueError, match=r"lang must be one of en, ko; got 'fr'"):
        texts("fr", "glossary")
    with pytest.raises(InvalidValueError, match=r"section must be one of .*; got 'jokes'"):
        texts("en", "jokes")

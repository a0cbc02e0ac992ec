"""The lexer: texts of tokens give the statement back, and tokens are PostgreSQL's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythiadb.sql.scan import Kind, scan, significant

PIECES = [
    "select", "'a''b'", "E'a\\'b'", "U&'x'", "N'y'", "B'1'", "X'1F'", "$$ a ' $$", "$t$ ; $$ $t$", '"a""b"', 'U&"q"',
    "-- note\n", "/* a /* b */ c */", "1e5", "0x1F", "1_000", ".5", "1.", "a$b", "ñandú", "<=>", "<->", "@>", "->>", "::",
    ":=", "=>", "$1", ":name", ":1", "%s", "%(name)s", "%%", "(", ")", "[", "]", ",", ";", ".", "..", " ", "\n", "'", '"',
    "$$", "/*", "*/", "\\", "E'", "%", ":", "é", "\x00",
]  # fmt: skip


def shown(text: str, *, placeholders: bool = False) -> list[str]:
    return [token.text for token in significant(scan(text, placeholders=placeholders))]


@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join), st.booleans())
def test_tokens_joined_give_the_text(text: str, placeholders: bool) -> None:
    tokens = scan(text, placeholders=placeholders)
    assert "".join(token.text for token in tokens) == text
    assert all(text[token.start : token.end] == token.text for token in tokens)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a<=>b", ["a", "<=>", "b"]),
        ("a<->-1", ["a", "<->", "-", "1"]),
        ("a=-1", ["a", "=", "-", "1"]),
        ("a@-1", ["a", "@-", "1"]),
        ("a+--x\nb", ["a", "+", "b"]),
        ("a*/* c */b", ["a", "*", "b"]),
        ("a->>'b'", ["a", "->>", "'b'"]),
        ("x::int", ["x", "::", "int"]),
        ("f(a=>1,b:=2)", ["f", "(", "a", "=>", "1", ",", "b", ":=", "2", ")"]),
        ("1..10", ["1", "..", "10"]),
        ("1.5e-3+.5", ["1.5e-3", "+", ".5"]),
        ("/* a /* b */ c */ x", ["x"]),
        ("$$ it's $$ $a$ $$ $a$", ["$$ it's $$", "$a$ $$ $a$"]),
        ("a$1$b", ["a$1$b"]),
        ("E'a\\'b' 'c\\'", ["E'a\\'b'", "'c\\'"]),
        ("$1", ["$1"]),
        ("x[1:n]", ["x", "[", "1", ":", "n", "]"]),
        ("x[:n]", ["x", "[", ":", "n", "]"]),
        ("ARRAY[:n, :m]", ["ARRAY", "[", ":n", ",", ":m", "]"]),
        ("x[f(:n)]", ["x", "[", "f", "(", ":n", ")", "]"]),
        (":v::vector", [":v", "::", "vector"]),
        ("'unterminated", ["'unterminated"]),
    ],
)
def test_tokens_are_those_of_postgresql(text: str, tokens: list[str]) -> None:
    assert shown(text) == tokens


def test_placeholders_are_read_only_when_asked() -> None:
    assert shown("a %s", placeholders=False) == ["a", "%", "s"]
    assert shown("a = %s AND b <%% %(x)s % c", placeholders=True) == [
        "a",
        "=",
        "%s",
        "AND",
        "b",
        "<",
        "%%",
        "%(x)s",
        "%",
        "c",
    ]


def test_words_have_upper_case_keys_and_others_their_text() -> None:
    tokens = significant(scan('Select "Select" :x'))
    assert [token.key for token in tokens] == ["SELECT", '"Select"', ":x"]
    assert [token.kind for token in tokens] == [Kind.WORD, Kind.QUOTED, Kind.BIND]

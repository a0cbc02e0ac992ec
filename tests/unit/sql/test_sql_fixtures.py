"""Every fixture file, and the before/after example of every rule."""

from __future__ import annotations

import re

import pytest
from sql_fixtures import FIXTURES, Case, read, run_case

from pythiadb.sql import translate
from pythiadb.sql.rewrite import Rule
from pythiadb.sql.rules import RULES

CASES = [
    pytest.param(case, id=f"{path.stem}: {case.title}")
    for path in sorted(FIXTURES.glob("*.sql"))
    for case in read(path)
]


@pytest.mark.parametrize("case", CASES)
def test_fixture(case: Case) -> None:
    done = run_case(case)
    assert done.statements == case.statements
    assert done.batched == case.notes


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_does_what_its_docstring_says(rule: Rule) -> None:
    match = re.search(r"Before: (.*)\n\s+After: (.*)\n", rule.__doc__ or "")
    assert match is not None
    assert translate(match[1]).statements == (match[2],)


@pytest.mark.parametrize("case", CASES)
def test_a_translation_needs_no_translation(case: Case) -> None:
    for statement in case.statements:
        assert translate(statement).statements == (statement,)

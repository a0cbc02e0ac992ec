"""Edits of a text at given places, applied together: everything that no edit touches stays as it is, to the byte."""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """Put `text` in the place of the characters from `start` up to `end`."""

    start: int
    end: int
    text: str


class Edits:
    """A set of edits that do not overlap. At one place, insertions come out in the order in which they were made."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._edits: list[Edit] = []
        self.made = 0  # how many edits were ever asked for

    def copy(self) -> Edits:
        """The same edits, to which others can be added for one rendering."""
        other = Edits(self._text)
        other._edits = list(self._edits)
        return other

    def insert(self, at: int, text: str) -> None:
        """Add text in front of the character at an offset."""
        self.made += 1
        self._edits.append(Edit(at, at, text))

    def replace(self, start: int, end: int, text: str) -> None:
        """Replace a range; edits that were made inside it are forgotten (render it first to keep them)."""
        self.made += 1
        self._edits = [edit for edit in self._edits if not _is_inside(edit, start, end)]
        self._edits.append(Edit(start, end, text))

    def render(self, start: int = 0, end: int | None = None) -> str:
        """The text of a range with the edits that lie in it."""
        stop = len(self._text) if end is None else end
        pieces, done = [], start
        inside = (edit for edit in self._edits if edit.start >= start and edit.end <= stop)
        for edit in sorted(inside, key=lambda edit: (edit.start, edit.end)):
            pieces += [self._text[done : edit.start], edit.text]
            done = edit.end
        return "".join([*pieces, self._text[done:stop]])


def _is_inside(edit: Edit, start: int, end: int) -> bool:
    """Tell whether an edit lies in a range; an insertion at its edge does not."""
    if edit.start == edit.end:
        return start < edit.start < end
    return start <= edit.start and edit.end <= end

"""Where in a TOML text each key and array element stands, for error messages.

tomllib gives no positions. The text was already accepted by tomllib, so this scan checks nothing: it follows tables,
arrays of tables, dotted keys, inline tables, arrays and strings, and notes a place for each path.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]


class Place(NamedTuple):
    """Counted from 1, as editors do; columns in characters."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


_KEY = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)\s*""")
_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_BLANK = re.compile(r"(?:[ \t\r]+|#[^\n]*)+")
_SPACE = re.compile(r"(?:\s+|#[^\n]*)+")


def key_places(text: str) -> dict[KeyPath, Place]:
    """Where every key path begins; array elements are numbered from 0."""
    return _Scan(text).run()


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._places: dict[KeyPath, Place] = {}
        self._sizes: dict[KeyPath, int] = {}  # elements so far of each array of tables

    def run(self) -> dict[KeyPath, Place]:
        table: KeyPath = ()
        while self._skip(_SPACE) < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text[self._at] == "[":
                table = self._header(1)
            else:
                self._assignment(table)
        return self._places

    def _header(self, brackets: int) -> KeyPath:
        place = self._place()
        self._at += brackets
        keys = self._dotted()
        self._at += brackets
        path: KeyPath = ()
        for key in keys[:-1]:
            path = (*path, key)
            self._places.setdefault(path, place)
            path = self._last(path)
        path = (*path, keys[-1])
        if brackets == 2:
            index = self._sizes[path] = self._sizes.get(path, -1) + 1
            self._places.setdefault(path, place)
            path = (*path, index)
        else:
            path = self._last(path)
        self._places[path] = place
        return path

    def _last(self, path: KeyPath) -> KeyPath:
        """A name of an array of tables, used as a table, is its last element."""
        return (*path, self._sizes[path]) if path in self._sizes else path

    def _assignment(self, table: KeyPath) -> None:
        place = self._place()
        path = table
        for key in self._dotted():
            path = (*path, key)
            self._places.setdefault(path, place)
        self._at += 1  # "="
        self._value(path)

    def _dotted(self) -> list[str]:
        keys: list[str] = []
        while match := _KEY.match(self._text, self._at):
            key = match.group(1)
            keys.append(key[1:-1] if key[0] in "\"'" else key)
            self._at = match.end()
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
        return keys

    def _value(self, path: KeyPath) -> None:
        self._skip(_BLANK)
        first = self._text[self._at : self._at + 1]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            match = _STRING.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            self._at = match.end() if match else self._at + 1

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._skip(_SPACE) < len(self._text) and self._text[self._at] != "]":
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._places[(*path, index)] = self._place()
            self._value((*path, index))
            index += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._skip(_SPACE) < len(self._text) and self._text[self._at] != "}":
            if self._text[self._at] == ",":
                self._at += 1
            else:
                self._assignment(path)
        self._at += 1

    def _skip(self, what: re.Pattern[str]) -> int:
        if match := what.match(self._text, self._at):
            self._at = match.end()
        return self._at

    def _place(self) -> Place:
        start = self._text.rfind("\n", 0, self._at) + 1
        return Place(self._text.count("\n", 0, self._at) + 1, self._at - start + 1)

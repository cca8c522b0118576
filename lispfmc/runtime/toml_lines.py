"""On which line of a TOML text each key and array element stands, for error messages.

tomllib gives no positions. The text was already accepted by tomllib, so this scan checks nothing: it follows tables,
arrays of tables, dotted keys, inline tables, arrays and strings, and notes a line for each path.
"""

from __future__ import annotations

import re
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]

_KEY = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)\s*""")
_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_BLANK = re.compile(r"(?:[ \t\r]+|#[^\n]*)+")
_SPACE = re.compile(r"(?:\s+|#[^\n]*)+")


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every key path; array elements are numbered from 0."""
    return _Scan(text).run()


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[KeyPath, int] = {}
        self._sizes: dict[KeyPath, int] = {}  # elements so far of each array of tables

    def run(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip(_SPACE) < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text[self._at] == "[":
                table = self._header(1)
            else:
                self._assignment(table)
        return self._lines

    def _header(self, brackets: int) -> KeyPath:
        line = self._line()
        self._at += brackets
        keys = self._dotted()
        self._at += brackets
        path: KeyPath = ()
        for key in keys[:-1]:
            path = (*path, key)
            self._lines.setdefault(path, line)
            path = self._last(path)
        path = (*path, keys[-1])
        if brackets == 2:
            index = self._sizes[path] = self._sizes.get(path, -1) + 1
            self._lines.setdefault(path, line)
            path = (*path, index)
        else:
            path = self._last(path)
        self._lines[path] = line
        return path

    def _last(self, path: KeyPath) -> KeyPath:
        """A name of an array of tables, used as a table, is its last element."""
        return (*path, self._sizes[path]) if path in self._sizes else path

    def _assignment(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for key in self._dotted():
            path = (*path, key)
            self._lines.setdefault(path, line)
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
            self._lines[(*path, index)] = self._line()
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

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

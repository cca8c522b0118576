"""From declarations to code: walks construct trees once and writes the Python functions that parse and build them.

In: declarations, and the value class of each Struct that has one; out: source, and the functions that it defines.
Fields and classes meet by name. A construct class, an expression or a field that is not understood is an error here,
at import: never a silent way around.
"""

from __future__ import annotations

import linecache
import re
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import construct as c

from lispfmc.wire.building import Builder
from lispfmc.wire.parsing import Parser
from lispfmc.wire.scopes import Path
from lispfmc.wire.words import bare

FILE = "<lispfmc.wire: generated>"
_NAME = re.compile(r"\w+")


class Refused(Exception):  # noqa: N818 - it never leaves the codec: decode and encode turn it into their errors
    """A generated function met what its declaration does not allow."""


class Compiler:
    """Collects the functions for some declarations; `load` makes them callable."""

    def __init__(
        self,
        values: Mapping[int, type],
        aliases: Mapping[tuple[type, str], str],
        makers: Mapping[type, Callable[..., Any]] | None = None,
    ) -> None:
        self.values = values  # by the id of the Struct; what never leaves the codec is a NamedTuple: a bare tuple
        self.makers = makers or {}  # called with the bytes and the fields, in place of the class, when parsing
        self._aliases = dict(aliases)
        self._declared = {(value, called): field for (value, field), called in aliases.items()}
        self._structs: dict[tuple[str, str], str] = {}
        self._functions: dict[tuple[int, str], tuple[str, list[Path]]] = {}
        self._stems: Counter[str] = Counter()
        self._kept: list[Any] = []  # declarations whose ids are keys
        self.source: dict[str, str] = {}  # by the name that it defines

    def alias(self, value: type, field: str) -> str:
        """What a declared field is called in the value."""
        return self._aliases.get((value, field), field)

    @staticmethod
    def fields(value: Any) -> tuple[str, ...]:
        """The names of a value's fields, in its order."""
        names: tuple[str, ...] = value._fields if issubclass(value, tuple) else value.__struct_fields__
        return names

    def declared(self, value: type, name: str) -> str:
        """The declared field behind a field of the value."""
        return self._declared.get((value, name), name)

    def struct(self, codes: str, operation: str) -> str:
        """The name of a bound method of struct.Struct."""
        key = (codes, operation)
        if key not in self._structs:
            name = self._structs[key] = f"{operation}_{codes}"
            self.source[name] = f"{name} = struct.Struct('>{codes}').{operation}\n"
        return self._structs[key]

    def name_of(self, declared: Any, verb: str) -> str:
        """A name for the function of a declaration: that of its value where it has one."""
        value = self.values.get(id(declared))
        stem = f"{verb}_{value.__name__ if value else 'address' if isinstance(declared, c.Switch) else 'lcaf'}"
        self._stems[stem] += 1
        return f"{stem}_{self._stems[stem]}" if self._stems[stem] > 1 else stem

    def both(self, declared: Any, *, whole: bool = True) -> tuple[str, str]:
        """The names of the parse and the build function of a declaration that stands for itself."""
        made = self.parser(declared, whole=whole), self.builder(declared)
        for name, free in made:
            if free:
                raise NotImplementedError(f"{name} wants {free}, which nothing around it gives")
        return made[0][0], made[1][0]

    def parser(self, declared: Any, *, whole: bool, rare: bool = False) -> tuple[str, list[Path]]:
        """The name and the free names of `parse(b)`, or with `whole` False of `parse(b, o) -> (value, o)`.

        What is `rare` is written short: it is to be compiled fast rather than to run fast.
        """
        verb = "parse" if whole else "read"
        return self._function(declared, verb, lambda name: Parser(self, name, whole=whole, rare=rare))

    def builder(self, declared: Any, *, rare: bool = False) -> tuple[str, list[Path]]:
        """The name and the free names of `build(m) -> bytes`."""
        return self._function(declared, "build", lambda name: Builder(self, name, rare=rare))

    def _function(self, declared: Any, verb: str, emitter: Callable[[str], Any]) -> tuple[str, list[Path]]:
        declared = bare(declared)
        # All address fields that hold the same share one function.
        key = (id(declared.cases if isinstance(declared, c.Switch) else declared), verb)
        if key not in self._functions:
            self._kept.append(declared)
            free: list[Path] = []
            name = self.name_of(declared, verb)
            self._functions[key] = (name, free)
            self.source[name] = emitter(name).function(declared, free)
        return self._functions[key]

    def load(self) -> dict[str, Any]:
        """Run the source; tracebacks find its lines."""
        text = "".join(self.source.values())
        names = {value.__name__: value for value in self.values.values()}
        makers = {maker.__name__: maker for maker in self.makers.values()}
        space: dict[str, Any] = {"struct": struct, "Refused": Refused, "__name__": __name__, **names, **makers}
        exec(compile(text, FILE, "exec"), space)  # noqa: S102 - our own text, made of our own declarations
        linecache.cache[FILE] = (len(text), None, text.splitlines(keepends=True), FILE)
        return space

    def source_of(self, *names: str) -> str:
        """The source of some functions with all that they call, callees first."""
        wanted: dict[str, None] = {}

        def visit(name: str) -> None:
            if name in wanted or name not in self.source:
                return
            for called in _NAME.findall(self.source[name]):
                if called != name:
                    visit(called)
            wanted[name] = None

        for name in names:
            visit(name)
        return "\n".join(self.source[name] for name in wanted)

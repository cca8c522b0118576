"""Names while a declaration is compiled: what `this.x` of construct is in the code that is generated.

One Scope for each level of construct's context. A name that is not there belongs to the function that calls: it is
noted as free, and becomes a parameter.
"""

from __future__ import annotations

import re
from typing import Any

from lispfmc.wire.words import BitWord

Path = tuple[str, ...]
_THIS = re.compile(r"this(?:\['\w+'\])+")
_PART = re.compile(r"\['(\w+)'\]")
_REST = re.compile(r"[\s()+\-*/|&<>=!\d]|len\b|None\b")


class Scope:
    """The names of one declaration within one generated function."""

    def __init__(self, free: list[Path], parent: Scope | None = None, *, own: bool = True) -> None:
        self.free = free  # of the whole function, in the order of its parameters
        self.parent = parent
        self.own = own  # False: a function that stands for a part of the caller's level
        self.names: dict[str, str] = {}
        self.words: dict[str, BitWord] = {}

    def inner(self) -> Scope:
        return Scope(self.free, self)

    def resolve(self, path: Path) -> str:
        """The code for a path as construct has it; `_` leads to the level above."""
        name = path[0]
        if name in self.names:
            if len(path) == 1:
                return self.names[name]
            return self._bits(name, path[1])
        if name == "_" and self.own:
            return self.parent.resolve(path[1:]) if self.parent else self._outside(path[1:])
        if self.own:
            raise NotImplementedError(f"this.{'.'.join(path)} is not known where it is used")
        return self._outside(path)

    def _bits(self, name: str, bits: str) -> str:
        for one in self.words[name].fields:
            if one.name == bits:
                return f"({self.names[name]} >> {one.shift} & {one.mask})"
        raise NotImplementedError(f"{name} has no bits {bits}")

    def _outside(self, path: Path) -> str:
        if path not in self.free:
            self.free.append(path)
        return "_".join(("outer", *path))

    def arguments(self, free: list[Path]) -> str:
        """What a function with these free names is called with, after its own arguments."""
        return "".join(f", {self.resolve(path)}" for path in free)

    def code(self, expression: Any) -> str:
        """The code of a `this` expression or a constant."""
        if isinstance(expression, int):
            return repr(expression)
        text = repr(expression).replace("len_(", "len(")
        code = _THIS.sub(lambda found: self.resolve(tuple(_PART.findall(found[0]))), text)
        left = _REST.sub("", _THIS.sub("", text))
        if left:
            raise NotImplementedError(f"the expression {text} has more than fields, numbers and operators: {left}")
        return code


def parameters(free: list[Path]) -> str:
    """The parameters for free names, after the function's own."""
    return "".join(f", {'_'.join(('outer', *path))}" for path in free)

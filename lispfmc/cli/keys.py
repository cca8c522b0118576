"""What configuration files may say, read from the settings classes: every key with its kind, default, unit and meaning.

A key's meaning is the text under its field; a class that has none for a field of its base class has the base's.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lispfmc.runtime.config import EndpointField, IpField, PrefixField

UNITS = (
    ("per_s", "1/s"),
    ("mbit_s", "Mbit/s"),
    ("bandwidth_mbit", "Mbit/s"),
    ("_ms", "ms"),
    ("_seconds", "s"),
    ("_s", "s"),
    ("_minutes", "min"),
    ("_mib", "MiB"),
    ("_mb", "MB"),
    ("_bytes", "bytes"),
    ("_percent", "%"),
    ("_rate", "1/s"),
)
SPECIAL = ((IpField, "IP address"), (PrefixField, "EID-Prefix"), (EndpointField, "address:port"))
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", bytes: "hex digits"}
BOUNDS = (("ge", "≥ {}"), ("gt", "> {}"), ("le", "≤ {}"), ("lt", "< {}"))


class Key(NamedTuple):
    """One key of a table, as a person writes it."""

    name: str
    kind: str
    default: str
    unit: str
    meaning: str


class Table(NamedTuple):
    """A table of the file (the whole file's has no path), or one of a list of tables."""

    path: str
    many: bool
    about: str
    keys: list[Key]

    @property
    def header(self) -> str:
        return f"[[{self.path}]]" if self.many else f"[{self.path}]"


def tables(model: type[BaseModel], path: str = "", *, many: bool = False) -> Iterator[Table]:
    """A settings class as the tables of its file, outer before inner."""
    hints = get_type_hints(model, include_extras=True)
    inner = {name: found for name in model.model_fields if (found := _table_in(hints[name]))}
    keys = [_key(model, name, hints[name]) for name in model.model_fields if name not in inner]
    yield Table(path, many, " ".join(inspect.cleandoc(model.__doc__ or "").split()), keys)
    for name, found in inner.items():
        yield from tables(found, f"{path}.{name}" if path else name, many=get_origin(hints[name]) is tuple)


def _key(model: type[BaseModel], name: str, hint: Any) -> Key:
    field = model.model_fields[name]
    unit = next((unit for end, unit in UNITS if name.endswith(end)), "")
    kind = ", ".join([kind_of(hint), *_bounds(field)])
    return Key(field.alias or name, kind, _default(field), unit, meaning(model, name))


def meaning(model: type[BaseModel], name: str) -> str:
    """The text under the field, or under that of a base class."""
    return next((text for each in model.__mro__ if (text := _texts(each).get(name))), "")


@cache
def _texts(each: type) -> dict[str, str]:
    """The texts under a class's fields; Python does not keep them, its source does."""
    if not issubclass(each, BaseModel) or each is BaseModel:
        return {}
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text = below.value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found[field.target.id] = " ".join(text.value.split())
    return found


def kind_of(hint: Any) -> str:
    """A type in words."""
    for special, words in SPECIAL:
        if hint == special:
            return words
    arguments = [each for each in get_args(hint) if each is not NoneType]
    origin = get_origin(hint)
    if origin is Annotated:
        return kind_of(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{_toml(each)}`" for each in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {kind_of(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(map(kind_of, arguments))}]"
    if origin is dict:
        return f"table: {kind_of(arguments[0])} = {kind_of(arguments[1])}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(f"`{each.value}`" for each in hint)
    return PLAIN[hint] if hint in PLAIN else " or ".join(map(kind_of, arguments))


def _bounds(field: FieldInfo) -> Iterator[str]:
    for constraint in field.metadata:
        for name, words in BOUNDS:
            bound = getattr(constraint, name, None)
            if bound is not None:
                yield words.format(bound)
        if (least := getattr(constraint, "min_length", None)) and field.annotation is str and least > 1:
            yield f"{least} characters or more"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value is None or value in ("", b"", ()) or value == {} else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Enum):
        return _toml(value.value)
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


def _table_in(hint: Any) -> type[BaseModel] | None:
    """The settings class that a field holds, one or many."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next((found for each in get_args(hint) if (found := _table_in(each))), None)

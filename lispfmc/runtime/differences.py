"""What differs between two configurations, for people: one line a change, secrets not shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel

from lispfmc.runtime.config import SECRET_KEYS
from lispfmc.wire.address import Endpoint, Prefix, ip_text

_NAMES = ("name", "prefix", "key_id")
"""What tells the elements of a list apart, where they have it."""


class Difference(NamedTuple):
    """`key` is the top-level key that it is under."""

    key: str
    text: str


def differences(before: BaseModel, after: BaseModel) -> list[Difference]:
    """The changes from one to the other, in the order of the declaration."""
    found: list[Difference] = []
    for key in type(before).model_fields:
        old, new = getattr(before, key), getattr(after, key)
        found.extend(Difference(key, text) for text in _between(key, old, new))
    return found


def _between(path: str, old: object, new: object) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        for key in type(old).model_fields:
            yield from _between(f"{path}.{key}", getattr(old, key), getattr(new, key))
    elif isinstance(old, tuple) and isinstance(new, tuple) and _named((*old, *new)):
        yield from _elements(path, _by_name(old), _by_name(new))
    elif path.rpartition(".")[2] in SECRET_KEYS:
        yield f"{path}: changed (not shown)"
    else:
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _elements(path: str, old: dict[str, BaseModel], new: dict[str, BaseModel]) -> Iterator[str]:
    for name in old:
        if name not in new:
            yield f"{path}.{name}: removed"
        else:
            yield from _between(f"{path}.{name}", old[name], new[name])
    yield from (f"{path}.{name}: added" for name in new if name not in old)


def _named(elements: tuple[object, ...]) -> bool:
    return bool(elements) and all(isinstance(each, BaseModel) for each in elements)


def _by_name(elements: tuple[BaseModel, ...]) -> dict[str, BaseModel]:
    return {_name(each): each for each in elements}


def _name(element: BaseModel) -> str:
    return next((_shown(getattr(element, key)) for key in _NAMES if hasattr(element, key)), repr(element))


def _shown(value: object) -> str:
    if isinstance(value, bytes) and len(value) in (4, 16):
        return ip_text(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_shown(each) for each in value)}]"
    return str(value) if isinstance(value, Prefix | Endpoint | str) else repr(value)

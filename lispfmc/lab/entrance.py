"""Into a network namespace and out again, without a netlink library: also the command line's way in."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

WHERE = Path("/run/netns")
_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def enter(namespace: str) -> None:
    """The calling thread goes on inside; sockets that it has open stay where they are. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    entrance = os.open(WHERE / namespace, os.O_RDONLY)
    try:
        if libc.setns(entrance, _CLONE_NEWNET):  # os.setns comes with Python 3.12
            code = ctypes.get_errno()
            raise OSError(code, f"cannot enter the namespace {namespace}: {os.strerror(code)}")
    finally:
        os.close(entrance)


def inside(namespace: str, function: Callable[[], T]) -> T:
    """Call `function` in a thread that has entered `namespace`. Sockets that it opens stay in that namespace."""

    def call() -> T:
        enter(namespace)
        return function()

    with ThreadPoolExecutor(1) as pool:  # the thread ends with the namespace that it entered
        return pool.submit(call).result()

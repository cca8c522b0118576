"""The compiler: what it does not understand is an error when it compiles, and its source can be read."""

from __future__ import annotations

import time
from typing import Any

import construct as c
import msgspec
import pytest

from lispfmc.cli.app import run
from lispfmc.wire import codec, formats
from lispfmc.wire.codec import SOURCES
from lispfmc.wire.compiler import Compiler, Refused


class Pair(msgspec.Struct, frozen=True, gc=False):
    first: int
    second: int


def compiled(declared: Any, value: type = Pair) -> dict[str, Any]:
    compiler = Compiler({id(declared): value}, {})
    compiler.both(declared)
    return compiler.load()


def test_a_struct_becomes_a_function_that_parses_and_one_that_builds() -> None:
    made = compiled(c.Struct("first" / c.Int8ub, "second" / c.Int16ub, c.Terminated))
    assert made["parse_Pair"](b"\x01\x02\x03") == Pair(1, 0x0203)
    assert made["build_Pair"](Pair(1, 0x0203)) == b"\x01\x02\x03"
    with pytest.raises(Refused):
        made["parse_Pair"](b"\x01\x02\x03\x04")


UNKNOWN: dict[str, Any] = {
    "a construct that it does not know": c.Struct("first" / c.Int8ub, "second" / c.VarInt),
    "a little-endian number": c.Struct("first" / c.Int8ub, "second" / c.Int16ul),
    "a signed number": c.Struct("first" / c.Int8ub, "second" / c.Int16sb),
    "a checksum": c.Struct("first" / c.Int8ub, "second" / c.Checksum(c.Int8ub, len, c.this.first)),
    "a lambda": c.Struct("first" / c.Int8ub, "second" / c.Bytes(lambda this: this.first)),
    "a field that is nowhere": c.Struct("first" / c.Int8ub, "second" / c.Bytes(c.this.third)),
    "a call": c.Struct("first" / c.Int8ub, "second" / c.Bytes(c.sum_(c.this.first))),
    "bits that are not plain": c.Struct(
        "first" / c.BitStruct("flag" / c.Flag, "rest" / c.Padding(7)), "second" / c.Byte
    ),
    "an if with an else": c.Struct("first" / c.Int8ub, "second" / c.IfThenElse(c.this.first, c.Struct(), c.Int8ub)),
    "an optional in the middle": c.Struct("first" / c.Optional(c.Struct("x" / c.Int8ub)), "second" / c.Int8ub),
    "a greedy range in the middle": c.Struct("first" / c.GreedyRange(c.Struct("x" / c.Int8ub)), "second" / c.Int8ub),
    "a value with a field too many": c.Struct("first" / c.Int8ub),
    "a declaration with a field too many": c.Struct("first" / c.Int8ub, "second" / c.Int8ub, "third" / c.Int8ub),
}


@pytest.mark.parametrize("declared", UNKNOWN.values(), ids=UNKNOWN)
def test_what_it_does_not_understand_is_an_error_at_once(declared: Any) -> None:
    with pytest.raises(NotImplementedError):
        compiled(declared)


def test_a_length_that_would_go_back_is_refused() -> None:
    class Body(msgspec.Struct, frozen=True, gc=False):
        size: int
        body: bytes

    made = compiled(c.Struct("size" / c.Int8ub, "body" / c.Bytes(c.this.size - 2), c.Terminated), Body)
    assert made["parse_Body"](b"\x03x") == Body(3, b"x")
    with pytest.raises(Refused):
        made["parse_Body"](b"\x01")


@pytest.mark.parametrize("message", SOURCES)
def test_the_source_of_every_message_can_be_printed_and_compiles(
    message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["wire", "--source", message]) == 0
    text = capsys.readouterr().out
    assert "def parse_" in text or "def read_" in text
    assert "def build_" in text
    compile(text, message, "exec")


def test_the_name_may_be_written_as_the_rfc_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["wire", "--source", "Map-Register"]) == 0
    assert "def parse_MapRegister(b)" in capsys.readouterr().out
    assert run(["wire", "--source", "Map-Nothing"]) == 64
    assert "MapRegister" in capsys.readouterr().err


def test_compiling_everything_is_a_matter_of_milliseconds() -> None:
    """No bound on a time that a busy machine may miss: it is far below what a person would notice."""
    started = time.process_time()
    again = Compiler(codec._values(), codec.ALIASES)
    for declared in formats.MESSAGES.values():
        again.both(declared)
    again.load()
    assert time.process_time() - started < 5

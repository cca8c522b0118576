"""Writes the build function of one declaration (see `compiler`).

Runs of fixed fields become one `pack`, into which a plain IP address that follows them is drawn. `pack` refuses what
is out of its field's range; lengths, counts and bits that contradict the rest are refused by comparisons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import construct as c

from lispfmc.wire.parsing import REFUSE, ends, optional_part
from lispfmc.wire.scopes import Path, Scope, parameters
from lispfmc.wire.words import FORMATS, BitWord, address_tags, bare, has_rare, is_word, masked_plain, plain_size

if TYPE_CHECKING:
    from lispfmc.wire.compiler import Compiler

TAG = "<tag>"  # a field of the run that the address after it decides


class Builder:
    """The lines of one function: `m` is the value, `add` collects the parts."""

    def __init__(self, compiler: Compiler, name: str, *, rare: bool) -> None:
        self.compiler = compiler
        self.rare = rare
        self.name = name
        self.lines: list[str] = []
        self.depth = 1
        self.run: list[tuple[str, str]] = []
        self.count = 0

    def function(self, declared: Any, free: list[Path]) -> str:
        """The source of the whole function."""
        if isinstance(declared, c.Switch):
            self.any_case(declared, Scope(free, own=False))
            body = "".join(self.lines)
        elif is_union(declared):
            self.union(declared, Scope(free))
            body = "".join(self.lines)
        else:
            self.struct(declared, "m", Scope(free))
            body = self.joined()
        return f"def {self.name}(m{parameters(free)}):\n{body}\n"

    def joined(self) -> str:
        """The lines, with what they collect returned. One part alone needs no collecting."""
        if not any("add(" in line for line in self.lines):
            packed = self.packed()
            return "".join(self.lines) + f"    return {packed}\n"
        self.flush()
        return "    parts = []\n    add = parts.append\n" + "".join(self.lines) + '    return b"".join(parts)\n'

    # --- Lines and parts

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text + "\n")

    def fresh(self, name: str) -> str:
        self.count += 1
        return f"{name}_{self.count}"

    def packed(self, codes: str = "", *more: str) -> str:
        """The packing of the fields that wait, and of more."""
        values = [code for _, code in self.run] + list(more)
        codes = "".join(code for code, _ in self.run) + codes
        return f"{self.compiler.struct(codes, 'pack')}({', '.join(values)})"

    def flush(self) -> None:
        if self.run:
            self.line(f"add({self.packed()})")
            self.run = []

    # --- Structs

    def struct(self, declared: Any, owner: str, scope: Scope) -> None:
        """All fields of a Struct whose value is `owner`."""
        value = self.compiler.values.get(id(declared))
        single = value is None and single_field(declared)
        bare_tuple = value is not None and issubclass(value, tuple)
        if value is not None and bare_tuple:
            unpacked = {name: self.fresh(name) for name in self.compiler.fields(value)}
            self.line(f"{', '.join(unpacked.values())} = {owner}")
        tags = address_tags(declared)
        for one in declared.subcons:
            if one.name and one.name not in tags:
                called = self.compiler.alias(value, one.name) if value else one.name
                own = unpacked.get(called, "") if bare_tuple else f"{owner}.{called}"
                scope.names[one.name] = owner if single == one.name else own
        skip = 0
        for index, named in enumerate(declared.subcons):
            if skip:
                skip -= 1
            elif is_word(named):
                skip = self.word(declared.subcons, index, owner, scope)
            elif named.name in tags:
                self.run.append((bare(named).fmtstr[1:], TAG))
            else:
                self.field(named, owner, scope, declared.subcons[index + 1 :])

    def word(self, subcons: list[Any], index: int, owner: str, scope: Scope) -> int:
        """A bit word, with its derived bits and the count that shares its bytes; how many more subcons that is."""
        name, word = subcons[index].name, BitWord(subcons[index])
        code = self.fresh(name)
        self.line(f"{code} = {scope.names[name]}")
        scope.names[name], scope.words[name] = code, word
        added, wanted, mask = [], 0, (1 << word.size) - 1 & ~word.kept
        derived = [(one.derived, one.shift, one.width, scope.inner()) for one in word.fields if one.derived is not None]
        if word.counted:
            count = bare(word.count_after(subcons, index))
            derived.append((count.func, 0, 8, scope))
        for expression, shift, width, level in derived:
            number = self.fresh("count")
            self.line(f"{number} = {level.code(expression)}")
            self.line(f"if {number} >> {width}: {REFUSE}('{name}: a count of {width} bits is out of range')")
            added.append(f" | {number} << {shift}" if shift else f" | {number}")
        for one in word.fields:
            if one.const is not None:
                wanted |= one.const << one.shift
                mask |= one.mask << one.shift
        if mask:
            why = f"{name}: derived bits are zero and the type is that of the message"
            self.line(f"if {code} & {mask:#x} != {wanted:#x}: {REFUSE}('{why}')")
        self.run.append((FORMATS[word.size], code + "".join(added)))
        return int(word.counted)

    def field(self, named: Any, owner: str, scope: Scope, after: list[Any]) -> None:
        name, inside = named.name, bare(named)
        if inside is c.Terminated:
            return
        if isinstance(inside, c.Check):
            self.line(f"if not {scope.code(inside.func)}: {REFUSE}('{name}')")
        elif isinstance(inside, c.Select | c.IfThenElse):
            self.optional(inside, name, owner, scope, after)
        else:
            self.value(inside, name, scope.names.get(name, ""), scope, after)

    # --- Values

    def value(self, inside: Any, name: str, code: str, scope: Scope, after: list[Any]) -> None:
        """One field, whose value is `code`."""
        if isinstance(inside, c.Rebuild):
            code = scope.names[name] = self.fresh(name)
            self.line(f"{code} = {scope.code(inside.func)}")
            self.value(bare(inside.subcon), name, code, scope, after)
        elif isinstance(inside, c.Const):
            self.value(bare(inside.subcon), name, repr(inside.value), scope, after)
        elif isinstance(inside, c.FormatField) and inside.fmtstr in (">B", ">H", ">L", ">Q"):
            self.run.append((inside.fmtstr[1:], code))
        elif isinstance(inside, c.Bytes):
            self.bytes(inside, name, code, scope)
        elif inside is c.GreedyBytes:
            self.flush()
            self.line(f"add({code})")
        elif isinstance(inside, c.NullTerminated):
            self.flush()
            self.line(f"if 0 in {code}: {REFUSE}('{name}: a zero byte within')")
            self.line(f"add({code})")
            self.line('add(b"\\0")')
        elif isinstance(inside, c.Prefixed):
            self.prefixed(inside, name, code, scope)
        elif isinstance(inside, c.Array | c.GreedyRange):
            if isinstance(inside, c.GreedyRange):
                ends(inside, after)
            self.repeated(inside, name, code, scope)
        elif isinstance(inside, c.Switch):
            self.switch(inside, name, code, scope)
        else:
            raise NotImplementedError(f"{name} is a {type(inside).__name__}, which the compiler does not know")

    def bytes(self, inside: Any, name: str, code: str, scope: Scope) -> None:
        value = self.fresh(name)
        self.line(f"{value} = {code}")
        size = scope.code(inside.length)
        self.line(f"if len({value}) != {size}: {REFUSE}('{name}: not as many bytes as its field has')")
        if isinstance(inside.length, int):
            self.run.append((f"{size}s", value))
        else:
            self.flush()
            self.line(f"add({value})")

    def prefixed(self, inside: Any, name: str, code: str, scope: Scope) -> None:
        value, subcon = self.fresh(name), bare(inside.subcon)
        if subcon is not c.GreedyBytes:
            function, free = self.compiler.builder(subcon)
            code = f"{function}({code}{scope.arguments(free)})"
        self.line(f"{value} = {code}")
        own = f" + {inside.lengthfield.sizeof()}" if inside.includelength else ""
        self.run.append((bare(inside.lengthfield).fmtstr[1:], f"len({value}){own}"))
        self.flush()
        self.line(f"add({value})")

    def repeated(self, inside: Any, name: str, code: str, scope: Scope) -> None:
        """A loop, with the elements' fields written into it."""
        self.flush()
        element = self.fresh(name)
        self.line(f"for {element} in {code}:")
        self.depth += 1
        self.struct(bare(inside.subcon), element, scope.inner())
        self.flush()
        self.depth -= 1

    # --- Branches

    def switch(self, inside: Any, name: str, code: str, scope: Scope) -> None:
        if any(plain_size(case) for case in inside.cases.values()):
            self.address(inside, name, code, scope)
            return
        key, word, waiting = scope.code(inside.keyfunc), "if", self.run
        for value, case in inside.cases.items():
            self.line(f"{word} {key} == {value}:")
            self.depth += 1
            self.run = list(waiting)
            if isinstance(bare(case), c.Struct):
                owner = self.fresh(name)
                self.line(f"{owner} = {code}")
                self.struct(bare(case), owner, scope.inner())
            else:
                self.value(bare(case), name, code, scope, [])
            self.flush()
            self.depth -= 1
            word = "elif"
        self.line("else:")
        self.line(f"    {REFUSE}('{name}: no such kind')")

    def address(self, inside: Any, name: str, code: str, scope: Scope) -> None:
        """An IP address goes into the run, with its AFI before it; what is rarer comes from a function."""
        if not self.run or self.run[-1][1] != TAG:
            raise NotImplementedError(f"{name} does not follow its AFI")
        tag, _ = self.run.pop()
        function, free = self.compiler.builder(inside)
        if self.rare and has_rare(inside):
            self.line(f"key, body = {function}({code}{scope.arguments(free)})")
            self.line(f"add({self.packed(tag, 'key')})")
            self.line("add(body)")
            self.run = []
            return
        value = self.fresh(name)
        self.line(f"{value} = {code}")
        self.line(f"if {value}.__class__ is bytes:")
        self.depth += 1
        self.line(f"size = len({value})")
        word = "if"
        for key, case in inside.cases.items():
            if size := plain_size(case):
                self.line(f"{word} size == {size}:")
                for check in masked_plain(case):
                    self.line(f"    if not {scope.inner().code(check.func)}: {REFUSE}('{name}: the mask is too long')")
                self.line(f"    add({self.packed(f'{tag}{size}s', str(key), value)})")
                word = "elif"
        self.line(f"else: {REFUSE}('{name}: an IP address has 4 or 16 bytes; no address is None')")
        self.depth -= 1
        self.line("else:")
        self.line(f"    key, body = {function}({value}{scope.arguments(free)})")
        self.line(f"    add({self.packed(tag, 'key')})")
        self.line("    add(body)")
        self.run = []

    def any_case(self, declared: Any, scope: Scope) -> None:
        """The AFI and the bytes of an address by its class: of a plain one too, for those who have not seen to it."""
        for key, case in declared.cases.items():
            if size := plain_size(case):
                if has_rare(declared):
                    checks = "".join(f" and {scope.inner().code(check.func)}" for check in masked_plain(case))
                    self.line(f"if m.__class__ is bytes and len(m) == {size}{checks}: return {key}, m")
                continue
            case = bare(case)
            if isinstance(case, c.Bytes):
                self.line(f'if m is None: return {key}, b""')
                continue
            function, free = self.compiler.builder(case)
            called = f"{function}(m{scope.arguments(free)})"
            if is_union(case):
                self.line(f"return {key}, {called}")
                return
            self.line(f"if m.__class__ is {self.compiler.values[id(case)].__name__}: return {key}, {called}")
        self.line(f"{REFUSE}(f'{{m.__class__.__name__}} is no address that can stand here')")

    def optional(self, inside: Any, name: str, owner: str, scope: Scope, after: list[Any]) -> None:
        """A Struct that may be missing: what says that it is there and the value must agree."""
        part = optional_part(inside)
        flat = id(part) not in self.compiler.values
        names = [f"{owner}.{one.name}" for one in part.subcons] if flat else [scope.names[name]]
        scope.names[name] = names[0]
        if isinstance(inside, c.Select):
            ends(inside, after)
            condition = f"{names[0]} is not None"
        else:
            condition = scope.code(inside.condfunc)
        self.flush()
        self.line(f"if {condition}:")
        self.depth += 1
        if flat:
            self.struct(part, owner, scope.inner())
            self.flush()
        else:
            function, free = self.compiler.builder(part)
            self.line(f"if {names[0]} is None: {REFUSE}('{name}: announced, and missing')")
            self.line(f"add({function}({names[0]}{scope.arguments(free)}))")
        self.depth -= 1
        there = " or ".join(f"{one} is not None" for one in names)
        self.line(f"elif {there}: {REFUSE}('{name}: there, and not announced')")

    def union(self, declared: Any, scope: Scope) -> None:
        """A body by type with its length before it: the value's class says the type."""
        *before, last = declared.subcons
        inside = bare(last)
        switch = bare(inside.subcon)
        codes = "".join(bare(one).fmtstr[1:] for one in before) + bare(inside.lengthfield).fmtstr[1:]
        (tag,) = address_tags(declared)
        pack = self.compiler.struct(codes, "pack")
        self.line("kind = m.__class__")
        for key, case in switch.cases.items():
            value = self.compiler.values[id(case)]
            level = Scope(scope.free)
            level.names = {one.name: f"m.{self.compiler.alias(value, one.name)}" for one in before}
            level.names[tag] = str(key)
            function, free = self.compiler.builder(case, rare=True)
            body = f"{function}(m{level.arguments(free)})"
            fields = ", ".join(level.names[one.name] for one in before)
            self.line(f"if kind is {value.__name__}:")
            self.line(f"    body = {body}")
            self.line(f"    return {pack}({fields}, len(body)) + body")
        opaque = self.compiler.values.get(id(declared))
        if opaque:
            fields = ", ".join(f"m.{one.name}" for one in before)
            body = f"m.{self.compiler.alias(opaque, last.name)}"
            known = ", ".join(map(str, switch.cases))
            why = "an LCAF of this type is not opaque"
            self.line(f"if kind is {opaque.__name__}:")
            self.line(f"    if m.{tag} in ({known}): {REFUSE}('{why}')")
            self.line(f"    return {pack}({fields}, len({body})) + {body}")
        self.line(f"{REFUSE}(f'{{kind.__name__}} is no address that can stand here')")


def is_union(declared: Any) -> bool:
    """True for a Struct that ends in a body by type with its length before it."""
    last = bare(declared.subcons[-1]) if isinstance(declared, c.Struct) else None
    return isinstance(last, c.Prefixed) and isinstance(bare(last.subcon), c.Switch)


def single_field(declared: Any) -> str:
    """The one field of a Struct without a value class, whose value stands for the Struct's; or ""."""
    tags = address_tags(declared)
    names = [one.name for one in declared.subcons if one.name and one.name not in tags]
    return names[0] if len(names) == 1 else ""

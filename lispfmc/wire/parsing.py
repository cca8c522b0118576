"""Writes the parse function of one declaration (see `compiler`).

Runs of fixed fields become one `unpack_from`. Slices may come out short at the end of the bytes: whatever follows
them fails, and the one comparison at the end of the message catches the rest.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import construct as c

from lispfmc.wire.scopes import Path, Scope, parameters
from lispfmc.wire.words import FORMATS, BitWord, address_tags, bare, has_rare, is_word, masked_plain, plain_size

if TYPE_CHECKING:
    from lispfmc.wire.compiler import Compiler

REFUSE = "raise Refused"
Fields = dict[str, str]
"""The code of each field that the value keeps, by its declared name."""


class Parser:
    """The lines of one function. `o` is the offset; `moved` bytes are known and not yet added to it."""

    def __init__(self, compiler: Compiler, name: str, *, whole: bool, rare: bool) -> None:
        self.compiler = compiler
        self.rare = rare
        self.name = name
        self.whole = whole
        self.fixed = whole  # the position is a number, not yet in `o`
        self.moved = 0
        self.measured = False  # the function needs `n`
        self.lines: list[str] = []
        self.depth = 1
        self.run: list[tuple[str, str, list[str]]] = []
        self.count = 0

    def function(self, declared: Any, free: list[Path]) -> str:
        """The source of the whole function."""
        if isinstance(declared, c.Switch):
            self.any_case(declared, Scope(free, own=False))
            arguments = "b, o, key"
        else:
            result = self.struct(declared, Scope(free))
            if result:
                self.line(f"return {result}" + ("" if self.whole else f", {self.at()}"))
            arguments = "b" if self.whole else "b, o"
        size = "    n = len(b)\n" if self.measured else ""
        return f"def {self.name}({arguments}{parameters(free)}):\n{size}{''.join(self.lines)}\n"

    # --- Lines and positions

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text + "\n")

    def fresh(self, name: str) -> str:
        self.count += 1
        return f"{name}_{self.count}"

    def at(self) -> str:
        if self.fixed:
            return str(self.moved)
        return f"o + {self.moved}" if self.moved else "o"

    def end(self) -> str:
        self.measured = True
        return "n"

    def flush(self) -> None:
        """Write the unpacking of the fields that wait."""
        if not self.run:
            return
        codes = "".join(code for code, _, _ in self.run)
        names = ", ".join(name for _, name, _ in self.run)
        comma = "," if len(self.run) == 1 else ""
        where = "" if self.at() == "0" else f", {self.at()}"
        self.line(f"{names}{comma} = {self.compiler.struct(codes, 'unpack_from')}(b{where})")
        self.moved += struct.calcsize(f">{codes}")
        checks = [check for _, _, after in self.run for check in after]
        self.run = []
        for check in checks:
            self.line(check)

    def settle(self) -> None:
        """Bring `o` to the position."""
        self.flush()
        if self.fixed:
            self.line(f"o = {self.moved}")
        elif self.moved:
            self.line(f"o += {self.moved}")
        self.fixed, self.moved = False, 0

    def settled(self) -> None:
        """`o` is the position now."""
        self.fixed, self.moved = False, 0

    def take(self, size: str, name: str) -> str:
        """A slice of so many bytes, that may come out short."""
        self.flush()
        code = self.fresh(name)
        if self.fixed:
            self.line(f"o = {self.moved} + {size}")
            self.line(f"{code} = b[{self.moved}:o]")
        else:
            self.line(f"s = {self.at()}")
            self.line(f"o = s + {size}")
            self.line(f"{code} = b[s:o]")
        self.settled()
        return code

    # --- Structs

    def struct(self, declared: Any, scope: Scope) -> str:
        """The code of the value of a Struct."""
        value = self.compiler.values.get(id(declared))
        fields = self.fields(declared, scope)
        self.flush()
        if value is None:
            if "content" in fields:  # of types that are all known: each has returned
                return ""
            if len(fields) != 1:
                raise NotImplementedError(f"a Struct of {list(fields)} has no value class")
            return next(iter(fields.values()))
        return self.made(value, fields, scope)

    def fields(self, declared: Any, scope: Scope) -> Fields:
        fields: Fields = {}
        tags = address_tags(declared)
        skip = 0
        for index, named in enumerate(declared.subcons):
            if skip:
                skip -= 1
            elif is_word(named):
                skip = self.word(declared.subcons, index, scope, fields)
            else:
                self.field(named, scope, fields, declared.subcons[index + 1 :])
            if named.name in tags:
                fields.pop(named.name, None)
        return fields

    def made(self, value: type, fields: Fields, scope: Scope) -> str:
        """The call of a value class. A field that the declaration does not have is the enclosing one's."""
        given = {self.compiler.alias(value, name): code for name, code in fields.items()}
        wanted = self.compiler.fields(value)
        for name in wanted:
            if name not in given:
                field = self.compiler.declared(value, name)
                given[name] = scope.names.get(field) or scope.resolve(("_", field))
        if len(given) != len(wanted):
            raise NotImplementedError(f"{value.__name__} has {sorted(wanted)}, its declaration {sorted(given)}")
        arguments = ", ".join(given[name] for name in wanted)
        if value in self.compiler.makers:
            return f"{self.compiler.makers[value].__name__}(b, {arguments})"
        return f"({arguments})" if issubclass(value, tuple) else f"{value.__name__}({arguments})"

    def word(self, subcons: list[Any], index: int, scope: Scope, fields: Fields) -> int:
        """A bit word, and the count that shares its bytes; how many more subcons that is."""
        name, word = subcons[index].name, BitWord(subcons[index])
        code = self.fresh(name)
        checks = [
            f"if {code} >> {one.shift} & {one.mask} != {one.const}: {REFUSE}"
            for one in word.fields
            if one.const is not None
        ]
        scope.names[name], scope.words[name] = code, word
        self.run.append((FORMATS[word.size], code, checks))
        fields[name] = code if word.kept == (1 << word.size) - 1 else f"{code} & {word.kept:#x}"
        if word.counted:
            scope.names[word.count_after(subcons, index).name] = f"({code} & 255)"
        return int(word.counted)

    def field(self, named: Any, scope: Scope, fields: Fields, after: list[Any]) -> None:
        name, inside = named.name, bare(named)
        if inside is c.Terminated:
            self.flush()
            self.line(f"if {self.at()} != {self.end()}: {REFUSE}")
        elif isinstance(inside, c.Check):
            self.flush()
            self.line(f"if not {scope.code(inside.func)}: {REFUSE}")
        elif isinstance(inside, c.Select | c.IfThenElse):
            self.optional(inside, name, scope, fields, after)
        elif isinstance(inside, c.Prefixed) and isinstance(bare(inside.subcon), c.Switch):
            fields[name] = self.union(inside, scope, fields)
        else:
            scope.names[name] = code = self.value(inside, name, scope, after)
            if not isinstance(inside, c.Rebuild | c.Const):
                fields[name] = code

    # --- Values

    def value(self, inside: Any, name: str, scope: Scope, after: list[Any]) -> str:
        """The code of one field."""
        if isinstance(inside, c.Rebuild):
            return self.value(bare(inside.subcon), name, scope, after)
        if isinstance(inside, c.Const):
            code = self.value(bare(inside.subcon), name, scope, after)
            self.run[-1][2].append(f"if {code} != {inside.value!r}: {REFUSE}")
            return code
        if isinstance(inside, c.FormatField) and inside.fmtstr in (">B", ">H", ">L", ">Q"):
            code = self.fresh(name)
            self.run.append((inside.fmtstr[1:], code, []))
            return code
        if isinstance(inside, c.Bytes):
            return self.bytes(inside, name, scope)
        if inside is c.GreedyBytes:
            return self.rest(name, last=self.whole and not after)
        if isinstance(inside, c.NullTerminated):
            return self.terminated(inside, name)
        if isinstance(inside, c.Prefixed):
            return self.prefixed(inside, name, scope)
        if isinstance(inside, c.Array):
            return self.array(inside, name, scope)
        if isinstance(inside, c.GreedyRange):
            ends(inside, after)
            return self.repeated(inside, name, scope, f"while o < {self.end()}:")
        if isinstance(inside, c.Switch):
            return self.switch(inside, name, scope)
        raise NotImplementedError(f"{name} is a {type(inside).__name__}, which the compiler does not know")

    def bytes(self, inside: Any, name: str, scope: Scope) -> str:
        if isinstance(inside.length, int):
            code = self.fresh(name)
            self.run.append((f"{inside.length}s", code, []))
            return code
        self.flush()
        size = scope.code(inside.length)
        if "-" in size:
            self.line(f"size = {size}")
            self.line(f"if size < 0: {REFUSE}")
            size = "size"
        return self.take(size, name)

    def rest(self, name: str, *, last: bool) -> str:
        self.flush()
        code = self.fresh(name)
        if not self.fixed:  # a fixed position was reached by unpacking, which fails beyond the end
            self.line(f"if {self.at()} > {self.end()}: {REFUSE}")
        self.line(f"{code} = b[{self.at()}:]")
        if not last:
            self.line(f"o = {self.end()}")
            self.settled()
        return code

    def terminated(self, inside: Any, name: str) -> str:
        if bare(inside.subcon) is not c.GreedyBytes or inside.term != b"\0" or inside.include or not inside.consume:
            raise NotImplementedError(f"{name} is not bytes up to a zero")
        self.flush()
        code = self.fresh(name)
        self.line(f"s = {self.at()}")
        self.line('o = b.find(b"\\0", s) + 1')
        self.line(f"if not o: {REFUSE}")
        self.line(f"{code} = b[s:o - 1]")
        self.settled()
        return code

    def prefixed(self, inside: Any, name: str, scope: Scope) -> str:
        code = self.take(self.length(inside, name, scope), name)
        subcon = bare(inside.subcon)
        self.line(f"if o > {self.end()}: {REFUSE}")
        if subcon is c.GreedyBytes:
            return code
        function, free = self.compiler.parser(subcon, whole=True)
        self.line(f"{code} = {function}({code}{scope.arguments(free)})")
        return code

    def length(self, inside: Any, name: str, scope: Scope) -> str:
        """The length before the bytes, which may count itself."""
        size = self.value(bare(inside.lengthfield), f"{name}_length", scope, [])
        self.flush()
        if inside.includelength:
            own = inside.lengthfield.sizeof()
            self.line(f"{size} -= {own}")
            self.line(f"if {size} < 0: {REFUSE}")
        return size

    def array(self, inside: Any, name: str, scope: Scope) -> str:
        count = scope.code(inside.count)
        return self.repeated(inside, name, scope, f"for _ in range({count}):")

    def repeated(self, inside: Any, name: str, scope: Scope, head: str) -> str:
        """A loop, with the elements' fields written into it."""
        self.settle()
        code = self.fresh(name)
        self.line(f"{code} = []")
        self.line(head)
        self.depth += 1
        element = self.struct(bare(inside.subcon), scope.inner())
        self.settle()
        self.line(f"{code}.append({element})")
        self.depth -= 1
        return f"tuple({code})"

    # --- Branches

    def switch(self, inside: Any, name: str, scope: Scope) -> str:
        """IP addresses are read on the spot, what is rarer by a function; other cases each on the spot."""
        self.flush()
        key, code = scope.code(inside.keyfunc), self.fresh(name)
        if inside.default is not c.Error:
            raise NotImplementedError(f"{name} has a default other than Error")
        address = any(plain_size(case) for case in inside.cases.values())
        before = self.fixed, self.moved
        if address and self.rare and has_rare(inside):
            function, free = self.compiler.parser(inside, whole=False)
            self.line(f"{code}, o = {function}(b, {self.at()}, {key}{scope.arguments(free)})")
            self.settled()
            return code
        word = "if"
        for value, case in inside.cases.items():
            size = plain_size(case)
            if address and not size:
                continue
            self.line(f"{word} {key} == {value}:")
            self.depth += 1
            self.fixed, self.moved = before
            if size:
                self.plain(case, size, code, scope)
            else:
                self.line(f"{code} = {self.case(bare(case), name, scope)}")
                self.settle()
            self.depth -= 1
            word = "elif"
        self.fixed, self.moved = before
        self.line("else:")
        if address:
            function, free = self.compiler.parser(inside, whole=False)
            self.line(f"    {code}, o = {function}(b, {self.at()}, {key}{scope.arguments(free)})")
        else:
            self.line(f"    {REFUSE}")
        self.settled()
        return code

    def plain(self, case: Any, size: int, code: str, scope: Scope) -> None:
        for check in masked_plain(case):
            self.line(f"if not {scope.inner().code(check.func)}: {REFUSE}")
        if self.fixed:
            self.line(f"{code} = b[{self.moved}:{self.moved + size}]")
            self.line(f"o = {self.moved + size}")
        else:
            self.line(f"s = {self.at()}")
            self.line(f"o += {self.moved + size}")
            self.line(f"{code} = b[s:o]")

    def case(self, case: Any, name: str, scope: Scope) -> str:
        if isinstance(case, c.Struct):
            return self.struct(case, scope.inner())
        return self.value(case, name, scope, [c.Pass])

    def any_case(self, declared: Any, scope: Scope) -> None:
        """Every case of an address: the plain ones too, for those who have not read them on the spot."""
        self.fixed = False
        for value, case in declared.cases.items():
            if size := plain_size(case):
                if has_rare(declared):
                    checks = [f"not {scope.inner().code(check.func)}" for check in masked_plain(case)]
                    self.line(f"if key == {value}:")
                    self.lines += [f"        if {check}: {REFUSE}\n" for check in checks]
                    self.line(f"    return b[o:o + {size}], o + {size}")
                continue
            case = bare(case)
            if isinstance(case, c.Bytes):  # of length 0: there is no address
                self.line(f"if key == {value}: return None, o")
                continue
            function, free = self.compiler.parser(case, whole=False)
            self.line(f"if key == {value}: return {function}(b, o{scope.arguments(free)})")
        self.line(REFUSE)

    def optional(self, inside: Any, name: str, scope: Scope, fields: Fields, after: list[Any]) -> None:
        """A Struct that may be missing. Without a value class, its fields are the enclosing value's, or None."""
        part = optional_part(inside)
        self.settle()
        if isinstance(inside, c.Select):
            ends(inside, after)
            condition = f"o < {self.end()}"
        else:
            condition = scope.code(inside.condfunc)
        if id(part) in self.compiler.values:
            code = scope.names[name] = fields[name] = self.fresh(name)
            function, free = self.compiler.parser(part, whole=False)
            self.line(f"{code} = None")
            self.line(f"if {condition}: {code}, o = {function}(b, o{scope.arguments(free)})")
            return
        self.line(f"if {condition}:")
        self.depth += 1
        found = self.fields(part, scope.inner())
        self.settle()
        self.depth -= 1
        self.line(f"else: {' = '.join(found.values())} = None")
        fields |= found
        scope.names[name] = next(iter(found.values()))

    def union(self, inside: Any, scope: Scope, fields: Fields) -> str:
        """A body by type with its length before it; each type's value also has the fields before the body."""
        switch = bare(inside.subcon)
        body = self.take(self.length(inside, "body", scope), "body")
        self.line(f"if o > {self.end()}: {REFUSE}")
        tag = scope.code(switch.keyfunc)
        for key, case in switch.cases.items():
            function, free = self.compiler.parser(case, whole=True, rare=True)
            unused = set(fields) - {path[0] for path in free}
            if unused:
                raise NotImplementedError(f"the value of type {key} does not keep {unused}")
            self.line(f"if {tag} == {key}: return {function}({body}{scope.arguments(free)}), o")
        if switch.default is c.Error:
            self.line(REFUSE)
        elif bare(switch.default) is not c.GreedyBytes:
            raise NotImplementedError(f"{switch.default} as the body of unknown types")
        return body


def optional_part(inside: Any) -> Any:
    """The Struct of an Optional or an If."""
    if isinstance(inside, c.Select):
        part, other = inside.subcons
    else:
        part, other = inside.thensubcon, inside.elsesubcon
    if bare(other) is not c.Pass or not isinstance(bare(part), c.Struct):
        raise NotImplementedError(f"{inside} is neither a Struct nor nothing")
    return bare(part)


def ends(inside: Any, after: list[Any]) -> None:
    """construct's Optional and GreedyRange swallow errors: that is a refusal only where Terminated follows."""
    if [bare(one) for one in after if not isinstance(bare(one), c.Check)] != [c.Terminated]:
        raise NotImplementedError(f"{type(inside).__name__} is not followed by Terminated")

"""Loads `lisp.bpf.o` into the kernel and works its maps, by libbpf's C interface (stable since 1.0) through ctypes.

No compiler and no kernel headers at run time; the library comes with the distribution's iproute2. Every call raises
OSError. Programs and maps live as long as somebody holds them: our descriptors, or a filter that runs a program.
"""

from __future__ import annotations

import ctypes as c
import errno
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

LIBRARY = "libbpf.so.1"
OBJECT = Path(__file__).with_name("lisp.bpf.o")
ENTRIES_A_READ = 512  # of a table that is read whole; memory for thousands is mapped and cleared anew each time

_PROGRAM_INFO_BYTES, _MAP_INFO_BYTES = 256, 128
_MAPS_OF_A_PROGRAM = 64
_Sample = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_size_t)

_FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "libbpf_set_print": (c.c_void_p, [c.c_void_p]),
    "bpf_object__open_file": (c.c_void_p, [c.c_char_p, c.c_void_p]),
    "bpf_object__load": (c.c_int, [c.c_void_p]),
    "bpf_object__close": (None, [c.c_void_p]),
    "bpf_object__find_program_by_name": (c.c_void_p, [c.c_void_p, c.c_char_p]),
    "bpf_object__find_map_by_name": (c.c_void_p, [c.c_void_p, c.c_char_p]),
    "bpf_program__fd": (c.c_int, [c.c_void_p]),
    "bpf_map__fd": (c.c_int, [c.c_void_p]),
    "bpf_map__type": (c.c_uint32, [c.c_void_p]),
    "bpf_map__key_size": (c.c_uint32, [c.c_void_p]),
    "bpf_map__value_size": (c.c_uint32, [c.c_void_p]),
    "bpf_map__reuse_fd": (c.c_int, [c.c_void_p, c.c_int]),
    "bpf_map_update_elem": (c.c_int, [c.c_int, c.c_char_p, c.c_char_p, c.c_uint64]),
    "bpf_map_delete_elem": (c.c_int, [c.c_int, c.c_char_p]),
    "bpf_map_lookup_elem": (c.c_int, [c.c_int, c.c_char_p, c.c_char_p]),
    "bpf_map_get_next_key": (c.c_int, [c.c_int, c.c_char_p, c.c_char_p]),
    "bpf_map_lookup_batch": (
        c.c_int,
        [c.c_int, c.c_char_p, c.c_char_p, c.c_char_p, c.c_char_p, c.c_void_p, c.c_void_p],
    ),
    "bpf_prog_get_fd_by_id": (c.c_int, [c.c_uint32]),
    "bpf_map_get_fd_by_id": (c.c_int, [c.c_uint32]),
    "bpf_obj_get_info_by_fd": (c.c_int, [c.c_int, c.c_void_p, c.c_void_p]),
    "libbpf_num_possible_cpus": (c.c_int, []),
    "ring_buffer__new": (c.c_void_p, [c.c_int, _Sample, c.c_void_p, c.c_void_p]),
    "ring_buffer__epoll_fd": (c.c_int, [c.c_void_p]),
    "ring_buffer__consume": (c.c_int, [c.c_void_p]),
    "ring_buffer__free": (None, [c.c_void_p]),
}


@cache
def library() -> c.CDLL:
    """libbpf with its prototypes. Raises OSError when it is not installed."""
    loaded = c.CDLL(LIBRARY, use_errno=True)
    for name, (result, arguments) in _FUNCTIONS.items():
        try:
            function = getattr(loaded, name)
        except AttributeError as error:
            raise OSError(errno.ENOSYS, f"{LIBRARY} has no {name}") from error
        function.restype, function.argtypes = result, arguments
    loaded.libbpf_set_print(None)  # it would write to stderr; errors are ours to tell
    return loaded


def _raise(what: str, number: int | None = None) -> None:
    code = number or c.get_errno() or errno.EINVAL
    raise OSError(code, f"{what}: {os.strerror(code)}")


class Table:
    """One map. Keys and values are bytes of exactly its sizes."""

    def __init__(self, fd: int, key_bytes: int, value_bytes: int) -> None:
        self.fd, self.key_bytes, self.value_bytes = fd, key_bytes, value_bytes
        self._library = library()

    def update(self, key: bytes, value: bytes) -> None:
        assert (len(key), len(value)) == (self.key_bytes, self.value_bytes)
        if self._library.bpf_map_update_elem(self.fd, key, value, 0) < 0:
            _raise("map update")

    def delete(self, key: bytes) -> None:
        """What is not there is deleted already."""
        assert len(key) == self.key_bytes
        if self._library.bpf_map_delete_elem(self.fd, key) < 0 and c.get_errno() != errno.ENOENT:
            _raise("map delete")

    def lookup(self, key: bytes, size: int | None = None) -> bytes | None:
        """The value; for a trie that of the longest match. `size`: of a map with a value for each CPU."""
        assert len(key) == self.key_bytes
        value = c.create_string_buffer(size or self.value_bytes)
        if self._library.bpf_map_lookup_elem(self.fd, key, value) < 0:
            if c.get_errno() != errno.ENOENT:
                _raise("map lookup")
            return None
        return value.raw

    def keys(self) -> Iterator[bytes]:
        """Every key, as the kernel walks them; what changes meanwhile may be missed."""
        key = None
        following = c.create_string_buffer(self.key_bytes)
        while self._library.bpf_map_get_next_key(self.fd, key, following) == 0:
            key = following.raw
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """A hash map's entries, read hundreds at a time."""
        keys = c.create_string_buffer(self.key_bytes * ENTRIES_A_READ)
        values = c.create_string_buffer(self.value_bytes * ENTRIES_A_READ)
        before, after = None, c.create_string_buffer(max(self.key_bytes, 8))
        while True:
            count = c.c_uint32(ENTRIES_A_READ)
            failed = self._library.bpf_map_lookup_batch(self.fd, before, after, keys, values, c.byref(count), None) < 0
            code = c.get_errno() if failed else 0
            if failed and code != errno.ENOENT:  # ENOENT: these were the last ones
                _raise("map read", code)
            key_bytes, value_bytes = self.key_bytes, self.value_bytes
            raw_keys, raw_values = keys.raw, values.raw
            for at in range(count.value):
                yield (
                    raw_keys[at * key_bytes : (at + 1) * key_bytes],
                    raw_values[at * value_bytes : (at + 1) * value_bytes],
                )
            if failed:
                return
            before = after.raw


class Events:
    """A ring buffer of the kernel's. `fd` becomes readable; `consume` hands each sample to `receive`."""

    def __init__(self, table: Table, receive: Callable[[bytes], None]) -> None:
        def sample(_: int | None, data: int, size: int) -> int:
            receive(c.string_at(data, size))
            return 0

        self._library = library()
        self._sample = _Sample(sample)  # the library keeps a bare pointer to it
        self._ring = self._library.ring_buffer__new(table.fd, self._sample, None, None)
        if not self._ring:
            _raise("ring buffer")
        self.fd: int = self._library.ring_buffer__epoll_fd(self._ring)

    def consume(self) -> None:
        self._library.ring_buffer__consume(self._ring)

    def close(self) -> None:
        self._library.ring_buffer__free(self._ring)


class Loaded:
    """The object in the kernel: programs by name, maps by name."""

    def __init__(self, path: Path = OBJECT, adopt: dict[str, int] | None = None) -> None:
        """`adopt`: descriptors of maps of an earlier run, to be used instead of new ones; they stay the caller's."""
        self._library = library()
        self._object = self._library.bpf_object__open_file(os.fsencode(path), None)
        if not self._object:
            _raise(str(path))
        try:
            for name, fd in (adopt or {}).items():
                self._adopt(name, fd)
            failed = self._library.bpf_object__load(self._object)
            if failed:
                _raise("the kernel did not accept the program", -failed)
        except OSError:
            self.close()
            raise

    def _adopt(self, name: str, fd: int) -> None:
        found = self._library.bpf_object__find_map_by_name(self._object, name.encode())
        if not found:
            _raise(f"map {name}", errno.ENOENT)
        ours = (
            self._library.bpf_map__type(found),
            self._library.bpf_map__key_size(found),
            self._library.bpf_map__value_size(found),
        )
        if name != "events" and map_shape(fd) != ours:
            _raise(f"map {name} of the running program has another shape", errno.EMEDIUMTYPE)
        if self._library.bpf_map__reuse_fd(found, fd) < 0:
            _raise(f"map {name}")

    def program(self, name: str) -> int:
        """The descriptor of a program."""
        found = self._library.bpf_object__find_program_by_name(self._object, name.encode())
        if not found:
            _raise(f"program {name}", errno.ENOENT)
        fd: int = self._library.bpf_program__fd(found)
        return fd

    def table(self, name: str) -> Table:
        found = self._library.bpf_object__find_map_by_name(self._object, name.encode())
        if not found:
            _raise(f"map {name}", errno.ENOENT)
        return Table(
            self._library.bpf_map__fd(found),
            self._library.bpf_map__key_size(found),
            self._library.bpf_map__value_size(found),
        )

    def close(self) -> None:
        self._library.bpf_object__close(self._object)


def cpus() -> int:
    """How many values a map with one for each CPU has."""
    found: int = library().libbpf_num_possible_cpus()
    return found


def map_shape(fd: int) -> tuple[int, int, int]:
    """A map's type, key bytes and value bytes."""
    info = _info(fd, _MAP_INFO_BYTES)
    return _u32(info, 0), _u32(info, 8), _u32(info, 12)


def run_time(program: int) -> tuple[int, int]:
    """Nanoseconds that a program has taken and how often it ran, while kernel.bpf_stats_enabled was set."""
    fd = _checked(library().bpf_prog_get_fd_by_id(program), f"program {program}")
    try:
        info = _info(fd, _PROGRAM_INFO_BYTES)
    finally:
        os.close(fd)
    return c.c_uint64.from_buffer_copy(info, 192).value, c.c_uint64.from_buffer_copy(info, 200).value


def maps_of_program(program: int) -> dict[str, int]:
    """Descriptors of the maps that the program with this id uses, by name. The caller closes them."""
    fd = _checked(library().bpf_prog_get_fd_by_id(program), f"program {program}")
    identities = (c.c_uint32 * _MAPS_OF_A_PROGRAM)()
    info = c.create_string_buffer(_PROGRAM_INFO_BYTES)
    c.memmove(c.addressof(info) + 52, c.byref(c.c_uint32(_MAPS_OF_A_PROGRAM)), 4)  # nr_map_ids, in and out
    c.memmove(c.addressof(info) + 56, c.byref(c.c_uint64(c.addressof(identities))), 8)  # map_ids
    try:
        size = c.c_uint32(_PROGRAM_INFO_BYTES)
        _checked(library().bpf_obj_get_info_by_fd(fd, info, c.byref(size)), f"program {program}")
    finally:
        os.close(fd)
    found: dict[str, int] = {}
    try:
        for identity in identities[: _u32(info.raw, 52)]:
            each = _checked(library().bpf_map_get_fd_by_id(identity), f"map {identity}")
            name = _info(each, _MAP_INFO_BYTES)[24:40].split(b"\0")[0].decode("ascii", "replace")
            if name in found:
                os.close(each)
            else:
                found[name] = each
    except OSError:
        for each in found.values():
            os.close(each)
        raise
    return found


def _info(fd: int, size: int) -> bytes:
    info, length = c.create_string_buffer(size), c.c_uint32(size)
    _checked(library().bpf_obj_get_info_by_fd(fd, info, c.byref(length)), "object info")
    return info.raw


def _checked(result: int, what: str) -> int:
    if result < 0:
        _raise(what)
    return result


def _u32(data: bytes, at: int) -> int:
    return c.c_uint32.from_buffer_copy(data, at).value

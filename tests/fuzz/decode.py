"""Any bytes decode or raise PeerError, and what decodes encodes to the same bytes again.

`python -m tests.fuzz.decode [SECONDS]`, by atheris where it is installed (its coverage sees the generated code too),
else by seeded chance from the same corpus. A failure is a traceback with the bytes, and an exit code that is not 0.
"""

from __future__ import annotations

import sys
import tempfile
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType

from lispfmc.wire import PeerError, codec, decode, encap, encode
from tests.properties.chance import Chance

VECTORS = Path(__file__).parent.parent / "vectors" / "messages.toml"
MAX_BYTES = 2048


def corpus() -> list[bytes]:
    return [bytes.fromhex(one["hex"]) for one in tomllib.loads(VECTORS.read_text())["vector"]]


def one_input(data: bytes) -> None:
    """The invariant."""
    for refused in filter(None, (control(data), payload(data))):
        assert "a bug of ours" not in refused.why, data.hex()
        assert 0 <= refused.offset <= len(data), data.hex()


def control(data: bytes) -> PeerError | None:
    try:
        message = decode(data)
    except PeerError as refused:
        return refused
    assert encode(message) == data, data.hex()
    return None


def payload(data: bytes) -> PeerError | None:
    """The same bytes as a data packet."""
    try:
        head = encap.parse(data)
        encap.shims(data, head.next_protocol)
        encap.inner(data, head)
    except PeerError as refused:
        return refused
    return None


def guided(seconds: int) -> None:
    """Never returns: the fuzzer ends the process."""
    import atheris

    for made in codec._space.values():
        if isinstance(made, FunctionType):
            atheris.instrument_func(made)
    atheris.instrument_func(decode)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(corpus()):
            (Path(folder) / str(number)).write_bytes(seed)
        options = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-timeout=5", "-rss_limit_mb=1024", folder]
        atheris.Setup([sys.argv[0], *options], one_input)
        atheris.Fuzz()


def by_chance(seconds: int) -> int:
    """The inputs that were tried."""
    chance, known, tried = Chance(1), corpus(), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(200):
            one_input(chance.broken(chance.choice(known))[:MAX_BYTES])
        tried += 200
    return tried


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    if find_spec("atheris"):
        guided(seconds)
    print(f"{by_chance(seconds)} inputs by chance, without atheris")  # noqa: T201


if __name__ == "__main__":
    main()

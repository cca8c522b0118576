"""The mapping system: answers, registrations, publications; each by the daemon's own process over loopback."""

from __future__ import annotations

from tests.bench import answering, listing, million, publishing, registering, spreading


def run() -> dict[str, object]:
    return {
        "request": answering.run(),
        **registering.run(),
        "publish1000": publishing.run(),
        **million.run(),
        **listing.run(),
        **spreading.run(),
    }

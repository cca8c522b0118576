"""Where the agents say that services run, until the controller can weigh it, and which moves their restarts ended.

A sighting is as old as the question that it answers: one from before the service's last change of place says nothing.
All tables are by service, so bounded by the configuration. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec


class _Sighting(msgspec.Struct, frozen=True, gc=False):
    datacenter: str
    asked: float


class Sightings:
    """See the module."""

    def __init__(self) -> None:
        self._latest: dict[str, _Sighting] = {}
        self._placed_at: dict[str, float] = {}
        self._interrupted: set[str] = set()
        self._retried: set[str] = set()

    def seen(self, service: str, datacenter: str, asked: float) -> None:
        """The agent of `datacenter`, asked at `asked`, has the service."""
        self._latest[service] = _Sighting(datacenter, asked)

    def placed(self, service: str, now: float) -> None:
        """The service has changed its place."""
        self._placed_at[service] = now

    def forget(self, service: str) -> None:
        """The service is no more."""
        self._latest.pop(service, None)
        self._placed_at.pop(service, None)
        self._interrupted.discard(service)
        self._retried.discard(service)

    def take(self, ready: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
        """The services that are `ready` to be weighed and the data centre of each; every sighting is taken once."""
        for service in sorted(filter(ready, self._latest)):
            sighting = self._latest.pop(service)
            if sighting.asked >= self._placed_at.get(service, sighting.asked):
                yield service, sighting.datacenter

    def interrupted(self, service: str) -> None:
        """An agent's restart has ended the service's move, or it was refused; twice in a row is once too often."""
        if service not in self._retried:
            self._interrupted.add(service)

    def retry(self, service: str) -> bool:
        """Whether an interrupted move is to be considered again: true once."""
        if service not in self._interrupted:
            return False
        self._interrupted.discard(service)
        self._retried.add(service)
        return True

    def user_moved(self, service: str) -> None:
        """There is a new reason to move."""
        self._retried.discard(service)

"""Who may tell us something: senders by address and key id, and the check of what they signed (RFC 9301 §5.6).

A message counts only if it verifies under the key that its sender's address has; what the sender may then say is
decided in `xtr.moves`.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from lispfmc.core.effects import Reject
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.auth import Key, verify
from lispfmc.wire.messages import Signed
from xtr.settings import XtrSettings


class Role(Enum):
    MAP_SERVER = "map-server"
    PUBLISHER = "publisher"
    """A Map-Server that speaks under the key of our subscriptions."""
    CONTROLLER = "controller"
    PEER = "peer"
    AGENT = "agent"
    """This site's hypervisor agent."""


class Sender(msgspec.Struct, frozen=True):
    """One authenticated sender; `ranges` and `rlocs` bound what a controller may move, and where to."""

    role: Role
    key: Key
    ranges: tuple[Prefix, ...] = ()
    rlocs: frozenset[Ip] = frozenset()


class Senders:
    """Everybody with whom we share a key."""

    def __init__(self, settings: XtrSettings) -> None:
        self._senders: dict[Ip, tuple[Sender, ...]] = {}
        for server in settings.map_servers:
            publisher = server.subscription
            agreed = publisher is not None and not publisher.lisp_sec
            publishers = (Sender(Role.PUBLISHER, publisher.key),) if publisher is not None and agreed else ()
            self._senders[server.address] = (Sender(Role.MAP_SERVER, server.key), *publishers)
        for peer in settings.keys:
            self._senders[peer.peer] = (Sender(Role.PEER, peer.key),)
        for controller in settings.controllers:
            ranges = tuple(settings.placed(prefix) for prefix in controller.ranges)
            rlocs = frozenset(controller.rlocs)
            self._senders[controller.address] = (Sender(Role.CONTROLLER, controller.key, ranges, rlocs),)
        if settings.agent:
            self._senders[settings.agent.address] = (Sender(Role.AGENT, settings.agent.key),)

    def authenticate(self, message: Signed, datagram: bytes, source: Endpoint) -> Sender | Reject:
        """Who sent `message`, or why it is refused."""
        senders = self._senders.get(source.ip)
        if senders is None:
            return Reject("unknown-sender", source)
        named = [sender for sender in senders if sender.key.id == message.key_id]
        if not named:
            return Reject("unknown-key", source, f"key id {message.key_id}, expected {senders[0].key.id}")
        for sender in named:
            if verify(message, datagram, sender.key):
                return sender
        return Reject("bad-authentication", source, f"{type(message).__name__} under key id {message.key_id}")

    def key_of_peer(self, rloc: Ip) -> Key | None:
        """The key that we share with the xTR at `rloc`, if any."""
        senders = self._senders.get(rloc)
        return senders[0].key if senders and senders[0].role is Role.PEER else None

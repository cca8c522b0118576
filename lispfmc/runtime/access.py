"""Who may use a daemon's HTTP API: tokens with roles, and TLS.

`read` may look, `report` may tell what it measured, `operate` may do everything. Tokens are compared by their digests,
all of them every time: how long a refusal takes says nothing about any of them.
"""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeAlias

from lispfmc.wire.errors import LocalError

Role: TypeAlias = Literal["read", "report", "operate"]


class Access:
    """Without tokens everybody who reaches the API may do everything: it listens on loopback or a unix socket then."""

    def __init__(self, tokens: Iterable[tuple[str, Role]] = ()) -> None:
        self._tokens = [(sha256(token.encode()).digest(), role) for token, role in tokens]

    @property
    def asks(self) -> bool:
        return bool(self._tokens)

    def role(self, header: str) -> Role | None:
        """The role of an Authorization header's token; None: it has none that we know."""
        scheme, _, token = header.partition(" ")
        # aiohttp hands bytes that are no UTF-8 on as surrogates
        given = sha256(token.strip().encode(errors="surrogateescape")).digest()
        found: Role | None = None
        for known, role in self._tokens:
            if hmac.compare_digest(given, known):
                found = role
        return found if scheme.lower() == "bearer" else None

    @staticmethod
    def suffices(role: Role, needed: Role) -> bool:
        return role in ("operate", needed)


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For a server with this certificate (its chain, PEM) and key. Raises LocalError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise LocalError(
            f"[api] certificate {certificate}, key {key}: cannot be used, {why}; give a PEM certificate and its own key"
        ) from error
    return context


def trust_context(authority: Path | None) -> ssl.SSLContext:
    """For a client that believes this certificate authority; None: those of the system. Raises LocalError."""
    try:
        return ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise LocalError(f"{authority}: no certificate authority, {error}; give a PEM file") from error

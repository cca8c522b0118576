"""Configuration: a TOML file becomes a frozen settings value, or one error that lists everything that is wrong.

Each problem reads `file:line:column: what, why, what to do`. Daemons declare settings as subclasses of `Settings`.
"""

from __future__ import annotations

import difflib
import re
import ssl
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from lispfmc.runtime.access import Access, Role, tls_context
from lispfmc.runtime.toml_positions import KeyPath, Place, key_places
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.auth import Algorithm, AuthCompat, Key
from lispfmc.wire.errors import LocalError

SECRET_KEYS = {"secret", "token", "agent_token"}
_SYNTAX_AT = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


class ConfigError(LocalError):
    """The configuration is wrong. The text lists every problem, one a line."""


class Wrong(ValueError):  # noqa: N818 - raised to say what is wrong, read as a sentence
    """Raised by a settings class's own check, to name the key below it that is at fault: `Wrong("why", "sites", 0)`."""

    def __init__(self, why: str, *path: str | int) -> None:
        super().__init__(why)
        self.path = path


def _ip(value: object) -> Ip:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise Wrong('an IP address is text, for example "198.18.0.11"')
    try:
        return ip_of(value)
    except LocalError as error:
        raise Wrong(f'{error}; write it like "198.18.0.11" or "2001:2::11"') from error


def _prefix(value: object) -> Prefix:
    if isinstance(value, Prefix):
        return value
    if not isinstance(value, str):
        raise Wrong('a prefix is text, for example "100.64.1.0/24"')
    try:
        return Prefix.parse(value)
    except LocalError as error:
        raise Wrong(f'{error}; write it like "100.64.1.0/24" or "fd00::/8"') from error


def endpoint_of(value: object) -> Endpoint:
    """Read "198.18.0.21:9350" or "[2001:2::21]:9350". Raises Wrong."""
    if isinstance(value, Endpoint):
        return value
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise Wrong('an endpoint is address:port, for example "198.18.0.21:9350" or "[2001:2::21]:9350"')
    return Endpoint(_ip(host.removeprefix("[").removesuffix("]")), int(port))


IpField: TypeAlias = Annotated[Ip, PlainValidator(_ip)]
PrefixField: TypeAlias = Annotated[Prefix, PlainValidator(_prefix)]
EndpointField: TypeAlias = Annotated[Endpoint, PlainValidator(endpoint_of)]


def _listen(value: object) -> str:
    if isinstance(value, str) and value.startswith("unix:/"):
        return value
    endpoint_of(value)
    return str(value)


Listen: TypeAlias = Annotated[str, PlainValidator(_listen)]


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenSettings(Settings):
    """Who shows this token may do what its role says: look, report measurements, or operate."""

    name: str
    """Whose it is."""
    token: str = Field(min_length=16, max_length=256)
    """What is shown: `Authorization: Bearer TOKEN`."""
    role: Role = "read"
    """Look; look and report measurements; everything."""


class SharedKey(Settings):
    """A secret that we share with one other party, and how it is used: the four lines of every row with a key."""

    key_id: int = Field(ge=0, le=255)
    """Which key it is; both sides call it the same."""
    secret: str = Field(min_length=1)
    """The key; both sides have the same."""
    algorithm: Algorithm = Algorithm.HMAC_SHA_256_128
    """RFC 9301 §12.5: 1 HMAC-SHA-1-96, 2 HMAC-SHA-256-128, 3 the same with HKDF; 0: anybody may speak."""
    auth_compat: AuthCompat = "whole-16"
    """How to speak to that peer: tag over the whole message, cut to 16 (12) bytes; not cut; or by the letter of RFC
    9301 §5.6."""

    @cached_property
    def key(self) -> Key:
        return Key(self.key_id, self.secret.encode(), self.algorithm, self.auth_compat)


class ApiSettings(Settings):
    """Where the HTTP API listens: "unix:/path" or "address:port". Anything but loopback is the operator's choice, and
    wants tokens; with a certificate and its key (PEM) it speaks TLS."""

    listen: Listen = "127.0.0.1:9342"
    """"address:port" or "unix:/path" (mode 0600)."""
    tokens: tuple[TokenSettings, ...] = ()
    certificate: Path | None = None
    """For TLS, with its key (PEM)."""
    key: Path | None = None
    """The certificate's."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            given, missing = ("certificate", "key") if self.key is None else ("key", "certificate")
            raise Wrong(f"{given} without {missing}; give both for TLS, or neither", given)
        if self.certificate is not None and self.listen.startswith("unix:"):
            raise Wrong("a unix socket speaks no TLS; listen at address:port, or take the certificate out", "listen")
        for index, each in enumerate(self.tokens):
            if each.token in [other.token for other in self.tokens[:index]]:
                raise Wrong("this token is there twice; give everybody a token of their own", "tokens", index, "token")
        return self

    def access(self) -> Access:
        return Access((each.token, each.role) for each in self.tokens)

    def tls(self) -> ssl.SSLContext | None:
        """Raises LocalError when the files cannot be used."""
        if self.certificate is None or self.key is None:
            return None
        return tls_context(self.certificate, self.key)


Level: TypeAlias = Literal["debug", "info", "warning", "error"]


class LogSettings(Settings):
    level: Level = "info"
    """What is logged."""
    format: Literal["auto", "console", "json"] = "auto"
    """For people, or one JSON object a line."""


M = TypeVar("M", bound=BaseModel)


def load(path: Path, model: type[M]) -> M:
    """Read `path` as `model`. Raises ConfigError with every problem that was found."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot read the configuration, {why}; name a readable TOML file") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax(path, text, str(error))) from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        places = key_places(text)
        problems = sorted(_problem(problem, values, places, model) for problem in _causes(error))
        raise ConfigError("\n".join(f"{path}:{place}: {what}" for place, what in dict.fromkeys(problems))) from error


def _syntax(path: Path, text: str, message: str) -> str:
    at = _SYNTAX_AT.search(message)
    place = Place(int(at[1]), int(at[2])) if at and at[1] else Place(text.count("\n") + 1, 1)
    why = _SYNTAX_AT.sub("", message)
    return f"{path}:{place}: not valid TOML, {why[:1].lower() + why[1:]}; correct the syntax here"


def _causes(error: ValidationError) -> list[Any]:
    """What is wrong, without what merely follows from it: a list is "too short" when an element of it was refused."""
    problems = error.errors()
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or not any(
            len(other["loc"]) > len(at := problem["loc"]) and other["loc"][: len(at)] == at for other in problems
        )
    ]


def _problem(
    problem: Any, values: dict[str, Any], places: dict[KeyPath, Place], model: type[BaseModel]
) -> tuple[Place, str]:
    cause = problem.get("ctx", {}).get("error")
    path: KeyPath = tuple(problem["loc"]) + (cause.path if isinstance(cause, Wrong) else ())
    path = _existing(path, values) + ((path[-1],) if problem["type"] == "missing" else ())
    place = next((places[path[:size]] for size in range(len(path), 0, -1) if path[:size] in places), Place(1, 1))
    where = _dotted(path)
    if problem["type"] == "extra_forbidden":
        return place, f'unknown key "{path[-1]}"{_within(path)}, {_suggestion(str(path[-1]), _keys(model, path[:-1]))}'
    if problem["type"] == "missing":
        return place, f'missing key "{path[-1]}"{_within(path)}, it has no default; add it'
    if isinstance(cause, ValueError):
        return place, f"{where}: {cause}" if where else str(cause)
    given = problem["input"]
    shown = "(not shown)" if isinstance(given, dict | list) or (path and path[-1] in SECRET_KEYS) else repr(given)
    why = problem["msg"][:1].lower() + problem["msg"][1:]
    return place, f"{where} = {shown}, {why}; correct the value"


def _existing(path: KeyPath, values: Any) -> KeyPath:
    """The part of a pydantic location that names keys of the file (it also names union members and the like)."""
    found: list[str | int] = []
    for step in path:
        inside = step in values if isinstance(values, dict) else isinstance(step, int) and isinstance(values, list)
        if inside:
            values = values[step]
            found.append(step)
    return tuple(found)


def _dotted(path: KeyPath) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _within(path: KeyPath) -> str:
    return f" in {_dotted(path[:-1])}" if len(path) > 1 else ""


def _suggestion(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else f"known keys are {', '.join(known)}; remove it or use one of them"


def _keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that the settings class at `path` declares."""
    for step in path:
        if isinstance(step, str) and step in model.model_fields:
            model = _model_in(model.model_fields[step].annotation) or model
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class inside an annotation such as `tuple[Site, ...]` or `Site | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each))), None)

"""The controller's HTTP API against its own description, by a real server over a real controller core."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fmcc.api import answers
from fmcc.api.routes import Routes
from fmcc.history.database import History
from fmcc.history.keeper import Keeper
from lispfmc.runtime.client import ApiClient, ApiError, Unreachable
from lispfmc.runtime.config import ApiSettings, TokenSettings
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api
from lispfmc.runtime.rejects import Rejects
from lispfmc.wire.errors import LocalError
from tests.scenarios.test_fmcc_move import Net

pytestmark = pytest.mark.asyncio
TOKENS = {role: f"the {role} token of this test" for role in ("read", "report", "operate")}
BOB = {"name": "bob", "eids": ["100.64.1.77/32"]}
GAME = {"name": "game", "user": "bob", "eids": ["100.64.101.77"], "datacenter": "dc2"}


class World:
    """A controller with an API over it, as the daemon has; a net that stands still unless it is run."""

    def __init__(self, folder: Path, settings: ApiSettings, **changes: Any) -> None:
        self.net = Net(**changes)
        self.net.settles()
        self.rejects = Rejects()
        self.history = History(folder / "state")
        self.keeper = Keeper(self.history, self.net.fmcc, EventLog(), lambda: self.net.now)
        status = answers.Status("act", "nearest", "fig9", {}, {}, 1, 1, 0, "none")
        self.api = Api(
            "fmcc",
            "fmcc",
            EventLog(),
            self.rejects,
            lambda: {name: getattr(status, name) for name in status.__struct_fields__},
            list[str],
            settings=settings,
            status_type=answers.Status,
        )
        routes = Routes(self.net.fmcc, self.net.tell, self.history, classes={"film"}, instance_id=0, following={"dc1"})
        routes.add_to(self.api)

    async def kept(self) -> None:
        await self.keeper.keep()


@asynccontextmanager
async def running(folder: Path, settings: ApiSettings | None = None, **changes: Any) -> AsyncIterator[World]:
    settings = settings or ApiSettings(listen=f"unix:{folder}/fmcc.sock")
    world = World(folder, settings, **changes)
    try:
        await world.api.start(settings.listen)
        yield world
        assert world.rejects.bugs == 0
    finally:
        await world.api.close()
        world.history.close()


class Checked:
    """A client that holds every answer against the description."""

    def __init__(self, client: ApiClient, document: Any) -> None:
        self._client, self._document = client, document
        self.seen: set[tuple[str, str]] = set()

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None, *, as_: str = "") -> Any:
        """The answer, or the error, which must be as described for `as_`, the path with its parameters' names."""
        described = self._document["paths"][as_ or path.partition("?")[0]][method.lower()]
        self.seen.add((method, as_ or path.partition("?")[0]))
        try:
            answer = await self._client._request(method, path, body)
        except ApiError as error:
            said = {"what": error.what, "why": error.why, "do": error.do}
            self._valid({"error": said}, described["responses"][str(error.status)])
            raise
        self._valid(answer, described["responses"]["200"])
        return answer

    def _valid(self, answer: Any, response: Any) -> None:
        schema = response["content"]["application/json"]["schema"]
        whole = {**schema, "components": self._document["components"]}
        jsonschema.validate(answer, whole, cls=jsonschema.Draft202012Validator)


@asynccontextmanager
async def asked(folder: Path, **changes: Any) -> AsyncIterator[tuple[World, Checked]]:
    async with running(folder, **changes) as world, ApiClient(f"unix:{folder}/fmcc.sock") as client:
        yield world, Checked(client, await client.get("/v1/openapi.json"))


async def test_every_route_is_described_and_every_description_is_a_route(tmp_path: Path) -> None:
    async with asked(tmp_path) as (world, checked):
        routes = {
            (route.method, route.resource.canonical)
            for route in world.api._app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
        described = {(method.upper(), path) for path, item in checked._document["paths"].items() for method in item}
        assert described == routes
        ids = [each["operationId"] for item in checked._document["paths"].values() for each in item.values()]
        assert len(set(ids)) == len(ids)
        assert checked._document["openapi"].startswith("3.1")


async def test_every_answer_is_as_described(tmp_path: Path) -> None:
    async with asked(tmp_path) as (world, checked):
        net = world.net
        net.alice_moves()
        net.run(0.1)
        net.hypervisor_moves()
        net.run(1.0)
        await world.kept()
        (move,) = (await checked.ask("GET", "/v1/migrations?service=app&limit=5"))["items"]
        assert (move["from"], move["to"], move["state"]) == ("dc1", "dc2", "committed")
        same = await checked.ask("GET", f"/v1/migrations/{move['id']}", as_="/v1/migrations/{id}")
        assert same == move
        assert (await checked.ask("GET", "/v1/decisions/history"))["items"][0]["rule"] == "nearest"
        for path in (
            "status",
            "sites",
            "users",
            "services",
            "placements",
            "moves",
            "decisions",
            "datacenters",
            "distances",
        ):
            assert await checked.ask("GET", f"/v1/{path}")
        before = (await checked.ask("GET", "/v1/log"))["level"]
        assert await checked.ask("POST", "/v1/log", {"level": before}) == {"level": before, "before": before}
        for path in ("/healthz", "/readyz", "/v1/rejects", "/v1/openapi.json"):
            await checked.ask("GET", path)
        await checked.ask("GET", "/v1/users/alice", as_="/v1/users/{name}")
        await checked.ask("GET", "/v1/services/app", as_="/v1/services/{name}")
        await changed(world, checked)
        routes = {(each.method, each.path) for each in world.api.operations}
        assert routes - checked.seen == {("GET", "/metrics"), ("GET", "/v1/events")}, "those that are no JSON"


async def changed(world: World, checked: Checked) -> None:
    """Everything that changes something, once."""
    assert await checked.ask("POST", "/v1/schemes", {"service": "app", "scheme": None}) == {
        "service": "app",
        "scheme": None,
    }
    await checked.ask("POST", "/v1/schemes", {"service": "app", "scheme": "smr"})
    could = await checked.ask("POST", "/v1/migrations/check", {"service": "app", "to": "dc1"})
    assert (could["from"], could["to"], could["scheme"]) == ("dc2", "dc1", "smr")
    await checked.ask("POST", "/v1/schemes", {"service": "app", "scheme": None})
    moving = await checked.ask("POST", "/v1/migrations", {"service": "app", "to": "dc1"})
    assert moving["state"] == "preparing"
    path = f"/v1/migrations/{moving['id']}/abort"
    assert (await checked.ask("POST", path, {}, as_="/v1/migrations/{id}/abort"))["state"] == "failed"
    assert (await checked.ask("POST", "/v1/moves", {"service": "app", "to": "dc1"}))["state"] == "preparing"
    assert (await checked.ask("POST", "/v1/users", BOB))["added"]
    assert (await checked.ask("POST", "/v1/services", GAME))["datacenter"] == "dc2"
    assert (await checked.ask("DELETE", "/v1/services/game", as_="/v1/services/{name}")) == {"removed": "game"}
    assert (await checked.ask("DELETE", "/v1/users/bob", as_="/v1/users/{name}")) == {"removed": "bob"}
    told = await checked.ask("POST", "/v1/distances", {"a": "access1", "b": "dc1", "ms": 9})
    assert told == {"a": "access1", "b": "dc1", "ms": 9}
    report = {"rloc": "198.18.0.11", "rtts": [{"rloc": "198.18.0.22", "ms": 7.5}, {"rloc": "198.18.9.9", "ms": 1}]}
    assert await checked.ask("POST", "/v1/distances/report", report) == {"taken": 1, "unknown": 1}
    assert await checked.ask("POST", "/v1/remaining", {"service": "app", "remaining_s": 90}) == {
        "service": "app", "remaining_s": 90,
    }  # fmt: skip


REFUSED: list[tuple[str, str, str, Any, int, str]] = [
    ("POST", "/v1/migrations", "", {}, 400, "missing required field `service`"),
    ("POST", "/v1/migrations", "", {"service": "app", "to": 3}, 400, "Expected `str`"),
    ("POST", "/v1/migrations", "", {"service": "app", "to": "dc2", "force": True}, 400, "unknown field `force`"),
    ("POST", "/v1/migrations", "", {"service": "none", "to": "dc2"}, 404, "it is not configured"),
    ("POST", "/v1/migrations", "", {"service": "app", "to": "dc9"}, 403, "it is unknown"),
    ("POST", "/v1/migrations", "", {"service": "app", "to": "dc1"}, 409, "it is there already"),
    ("POST", "/v1/migrations/none/abort", "/v1/migrations/{id}/abort", {}, 404, "not begun in this run"),
    ("GET", "/v1/migrations/none", "/v1/migrations/{id}", None, 404, "it never was"),
    ("GET", "/v1/migrations?limit=0", "", None, 400, "Expected `int` >= 1"),
    ("GET", "/v1/migrations?order=up", "", None, 400, "unknown field `order`"),
    ("GET", "/v1/decisions/history?before=now", "", None, 400, "Expected `int"),
    ("GET", "/v1/users/none", "/v1/users/{name}", None, 404, "never added"),
    ("GET", "/v1/services/none", "/v1/services/{name}", None, 404, "never added"),
    ("POST", "/v1/users", "", {"name": "alice", "eids": ["100.64.1.99/32"]}, 409, "there is a user of that name"),
    ("POST", "/v1/users", "", {"name": "bob", "eids": ["100.64.1.10/32"]}, 409, "belongs to alice already"),
    ("POST", "/v1/users", "", {"name": "bob", "eids": ["10.0.0.1/32"]}, 409, "is in no subscribed range"),
    ("POST", "/v1/users", "", {"name": "bob", "eids": ["100.64.1.0/24"]}, 400, "is no single address"),
    ("POST", "/v1/users", "", {"name": "bob", "eids": ["100.64.1.9", "100.64.1.9"]}, 400, "names an EID twice"),
    ("POST", "/v1/users", "", {"name": "bob", "eids": ["somewhere"]}, 400, "is not an IP prefix"),
    ("POST", "/v1/users", "", {"name": "", "eids": ["100.64.1.9"]}, 400, "Expected `str`"),
    ("POST", "/v1/users", "", {"name": "bob", "eids": []}, 400, "length >= 1"),
    ("POST", "/v1/services", "", GAME, 409, "there is no user 'bob'"),
    ("POST", "/v1/services", "", {**GAME, "user": None, "datacenter": "dc9"}, 409, "there is no data centre 'dc9'"),
    ("POST", "/v1/services", "", {**GAME, "user": None, "service_class": "x"}, 409, "there is no service class 'x'"),
    ("POST", "/v1/services", "", {**GAME, "name": "app", "user": None}, 409, "there is a service of that name"),
    ("DELETE", "/v1/users/none", "/v1/users/{name}", None, 404, "never added"),
    ("DELETE", "/v1/users/alice", "/v1/users/{name}", None, 409, "the configuration has it"),
    ("DELETE", "/v1/services/none", "/v1/services/{name}", None, 404, "never added"),
    ("DELETE", "/v1/services/app", "/v1/services/{name}", None, 409, "the configuration has it"),
    ("POST", "/v1/distances", "", {"a": "access1", "b": "dc1", "ms": True}, 400, "Expected `float`"),
    ("POST", "/v1/distances", "", {"a": "access1", "b": "dc1", "ms": -1}, 400, "Expected `float` >= 0"),
    ("POST", "/v1/distances", "", {"a": "access1", "b": "nowhere", "ms": 1}, 400, ""),
    ("POST", "/v1/distances/report", "", {"rloc": "198.18.9.9", "rtts": []}, 400, ""),
    ("POST", "/v1/distances/report", "", {"rloc": "here", "rtts": []}, 400, ""),
    ("POST", "/v1/remaining", "", {"service": "none", "remaining_s": 1}, 400, ""),
]  # fmt: skip


async def test_every_refusal_says_what_why_and_what_to_do(tmp_path: Path) -> None:
    async with asked(tmp_path) as (_world, checked):
        for method, path, as_, body, status, says in REFUSED:
            with pytest.raises(ApiError) as refused:
                await checked.ask(method, path, body, as_=as_)
            assert refused.value.status == status, (path, body, refused.value)
            assert says in refused.value.why, (path, body, refused.value)
            if says:
                assert refused.value.do


async def test_a_user_that_is_followed_and_a_service_on_its_way_stay(tmp_path: Path) -> None:
    async with asked(tmp_path) as (_world, checked):
        await checked.ask("POST", "/v1/users", BOB)
        await checked.ask("POST", "/v1/services", GAME)
        with pytest.raises(ApiError, match="game follow"):
            await checked.ask("DELETE", "/v1/users/bob", as_="/v1/users/{name}")
        await checked.ask("POST", "/v1/migrations", {"service": "game", "to": "dc1"})
        with pytest.raises(ApiError, match="a move of it is under way"):
            await checked.ask("DELETE", "/v1/services/game", as_="/v1/services/{name}")


async def test_one_that_was_added_is_located_and_its_service_follows(tmp_path: Path) -> None:
    async with asked(tmp_path) as (world, checked):
        await checked.ask("POST", "/v1/users", BOB)
        await checked.ask("POST", "/v1/services", {**GAME, "datacenter": "dc1"})
        bob = world.net.fmcc.world.users["bob"].eids
        world.net.routers["access2"].registers(*bob)
        world.net.run(1.0)
        assert (await checked.ask("GET", "/v1/users/bob", as_="/v1/users/{name}"))["site"] == "access2"
        assert [effect.machine for effect in world.net.asked] == ["game"]


async def test_a_move_is_aborted_until_its_machine_stands_still(tmp_path: Path) -> None:
    async with asked(tmp_path) as (world, checked):
        move = await checked.ask("POST", "/v1/migrations", {"service": "app", "to": "dc2"})
        abort = "/v1/migrations/{id}/abort"
        aborted = await checked.ask("POST", abort.format(id=move["id"]), {}, as_=abort)
        assert (aborted["state"], aborted["reason"]) == ("failed", "aborted by request")
        assert world.net.placement.datacenter == "dc1"
        with pytest.raises(ApiError, match="it is failed") as refused:
            await checked.ask("POST", abort.format(id=move["id"]), {}, as_=abort)
        assert refused.value.status == 409


def tokens() -> tuple[TokenSettings, ...]:
    return tuple(TokenSettings(name=role, token=token, role=role) for role, token in TOKENS.items())  # type: ignore[arg-type]


async def test_every_route_asks_for_a_token_whose_role_suffices(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/fmcc.sock"
    async with running(tmp_path, ApiSettings(listen=listen, tokens=tokens())) as world:
        for operation in world.api.operations:
            if operation.path == "/v1/events":
                continue
            path = operation.path.replace("{name}", "none").replace("{id}", "none")
            body: Any = None if operation.takes is None else {}
            assert await status_of(listen, operation.method, path, body, None) == (401 if operation.role else 200)
            assert await status_of(listen, operation.method, path, body, "Bearer wrong") == (
                401 if operation.role else 200
            )
            for role, token in TOKENS.items():
                status = await status_of(listen, operation.method, path, body, f"Bearer {token}")
                allowed = operation.role is None or role in ("operate", operation.role)
                assert (status in (401, 403)) is not allowed, (operation.path, role, status)
                if not allowed:
                    assert status == 403


async def status_of(listen: str, method: str, path: str, body: Any, header: str | None) -> int:
    connector = aiohttp.UnixConnector(listen.removeprefix("unix:"))
    headers = {} if header is None else {"Authorization": header}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.request(method, f"http://x{path}", json=body) as answer,
    ):
        if answer.status >= 400 and answer.status != 503:
            assert set((await answer.json())["error"]) == {"what", "why", "do"}
        return answer.status


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate authority of our own, and a certificate for 127.0.0.1 by it: (authority, certificate, key)."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = signed("test authority", authority_key, "test authority", authority_key, authority=True)
    certificate = signed("127.0.0.1", key, "test authority", authority_key, authority=False)
    paths = folder / "authority.pem", folder / "fmcc.pem", folder / "fmcc.key"
    paths[0].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[2].write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    return paths


def signed(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, *, authority: bool
) -> x509.Certificate:
    now = datetime.now(UTC)
    alternative = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    draft = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(alternative, critical=False)
    )
    return draft.sign(by, hashes.SHA256())


async def test_with_a_certificate_it_speaks_tls_to_who_trusts_its_authority(tmp_path: Path) -> None:
    authority, certificate, key = certificates(tmp_path)
    settings = ApiSettings(listen="127.0.0.1:0", certificate=certificate, key=key, tokens=tokens())
    async with running(tmp_path, settings) as world:
        where = f"https://localhost:{world.api.port}"
        async with ApiClient(where, token=TOKENS["operate"], authority=authority) as client:
            assert (await client.get("/v1/status"))["daemon"] == "fmcc"
            assert (await client.post("/v1/migrations", {"service": "app", "to": "dc2"}))["to"] == "dc2"
        async with ApiClient(where, token=TOKENS["operate"]) as stranger:
            with pytest.raises(Unreachable, match="certificate is not to be trusted"):
                await stranger.get("/v1/status")
        async with ApiClient(f"localhost:{world.api.port}", token=TOKENS["operate"]) as plain:
            with pytest.raises((Unreachable, ApiError)):
                await plain.get("/v1/status")


async def test_a_certificate_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    _authority, certificate, key = certificates(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    for wrong in (tmp_path / "none.key", certificates(other)[2], certificate):
        settings = ApiSettings(listen="127.0.0.1:0", certificate=certificate, key=wrong)
        with pytest.raises(LocalError, match="cannot be used"):
            async with running(tmp_path, settings):
                pass
    with pytest.raises(LocalError, match="no certificate authority"):
        async with ApiClient("https://localhost:1", authority=key) as client:
            await client.get("/v1/status")


async def test_without_state_dir_there_is_no_history_and_it_says_so(tmp_path: Path) -> None:
    net = Net()
    api = Api("fmcc", "fmcc", EventLog(), Rejects(), dict[str, Any], list[str])
    Routes(net.fmcc, net.tell, None, classes=set(), instance_id=0, following=()).add_to(api)
    await api.start(f"unix:{tmp_path}/fmcc.sock")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(api.close)
        client = await stack.enter_async_context(ApiClient(f"unix:{tmp_path}/fmcc.sock"))
        for path in ("/v1/migrations", "/v1/decisions/history", "/v1/migrations/m"):
            with pytest.raises(ApiError, match="configure state_dir") as refused:
                await client.get(path)
            assert refused.value.status == 501

"""The schema registry's REST interface, as Confluent's clients speak it, over the schema log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import orjson
from confluent_kafka import KafkaException, Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from producers import registry as schema_log
from producers.kafka import Tail
from schemas import registry
from schemas.log import Entry, SchemaLog, Version
from schemas.registry import RegistryError
from streams.errors import Retryable
from streams.topics import SCHEMAS

log = logging.getLogger("omium.registry")

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
MEDIA_TYPES = (MEDIA_TYPE, "application/vnd.schemaregistry+json", "application/json")
"""A browser may send none of these across origins without asking first."""
BODY_BYTES_MAX = 1024 * 1024
WRITERS_WAITING_MAX = 32
"""Writes are done one at a time; more than this many waiting get 503."""
RETRY_AFTER_S = 1

Access = Literal["read", "write"]
Authorize = Callable[[Request, Access], None]
"""Raises what the app answers to somebody who may not."""
Answer = Callable[[Request], Awaitable[object]]


class SchemaRegistry:
    """The schema log as this process knows it, followed live; writes go through the log."""

    def __init__(self, bootstrap: str) -> None:
        self.log = SchemaLog()
        self._bootstrap = bootstrap
        self._tail: Tail | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def start(self) -> None:
        """Reads the whole log, then follows it. Retryable if the broker does not answer."""
        self.log, position = await asyncio.to_thread(schema_log.read_with_position, self._bootstrap)
        self._tail = Tail(
            self._bootstrap,
            client_id="omium-registry",
            positions={(SCHEMAS.name, 0): position},
            on_batch=self._on_batch,
        )
        await self._tail.start()

    async def stop(self) -> None:
        """Stops following."""
        if self._tail is not None:
            await self._tail.stop()

    def _on_batch(self, batch: list[Message]) -> None:
        for message in batch:
            schema_log.follow(self.log, message)

    async def write(self, decide: Callable[[SchemaLog], list[Entry]]) -> None:
        """Appends what `decide` asks for, as the log stands when nobody else can write."""
        if self._waiting >= WRITERS_WAITING_MAX:
            raise Retryable("too many writers wait for the schema log", RETRY_AFTER_S * 1000)
        self._waiting += 1
        written: list[Entry] = []

        def deciding(now: SchemaLog) -> list[Entry]:
            written[:] = decide(now)
            return written

        try:
            async with self._turn:
                await asyncio.to_thread(schema_log.append, self._bootstrap, deciding)
        finally:
            self._waiting -= 1
        # Our own tail brings them again; until then whoever wrote must see what it wrote.
        for key, value in written:
            self.log.apply(key, value)


def routes(schemas: SchemaRegistry, authorize: Authorize | None = None) -> list[Route]:
    """Every route of the registry, for an app to mount."""
    view = _Endpoints(schemas)
    table: list[tuple[str, str, Access, Answer]] = [
        ("GET", "/subjects", "read", view.list_subjects),
        ("POST", "/subjects/{subject}", "read", view.look_up),
        ("DELETE", "/subjects/{subject}", "write", view.delete_subject),
        ("GET", "/subjects/{subject}/versions", "read", view.list_versions),
        ("POST", "/subjects/{subject}/versions", "write", view.register),
        ("GET", "/subjects/{subject}/versions/{version}", "read", view.get_version),
        ("GET", "/subjects/{subject}/versions/{version}/schema", "read", view.get_text),
        ("GET", "/subjects/{subject}/versions/{version}/referencedby", "read", view.no_references),
        ("DELETE", "/subjects/{subject}/versions/{version}", "write", view.delete_version),
        ("GET", "/schemas", "read", view.list_schemas),
        ("GET", "/schemas/types", "read", view.list_types),
        ("GET", "/schemas/ids/{id}", "read", view.get_by_id),
        ("GET", "/schemas/ids/{id}/schema", "read", view.get_text_by_id),
        ("GET", "/schemas/ids/{id}/versions", "read", view.list_uses),
        ("GET", "/schemas/ids/{id}/subjects", "read", view.list_users),
        ("POST", "/compatibility/subjects/{subject}/versions", "read", view.check),
        ("POST", "/compatibility/subjects/{subject}/versions/{version}", "read", view.check),
        ("GET", "/config", "read", view.get_level),
        ("PUT", "/config", "write", view.set_level),
        ("DELETE", "/config", "write", view.clear_level),
        ("GET", "/config/{subject}", "read", view.get_level),
        ("PUT", "/config/{subject}", "write", view.set_level),
        ("DELETE", "/config/{subject}", "write", view.clear_level),
        ("GET", "/mode", "read", view.get_mode),
        ("PUT", "/mode", "write", view.set_mode),
        ("GET", "/mode/{subject}", "read", view.get_mode),
        ("PUT", "/mode/{subject}", "write", view.set_mode),
        ("DELETE", "/mode/{subject}", "write", view.clear_mode),
    ]
    return [
        Route(path, _endpoint(answer, access, authorize), methods=[method])
        for method, path, access, answer in table
    ]


def _endpoint(
    answer: Answer, access: Access, authorize: Authorize | None
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if authorize is not None:
            authorize(request, access)
        try:
            return _json(200, await answer(request))
        except RegistryError as error:
            return _json(error.status, {"error_code": error.code, "message": str(error)})
        except (Retryable, KafkaException) as error:
            log.warning("the schema log: %s", error)
            body = {"error_code": 50001, "message": f"The schema log is not available: {error}"}
            return _json(503, body, {"Retry-After": str(RETRY_AFTER_S)})

    return endpoint


def _json(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, media_type=MEDIA_TYPE)


class _Endpoints:
    """One method a route: parses the request, asks `schemas.registry`, shapes the answer."""

    def __init__(self, schemas: SchemaRegistry) -> None:
        self._schemas = schemas

    @property
    def _log(self) -> SchemaLog:
        return self._schemas.log

    async def list_subjects(self, request: Request) -> object:
        return registry.subjects(
            self._log,
            with_deleted=_flag(request, "deleted"),
            prefix=request.query_params.get("subjectPrefix", ""),
        )

    async def look_up(self, request: Request) -> object:
        found = registry.lookup(
            self._log,
            _subject(request),
            await _schema(request),
            with_deleted=_flag(request, "deleted"),
        )
        return _version(found)

    async def register(self, request: Request) -> object:
        subject, schema = _subject(request), await _schema(request)
        found, entries = registry.register(self._log, subject, schema)
        if entries:
            await self._schemas.write(lambda now: registry.register(now, subject, schema)[1])
            found, _ = registry.register(self._log, subject, schema)
        return _version(found)

    async def list_versions(self, request: Request) -> object:
        found = registry.versions(
            self._log, _subject(request), with_deleted=_flag(request, "deleted")
        )
        return [each.version for each in found]

    async def get_version(self, request: Request) -> object:
        return _version(self._found(request))

    async def get_text(self, request: Request) -> object:
        return orjson.Fragment(self._found(request).schema)

    async def no_references(self, request: Request) -> object:
        """Schemas refer to no others here."""
        self._found(request)
        return []

    def _found(self, request: Request) -> Version:
        return registry.version(
            self._log,
            _subject(request),
            request.path_params["version"],
            with_deleted=_flag(request, "deleted"),
        )

    async def delete_subject(self, request: Request) -> object:
        subject, permanent = _subject(request), _flag(request, "permanent")
        gone: list[int] = []

        def decide(now: SchemaLog) -> list[Entry]:
            gone[:], entries = registry.delete_subject(now, subject, permanent=permanent)
            return entries

        await self._schemas.write(decide)
        return gone

    async def delete_version(self, request: Request) -> object:
        subject, permanent = _subject(request), _flag(request, "permanent")
        gone: list[int] = []

        def decide(now: SchemaLog) -> list[Entry]:
            wanted = request.path_params["version"]
            number, entries = registry.delete_version(now, subject, wanted, permanent=permanent)
            gone[:] = [number]
            return entries

        await self._schemas.write(decide)
        return gone[0]

    async def list_schemas(self, request: Request) -> object:
        prefix = request.query_params.get("subjectPrefix", "")
        found: list[Version] = []
        for subject in registry.subjects(self._log, prefix=prefix):
            of_subject = registry.versions(self._log, subject)
            found += of_subject[-1:] if _flag(request, "latestOnly") else of_subject
        return [_version(each) for each in found]

    async def list_types(self, request: Request) -> object:
        return ["AVRO"]

    async def get_by_id(self, request: Request) -> object:
        return {"schema": registry.text_of(self._log, _id(request))}

    async def get_text_by_id(self, request: Request) -> object:
        return orjson.Fragment(registry.text_of(self._log, _id(request)))

    async def list_uses(self, request: Request) -> object:
        return [
            {"subject": each.subject, "version": each.version}
            for each in registry.using(self._log, _id(request))
        ]

    async def list_users(self, request: Request) -> object:
        return sorted({each.subject for each in registry.using(self._log, _id(request))})

    async def check(self, request: Request) -> object:
        subject, schema = _subject(request), await _schema(request)
        registry.check_schema(schema)
        level = registry.level_of(self._log, subject)
        previous = self._log.of_subject(subject)
        if (wanted := request.path_params.get("version")) is not None and (
            previous or registry.version_number(wanted) is not None
        ):
            previous = [registry.version(self._log, subject, wanted)]
        found = registry.incompatible(self._log, schema, previous, level)
        verdict: dict[str, object] = {"is_compatible": not found}
        return verdict | {"messages": found} if _flag(request, "verbose") else verdict

    async def get_level(self, request: Request) -> object:
        subject = _subject(request)
        if subject and subject not in self._log.levels and not _flag(request, "defaultToGlobal"):
            raise RegistryError(
                404, 40408, f"Subject '{subject}' has no compatibility level of its own"
            )
        return {"compatibilityLevel": registry.level_of(self._log, subject)}

    async def set_level(self, request: Request) -> object:
        subject, level = _subject(request), _text(await _body(request), "compatibility")
        await self._schemas.write(lambda _: registry.set_level(subject, level))
        return {"compatibility": level}

    async def clear_level(self, request: Request) -> object:
        subject = _subject(request)
        before = await self.get_level(request)
        await self._schemas.write(lambda _: registry.clear_level(subject))
        return before

    async def get_mode(self, request: Request) -> object:
        subject = _subject(request)
        if subject and subject not in self._log.modes and not _flag(request, "defaultToGlobal"):
            raise RegistryError(404, 40409, f"Subject '{subject}' has no mode of its own")
        return {"mode": registry.mode_of(self._log, subject)}

    async def set_mode(self, request: Request) -> object:
        subject, mode = _subject(request), _text(await _body(request), "mode")
        await self._schemas.write(lambda _: registry.set_mode(subject, mode))
        return {"mode": mode}

    async def clear_mode(self, request: Request) -> object:
        subject = _subject(request)
        before = await self.get_mode(request)
        await self._schemas.write(lambda _: registry.clear_mode(subject))
        return before


def _version(found: Version) -> dict[str, object]:
    return {
        "subject": found.subject,
        "version": found.version,
        "id": found.id,
        "schema": found.schema,
        "schemaType": "AVRO",
    }


def _subject(request: Request) -> str:
    return str(request.path_params.get("subject", ""))


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() == "true"


def _id(request: Request) -> int:
    text = str(request.path_params["id"])
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise RegistryError(404, 40403, f"Schema {text[:40]} not found")
    return int(text)


async def _schema(request: Request) -> str:
    body = await _body(request)
    kind = body.get("schemaType") or "AVRO"
    if kind != "AVRO":
        raise RegistryError(422, 42201, f"Invalid schema type {kind}: only AVRO is served here")
    if body.get("references"):
        raise RegistryError(422, 42201, "Invalid schema: references are not served here")
    return _text(body, "schema")


def _text(body: Mapping[str, object], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise RegistryError(422, 42201, f"The body needs a string `{name}`")
    return value


async def _body(request: Request) -> Mapping[str, object]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        raise RegistryError(415, 415, f"Content-Type must be one of {', '.join(MEDIA_TYPES)}")
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES_MAX:
            raise RegistryError(413, 413, f"A body holds at most {BODY_BYTES_MAX} bytes")
    try:
        body = orjson.loads(bytes(data))
    except orjson.JSONDecodeError as error:
        raise RegistryError(400, 400, f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RegistryError(422, 42201, "The body must be a JSON object")
    return body

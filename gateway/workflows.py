"""Workflows by name: registered on the control topic, checked against what workers may import."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

import jsonschema  # type: ignore[import-untyped]  # It ships no types, and its stubs are one more dependency.
import orjson
from fastapi import APIRouter, Request, Response
from referencing import Registry
from referencing.exceptions import Unresolvable

from gateway.auth import Principal
from gateway.context import Context, GatewayConfig, context_of
from gateway.models import Json, RegisterWorkflowRequest, json_answer
from gateway.problems import Problem
from streams.control.events import WorkflowRegistered
from streams.execution.options import parse
from streams.messages import event_id
from streams.topics import CONTROL

router = APIRouter(tags=["workflows"])

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
VERSION_CHARS: Final = 16
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_ATTR = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@router.post("/v1/workflows", status_code=201)
async def register(request: Request, body: RegisterWorkflowRequest) -> Response:
    """Register a workflow, or a new version of it. The same definition again changes nothing."""
    context = context_of(request)
    who = context.principal(request, "executions")
    event = _registration(context, who, body)
    newest = context.workflows.get(who.tenant, event.name)
    if newest is None or newest.version != event.version:
        await context.producer.send(context.wire.encode(event, CONTROL))
        context.workflows.fold(event)
    return json_answer(workflow_document(event), 201)


@router.get("/v1/workflows")
async def list_workflows(request: Request) -> Response:
    """The newest version of every workflow."""
    context = context_of(request)
    who = context.principal(request, "executions")
    return json_answer(
        {"workflows": [workflow_document(w) for w in context.workflows.of_tenant(who.tenant)]}
    )


@router.get("/v1/workflows/{name}")
async def get_workflow(request: Request, name: str) -> Response:
    """One workflow."""
    context = context_of(request)
    who = context.principal(request, "executions")
    return json_answer(workflow_document(require_workflow(context, who, name, "")))


def require_workflow(
    context: Context, who: Principal, name: str, version: str
) -> WorkflowRegistered:
    """The registered workflow; raises the 404 problem that names it."""
    workflow = context.workflows.get(who.tenant, name, version)
    if workflow is None:
        shown = f"{name!r} in version {version!r}" if version else repr(name)
        raise Problem(
            404,
            "unknown-workflow",
            f"There is no workflow {shown}. Register it first.",
            field="workflow",
        )
    return workflow


def defaults_of(workflow: WorkflowRegistered) -> Json:
    """The options that its executions have unless they ask for others."""
    options = _definition(workflow).get("options")
    return dict(options) if isinstance(options, dict) else {}


def input_problem(workflow: WorkflowRegistered, value: Json) -> Problem | None:
    """The 422 problem of an input that breaks the workflow's schema, naming the field."""
    schema = _definition(workflow).get("input_schema")
    if not isinstance(schema, dict):
        return None
    # An empty registry: a `$ref` to somewhere else is an error, never a request into the network.
    validator = jsonschema.Draft202012Validator(schema, registry=Registry())
    try:
        first = next(iter(validator.iter_errors(value)), None)  # pyright: ignore[reportArgumentType]  # Its own JSON type.
    except Unresolvable as error:
        return Problem(
            422,
            "invalid-schema",
            f"The workflow's input_schema has a bad $ref: {error}.",
            field="workflow",
        )
    if first is None:
        return None
    path = ".".join(["input", *(str(part) for part in first.absolute_path)])
    return Problem(422, "invalid-input", f"{path}: {str(first.message)[:1000]}", field=path)


def workflow_document(workflow: WorkflowRegistered) -> Json:
    """A workflow as clients read it."""
    definition = _definition(workflow)
    return {
        "name": workflow.name,
        "version": workflow.version,
        "framework": workflow.framework,
        "entrypoint": workflow.entrypoint,
        "input_schema": definition.get("input_schema"),
        "options": definition.get("options", {}),
        "registered_at_ms": workflow.at_ms,
    }


def _definition(workflow: WorkflowRegistered) -> Json:
    definition = orjson.loads(workflow.definition_json or "{}")
    return definition if isinstance(definition, dict) else {}


def _registration(
    context: Context, who: Principal, body: RegisterWorkflowRequest
) -> WorkflowRegistered:
    content = _checked_entrypoint(context.config, body.entrypoint)
    _check_schema(body.input_schema)
    options = body.options.given()
    parse(orjson.dumps(options).decode())
    definition = orjson.dumps(
        {"input_schema": body.input_schema, "options": options}, option=orjson.OPT_SORT_KEYS
    )
    digest = hashlib.sha256(
        b"\0".join((content, body.framework.encode(), body.entrypoint.encode(), definition))
    )
    version = digest.hexdigest()[:VERSION_CHARS]
    return WorkflowRegistered(
        event_id=event_id(who.tenant, "", body.name, 0, "WorkflowRegistered", version),
        tenant=who.tenant,
        execution_id="",
        at_ms=context.now_ms(),
        name=body.name,
        version=version,
        framework=body.framework,
        entrypoint=body.entrypoint,
        definition_json=definition.decode(),
    )


def _checked_entrypoint(config: GatewayConfig, entrypoint: str) -> bytes:
    """What the version depends on beside the definition; raises the problem of an entrypoint that
    may not run.
    """
    place, separator, attribute = entrypoint.rpartition(":")
    if not separator or not _ATTR.fullmatch(attribute):
        raise _bad_entrypoint("entrypoint must be `module:attr` or `/absolute/file.py:attr`.")
    if place.startswith("/"):
        return _file_content(config, place)
    if not _MODULE.fullmatch(place):
        raise _bad_entrypoint(f"{place!r} is no module name.")
    if not any(place == prefix or place.startswith(prefix + ".") for prefix in config.worker_allow):
        raise Problem(
            403,
            "module-not-allowed",
            f"Workers may not import {place!r}; see OMIUM_WORKER_ALLOW.",
            field="entrypoint",
        )
    return b""


def _file_content(config: GatewayConfig, place: str) -> bytes:
    if not config.allow_files:
        raise Problem(
            403,
            "files-not-allowed",
            "This gateway takes no files, only modules.",
            field="entrypoint",
        )
    path = Path(place)
    if path.suffix != ".py" or ".." in path.parts:
        raise _bad_entrypoint(f"{place!r} is no Python file.")
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise _bad_entrypoint(f"{place} is larger than {FILE_BYTES_MAX} bytes.")
        return path.read_bytes()
    except OSError as error:
        raise _bad_entrypoint(f"{place} cannot be read: {error.strerror}.") from error


def _check_schema(schema: Json | None) -> None:
    if schema is None:
        return
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise Problem(
            422, "invalid-schema", f"input_schema: {error.message[:1000]}", field="input_schema"
        ) from error


def _bad_entrypoint(detail: str) -> Problem:
    return Problem(422, "invalid-entrypoint", detail, field="entrypoint")

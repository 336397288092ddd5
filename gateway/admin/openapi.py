"""GET /openapi.json: the route table as an OpenAPI 3.1 document."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from gateway.admin.answers import CODES, AdminCode
from gateway.admin.routes import Endpoint, Param
from gateway.core.presence import LEASE_NAME, MAX_LEASE_S

PATH = "/openapi.json"

_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "app", "instance", "request_id", "remedy"],
            "properties": {
                **dict.fromkeys(("code", "message", "app", "instance", "request_id", "remedy", "detail"), _TEXT),
                "faults": {
                    "type": "array",
                    "items": {"type": "object", "properties": dict.fromkeys(("key", "message", "remedy"), _TEXT)},
                },
            },
        }
    },
}
_MACHINE = {
    "type": "object",
    "required": ["id", "address"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"},
        "address": {"type": "string", "description": "host:port", "examples": ["10.0.0.7:8000"]},
        "region": {"type": "string", "description": "The gateway's own by default."},
    },
}
_QUESTION = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **dict.fromkeys(("host", "path", "method", "session", "name", "app", "client"), _TEXT),
        "headers": {"anyOf": [{"type": "array", "items": _TEXT}, {"type": "object", "additionalProperties": _TEXT}]},
        "body": {"description": "A text as it is, any other value as JSON."},
    },
}
_EXPIRE = {
    "description": 'Seconds, or text such as "5m"; at most an hour.',
    "anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": MAX_LEASE_S}, _TEXT],
}
_LEASE = {"type": "string", "pattern": f"^{LEASE_NAME.pattern}$"}
_TASK = {
    "type": "object",
    "required": ["name", "expire"],
    "additionalProperties": False,
    "properties": {"name": _LEASE, "expire": _EXPIRE},
}
_SCHEMAS = {
    "Machine": _MACHINE,
    "Question": _QUESTION,
    "Task": _TASK,
    "Renewal": {**_TASK, "required": ["expire"]},
    "Error": _ERROR,
}
_OF_ALL = (AdminCode.AD01, AdminCode.AD02)


def document(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """The document of these endpoints and of itself."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    paths[PATH] = {
        "get": {"summary": "This document.", "operationId": "openapi", "responses": {"200": _response("It.")}}
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Moorage admin API", "version": version},
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _SCHEMAS,
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    in_path = re.findall(r"\{(\w+)\}", endpoint.path)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in in_path
    ]
    parameters += map(_parameter, endpoint.params)
    responses = {
        str(code): _response(text, endpoint.media_type if code < 300 else "application/json", error=code >= 400)
        for code, text in endpoint.answers.items()
        if (code, endpoint.path) != (503, "/readyz")
    }
    if endpoint.path == "/readyz":
        responses["503"] = _response(endpoint.answers[503])
    for refusal in (*_OF_ALL, AdminCode.AD07):
        row = CODES[refusal]
        responses.setdefault(str(row.status), _response(row.title, error=True))
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": endpoint.operation,
        "parameters": parameters,
        "responses": responses,
    }
    if endpoint.body:
        schema = {"$ref": f"#/components/schemas/{endpoint.body}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _parameter(param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": param.type}
    if param.many:
        schema = {"type": "array", "items": schema}
    return {"name": param.name, "in": "query", "description": param.text, "schema": schema}


def _response(text: str, media_type: str = "application/json", *, error: bool = False) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": "#/components/schemas/Error"} if error else {}
    return {"description": text, "content": {media_type: {"schema": schema} if schema else {}}}

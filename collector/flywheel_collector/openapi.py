"""The API of the app's side as an OpenAPI document, made of the limits that are enforced. Served at `/openapi.json`; docs/ has a copy."""

from __future__ import annotations

from typing import Any

from flywheel_collector.events import MAX_BATCH, MAX_BODY_BYTES, MAX_ID, MAX_MESSAGES, MAX_SAMPLING, MAX_TEXT, ROLES, SIGNALS

_ID = {"type": "string", "minLength": 1, "maxLength": MAX_ID, "description": "Printable, and not '-'."}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def _answer(description: str, schema: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema or _ERROR}}, **more}


def _event() -> dict[str, Any]:
    said = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": sorted(ROLES)}, "content": {"type": "string", "maxLength": MAX_TEXT}},
    }
    properties = {
        "id": {**_ID, "description": "Of the event: an event that comes twice counts once. Printable, and not '-'."},
        "type": {"enum": ["turn", *sorted(SIGNALS)]},
        "time": {
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339 with an offset; not in the future, not older than is remembered.",
        },
        "user": {**_ID, "description": "As in the header x-user-id."},
        "conversation": {**_ID, "description": "As in the header x-conversation-id."},
        "message": {**_ID, "description": "As in the header x-message-id: the user's message that was answered."},
        "messages": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_MESSAGES,
            "items": said,
            "description": "Of a turn: the history, the user's message last.",
        },
        "response": {"type": "string", "maxLength": MAX_TEXT, "description": "Of a turn: what the model answered."},
        "sampling": {"type": "object", "description": f"Of a turn: sampling parameters; at most {MAX_SAMPLING} characters of JSON."},
    }
    return {
        "type": "object",
        "required": ["id", "type", "time", "user", "conversation", "message"],
        "properties": properties,
        "if": {"properties": {"type": {"const": "turn"}}},
        "then": {"required": ["messages", "response"]},
    }


def _taken() -> dict[str, Any]:
    rejected = {"type": "object", "properties": {"index": {"type": "integer"}, "error": {"type": "string"}}}
    properties: dict[str, Any] = {
        "accepted": {"type": "integer", "description": "New events, now on the disk."},
        "duplicate": {"type": "integer", "description": "Known by their id, or of a user who was deleted since."},
        "rejected": {"type": "array", "items": rejected, "description": "Events that no repetition will mend, and why."},
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def document() -> dict[str, Any]:
    later = {"headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}}
    unauthorised = _answer("A token is configured, and the request has another or none.")
    body = {
        "type": "object",
        "required": ["events"],
        "properties": {"events": {"type": "array", "maxItems": MAX_BATCH, "items": {"$ref": "#/components/schemas/Event"}}},
    }
    post = {
        "operationId": "postEvents",
        "summary": "Report what users did, and, opt-in, what was said",
        "description": f"Idempotent: repeat it until it is answered. The body has at most {MAX_BODY_BYTES} bytes.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": _answer("Taken; single events may be rejected.", {"$ref": "#/components/schemas/Taken"}),
            "400": _answer("The body as a whole is of no use."),
            "401": unauthorised,
            "408": _answer("The body came too slowly."),
            "413": {"description": "The body is too large."},
            "429": _answer("The collector is behind; repeat it later.", **later),
            "503": _answer("The state cannot be written now; repeat it later."),
        },
    }
    delete = {
        "operationId": "deleteUser",
        "summary": "Delete what is known of a user",
        "description": "The state forgets at once; files of conversations are rewritten, and later curation leaves the user's past out.",
        "parameters": [{"name": "user", "in": "path", "required": True, "schema": {**_ID, "description": "As in the header x-user-id."}}],
        "responses": {
            "202": _answer("Begun, and certain to be finished.", {"type": "object", "properties": {"pending": {"type": "integer"}}}),
            "400": _answer("That is no user id."),
            "401": unauthorised,
            "403": _answer("No token is configured: without one nobody may delete."),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Flywheel engagement collector", "version": "v1"},
        "security": [{"token": []}],
        "paths": {"/v1/events": {"post": post}, "/v1/users/{user}": {"delete": delete}},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Event": _event(), "Taken": _taken()},
        },
    }

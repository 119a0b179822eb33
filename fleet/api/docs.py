"""The API's documentation: the OpenAPI document, and a page made from it that needs nothing from outside.

I/O: none.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from fleet.api import paper
from fleet.api.context import public

router = APIRouter(include_in_schema=False)

_VERBS: Final = ("get", "post", "put", "patch", "delete")
Schema = Mapping[str, Any]


@router.get("/api/openapi.json", dependencies=[Depends(public())])
async def openapi(request: Request) -> dict[str, Any]:
    """The contract, for programs."""
    return _document(request)


@router.get("/api/docs", response_class=HTMLResponse, dependencies=[Depends(public())])
async def docs(request: Request) -> HTMLResponse:
    """The contract, for people."""
    return HTMLResponse(paper.page("REST API", render(_document(request))), headers=paper.HEADERS)


def _document(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = request.app.openapi()
    return found


def render(document: Schema) -> str:
    """The page's body: operations by tag, each to be opened."""
    tags: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for verb in _VERBS:
            if verb in operations:
                one = operations[verb]
                tags.setdefault((one.get("tags") or ["other"])[0], []).append(_operation(path, verb, one, document))
    sections = "".join(f"<h2>{escape(tag)}</h2>{''.join(tags[tag])}" for tag in sorted(tags))
    info = document["info"]
    return (
        f"<main><h1>{escape(info['title'])} <span class='dim'>{escape(info['version'])}</span></h1>"
        f"<p>{escape(info.get('description', ''))}</p>"
        "<p class='dim'>For programs: <a href='/api/openapi.json'>openapi.json</a>. "
        "Send <code>Authorization: Bearer TOKEN</code>; errors are <code>application/problem+json</code> with a "
        "<code>code</code> and a <code>hint</code>; a list answers <code>Accept: text/csv</code>; a POST with an "
        f"<code>Idempotency-Key</code> can be repeated.</p>{sections}</main>"
    )


def _operation(path: str, verb: str, one: Schema, document: Schema) -> str:
    inner = "".join(_inner(one, document))
    return (
        f"<details><summary><span class='verb {verb}'>{verb.upper()}</span><span class='path'>{escape(path)}</span>"
        f"<span class='what'>{escape(one.get('summary', ''))}</span></summary>"
        f"<div class='inner'>{inner}</div></details>"
    )


def _inner(one: Schema, document: Schema) -> Iterator[str]:
    if one.get("description"):
        yield f"<p>{escape(one['description'])}</p>"
    if one.get("x-permission"):
        yield f"<p class='dim'>Needs <code>{escape(one['x-permission'])}</code>.</p>"
    rows = [
        (item["name"], item["in"], _kind(item.get("schema", {})), item.get("description", ""))
        for item in one.get("parameters", ())
    ]
    if rows:
        yield _table(("parameter", "in", "form", "meaning"), rows)
    for media in one.get("requestBody", {}).get("content", {}).values():
        schema = _resolved(media.get("schema", {}), document)
        required = set(schema.get("required", ()))
        fields = [
            (name, "required" if name in required else "", _kind(item), item.get("description", ""))
            for name, item in schema.get("properties", {}).items()
        ]
        yield _table(("field", "", "form", "meaning"), fields) if fields else f"<pre>{escape(json.dumps(schema))}</pre>"
    answers = ", ".join(f"{code} {answer.get('description', '')}" for code, answer in one.get("responses", {}).items())
    yield f"<p class='dim'>Answers: {escape(answers)}</p>"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _resolved(schema: Schema, document: Schema) -> Schema:
    name = schema.get("$ref", "").removeprefix("#/components/schemas/")
    found: Schema = document["components"]["schemas"][name] if name else schema
    return found


def _kind(schema: Schema) -> str:
    """A schema in a few words: `string (at most 128 long)`."""
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[-1])
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    limits = [
        text.format(schema[key])
        for key, text in (("minimum", "from {}"), ("maximum", "to {}"), ("maxLength", "at most {} long"))
        if key in schema
    ]
    if "default" in schema:
        limits.append(f"default {json.dumps(schema['default'])}")
    return f"{kind} ({', '.join(limits)})" if limits else kind

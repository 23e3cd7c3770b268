"""Request bodies: JSON read as Docker's daemon reads it, with its words for what is wrong (facts 2.5 and 2.6)."""

from __future__ import annotations

import builtins
import functools
import re
import types
import typing
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from netd.core.errors import InvalidParameter

T = TypeVar("T", bound=msgspec.Struct)

_NAMES = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
_MISMATCH = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`(?: - at `(?P<path>[^`]*)`)?")


async def body(request: web.BaseRequest, type: type[T], *, required: bool = True) -> T:
    """The request's JSON body; without `required`, an absent one is all defaults."""
    _check_content_type(request)
    raw = await request.read()
    if not raw.strip():
        if required:
            raise InvalidParameter("invalid JSON: got EOF while reading request body")
        return type()
    return decode(raw, type)


def decode(raw: bytes, type: type[T]) -> T:
    """As Go decodes: names in any case, unknown ones ignored, null for "not given"; wrong types refused."""
    try:
        return msgspec.convert(_as_go(msgspec.json.decode(raw), type), type)
    except msgspec.ValidationError as error:
        raise InvalidParameter(f"invalid JSON: {_explain(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidParameter(_malformed(str(error))) from None


def _check_content_type(request: web.BaseRequest) -> None:
    given = request.headers.get("Content-Type", "")
    if not given and not request.can_read_body:
        return
    if given.partition(";")[0].strip().lower() != "application/json":
        raise InvalidParameter(f"unsupported Content-Type header ({given}): must be 'application/json'")


def _malformed(told: str) -> str:
    if "trailing characters" in told:
        return "unexpected content after JSON"
    if "truncated" in told:
        return "invalid JSON: unexpected EOF"
    return f"invalid JSON: {told.removeprefix('JSON is malformed: ')}"


def _explain(told: str) -> str:
    """`Expected `str`, got `int` - at `$.Name`` in the words of the field's user."""
    found = _MISMATCH.match(told)
    if not found:
        return told
    field = (found["path"] or "").removeprefix("$").removeprefix(".") or "the body"
    wanted = " or ".join(_NAMES.get(name, name) for name in found["wanted"].split(" | ") if name != "null")
    return f"{field} must be {wanted}, not {_NAMES.get(found['got'], found['got'])}"


def _as_go(value: Any, type: Any) -> Any:
    """Names as they are declared, and no null where a struct has a default."""
    if isinstance(value, dict):
        fields = _fields(type)
        if fields is not None:
            return {
                name: _as_go(item, inner)
                for key, item in value.items()
                if item is not None
                for name, inner in (fields.get(key) or fields.get(key.lower()) or (key, None),)
            }
        inner = _item(type)
        return {key: _as_go(item, inner) for key, item in value.items()} if inner else value
    if isinstance(value, list):
        inner = _item(type)
        return [_as_go(item, inner) for item in value] if inner else value
    if isinstance(value, str) and _takes_lone_string(type):
        return [value]
    return value


@functools.cache
def _fields(type: Any) -> dict[str, tuple[str, Any]] | None:
    """A struct's fields by name and by name in lower case; None for what is no struct."""
    for each in _alternatives(type):
        if isinstance(each, builtins.type) and issubclass(each, msgspec.Struct):
            found = {f.encode_name: (f.encode_name, f.type) for f in msgspec.structs.fields(each)}
            return {**{name.lower(): field for name, field in found.items()}, **found}
    return None


@functools.cache
def _item(type: Any) -> Any:
    """What a list or map type holds, if that may contain structs."""
    for each in _alternatives(type):
        arguments = typing.get_args(each)
        if arguments and typing.get_origin(each) in (list, dict):
            return arguments[-1]
    return None


@functools.cache
def _takes_lone_string(type: Any) -> bool:
    """Whether a list of strings may be given as one string (`model.Words`)."""
    metas = [meta for each in _alternatives(type) for meta in getattr(each, "__metadata__", ())]
    return any(isinstance(meta, msgspec.Meta) and (meta.extra or {}).get("lone_string") for meta in metas)


def _alternatives(type: Any) -> tuple[Any, ...]:
    if typing.get_origin(type) in (types.UnionType, typing.Union):
        return typing.get_args(type)
    return (type,)

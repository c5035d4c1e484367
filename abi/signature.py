"""A syscall's method: what its hints say, and how it is called with them.

What: reads a method's type hints into a pydantic model of its parameters and a check of its result, and runs
    it: sync methods in a worker thread, async ones on the loop, generators part by part.
Invariant: `invoke` gives the method only arguments that fit its hints, returns only results that fit them, and
    raises nothing but AppErrors and `CancelledError`. Type errors of an author are ManifestErrors in `read`.
Interface: `Signature.read(owner, function)`; `await signature.invoke(method, arguments, call) -> Reply`.
"""

from __future__ import annotations

import inspect
import json
import sys
import traceback
import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from llmos.abi.app import Call, File, Image, Part, Text
from llmos.abi.errors import AppError, AppFailed, BadArguments, BadResult, ManifestError
from llmos.abi.schema import Simple, simplify
from llmos.abi.threads import in_thread

_PARTS = (Text, Image, File)
_TEXTS = (str, type(None))
_STREAMS = (Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGenerator)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call gave: a JSON value, or parts where the method returns those."""

    value: Any = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Signature:
    """One method's parameters and result; `schema` and `result` are for the manifest."""

    name: str
    schema: Simple
    result: dict[str, Any] | None  # None: parts
    call: str  # the parameter that takes the `Call`, or ""
    _model: type[BaseModel]
    _fields: Mapping[str, str]  # parameter -> field of the model
    _check: TypeAdapter[Any] | None

    @classmethod
    def read(cls, owner: str, function: Callable[..., Any]) -> Signature:
        """Raises ManifestError, naming owner, method and parameter."""
        name = f"{owner}.{function.__name__}"
        try:
            hints = get_type_hints(function, include_extras=True)
        except Exception as error:  # a hint is any expression
            raise ManifestError(f"{name} has a type hint that cannot be read", why=str(error)) from None
        fields: dict[str, Any] = {}
        names: dict[str, str] = {}
        taker = ""
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            hint = _hint_of(name, parameter, hints)
            if hint is Call:
                if taker:
                    raise ManifestError(f"{name} asks for two calls, {taker!r} and {parameter.name!r}")
                taker = parameter.name
                continue
            names[parameter.name] = field = f"p{len(names)}"  # a parameter may be called `copy` or `_x`
            words = " ".join(m for m in getattr(hint, "__metadata__", ()) if isinstance(m, str))
            about = [Field(alias=parameter.name), *([Field(description=words)] if words else [])]
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[field] = (Annotated[hint, *about], default)
            if default is not ...:
                _check_default(name, parameter, hint)
        model = _build(name, fields)
        simple = _schema(name, lambda: model.model_json_schema())
        if "return" not in hints:
            raise ManifestError(f"{name} does not say what it returns", do="add `-> type`")
        check = None if _is_parts(name, hints["return"]) else _adapter(name, hints["return"])
        result = None
        if check is not None:
            adapter = check
            result = _schema(
                f"the result of {name}", lambda: adapter.json_schema(mode="serialization")
            ).schema
        return cls(name, simple, result, taker, model, names, check)

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of the method; BadArguments lists everything that does not fit."""
        try:
            model = self._model.model_validate_json(json.dumps(given), strict=True, by_alias=True)
        except (ValidationError, TypeError, ValueError) as error:
            raise BadArguments(
                f"{self.name} cannot be called like this", why=explain(error), do="see its description"
            ) from None
        return {name: getattr(model, field) for name, field in self._fields.items()}

    def reply(self, value: Any) -> Reply:
        """What the method returned, checked; BadResult where it is of another type than was promised."""
        if self._check is None:
            return Reply(parts=tuple(self._part(part) for part in _listed(value)))
        try:
            checked = self._check.validate_python(value, strict=True)
            plain = self._check.dump_python(checked, mode="json", warnings="error")
            json.dumps(plain, allow_nan=False)
        except Exception as error:  # serialisers are the author's code
            raise BadResult(
                f"{self.name} returned something else than it promised", why=explain(error)
            ) from None
        return Reply(value=plain)

    def _part(self, value: Any) -> Part:
        if isinstance(value, str):
            return Text(value)
        if not isinstance(value, _PARTS):
            why = f"{type(value).__name__} where a Text, Image or File should be"
            raise BadResult(f"{self.name} returned something else than it promised", why=why)
        return value

    async def invoke(
        self,
        method: Callable[..., Any],
        given: Mapping[str, Any],
        call: Call,
        ended: Callable[[], None] = lambda: None,
    ) -> Reply:
        """Run a bound method. What its own code raises becomes AppFailed, with the traceback on stderr.

        `ended` is called once the method's code runs no more, which may be after this was cancelled.
        """
        try:
            arguments = self.arguments(given)
        except AppError:
            ended()
            raise
        if self.call:
            arguments[self.call] = call
        try:
            if inspect.isasyncgenfunction(method) or inspect.iscoroutinefunction(method):
                return await self._on_the_loop(method, arguments, ended)
            return await in_thread(lambda: self.reply(_let_go(method, arguments)), ended)
        except AppError:
            raise
        except (Exception, SystemExit) as error:
            traceback.clear_frames(error.__traceback__)
            traceback.print_exception(error, file=sys.stderr)
            words = _words(error)
            raise AppFailed(f"{self.name} failed: {words}", type=type(error).__name__) from None

    async def _on_the_loop(
        self, method: Callable[..., Any], arguments: Mapping[str, Any], ended: Callable[[], None]
    ) -> Reply:
        try:
            if inspect.iscoroutinefunction(method):
                return self.reply(await method(**arguments))
            return Reply(parts=tuple([self._part(part) async for part in method(**arguments)]))
        finally:
            ended()


def _let_go(method: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a method; where it fails, what it held may be all the memory there is, which others need to say so."""
    try:
        return method(**arguments)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise


def _words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:  # an error whose own text fails
        return type(error).__name__


def explain(error: Exception) -> str:
    """A validation's complaints in one line, without pydantic's links and inputs."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    complaints = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, c['loc'])) or 'value'}: {c['msg']}" for c in complaints[:8])


def _hint_of(name: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise ManifestError(
            f"{name} has the parameter {str(parameter)!r}", do="use parameters that have a name and a type"
        )
    if parameter.name not in hints:
        raise ManifestError(f"{name}: the parameter {parameter.name!r} has no type", do="add a type hint")
    return hints[parameter.name]


def _check_default(name: str, parameter: inspect.Parameter, hint: Any) -> None:
    try:
        _adapter(name, hint).validate_python(parameter.default)
    except ValidationError as error:
        raise ManifestError(
            f"{name}: the default of {parameter.name!r} does not fit its type", why=explain(error)
        ) from None


def _build(name: str, fields: Mapping[str, Any]) -> type[BaseModel]:
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
        raise _unsupported(name, error) from None
    except Exception as error:  # a pattern that is none, a bound that cannot hold
        raise _unsupported(name, error) from None


def _adapter(name: str, hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint)
    except Exception as error:  # pydantic and its core have no common error for this
        raise _unsupported(name, error) from None


def _schema(name: str, make: Callable[[], dict[str, Any]]) -> Simple:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydantic only warns of a default that is not JSON
        try:
            made = make()
        except Exception as error:
            raise _unsupported(name, error) from None
    if "binary" in _formats(made):
        raise ManifestError(f"{name} uses bytes, which JSON has not", do="return a File, or take base64 text")
    try:
        return simplify(made)
    except ManifestError as error:
        raise ManifestError(f"{name} has {error.what}", why=error.why, do=error.do) from None


def _formats(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_formats, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["format"]} if isinstance(schema.get("format"), str) else set()
    return own.union(*map(_formats, schema.values()))


def _unsupported(name: str, error: Exception) -> ManifestError:
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ManifestError(f"{name} uses a type that has no JSON schema", why=why, do="use plainer types")


def _is_parts(name: str, hint: Any) -> bool:
    """Whether a result is parts (alone, in a list, in a stream); they do not mix with values."""
    origin, inner = get_origin(hint), [arg for arg in get_args(hint) if arg is not ...]
    if origin is Annotated:
        return _is_parts(name, inner[0])
    if origin in (Union, UnionType):
        found = [_is_parts(name, arg) for arg in inner]
        strange = [arg for arg, parts in zip(inner, found, strict=True) if not parts and arg not in _TEXTS]
        if any(found) and strange:
            raise ManifestError(f"{name} returns parts or {strange[0]}", do="return the one or the other")
        return any(found)
    if origin in _STREAMS:
        if inner[0] is not str and not _is_parts(name, inner[0]):
            why = "what it yields cannot be passed on piece by piece"
            raise ManifestError(f"{name} yields {inner[0]}", why=why, do="yield str, Text, Image or File")
        return True
    return hint in _PARTS or (
        origin in (list, tuple, Sequence) and any(_is_parts(name, arg) for arg in inner)
    )


def _listed(value: Any) -> Iterable[Any]:
    if isinstance(value, (str, *_PARTS)):
        return (value,)
    if value is None:
        return ()
    if isinstance(value, Iterable):
        return value
    return (value,)

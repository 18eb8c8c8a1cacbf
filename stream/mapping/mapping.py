"""A mapping: which of somebody else's rows are which events of ours, and where the fields stand.

It is a TOML file, docs/mapping.md says how it is written:

    name = "clicks of our web log"

    [[event]]
    type = "click"
    when = { action = "tap" }

    [event.fields]
    event_id = "id"
    ts = { path = "time", time = "ms" }
    user_id = { path = ["user.id", "device"], prefix = "web-" }
    video_id = "video"
    query = "text"
"""

from __future__ import annotations

import csv
import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson
from msgspec import UNSET, Struct, UnsetType

from onebar.errors import OneBarError, UsageError
from stream.events import EVENT_TYPES, Event, InvalidEventError, from_object
from stream.mapping.paths import MISSING, PathError, Step, find, steps_of
from stream.mapping.values import InvalidValueError, TimeUnit, seconds, shown, text

READY = files("stream.mapping") / "maps"
PLACE = "$kafka"
"""Under this name a row of a Kafka topic has what its record says beside its value: `$kafka.key`,
`$kafka.timestamp`, `$kafka.headers.NAME`. It is no part of the row."""
TOMBSTONE = f"{PLACE}.tombstone"
_TIMES = ("ts", "starts", "ends")
_NUMBERS = ("position", "value", "propensity")
_FLAGS = ("sensitive",)
_LISTS = ("languages",)
_TRUE, _FALSE = ("true", "1", "yes", "y", "t"), ("false", "0", "no", "n", "f", "")

Condition = str | int | float | bool | list[str | int | float]
Place = tuple[str, Sequence[Step]]
"""A path, and its steps."""


class InvalidMappingError(UsageError):
    """A mapping that is none; the text says where and why."""


class UnmappedError(OneBarError, ValueError):
    """A row of which a field can't be made; the text says which, and why."""


class FieldSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a field comes from: the first of `path` with a value, or `value`; `values` puts other
    words for it, `time` is its unit, and `prefix` stands before it. `each` is a list, of every
    element of which `fields` are taken."""

    path: str | list[str] = []
    value: str | int | float | bool | UnsetType = UNSET
    values: dict[str, str | int | float | bool] = {}
    time: TimeUnit | UnsetType = UNSET
    prefix: str = ""
    each: str = ""
    fields: dict[str, str | FieldSpec] = {}


class EventSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of event that a row may be. All of `when` have to hold: a path is one of these
    values, or (true, false) is there or not. With `object` what stands there is an event of ours
    already, `fields` go over its own and `defaults` where it has none."""

    type: str = ""
    when: dict[str, Condition] = {}
    object: str = ""
    fields: dict[str, str | FieldSpec] = {}
    defaults: dict[str, str | FieldSpec] = {}


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """How a table is written. Without `columns` its first line names them."""

    delimiter: str = ","
    columns: list[str] = []
    quote: str = '"'

    def check(self) -> None:
        """Raises `ValueError` where no table can be written so."""
        if len(self.delimiter) != 1 or self.delimiter in "\r\n\0":
            raise ValueError(f"delimiter: expected one character, got {self.delimiter!r:.60}")
        if len(self.quote) > 1 or (self.quote and self.quote in f"\r\n\0{self.delimiter}"):
            raise ValueError(
                'quote: expected one character that is not the delimiter, or "" where nothing is '
                f"quoted, got {self.quote!r:.60}"
            )
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise ValueError(f"columns: named more than once: {', '.join(twice)}")

    def cells(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """The cells of each row. Raises `csv.Error` at a row that is none; the next call goes on
        with the line after it."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
        )


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    event: list[EventSpec]
    name: str = ""
    note: str = ""
    form: Literal["json", "table"] = "json"
    table: Table = Table()


class _Field:
    """A field's rule, its paths taken apart once."""

    def __init__(self, name: str, spec: str | FieldSpec) -> None:
        self.name = name
        self.spec = FieldSpec(path=spec) if isinstance(spec, str) else spec
        paths = [self.spec.path] if isinstance(self.spec.path, str) else self.spec.path
        self.paths = [(path, steps_of(path)) for path in paths]
        self.each = (self.spec.each, steps_of(self.spec.each)) if self.spec.each else None
        self.inner = [_Field(inner, of) for inner, of in self.spec.fields.items()]
        given = bool(self.paths) + (self.spec.value is not UNSET) + (self.each is not None)
        if given != 1:
            raise PathError(f"{name}: expected one of path, value and each")

    def of(self, row: Any) -> Any:
        """The field of a row, or `MISSING`. Raises `UnmappedError`."""
        if self.each is not None:
            return self._list(row)
        value: Any = self.spec.value
        if value is UNSET:
            found = (find(row, path, steps) for path, steps in self.paths)
            value = next((one for one in found if one is not MISSING and one != ""), MISSING)
            if value is MISSING:
                return MISSING
        value = self.spec.values.get(str(value), value)
        try:
            return self._as_ours(value)
        except InvalidValueError as error:
            where = f" (from {', '.join(path for path, _ in self.paths)})" if self.paths else ""
            raise UnmappedError(f"{self.name}{where}: {error}") from None

    def _as_ours(self, value: Any) -> Any:
        if self.name in _TIMES or self.spec.time is not UNSET:
            return seconds(value, "auto" if self.spec.time is UNSET else self.spec.time)
        if self.name in _FLAGS:
            return _flag(value)
        if self.name in _NUMBERS:
            return _plain_number(value)
        if isinstance(value, list):
            words = [text(one) for one in value]
            return words if self.name in _LISTS else self.spec.prefix + " ".join(words)
        return self.spec.prefix + text(value)

    def _list(self, row: Any) -> Any:
        assert self.each is not None
        found = find(row, *self.each)
        if found is MISSING:
            return MISSING
        if not isinstance(found, list):
            raise UnmappedError(f"{self.name} (from {self.each[0]}): expected a list")
        if not self.inner:
            return [text(one) for one in found]
        return [{"position": place, **_fields(one, self.inner)} for place, one in enumerate(found)]

    def reads(self) -> Sequence[Place]:
        """Where in a row it looks: the first of these that has a value."""
        return [self.each] if self.each is not None else self.paths

    def of_record(self) -> Iterator[tuple[str, Sequence[Step]]]:
        """Its paths that lead out of the row, to what the record says of it."""
        return (found for found in self.paths if found[1][0] == PLACE)


def _flag(value: Any) -> bool:
    word = "" if isinstance(value, (dict, list)) else str(value).strip().lower()
    if word not in (*_TRUE, *_FALSE):
        raise InvalidValueError(f"expected true or false, got {shown(value)}")
    return word in _TRUE


def _plain_number(value: Any) -> float | int:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise InvalidValueError(f"expected a number, got {shown(value)}") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidValueError(f"expected a number, got {shown(value)}")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fields(row: Any, fields: list[_Field]) -> dict[str, Any]:
    found = ((field.name, field.of(row)) for field in fields)
    return {name: value for name, value in found if value is not MISSING}


class _Rule:
    def __init__(self, number: int, spec: EventSpec) -> None:
        self.number = number
        self.spec = spec
        known = {kind.__struct_config__.tag: kind for kind in EVENT_TYPES}
        if not spec.object and spec.type not in known:
            kinds = ", ".join(map(str, known))
            raise PathError(f"type: expected one of {kinds}, got {spec.type!r}")
        self.object = (spec.object, steps_of(spec.object)) if spec.object else None
        self.when = [(path, steps_of(path), wanted) for path, wanted in spec.when.items()]
        self.of_tombstones = spec.when.get(TOMBSTONE) is True
        self.fields = [_Field(name, of) for name, of in spec.fields.items()]
        self.defaults = [_Field(name, of) for name, of in spec.defaults.items()]
        self.every = every = (*self.fields, *self.defaults)
        self.of_record = [found for field in every for found in field.of_record()]
        if not spec.object:
            ours = {"type", *known[spec.type].__struct_fields__}
            strange = [field.name for field in every if field.name not in ours]
            if strange:
                raise PathError(
                    f"{', '.join(strange)}: no field of {spec.type!r}, which has "
                    f"{', '.join(sorted(ours - {'type'}))}"
                )

    def holds(self, row: Any) -> bool:
        """Whether a row is such an event."""
        if self.object is not None and not isinstance(find(row, *self.object), Mapping):
            return False
        return all(_is(find(row, path, steps), wanted) for path, steps, wanted in self.when)

    def event(self, row: Any) -> Event:
        """Raises `UnmappedError`."""
        made: dict[str, Any] = {"type": self.spec.type} if self.spec.type else {}
        if self.object is not None:
            made = {**find(row, *self.object), **made}
        made |= _fields(row, self.fields)
        for name, value in _fields(row, self.defaults).items():
            made.setdefault(name, value)
        if "event_id" not in made:
            made["event_id"] = self._id(row)
        try:
            return from_object(made)
        except InvalidEventError as error:
            raise UnmappedError(str(error)) from None

    def _id(self, row: Mapping[str, Any]) -> str:
        """Of the row, and of what is taken of its record: a record that is delivered again has the
        same, and so has one that its producer sent twice."""
        content: Any = row
        if PLACE in row:
            content = {name: value for name, value in row.items() if name != PLACE}
        if self.of_record:
            taken = [find(row, path, steps) for path, steps in self.of_record]
            content = [content, [None if value is MISSING else value for value in taken]]
        try:
            return row_id(content, self.number)
        except (TypeError, RecursionError) as error:
            raise UnmappedError(f"event_id: {error}") from None


def _is(value: Any, wanted: Condition) -> bool:
    if isinstance(wanted, bool):
        return wanted == (value is not MISSING and value != "")
    if value is MISSING or isinstance(value, (dict, list)):
        return False
    return str(value) in [str(one) for one in (wanted if isinstance(wanted, list) else [wanted])]


def row_id(row: Any, number: int = 0) -> str:
    """The event_id of a row that has none of its own: the same for the same row, so that a log that
    is sent again counts once."""
    data = orjson.dumps(row, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return blake2b(data + str(number).encode(), digest_size=16).hexdigest()


_SECTIONS: tuple[tuple[str, type[Struct]], ...] = (
    (r"\$", _File),
    (r"\$\.table", Table),
    (r"\$\.event\[\d+\]", EventSpec),
    (r".*\[\.\.\.\]", FieldSpec),
)
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`(?: - at `(.*)`)?$")


def _reworded(error: msgspec.ValidationError) -> str:
    """A name that is none, with those that are; anything else as it is told."""
    match = _UNKNOWN.match(str(error))
    if match is None:
        return str(error)
    name, where = match[1], match[2] or "$"
    kind = next((kind for form, kind in _SECTIONS if re.fullmatch(form, where)), None)
    if kind is None:
        return str(error)
    known = kind.__struct_fields__
    near = difflib.get_close_matches(name, known, 1)
    meant = f"is {near[0]!r} meant?" if near else f"expected one of {', '.join(known)}"
    at = "" if where == "$" else f" at {_place(where)}"
    return f"nothing is called {name!r}{at}: {meant}"


def _place(where: str) -> str:
    """As people count: `$.event[0]` is event 1."""
    return re.sub(
        r"\[(\d+)\]", lambda found: f" {int(found[1]) + 1}", where.removeprefix("$.")
    ).replace("[...]", " (one of them)")


class EventMapping:
    """Makes events of rows. Pure."""

    def __init__(self, data: Mapping[str, Any], source: str) -> None:
        """`source` names it in errors. Raises `InvalidMappingError`."""
        try:
            self._file = msgspec.convert(data, _File)
        except msgspec.ValidationError as error:
            raise InvalidMappingError(f"{source} is no mapping: {_reworded(error)}") from None
        try:
            self.table.check()
        except ValueError as error:
            raise InvalidMappingError(f"{source} is no mapping: [table] {error}") from None
        self.name = self._file.name or source
        self.note = self._file.note
        self.rules: list[_Rule] = []
        for number, spec in enumerate(self._file.event):
            try:
                self.rules.append(_Rule(number, spec))
            except PathError as error:
                where = f"event {number + 1} ({spec.type or spec.object})"
                raise InvalidMappingError(f"{source} is no mapping: {where}: {error}") from None
        if not self.rules:
            raise InvalidMappingError(f"{source} is no mapping: it has no [[event]]")

    @property
    def is_table(self) -> bool:
        """Whether it is of a table, not of JSON objects."""
        return self._file.form == "table"

    @property
    def table(self) -> Table:
        """How its tables are written."""
        return self._file.table

    def reads(self) -> Iterator[Sequence[Place]]:
        """Where in a row it looks, for one thing after the other: the first of these paths that has
        a value."""
        for rule in self.rules:
            if rule.object is not None:
                yield [rule.object]
            yield from ([(path, steps)] for path, steps, _ in rule.when)
            yield from (field.reads() for field in rule.every if field.reads())

    def conditions(self) -> Iterator[tuple[str, Sequence[tuple[str, Sequence[Step], Condition]]]]:
        """Of each kind of event its name, and what has to hold of a row."""
        for rule in self.rules:
            yield rule.spec.type or rule.spec.object, rule.when

    def events(
        self, row: Mapping[str, Any], *, tombstone: bool = False
    ) -> Iterator[Event | UnmappedError]:
        """What a row is: an event for each rule that holds, or why it can't be made; nothing where
        none holds. A `tombstone`, a record without a value, is only for rules that say so."""
        for rule in self.rules:
            if rule.of_tombstones == tombstone and rule.holds(row):
                try:
                    yield rule.event(row)
                except UnmappedError as error:
                    yield error


def ready_mappings() -> list[str]:
    """The names of those that come with OneBar."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in READY.iterdir()
        if entry.name.endswith(".toml")
    )


def open_mapping(name: str) -> EventMapping:
    """The mapping of a file, or one that comes with OneBar. Raises `InvalidMappingError`."""
    if name in ready_mappings():
        return EventMapping(tomllib.loads((READY / f"{name}.toml").read_text("utf-8")), name)
    path = Path(name)
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError:
        raise InvalidMappingError(
            f"expected a mapping's file or one of {', '.join(ready_mappings())}, got {name!r}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidMappingError(f"{path} is no TOML: {error}") from None
    return EventMapping(data, str(path))

"""From a file's path to its scene, view and label: the domains' layout rows, or a small TOML mapping of one's own."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

from firstlight import domains
from firstlight.dataset.rows import Source
from firstlight.domains import Layout
from firstlight.errors import ReadError

__all__ = ["DATA_TYPES", "Label", "documented", "load", "match", "rows", "warning"]

DATA_TYPES = ("noisy", "clean", "unknown")
TEMPLATES = ("scene", "view", "data_type", "level", "channel", "exposure")
FIELD = re.compile(r"\{(\w+)\}")


class Label(NamedTuple):
    """What a path says: the row that knows it, and that row's templates filled in; exposure [s] as named, or None."""

    row: Layout
    scene: str
    view: str
    data_type: str
    level: str
    channel: str
    exposure: float | None


def rows(layouts: str | Path | Iterable[Layout] | None = None, *, profile: str = "physical") -> tuple[Layout, ...]:
    """The rows that a name is tried against, in order: a mapping file's (or the given ones), then the domains' own.

    Raises ReadError for a mapping that is none, with line and key.
    """
    own: tuple[Layout, ...] = ()
    if layouts is not None:
        own = load(layouts) if isinstance(layouts, str | Path) else tuple(layouts)
    return (*own, *(domains.layouts(profile) if profile != "physical" else ()), *domains.layouts())


def match(path: str, known: Sequence[Layout]) -> Label | None:
    """The label of a POSIX path by the first row whose pattern it ends in, from a folder's beginning; None where none does.

    Raises ReadError where a row knows the path but gives it no scene, or a data_type that is none of noisy, clean, unknown.
    """
    for row in known:
        if found := _compiled(row.pattern).search(path):
            return _label(path, row, {k: v or "" for k, v in found.groupdict().items()})
    return None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(f"(?:^|/)(?:{pattern})$")


def _label(path: str, row: Layout, groups: Mapping[str, str]) -> Label:
    said = {k: getattr(row, k).format_map(groups) for k in TEMPLATES}
    if not said["scene"]:
        raise ReadError(f"layout {row.name!r} finds no scene in {path}, expected text for its template {row.scene!r}")
    kind = row.labels.get(said["data_type"], said["data_type"])
    if kind not in DATA_TYPES:
        raise ReadError(
            f"layout {row.name!r} calls {path} {kind!r}, expected one of {', '.join(DATA_TYPES)}; name it in its labels"
        )
    try:
        exposure = float(said["exposure"]) if said["exposure"] else None
    except ValueError:
        raise ReadError(f"layout {row.name!r} takes {said['exposure']!r} of {path} for an exposure, expected seconds") from None
    return Label(row, said["scene"], said["view"] or said["scene"], kind, said["level"], said["channel"], exposure)


def documented(sources: Iterable[Source]) -> list[Source]:
    """The sources under the documented scene ids, views and labels; those that no documented row knows stay as they are."""
    known = domains.layouts("documented")
    names = {row.name for row in domains.layouts()} | {row.name for row in known}
    out = []
    for source in sources:
        found = match(source.path, known) if source.layout in names else None
        said = {k: getattr(found, k) for k in TEMPLATES[:-1]} if found is not None else {}
        out.append(replace(source, **said))
    return out


def warning(source: Source) -> str:
    """What is wrong with the documented reading of a source, in words; empty where nothing is known."""
    found = match(source.path, domains.layouts("documented"))
    return found.row.warning if found else ""


def load(path: str | Path) -> tuple[Layout, ...]:
    """The rows of a mapping file: tables [[layout]] with name, domain, pattern, scene, data_type; view, level, channel,
    exposure and labels may be left out. A pattern without named groups "(?P<" is a glob whose {word} names what stands there.

    Raises ReadError that lists every fault with its line and key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ReadError(f"{path}: not valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from error
    faults = _faults(tree) or _meaning(tree["layout"])
    if faults:
        raise ReadError("\n".join(f"{path}, {_where(text, table, key)}: {fault}" for table, key, fault in faults))
    return tuple(Layout(**{"view": ""} | t | {"pattern": _pattern(t["pattern"])}) for t in tree["layout"])


def _faults(tree: Mapping[str, Any]) -> list[tuple[int | None, str, str]]:
    """Everything wrong with the form, as (number of the table, key, what is wrong)."""
    from pydantic import BaseModel, ConfigDict, Field, ValidationError

    class Table(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        name: str = Field(min_length=1)
        domain: str
        pattern: str = Field(min_length=1)
        scene: str = Field(min_length=1)
        data_type: str = Field(min_length=1)
        view: str = ""
        level: str = ""
        channel: str = ""
        exposure: str = ""
        labels: dict[str, str] = {}

    class File(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        layout: list[Table] = Field(min_length=1)

    try:
        File.model_validate(tree)
    except ValidationError as error:
        return [_fault(e, list(Table.model_fields)) for e in error.errors()]
    return []


def _fault(error: Any, keys: list[str]) -> tuple[int | None, str, str]:
    loc = error["loc"]
    if len(loc) < 3:
        key = str(loc[0])
        wrong = error["type"] == "extra_forbidden"
        return None, key, f"unknown key {key!r}, expected tables [[layout]]" if wrong else "holds no table [[layout]]"
    number, key = int(loc[1]), str(loc[2])
    if error["type"] == "missing":
        return number, key, "is missing"
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key, keys, 1)
        return number, key, "is unknown" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(keys)}")
    what = "labels from text to text" if key == "labels" else "text"
    return number, key, f"is {error['input']!r}, expected {what}"


def _meaning(tables: Sequence[Mapping[str, Any]]) -> list[tuple[int | None, str, str]]:
    """What is wrong with values of the right form: domain, pattern, groups that templates name, labels."""
    out: list[tuple[int | None, str, str]] = []
    for i, table in enumerate(tables):
        if table["domain"] not in domains.names():
            out.append((i, "domain", f"is {table['domain']!r}, expected one of {', '.join(domains.names())}"))
        try:
            groups = set(re.compile(_pattern(table["pattern"])).groupindex)
        except (re.error, ValueError) as error:
            out.append((i, "pattern", f"{table['pattern']!r} is no pattern: {error}"))
            continue
        out += [(i, key, fault) for key in TEMPLATES if (fault := _template(table.get(key, ""), groups))]
        labels = table.get("labels", {})
        strange = sorted(set(labels.values()) - set(DATA_TYPES))
        if strange:
            out.append((i, "labels", f"gives {strange[0]!r}, expected one of {', '.join(DATA_TYPES)}"))
        kind = table["data_type"]
        if "{" not in kind and labels.get(kind, kind) not in DATA_TYPES:
            out.append((i, "data_type", f"is {kind!r}, expected one of {', '.join(DATA_TYPES)}, or a template with labels"))
    return out


def _template(text: str, groups: set[str]) -> str:
    try:
        parts = [(name, spec, turned) for _, name, spec, turned in Formatter().parse(text) if name is not None]
    except ValueError as error:
        return f"{text!r} is no template: {error}"
    if strange := [name for name, spec, turned in parts if spec or turned]:
        return f"{text!r} asks for a format of {strange[0]}, expected {{{strange[0]}}} alone"
    named = [name for name, _, _ in parts]
    missing = [n for n in named if n not in groups]
    if not missing:
        return ""
    return f"names {{{missing[0]}}}, which the pattern does not; it names {', '.join(sorted(groups)) or 'nothing'}"


def _pattern(text: str) -> str:
    """A mapping's pattern as a regular expression: as it stands where it names groups, else from a glob.

    * and ? stay within a folder, ** does not, {word} is a non-empty piece of one folder's or file's name.
    """
    if "(?P<" in text:
        return text
    if re.search(r"[\\()|+^$]", text):
        raise ValueError("neither a glob nor a regular expression with named groups (?P<name>...)")
    out, seen = "", set()
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\{\w+\})", text):
        word = FIELD.fullmatch(part)
        if word:
            out += f"(?P={word[1]})" if word[1] in seen else f"(?P<{word[1]}>[^/]+?)"
            seen.add(word[1])
        else:
            out += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return out


def _where(text: str, table: int | None, key: str) -> str:
    """Line and key of an entry; a key that is missing stands at its table's line."""
    lines = text.splitlines()
    start = 0
    if table is not None:
        heads = [i for i, line in enumerate(lines) if re.match(r"\s*\[\[\s*layout\s*\]\]", line)]
        start = heads[table] if table < len(heads) else 0
    for i in range(start, len(lines)):
        if i > start and table is not None and re.match(r"\s*\[\[", lines[i]):
            break
        if re.match(rf"""\s*(?:\[+\s*(?:layout\s*\.\s*)?)?["']?{re.escape(key)}["']?\s*[.=\]]""", lines[i]):
            return f"line {i + 1}, key {key!r}"
    return f"line {start + 1}, key {key!r}"

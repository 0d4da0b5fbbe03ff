"""What a run of `build` has done, as figures and as lines to read."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from firstlight.dataset.listing import by_cause, few

__all__ = ["Summary"]

CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # a file's name may hold a line's end, or what moves a terminal's cursor


@dataclass
class Summary:
    """What a run has done: tiles of the set by domain and data_type, sources made, kept from before, removed, left out.

    unreadable: {"path", "cause"} of what could not be used, sorted; unmatched: the same of files whose name no layout knows;
    doubts: of files that contradict themselves; notes: warnings, each once.
    """

    out: str
    profile: str
    split: str
    tiles: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    made: int = 0
    kept: int = 0
    removed: int = 0
    left_out: int = 0
    pairs: int = 0
    proved: int = 0
    unreadable: list[dict[str, str]] = field(default_factory=list)
    unmatched: list[dict[str, str]] = field(default_factory=list)
    doubts: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True where nothing was unreadable."""
        return not self.unreadable

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self) | {"ok": self.ok}

    def text(self) -> str:
        """The summary in lines, unreadable files with their causes last."""
        lines = [f"{self.out}: {self.tiles} tiles, profile {self.profile}, split {self.split}"]
        for domain, kinds in self.counts.items():
            lines.append(f"  {domain}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()))
        lines.append("  " + ", ".join(f"{n} {name}" for name, n in self.splits.items()) if self.splits else "  no tiles")
        lines.append(
            f"  sources: {self.made} made, {self.kept} kept from before, {self.removed} removed, {self.left_out} left out"
        )
        lines.append(f"  pairs: {self.pairs}, {self.proved} of them proved")
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  doubt: {few(paths)}: {doubt}" for doubt, paths in _grouped(self.doubts)]
        lines += [f"  not used, {_files(paths)}: {cause}: {few(paths)}" for cause, paths in _grouped(self.unmatched)]
        for cause, paths in _grouped(self.unreadable):
            lines += [f"  cannot be used, {_files(paths)}: {cause}", *(f"    {path}" for path in paths)]
        return "\n".join(CONTROL.sub("?", line) for line in lines)


def _grouped(found: list[dict[str, str]]) -> list[tuple[str, list[str]]]:
    return by_cause([(one["path"], one["cause"]) for one in found])


def _files(paths: list[str]) -> str:
    return f"{len(paths)} file" + ("s" if len(paths) > 1 else "")

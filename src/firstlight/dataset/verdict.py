"""What `verify` found of a tile set, as figures and as lines to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from firstlight.dataset.audit import Audit
from firstlight.dataset.listing import by_cause, few

__all__ = ["Check", "Checks"]


@dataclass(frozen=True)
class Check:
    """One check: `ok` True, False, or None where it tells a fact that is right or wrong by the split rule's choice."""

    name: str
    ok: bool | None
    sentence: str
    offenders: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {"name": self.name, "ok": self.ok, "sentence": self.sentence, "offenders": list(self.offenders)}


@dataclass(frozen=True)
class Checks:
    """The verdict on a tile set: the checks, its counts, and the audit. `passed`: no check failed and nothing leaks."""

    out: str
    tiles: int
    profile: str
    split: str
    checks: tuple[Check, ...]
    counts: Mapping[str, Any]
    audit: Audit
    unreadable: tuple[tuple[str, str], ...] = field(default=())

    @property
    def passed(self) -> bool:
        """True where no check failed, every input was readable and the audit passed."""
        return all(c.ok is not False for c in self.checks) and self.audit.passed

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "passed": self.passed,
            "out": self.out,
            "tiles": self.tiles,
            "profile": self.profile,
            "split": self.split,
            "checks": [c.to_dict() for c in self.checks],
            **self.counts,
            "audit": self.audit.to_dict(),
            "unreadable": [{"path": p, "cause": c} for p, c in self.unreadable],
        }

    def text(self) -> str:
        """For people: document 0's three tables, the checks, the audit."""
        lines = [f"{self.out}: {self.tiles} tiles, profile {self.profile}, split {self.split}", "", "split distribution"]
        total = max(self.tiles, 1)
        lines += [f"  {k:<12}{n:>8}  {n / total:6.1%}" for k, n in self.counts["splits"].items()]
        kinds = sorted({t for row in self.counts["types_by_split"].values() for t in row})
        lines += ["", "data type by split", "  " + " " * 12 + "".join(f"{t:>9}" for t in kinds)]
        for split, row in self.counts["types_by_split"].items():
            lines.append(f"  {split:<12}" + "".join(f"{row.get(t, 0):>9}" for t in kinds))
        lines += ["", "domain distribution"]
        for domain, row in self.counts["domains"].items():
            lines.append(f"  {domain:<12}{sum(row.values()):>9}  " + ", ".join(f"{n} {t}" for t, n in sorted(row.items())))
        lines += ["", "checks"]
        for check in self.checks:
            lines.append(f"  {_MARKS[check.ok]:<5} {check.sentence}")
        lines += [f"        {few(paths)}: {cause}" for cause, paths in by_cause(self.unreadable)]
        lines += ["", "leakage audit", *(f"  {line}" if line else "" for line in self.audit.text().split("\n"))]
        return "\n".join([*lines, "", "verified" if self.passed else "NOT verified: see what failed above"])


_MARKS = {True: "good", False: "FAIL", None: "note"}

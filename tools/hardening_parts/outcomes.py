"""How a case ended, and the table of all of them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """What a command line came to."""

    code: int
    """Exit code; negative: the signal that ended it."""
    error: str
    """What it wrote on standard error."""
    output: str = ""
    """What it wrote on standard output."""
    timed_out: bool = False

    def fault(self) -> str | None:
        """Say what is wrong with how it ended, or None: exit 0, 1 or 2, one line of error, no traceback, in time."""
        if self.timed_out:
            return "ran past its limit of time"
        if self.code < 0:
            return f"died of signal {-self.code}"
        if "Traceback (most recent call last)" in self.error:
            return f"traceback: {self.error.strip().splitlines()[-1]}"
        if self.code not in (0, 1, 2):
            return f"exit {self.code}"
        told = [line for line in self.error.splitlines() if line.startswith("error: ")]
        if self.code and len(told) != 1:
            return f"exit {self.code} with {len(told)} lines of error: {self.error.strip()[:200]!r}"
        if self.code and "--traceback shows where" in told[0]:
            # The last door of the command line: an error that nobody foresaw.
            return f"unforeseen: {told[0]}"
        if any(ord(sign) < 32 and sign not in "\n\t\r" for sign in self.error + self.output):
            return "control characters of a file reach the terminal"
        return None


@dataclass
class Tally:
    """What was tried and what failed."""

    campaign: str
    tried: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    """Of the cases that were killed, more than once some of them."""
    failures: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)
    """Each distinct failure; kind, seed and whole text of the cases that came to it."""

    def add(self, kind: str, seed: int, fault: str | None) -> None:
        """Note a case."""
        self.tried[kind] += 1
        if fault is not None:
            # Numbers, addresses and names of temporary files differ between equal failures.
            same = re.sub(r"\S*/\S+|0x[0-9a-f]+|\d+", "…", fault)
            self.failures.setdefault(f"{kind.split(' ')[0]}: {same}", []).append((kind, seed, fault))

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        failed = sum(map(len, self.failures.values()))
        total = sum(self.tried.values())
        return {
            "campaign": self.campaign,
            "tried": total,
            "survived": total - failed,
            "kinds": dict(sorted(self.tried.items())),
            **({"kills": dict(sorted(self.kills.items()))} if self.kills else {}),
            "failures": {fault: [list(case) for case in cases] for fault, cases in self.failures.items()},
        }

    def table(self) -> str:
        """Lines for a terminal."""
        failed = Counter(kind for cases in self.failures.values() for kind, _, _ in cases)
        width = max(map(len, [*self.tried, "kind"]))
        lines = [f"{'kind':<{width}}  tried  survived" + "  kills" * bool(self.kills)]
        for kind, count in sorted(self.tried.items()):
            kills = f"  {self.kills[kind]:>5}" if self.kills else ""
            lines.append(f"{kind:<{width}}  {count:>5}  {count - failed[kind]:>8}{kills}")
        total = sum(self.tried.values())
        lines.append(f"{'all':<{width}}  {total:>5}  {total - sum(failed.values()):>8}")
        for fault, cases in self.failures.items():
            kind, seed, text = cases[0]
            lines.append(f"{len(cases)} x {fault}\n    first: {kind}, seed {seed}: {text}")
        return "\n".join(lines)

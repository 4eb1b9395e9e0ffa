"""What benchmarks.gpu is to show: a goal each, the rows that tell it, and in one line whether it was met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Goal:
    """Every row of `part` with the facts `where` has this figure at least, or at most."""

    text: str
    part: str
    figures: tuple[str, ...]
    """Columns of the part."""
    least: float | None = None
    most: float | None = None
    """Without either, the figures are true."""
    where: tuple[tuple[str, Any], ...] = ()
    rows: int = 1
    """How many rows tell it; where fewer have figures, it is met by none."""

    def told(self, found: Mapping[str, Any]) -> dict[str, str]:
        """Returns the goal, its verdict, and the worst figure or the reason why there is none.

        found: the parts of the result.
        """
        part = found.get(self.part, {})
        rows = [row for row in part.get("rows", ()) if all(row.get(key) == value for key, value in self.where)]
        figures = [row[key] for row in rows for key in self.figures if key in row]
        bad = [each for each in figures if not self._kept(each)]
        reasons = [row["failed"] for row in rows if "failed" in row]
        reasons.append(part.get("failed", "no such row" if part else "not asked for"))
        if bad:
            return self._line("missed", self._worst(bad))
        if len(figures) < self.rows * len(self.figures):
            some = f"; {len(figures)} of {self.rows * len(self.figures)} figures, all kept" if figures else ""
            return self._line("not measured", reasons[0].removeprefix("not measured: ") + some)
        return self._line("met", self._worst(figures))

    def _kept(self, figure: Any) -> bool:
        if self.least is not None:
            return bool(figure >= self.least)
        return bool(figure <= self.most if self.most is not None else figure)

    def _worst(self, figures: list[Any]) -> str:
        if self.least is None and self.most is None:
            return f"{sum(map(bool, figures))} of {len(figures)}"
        return f"{min(figures) if self.least is not None else max(figures):.4g}"

    def _line(self, verdict: str, found: str) -> dict[str, str]:
        return {"goal": self.text, "verdict": verdict, "found": found}


def goals(lengths: tuple[int, int, int]) -> list[Goal]:
    """Returns the goals, of which some are for one of the lengths that the benchmark runs at."""
    beside = (("rival", "disentangled-flash"),)
    return [
        Goal("answers and gradients of our attention are transformers' within the limits", "parity", ("kept",), rows=7),
        Goal("a killed run ends with equal weights and losses", "resume", ("equal weights", "equal losses"), rows=5),
        *(
            Goal(
                f"our attention at {length:,} tokens: {times:g} times as fast as transformers', each way and precision",
                "attention",
                ("times faster",),
                times,
                where=(("tokens", length),),
                rows=4,
            )
            for length, times in zip(lengths, (2.0, 3.0, 5.0), strict=True)
        ),
        Goal(
            "forward: at least as fast as disentangled-flash, at every length",
            "rivals",
            ("times faster",),
            1.0,
            where=(*beside, ("way", "forward")),
            rows=3,
        ),
        Goal(
            "forward and backward: 1.5 times as fast as disentangled-flash, at every length",
            "rivals",
            ("times faster",),
            1.5,
            where=(*beside, ("way", "both")),
            rows=3,
        ),
        Goal(
            "deberta-v3-large, inference at 1,024 tokens: 40 % of the card's matmul rate",
            "deberta",
            ("share",),
            0.40,
            where=(("what", "inference"), ("tokens", lengths[1])),
        ),
        Goal(
            "Llama-3-8B, LoRA training at 1,024 tokens in bf16: 45 % of the card's matmul rate",
            "llama-bf16",
            ("share",),
            0.45,
            where=(("what", "training"), ("tokens", lengths[1]), ("checkpointing", "off")),
        ),
        Goal(
            "int8 under gradient checkpointing leaves at most 1.2 times what nf4 leaves",
            "checkpointing",
            ("int8 of nf4",),
            most=1.2,
            where=(("checkpointing", "on"),),
        ),
        Goal("fp16 learns as bf16 does, in 40 steps", "stability", ("kept",), rows=3),
    ]

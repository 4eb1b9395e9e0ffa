"""The process that runs the parts of benchmarks.gpu, one after the other, and tells what it finds as it finds it.

python -m benchmarks.gpu.worker EVENTS PART... --device cuda:0 --seconds 480     # __main__.py starts it

EVENTS is a file of JSON, a line each: what machine this is, that a part begins, each of its rows, that it has ended. An
error in a part is its end, and the next one begins; where it has left the GPU without a context, this process ends with
DEAD and another one goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from benchmarks.gpu.parts import PARTS

DEAD = 3
"""The exit code of a process whose GPU answers no more."""


def main(events: Path, names: list[str], device: str, tiny: bool, seconds: float, rates: dict[str, float]) -> int:
    """Runs the parts until the seconds are over. Returns the exit code."""
    began = time.monotonic()
    import torch

    from benchmarks.gpu.bench import OUT_OF_TIME, Bench, about, reason, released, tell
    from pipeline.errors import PodiumError

    warnings.simplefilter("ignore")  # each operation that is not deterministic would be named
    try:
        tell(events, {"about": about(device, tiny)})
    except PodiumError as error:
        print(f"error: {error}", flush=True)
        return 2
    whole = Bench(device, tiny, rates, events=events)
    for name in names:
        part, left = PARTS[name], seconds - (time.monotonic() - began)
        if left <= 0:
            tell(events, {"part": name, "failed": OUT_OF_TIME})
            continue
        print(f"{name}:", flush=True)
        tell(events, {"part": name})
        torch.use_deterministic_algorithms(False)  # training switches it on, and transformers would pay most for it
        start, ended = time.monotonic(), {}
        bench = replace(whole, until=start + min(left, limit(name, tiny)), rows=[])
        try:
            getattr(import_module(f"benchmarks.gpu.{part.module}"), part.function)(bench)
        except Exception as error:
            ended = {"failed": reason(error)}
            print(f"  failed: {ended['failed']}", flush=True)
        released()
        tell(events, {"part": name, "seconds": round(time.monotonic() - start, 1)} | ended)
        if device != "cpu" and _is_dead():
            print("the GPU answers this process no more: another one goes on", flush=True)
            return DEAD
    return 0


def limit(name: str, tiny: bool) -> float:
    """Returns the seconds after which no row of the part begins; tiny ones run on machines that do other work, too."""
    return PARTS[name].seconds * (10 if tiny else 1)


def _is_dead() -> bool:
    """Whether an error has left the GPU without a context, as an illegal access does."""
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", type=Path)
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--rates", type=json.loads, default={}, help="TFLOPS by precision, where `card` has run before")
    given = parser.parse_args()
    sys.exit(main(given.events, given.parts, given.device, given.tiny, given.seconds, given.rates))

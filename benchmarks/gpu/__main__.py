"""Is Podium right on a GPU, and how fast? Real code, the real shapes, random weights, one command.

python -m benchmarks.gpu [--parts card parity ...] [--minutes 10]
# minutes: not measured, 10 at most until the last part begins; writes benchmarks/results/gpu.json after every part
python -m benchmarks.gpu --tiny --device cpu        # tries every part out, in a minute, and writes nothing

A part that fails, or that the memory is too small for, is reported, and the next one begins. Results of parts not asked
for stay if they are of the same card; docs/gpu.md says what they mean.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import speed
from benchmarks.gpu.attention import attention
from benchmarks.gpu.bench import Bench, Row, card, reason, released
from benchmarks.gpu.parity import parity
from benchmarks.gpu.speed import deberta_large, llama
from benchmarks.gpu.stability import stability
from benchmarks.result import RESULTS, command_line, markdown, write
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.stage import stage

PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "card": card,
    "parity": parity,
    "attention": attention,
    "deberta": deberta_large,
    "llama-bf16": lambda bench: llama(bench, "bf16"),
    "stability": stability,
    "llama-nf4": lambda bench: llama(bench, "nf4"),
    "llama-int8": lambda bench: llama(bench, "int8"),
}
"""In the order in which they run: what matters most comes first."""


def main(parts: list[str], device: str, tiny: bool, minutes: float, output: Path | None) -> dict[str, Any]:
    """Runs the parts, and writes what they found to the folder `output` after each.

    The first, the card's rate, is always among them. Returns the result as it was written.
    """
    about = _about(device, tiny)
    result = about | {"parts": _kept(output, about)}
    bench, began = Bench(device, tiny), time.monotonic()
    asked = [each for each in PARTS if each == "card" or each in parts]
    for number, name in enumerate(asked):
        passed = (time.monotonic() - began) / 60
        if passed > minutes:
            result["parts"][name] = {"failed": f"left out: {passed:.1f} minutes had passed"}
        else:
            print(f"{name}:", flush=True)
            result["parts"][name] = _run(name, bench)
        if name == "card":
            bench.rates.update({row["precision"]: row["TFLOPS"] for row in result["parts"][name].get("rows", ())})
        if output:
            result = write("gpu", {"parts": result["parts"]}, output, **about)
            rest = asked[number + 1 :]
            if rest and name != "card" and _has_failed(bench):
                print("the GPU answers this process no more: the other parts run in a new one", flush=True)
                _replaced_by(["--parts", *rest, "--minutes", f"{minutes - passed:.2f}"], device, tiny, output)
    print(page(result))
    return result


def _run(name: str, bench: Bench) -> dict[str, Any]:
    """The part's rows and seconds, or the reason why there are none."""
    torch.use_deterministic_algorithms(False)  # training switches it on, and transformers would pay most for it
    began = time.monotonic()
    try:
        found: dict[str, Any] = {"rows": PARTS[name](bench)}
    except Exception as error:
        found = {"failed": reason(error)}
        print(f"  failed: {found['failed']}", flush=True)
    released()
    return {"date": date.today().isoformat(), "seconds": round(time.monotonic() - began, 1)} | found


def _has_failed(bench: Bench) -> bool:
    """Whether an error has left the GPU without a context, as an illegal access does."""
    try:
        if bench.on_gpu:
            torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _replaced_by(arguments: list[str], device: str, tiny: bool, output: Path) -> None:
    """This process becomes another call of the command, which puts its parts beside those in `output`."""
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments, "--device", device, "--output", str(output)]
    os.execv(sys.executable, command + ["--tiny"] * tiny)


def _about(device: str, tiny: bool) -> dict[str, Any]:
    where = torch.cuda.get_device_name() if device != "cpu" else "cpu"
    about: dict[str, Any] = {
        "card": where,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "tiny": tiny,
    }
    if device != "cpu":
        about["memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1)
        about["cudnn"] = torch.backends.cudnn.version()
    return about | {"flop": " ".join((speed.__doc__ or "").split("\n\n")[1].split())}


def _kept(output: Path | None, about: dict[str, Any]) -> dict[str, Any]:
    """Parts of an earlier call on the same card with the same libraries."""
    if output is None or not (output / "gpu.json").is_file():
        return {}
    before = read_json(output / "gpu.json")
    same = all(before.get(key) == about[key] for key in ("card", "torch", "cuda", "tiny"))
    return before["parts"] if same else {}


def page(result: dict[str, Any]) -> str:
    """Returns a table for each part, ready for the docs."""
    lines = [f"\n{result['card']}, torch {result['torch']}, CUDA {result['cuda']}"]
    for name, part in result["parts"].items():
        lines += ["", f"### {name}", ""]
        if "failed" in part:
            lines.append(part["failed"])
            continue
        columns = list(dict.fromkeys(key for row in part["rows"] for key in row))
        lines.append(markdown(columns, [[_cell(row.get(key, "")) for key in columns] for row in part["rows"]]))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.set_defaults(output=None)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu with --tiny")
    parser.add_argument("--tiny", action="store_true", help="small networks, nothing written without --output")
    parser.add_argument("--minutes", type=float, default=10.0, help="no part begins later than that")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # each operation that is not deterministic would be named
    with stage("GPU benchmark", keep_seconds=False):
        if given.device != "cpu" and not torch.cuda.is_available():
            raise PodiumError("no CUDA GPU here; --tiny --device cpu tries the command out without one")
        main(given.parts, given.device, given.tiny, given.minutes, given.output or (None if given.tiny else RESULTS))

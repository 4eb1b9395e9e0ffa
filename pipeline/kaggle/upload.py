"""Lays out package and bases as the files that are sent: what lies at the top, and one archive for each folder.

The CLI would pack folders itself, under a new temporary name each time, so that an upload which was cut off could
never go on. Archives at a place of their own keep name, size and time, by which the CLI finds a half-finished upload.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

from pipeline.artifacts import DATASET_METADATA, MANIFEST
from pipeline.errors import PodiumError
from pipeline.files import atomic_folder, link, read_json, sha256_file, write_text
from pipeline.package.bases import BASE, CONTENT, base_text, bases_of

# As Kaggle's pages state them for private datasets; the server has the last word.
MOST_BYTES = 200_000_000_000
MOST_TOP_LEVEL = 50
MOST_SCRIPT_BYTES = 1_000_000
"""Source of a kernel: a larger one is refused."""

TIME = (1980, 1, 1, 0, 0, 0)
"""Every archived file's time, so that the same package gives the same archives."""


def check_sizes(package: Path, script: Path) -> None:
    """Raises: PodiumError for a package or a kernel script that Kaggle would refuse."""
    total = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
    if total > MOST_BYTES:
        raise PodiumError(f"{package}: expected at most {MOST_BYTES / 1e9:g} GB, found {total / 1e9:.1f} GB")
    entries = [path.name for path in package.iterdir() if path.name != DATASET_METADATA]
    if len(entries) > MOST_TOP_LEVEL:
        raise PodiumError(f"{package}: expected at most {MOST_TOP_LEVEL} files and folders, found {len(entries)}")
    if (size := script.stat().st_size) > MOST_SCRIPT_BYTES:
        raise PodiumError(f"{script}: expected at most {MOST_SCRIPT_BYTES:,} bytes, found {size:,}")


def stage_upload(package: Path, folder: Path) -> Path:
    """Fills `folder` with what is sent of a package, unless an earlier run has done so; returns its absolute path.

    Bases are left out: `stage_base` lays out each by itself. Every file is compared with the manifest on the way.

    Raises: PodiumError for one that differs.
    """
    if folder.is_dir():
        return folder.resolve()
    files, apart = read_json(package / MANIFEST)["files"], [package / base for base in bases_of(package)]
    with atomic_folder(folder) as partial:
        for path in sorted(package.iterdir()):
            if path.is_dir():
                _archive(path, partial / f"{path.name}.zip", files, package, apart)
            elif path.name != DATASET_METADATA:
                link(path, partial / path.name)
                if path.name != MANIFEST:
                    _compare(path, sha256_file(path), files.get(path.name))
    return folder.resolve()


def stage_base(package: Path, base: str, folder: Path) -> Path:
    """Fills `folder` with what is sent of the base in that folder of a package, as `stage_upload` does."""
    if folder.is_dir():
        return folder.resolve()
    files = read_json(package / MANIFEST)["files"]
    with atomic_folder(folder) as partial:
        write_text(partial / BASE, base_text(base, files))
        _archive(package / base, partial / f"{CONTENT}.zip", files, package, [])
    return folder.resolve()


def _archive(source: Path, target: Path, files: dict[str, Any], package: Path, apart: list[Path]) -> None:
    """Packs a folder but for what is in `apart`, without compressing: weights and wheels do not get smaller."""
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            if not set(apart).isdisjoint(file.parents):
                continue
            entry, digest = zipfile.ZipInfo(file.relative_to(source).as_posix(), TIME), hashlib.sha256()
            entry.external_attr = 0o644 << 16
            with file.open("rb") as stream, archive.open(entry, "w", force_zip64=True) as packed:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
                    packed.write(piece)
            _compare(file, digest.hexdigest(), files.get(file.relative_to(package).as_posix()))


def _compare(file: Path, found: str, expected: dict[str, Any] | None) -> None:
    if expected is None or found != expected["sha256"]:
        what = "which does not name it" if expected is None else f"sha256 {expected['sha256'][:16]}, found {found[:16]}"
        raise PodiumError(f"{file}: expected a file as in {MANIFEST}, {what}; run `dvc repro package`")

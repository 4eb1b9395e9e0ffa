"""Unpacks what came from Kaggle, without trust: whatever may be wrong with an archive is one line.

python -m stages.download
"""

from __future__ import annotations

import errno
import re
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from pipeline.errors import PodiumError
from pipeline.files import atomic_folder
from pipeline.ingest.cells import ARCHIVES
from pipeline.ingest.folder import TABLES

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
DRIVE = re.compile("[A-Za-z]:")
ENCRYPTED = 1
"""Of a file's flags."""
MOST_RATIO, SMALL = 100, 100_000_000
"""Text shrinks to a tenth, seldom to a thirtieth; below so many bytes nothing can do harm."""


class Damaged(Exception):
    """An archive that is not whole: the same one, fetched anew, may be."""


def unpack(archive: Path, target: Path) -> None:
    """Replaces `target` by the archive's contents; archives in it are unpacked where they lie (train.csv.zip).

    A file that stands there in plain as well stays, with a warning. An archive in it that cannot be unpacked stays
    packed, with a warning too, unless it holds a table.

    Raises: PodiumError in one line. A damaged archive is deleted, so that the next run fetches it anew; others stay.
    """
    try:
        with atomic_folder(target) as folder:
            _extract(archive, folder, str(archive))
            for inner in sorted(folder.rglob("*.zip")):
                _unpack_inner(inner, f"{archive}: {inner.relative_to(folder).as_posix()} in it")
    except Damaged as error:
        archive.unlink()
        raise PodiumError(f"{error}; deleted, run `make download` again") from None


def _unpack_inner(inner: Path, name: str) -> None:
    try:
        _extract(inner, inner.parent, name)
        inner.unlink()
    except (Damaged, PodiumError) as error:
        if Path(inner.stem).suffix in TABLES:
            raise PodiumError(f"{error}; the archive came whole, so unpack or replace this file by hand") from None
        print(f"warning: {error}; it is left as it is", flush=True)


def _extract(archive: Path, folder: Path, name: str) -> None:
    """Unpacks one archive into `folder`; files that are there already stay.

    Raises: Damaged; PodiumError for what cannot, or must not, be unpacked. This is the one place that knows what may
    come out of zipfile and the libraries below it: anything.
    """
    written: list[Path] = []
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = packed.infolist()
            _refuse(entries, name)
            _refuse_bomb(entries, archive, folder, name)
            for entry in entries:
                place = folder / entry.filename
                if not entry.is_dir() and place.exists():
                    print(f"warning: {name}: {entry.filename} is there in plain too, which is taken", flush=True)
                    continue
                if not entry.is_dir():
                    written.append(place)
                packed.extract(entry, folder)
    except Exception as error:
        for place in written:
            place.unlink(missing_ok=True)
        if isinstance(error, PodiumError):
            raise
        raise _in_words(error, archive, name) from None


def _in_words(error: Exception, archive: Path, name: str) -> Exception:
    """Returns Damaged, or a PodiumError where another copy of the archive would be no better."""
    words = " ".join(str(error).split()) or type(error).__name__
    with archive.open("rb") as stream:
        start = stream.read(8)
    for magic, kind in ARCHIVES.items():
        if start.startswith(magic):
            return PodiumError(f"{name}: expected a zip archive, found {kind} archive; unpack it by hand")
    if isinstance(error, NotImplementedError | RuntimeError):  # of zipfile: what it cannot do
        return PodiumError(f"{name}: {words}; unpack it by hand")
    # Of the system: a full disk, a name that it does not take. A wrong place in a damaged archive is EINVAL.
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL, errno.EOVERFLOW):
        return PodiumError(f"{name}: {words}")
    return Damaged(f"{name}: not a whole archive ({words})")


def _refuse(entries: list[zipfile.ZipInfo], name: str) -> None:
    """Raises PodiumError for a file that Python cannot unpack, or that would not become a plain file in the folder."""
    seen: set[str] = set()
    for entry in entries:
        path, kind = PurePosixPath(entry.filename), stat.S_IFMT(entry.external_attr >> 16)
        where = f"{name}: {entry.filename!r}"
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or DRIVE.match(entry.filename):
            raise PodiumError(f"{where}: leads out of the archive's folder; nothing was unpacked")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise PodiumError(f"{where}: a link or a device, not a file; nothing was unpacked")
        if entry.filename in seen:
            raise PodiumError(f"{where}: stands in it twice; nothing was unpacked")
        seen.add(entry.filename)
        if entry.flag_bits & ENCRYPTED:
            raise PodiumError(f"{where}: is encrypted; unpack it by hand")
        if entry.compress_type not in METHODS:
            raise PodiumError(f"{where}: packed by method {entry.compress_type}, which Python lacks; unpack it by hand")


def _refuse_bomb(entries: list[zipfile.ZipInfo], archive: Path, folder: Path, name: str) -> None:
    """Raises PodiumError for an archive that unpacks to more than the disk holds, or to far more than texts do."""
    size, packed, free = (
        sum(entry.file_size for entry in entries),
        archive.stat().st_size,
        shutil.disk_usage(folder).free,
    )
    if size > free:
        raise PodiumError(f"{name}: unpacks to {size / 1e9:.1f} GB, {free / 1e9:.1f} GB of disk are free")
    if size > SMALL and size > MOST_RATIO * packed:
        raise PodiumError(
            f"{name}: unpacks to {size / packed:.0f} times its size, which no text does; unpack it by hand"
        )

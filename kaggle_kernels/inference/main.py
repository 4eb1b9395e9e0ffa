"""The Kaggle kernel: writes the prior's submission, finds the package, checks it, and hands over to the code in it.

PODIUM_INPUT=some/input PODIUM_WORKING=some/folder python kaggle_kernels/inference/main.py

In the scored rerun (KAGGLE_IS_COMPETITION_RERUN is set) nothing may stop it: problems are printed, the best submission
so far stays, the exit code is 0. A parent process waits, in case a library takes this one down; where not even the
prior can be made, the sample submission is copied. Every other run is the dress rehearsal: the first problem ends it
with one clear line and exit code 2. PODIUM_BUDGET_SECONDS replaces the package's budget; PODIUM_FAULTS breaks things on
purpose, see pipeline/kernel/faults.py.
"""

from __future__ import annotations

import atexit
import csv
import ctypes
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

# Where sources have been seen below /kaggle/input, old mounts and new ones; then a search a few levels deep.
PLACES = ("*", "datasets/*/*", "competitions/*", "*/*", "*/*/*", "*/*/*/*")
NUMBER = re.compile(r"[+-]?([0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})([eE][+-]?[0-9]{1,4})?")


class Problem(Exception):
    """What is wrong, in one line."""


class Log:
    """A standard stream that nothing can fail on: what cannot be encoded is escaped, and nobody need read it."""

    def __init__(self, stream, number: int) -> None:
        self.stream, self.number = stream, number
        stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Writes what can be written."""
        try:
            return self.stream.write(text)
        except (OSError, ValueError):
            return self._lost(len(text))

    def flush(self) -> None:
        """Flushes what can be flushed."""
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self._lost(0)

    def _lost(self, done: int) -> int:
        """Sends all that follows, of child processes too, to nowhere: the disk is full, or the reader has gone."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.number)
        os.close(nowhere)
        return done


def guarded() -> int:
    """Runs `main` in a child process in the scored rerun, so that no signal can take the exit code; returns that."""
    rerun, started, before = bool(os.environ.get("KAGGLE_IS_COMPETITION_RERUN")), process_start(), written()
    if not rerun or not isinstance(sys.stdout, io.TextIOWrapper):  # a notebook's process has threads, and no end
        return main(started)
    try:
        child = os.fork()
    except (OSError, AttributeError):
        return main(started)
    if not child:
        with suppress(OSError, AttributeError):  # 1: what the child gets when its parent dies
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        return main(started)
    while True:
        try:
            _, status = os.waitpid(child, 0)
            break
        except KeyboardInterrupt:  # the child has got it too
            continue
    if os.WIFSIGNALED(status):
        with suppress(OSError):
            os.write(1, f"problem: ended by signal {os.WTERMSIG(status)}; the submission stays\n".encode())
    copy_sample(before)
    return 0


def main(started: float | None = None) -> int:
    """Runs the kernel; returns its exit code. `started` is what `process_start` says, by default of this process."""
    started, before = process_start() if started is None else started, written()
    if isinstance(sys.stdout, io.TextIOWrapper) and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stdout, sys.stderr = Log(sys.stdout, 1), Log(sys.stderr, 2)
    rerun = bool(os.environ.get("KAGGLE_IS_COMPETITION_RERUN"))
    sys.dont_write_bytecode = True  # the package is mounted read-only, and its contents are hashed
    csv.field_size_limit(sys.maxsize)
    try:
        serve(started, rerun)
        return 0
    except Problem as problem:
        print(f"error: {problem}", flush=True)
    except BaseException as error:  # the scored rerun survives even a library's SystemExit
        traceback.print_exc(file=sys.stdout)
        print(f"error: {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
    if rerun:
        copy_sample(before)
    return 0 if rerun else 2


def written() -> tuple[int, int] | None:
    """Returns what tells one submission.csv from another: each is a new file. None where there is none."""
    with suppress(OSError):
        found = (working_folder() / "submission.csv").stat()
        return found.st_ino, found.st_mtime_ns
    return None


def copy_sample(before: tuple[int, int] | None) -> None:
    """Copies the sample submission where this run has written nothing: not even the prior could be made."""
    if written() != before:
        return
    target = working_folder() / "submission.csv"
    for place in PLACES:
        for sample in sorted(input_folder().glob(f"{place}/*sample*submission*.csv")):
            with suppress(OSError):
                partial = target.with_name(".submission.csv.sample.partial")
                shutil.copyfile(sample, partial)
                os.replace(partial, target)
                print(f"problem: nothing was written; the sample submission {sample} was copied", flush=True)
                return


def input_folder() -> Path:
    """Returns the folder with all that Kaggle has mounted."""
    return Path(os.environ.get("PODIUM_INPUT") or "/kaggle/input")


def working_folder() -> Path:
    """Returns the folder of submission.csv."""
    return Path(os.environ.get("PODIUM_WORKING") or "/kaggle/working")


def process_start() -> float:
    """Returns when this process began, on the clock of time.monotonic(): the interpreter's start counts too."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        age = 0.0
    # A process older than ten minutes is a notebook's, opened by hand: there the clock starts with the run.
    return time.monotonic() - (age if 0 <= age < 600 else 0.0)


def serve(started: float, rerun: bool) -> None:
    """Runs the whole kernel. Raises: Problem in the dress rehearsal, or where not even a prior can be written."""
    source, working = input_folder(), working_folder()
    working.mkdir(parents=True, exist_ok=True)
    print(f"{'scored rerun' if rerun else 'dress rehearsal'} on Python {sys.version.split()[0]}", flush=True)
    package, manifest = find_package(source, rerun)
    data = find_competition(source, manifest.get("competition", {}), rerun)
    print(f"package {package}, competition files {data}", flush=True)
    if not is_whole(manifest):
        report(f"{package}/MANIFEST.json: was changed after the package was built", rerun)
    write_prior(data, manifest, working / "submission.csv", rerun)
    if package is None:
        return
    package = unpacked(package, manifest.get("bases", {}), source, rerun)
    broken = broken_files(package, manifest["files"])
    for name, what in broken.items():
        report(f"{package / name}: {what}", rerun)
    if any(name.startswith("code/") for name in broken):
        return
    sys.path.insert(0, str(package / "code"))
    from pipeline.errors import PodiumError
    from pipeline.kernel.run import run

    try:
        run(package, data, working, started, rerun, broken)
    except PodiumError as error:
        raise Problem(str(error)) from None


def report(problem: str, rerun: bool) -> None:
    """Prints a problem of the scored rerun. Raises: Problem in the dress rehearsal, which it ends."""
    if not rerun:
        raise Problem(problem)
    print(f"problem: {problem}", flush=True)


def find_package(source: Path, rerun: bool) -> tuple[Path | None, dict]:
    """Returns the package's folder and manifest, wherever it is mounted; (None, {}) in a rerun without one."""
    broken = ""
    for place in PLACES:
        found = []
        for file in sorted(source.glob(f"{place}/MANIFEST.json")):
            try:
                manifest = json.loads(file.read_text(encoding="utf-8"))
                if manifest["format"] == 1 and manifest["competition"] and manifest["files"]:
                    found.append((file.parent, manifest))
            except (OSError, ValueError, LookupError, TypeError) as error:
                broken = f" ({file} is not readable as one: {error})"
        if len(found) > 1:
            report(f"{source}: expected one package, found {' and '.join(str(folder) for folder, _ in found)}", rerun)
        if found:
            return found[0]
    report(f"{source}: expected a package (a folder with MANIFEST.json), found none{broken}", rerun)
    return None, {}


def is_whole(manifest: dict) -> bool:
    """Tells whether the manifest is what pipeline/package/manifest.py has sealed; of an old one, unsealed, it is."""
    rest = {key: value for key, value in manifest.items() if key != "seal"}
    found = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return manifest.get("seal", found) == found


def find_competition(source: Path, competition: dict, rerun: bool) -> Path:
    """Returns the folder with the test file beside the sample submission; to a rerun either of them is enough."""
    files = [competition.get("test", "test.csv"), competition.get("sample_submission", "sample_submission.csv")]
    named = (competition["name"], f"competitions/{competition['name']}") if competition else ()
    for expected in (files, files[:1], files[1:]) if rerun else (files,):
        for place in (*named, *PLACES):
            for folder in sorted(at.parents[expected[0].count("/")] for at in source.glob(f"{place}/{expected[0]}")):
                if all((folder / name).is_file() for name in expected):
                    return folder
    raise Problem(f"{source}: expected the competition's files ({files[0]} beside {files[1]}), found none")


def write_prior(data: Path, manifest: dict, target: Path, rerun: bool) -> None:
    """Writes the prior's cells for every id to answer, in the sample's columns and order.

    These ids are the sample's where the test file cannot be read, or holds a part of them or another writing of them;
    they are the test file's where it has others.
    """
    competition, cells = manifest.get("competition", {}), manifest.get("prior_cells", {})
    identifier = competition.get("submission_id") or competition.get("id")
    sample = data / competition.get("sample_submission", "sample_submission.csv")
    header, ids = read_ids(sample, competition, rerun)
    columns, tested = read_ids(data / competition.get("test", "test.csv"), competition, rerun)
    tested = [] if competition and competition.get("id") not in columns else tested
    if sorted(header) != sorted(expected := [identifier, *cells] if competition else header):
        report(f"{sample}: expected the columns {', '.join(expected)}, found {', '.join(header)}", rerun)
        header = expected
    theirs, ours = {as_number(each) for each in tested}, {as_number(each) for each in ids}
    if not ids or (theirs - ours and (len(tested) > len(ids) or 2 * len(theirs & ours) < len(theirs))):
        print(f"{sample}: its ids are not those of the test file, which are used", flush=True)
        ids = list(dict.fromkeys(tested))
    elif theirs != ours:
        print(f"{sample}: {len(ours - theirs)} of its ids are not in the test file and keep the prior", flush=True)
    place = header.index(identifier) if competition else 0
    shares = [str(cells.get(name, 1 / max(len(header) - 1, 1))) for name in header]
    partial = target.with_name(".submission.csv.prior.partial")
    with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        lines = ([*shares[:place], row, *shares[place + 1 :]] for row in ids)
        csv.writer(stream, lineterminator="\n").writerows([header, *lines])
    os.replace(partial, target)
    print(f"prior written for {len(ids)} rows", flush=True)


def as_number(text: str) -> str | Decimal:
    """Returns an id as the number that it is a writing of (7, 00007, 7.0), exactly, else without blanks around it.

    As in pipeline/kernel/submission.py, which cannot be imported before the package is checked.
    """
    text = text.strip()
    return Decimal(text) if NUMBER.fullmatch(text) else text


def read_ids(path: Path, competition: dict, rerun: bool) -> tuple[list[str], list[str]]:
    """Returns a table's header and id column (by name, else the first); bytes that are no UTF-8 pass unchanged."""
    sample = path.name == os.path.basename(competition.get("sample_submission", "sample_submission.csv"))
    name = (competition.get("submission_id") if sample else None) or competition.get("id")
    try:
        if path.suffix == ".parquet":
            return read_parquet_ids(path, name)
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            if path.suffix in (".json", ".jsonl"):
                return [name], json_ids(stream, path.suffix == ".jsonl", name)
            escape = "\\" if competition.get("quotes") == "backslash" else None
            quoting = csv.QUOTE_NONE if competition.get("quotes") == "none" and not sample else csv.QUOTE_MINIMAL
            header, start = [], stream.tell()
            for separator in competition.get("separator", ","), ",":  # a sample may have commas where others have none
                stream.seek(start)
                reader = csv.reader(stream, delimiter=separator, escapechar=escape, quoting=quoting)
                header = next(reader, [])
                if name in header:
                    break
            place = header.index(name) if name in header else 0
            # A line without an id and a second header, of files put together or filled up, are no rows.
            rows = (row for row in reader if len(row) > place and row != header)
            return header, [row[place] for row in rows if row[place].strip(" \t\r\n\0\x1a")]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        report(f"{path}: not readable: {error}", rerun)
        return [], []


def json_ids(stream: io.TextIOBase, lines: bool, name: str) -> list[str]:
    """Returns the ids of records, of a record per line, or of a mapping column -> values.

    As pipeline/ingest/tables.py reads them: a number keeps its digits, what is null or no record has no id, and of
    lines that are no JSON the others are read.
    """
    found = []
    for text in stream if lines else [stream.read()]:
        try:
            found.append(json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda _: None))
        except (ValueError, RecursionError):
            if not lines:  # but a record per line, perhaps
                return json_ids(io.StringIO(text), True, name)
    rows = found if lines else found[0]
    if isinstance(rows, dict):
        ids = rows[name].values() if isinstance(rows[name], dict) else rows[name]
    else:
        ids = [row.get(name) for row in rows if isinstance(row, dict)]
    # Half of a surrogate pair could not be written.
    return [re.sub("[\ud800-\udfff]", "\ufffd", str(each)) for each in ids if each is not None and str(each).strip()]


def read_parquet_ids(path: Path, name: str) -> tuple[list[str], list[str]]:
    """Returns what `read_ids` does, by the image's polars in a process of its own: here the package's comes first."""
    # Some writers leave texts as bytes; a NaN, which equals nothing, is no id.
    code = (
        "import json, sys, polars; ids = polars.read_parquet(sys.argv[1])[sys.argv[2]]; print(json.dumps([each.decode("
        "errors='replace') if isinstance(each, bytes) else str(each) for each in ids if each == each != None]))"
    )
    done = subprocess.run([sys.executable, "-c", code, path, name], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{path}: its ids cannot be read, the sample's are answered: {done.stderr.strip()[-120:]!r}", flush=True)
    return ([], []) if done.returncode else ([name], json.loads(done.stdout))


def unpacked(package: Path, bases: dict, source: Path, rerun: bool) -> Path:
    """Returns the package in real folders: a mount may show the zip files that they were uploaded as.

    Each base (folder -> hash) that is not in its place comes there from the dataset whose BASE.json has that hash.
    """
    archives = sorted(package.glob("*.zip"))
    if not archives and all((package / base).exists() for base in bases):
        return package
    folder = Path(tempfile.mkdtemp(prefix="podium-package-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for here, _, names in os.walk(package, followlinks=True):
        place = folder / Path(here).relative_to(package)
        place.mkdir(exist_ok=True)
        for file in {Path(here, name) for name in names} - set(archives):
            (place / file.name).symlink_to(file)
    for archive in archives:
        shutil.unpack_archive(archive, folder / archive.stem)
    for base in [each for each in bases if not (folder / each).exists()]:
        labels = (file for place in PLACES for file in sorted(source.glob(f"{place}/BASE.json")))
        label = next((file for file in labels if hashlib.sha256(file.read_bytes()).hexdigest() == bases[base]), None)
        (folder / base).parent.mkdir(parents=True, exist_ok=True)
        if label is None:
            report(f"{source}: expected {base} in a dataset of its own ({bases[base][:16]}), found none", rerun)
        elif label.with_name("base").is_dir():
            (folder / base).symlink_to(label.with_name("base"))
        else:
            shutil.unpack_archive(label.with_name("base.zip"), folder / base)
    return folder


def broken_files(package: Path, files: dict) -> dict[str, str]:
    """Returns what is wrong with each file that is not as the manifest says, by its path in the package."""
    with ThreadPoolExecutor(4) as pool:  # hashing lets other threads run
        found = list(pool.map(lambda name: difference(package / name, files[name]), files))
    return {name: what for name, what in zip(files, found, strict=True) if what}


def difference(path: Path, expected: dict) -> str | None:
    """Returns how a file differs from its entry in the manifest, or None."""
    try:
        if (size := path.stat().st_size) != expected["bytes"]:
            return f"expected {expected['bytes']} bytes, found {size}"
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"expected a file of the package, found {error.strerror}"
    return None if found == expected["sha256"] else f"expected sha256 {expected['sha256']}, found {found}"


if __name__ == "__main__":
    if os.environ.pop("PYTHONOPTIMIZE", None) and sys.flags.optimize:  # LightGBM and transformers read their docstrings
        os.execv(sys.executable, [sys.executable, *sys.argv])
    if code := guarded():
        sys.exit(code)

"""The shipped wheels are unpacked as pip would install them, all of them or none."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest
from packaged import LOCK, WHEELS

from pipeline.errors import PodiumError
from pipeline.kernel.faults import Faults
from pipeline.kernel.inputs import KernelInputs
from pipeline.kernel.run import unpack_wheels
from pipeline.package.wheels import find_wheels

PIPS_OWN = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"}


def inputs(package: Path, **faults: float) -> KernelInputs:
    return KernelInputs(package, package, package, time.monotonic(), 60.0, False, {}, Faults(faults))


def contents(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in PIPS_OWN]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two small wheels that the kernel brings along; whatever is unpacked lies below it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for wheel in find_wheels(WHEELS, LOCK):
        if wheel.name.startswith(("safetensors", "narwhals")):
            shutil.copy(wheel, tmp_path)
    return tmp_path


def test_the_files_are_those_that_pip_installs(package: Path) -> None:
    wheels = sorted(file.name for file in package.glob("*.whl"))
    found = contents(unpack_wheels(inputs(package), wheels))
    options = ["--isolated", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(package / "pip")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *(package / name for name in wheels)], check=True)
    assert len(wheels) == 2 and found == contents(package / "pip")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x-1-py3-none-any.whl", b"no zip", "x-1-py3-none-any.whl: cannot be unpacked: File is not a zip file"),
        ("x-1-cp399-abi3-any.whl", b"", rf"needs Python 3\.99, found 3\.{sys.version_info[1]}"),
        ("gone-1-py3-none-any.whl", None, "gone-1-py3-none-any.whl: cannot be unpacked: .*No such file"),
        ("x-1-py3-none-any.whl", {"x.data/scripts/x": b""}, "wheels: expected files for one folder, found x.data"),
        ("x-1-py3-none-any.whl", {"x.py": b"whole", "spoil": b""}, "cannot be unpacked: Bad CRC-32 for file 'x.py'"),
    ],
)
def test_what_cannot_be_unpacked_is_one_line_and_leaves_nothing(
    package: Path, name: str, content: bytes | dict[str, bytes] | None, says: str
) -> None:
    if isinstance(content, dict):
        with zipfile.ZipFile(package / name, "w") as archive:
            for inside, each in content.items():
                archive.writestr(inside, each)
        if "spoil" in content:
            (package / name).write_bytes((package / name).read_bytes().replace(b"whole", b"whale"))
    elif content is not None:
        (package / name).write_bytes(content)
    whole = next(file.name for file in package.glob("safetensors*.whl"))
    with pytest.raises(PodiumError, match=says):
        unpack_wheels(inputs(package), [whole, name])
    assert not list(package.glob("podium-wheels-*"))


def test_the_fault_on_purpose(package: Path) -> None:
    with pytest.raises(PodiumError, match="wheels: on purpose"):
        unpack_wheels(inputs(package, wheels=1), [])

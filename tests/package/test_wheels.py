"""The wheels of the package: at the locked versions, for every supported Python, or one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import PodiumError
from pipeline.kinds import KINDS
from pipeline.package.wheels import LIBRARIES, find_wheels

NAMES = {
    "lightgbm": "lightgbm-1.2-py3-none-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "narwhals": "narwhals-1.2-py3-none-any.whl",
    "polars": "polars-1.2-py3-none-any.whl",
    "polars-runtime-32": "polars_runtime_32-1.2-cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "safetensors": "safetensors-1.2-cp310-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
}


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """A folder with every wheel (names only), and a lock beside it, in the form that uv writes."""
    for name in NAMES.values():
        (tmp_path / "wheels" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "wheels" / name).touch()
    pins = "".join(f"{name}==1.2 ; sys_platform == 'linux' \\\n    --hash=sha256:00\n" for name in LIBRARIES)
    (tmp_path / "requirements.lock").write_text(f"numpy==9.9 \\\n    --hash=sha256:00\n{pins}")
    return tmp_path / "wheels"


def test_every_library_is_found_at_its_locked_version(fetched: Path) -> None:
    (fetched / "polars-1.1-py3-none-any.whl").touch()
    assert [path.name for path in find_wheels(fetched, fetched.parent / "requirements.lock")] == sorted(NAMES.values())


def test_a_kind_brings_the_libraries_that_it_names(fetched: Path) -> None:
    lock = fetched.parent / "requirements.lock"
    assert find_wheels(fetched, lock, ["tabular", "external"]) == find_wheels(fetched, lock)
    more = set(KINDS["encoder"].wheels)
    lock.write_text(lock.read_text() + "".join(f"{name}==3.4\n" for name in more))
    for name in more:
        (fetched / f"{name.replace('-', '_')}-3.4-py3-none-any.whl").touch()
    found = find_wheels(fetched, lock, ["encoder"])
    assert len(found) == len(LIBRARIES) + len(more)
    assert any(path.name.startswith("transformers-3.4") for path in found)
    with pytest.raises(PodiumError, match="expected a pinned version of"):  # peft and others, for adapters
        find_wheels(fetched, lock, ["decoder"])


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_wheel_says_what_to_run(fetched: Path, name: str) -> None:
    (fetched / NAMES[name]).unlink()
    with pytest.raises(PodiumError, match=rf"expected a wheel of {name} 1\.2, found none; run `make setup`"):
        find_wheels(fetched, fetched.parent / "requirements.lock")


@pytest.mark.parametrize(
    "tag", ["cp311-cp311-manylinux_2_17_x86_64", "py3-none-macosx_12_0_arm64", "cp310-abi3-win_amd64"]
)
def test_a_wheel_for_one_python_or_another_system_is_refused(fetched: Path, tag: str) -> None:
    (fetched / NAMES["safetensors"]).rename(fetched / f"safetensors-1.2-{tag}.whl")
    with pytest.raises(PodiumError, match="expected a py3-none or abi3 wheel for Linux on x86_64"):
        find_wheels(fetched, fetched.parent / "requirements.lock")


def test_a_library_without_a_pin_is_named(fetched: Path) -> None:
    lock = fetched.parent / "requirements.lock"
    lock.write_text(lock.read_text().replace("narwhals==", "owls=="))
    with pytest.raises(PodiumError, match="expected a pinned version of narwhals"):
        find_wheels(fetched, lock)


def test_a_missing_lock_is_named(fetched: Path) -> None:
    with pytest.raises(PodiumError, match=r"nothing\.lock: no such file"):
        find_wheels(fetched, fetched.parent / "nothing.lock")

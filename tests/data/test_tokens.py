from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data import tokenise, tokens
from pipeline.data.tokens import tokens_of
from pipeline.models.backbones.tokenizer import load_tokenizer

TEXTS = [f"Some words, [SEP] <s> and number {number}: é你" for number in range(60)]
texts = st.lists(st.text("ab \n[SEP]<s>é你", max_size=40) | st.sampled_from(TEXTS), max_size=8)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def load(backbones: Path) -> Callable[[str], Any]:
    """A tokenizer of its own on each call: of the backbone `bert` or `llama`."""
    return lambda name: load_tokenizer(backbones / "backbones" / name)


@pytest.fixture(scope="module", params=["bert", "llama"])
def tokenizer(request: pytest.FixtureRequest, load: Callable[[str], Any]) -> Any:
    return load(request.param)


def asked(given: list[str], tokenizer: Any, token_cache: Path | None) -> list[list[int]]:
    found = tokens_of(pl.Series(given, dtype=pl.String), tokenizer, token_cache)
    assert all(each.dtype == np.int32 and not each.flags.writeable for each in found)
    return [each.tolist() for each in found]


def one_by_one(given: list[str], tokenizer: Any) -> list[list[int]]:
    """Text by text, and special tokens that are left written out by their names."""
    backend, result = tokenizer.backend_tokenizer, []
    backend.encode_special_tokens = True
    names = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    names.pop(tokenizer.unk_token_id, None)
    for text in given:
        ids: list[int] = []
        for number in backend.encode(text, add_special_tokens=False).ids:
            name = names.get(number, "")
            begin, rest = (backend.encode(part, add_special_tokens=False).ids for part in (name[:1], name[1:]))
            ids += begin + rest if name else [number]
        result.append(ids)
    backend.encode_special_tokens = False
    return result


@given(calls=st.lists(texts, max_size=4))
@quick
def test_the_ids_are_those_of_each_text_alone_whatever_is_kept(
    calls: list[list[str]], tokenizer: Any, tmp_path: Path
) -> None:
    for each in calls:
        expected = one_by_one(each, tokenizer)
        assert asked(each, tokenizer, None) == expected
        assert asked(each, tokenizer, tmp_path) == expected


@given(given=texts, size=st.integers(1, 60))
@quick
def test_batches_hold_every_text_in_its_order_and_no_more_than_they_may(given: list[str], size: int) -> None:
    series = pl.Series(given, dtype=pl.String)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenise, "BATCH", size)
        found = [each.to_list() for each in tokenise.batches(series)] if given else []
    assert [text for batch in found for text in batch] == given
    assert all(sum(len(text.encode()) for text in batch[:-1]) <= size for batch in found)


def test_a_shard_is_made_once_and_read_from_the_disk(tokenizer: Any, tmp_path: Path) -> None:
    expected = asked(TEXTS, tokenizer, tmp_path)
    (file,) = tmp_path.rglob("*.ids")
    assert asked([*TEXTS[3:], "", *TEXTS], tokenizer, tmp_path) == [*expected[3:], [], *expected]
    assert len(list(tmp_path.rglob("*"))) == 3  # the tokenizer's folder, and a shard for the text without words
    content = np.fromfile(file, np.int32)
    content[0] += 1
    file.unlink()
    (file.parent / f"{sha256(content.tobytes()).hexdigest()}.ids").write_bytes(content.tobytes())
    changed = asked(TEXTS, tokenizer, tmp_path)
    assert sum(one != other for one, other in zip(changed, expected, strict=True)) == 1


@given(calls=st.lists(texts.filter(bool), min_size=3, max_size=8), most=st.integers(1, 3))
@quick
def test_there_are_never_many_shards_and_nothing_is_lost_when_they_become_one(
    calls: list[list[str]], most: int, tokenizer: Any, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "MOST", most)
        for each in calls:
            assert asked(each, tokenizer, tmp_path) == one_by_one(each, tokenizer)
            assert len(list(tmp_path.glob("*/*"))) <= most
    before = sorted(tmp_path.glob("*/*"))
    for each in calls:
        assert asked(each, tokenizer, tmp_path) == one_by_one(each, tokenizer)
    assert sorted(tmp_path.glob("*/*")) == before


def damaged(content: bytes, place: int, how: str) -> bytes:
    place %= len(content)
    flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    zeroed = content[:place] + bytes(len(content) - place)
    return {"cut": content[:place], "flipped": flipped, "zeroed": zeroed, "longer": content + content[place:]}[how]


@given(place=st.integers(0, 1 << 20), how=st.sampled_from(["cut", "flipped", "zeroed", "longer"]))
@quick
def test_a_damaged_shard_is_made_again(place: int, how: str, tokenizer: Any, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    expected = asked(TEXTS, tokenizer, tmp_path)
    (file,) = tmp_path.rglob("*.ids")
    whole = file.read_bytes()
    file.write_bytes(damaged(whole, place, how))
    assert asked(TEXTS, tokenizer, tmp_path) == expected
    assert file.read_bytes() == whole
    assert asked(TEXTS, tokenizer, tmp_path) == expected


def test_what_a_killed_process_left_is_no_shard(tokenizer: Any, tmp_path: Path) -> None:
    expected = asked(TEXTS, tokenizer, tmp_path)
    (file,) = tmp_path.rglob("*.ids")
    file.rename(file.with_name(".some-name.partial"))
    assert asked(TEXTS, tokenizer, tmp_path) == expected
    assert file.exists()


@pytest.mark.parametrize("most", [1, 32])
def test_several_may_fill_the_same_folder_at_once(
    most: int,
    load: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tokens, "MOST", most)
    expected = dict(zip(TEXTS, one_by_one(TEXTS, load("bert")), strict=True))

    def fill(start: int, tokenizer: Any) -> None:
        for begin in range(start, len(TEXTS), 4):
            chosen = TEXTS[begin : begin + 10]
            assert asked(chosen, tokenizer, tmp_path) == [expected[text] for text in chosen]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, [0, 0, 1, 3], [load("bert") for _ in range(4)]))
    assert {file.suffix for file in tmp_path.glob("*/*")} == {".ids"}
    assert asked(TEXTS, load("bert"), tmp_path) == list(expected.values())
    assert capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_made_is_named_once(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for chosen in (TEXTS, TEXTS, ["another"]):
        assert asked(chosen, tokenizer, tmp_path / "file") == one_by_one(chosen, tokenizer)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"warning: {tmp_path}/file/") and line.endswith(": token ids are not kept: Not a directory")


def test_a_disk_that_fills_up_keeps_nothing_and_changes_nothing(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = asked(TEXTS[:2], tokenizer, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert asked(TEXTS, tokenizer, tmp_path) == one_by_one(TEXTS, tokenizer)
        assert asked(TEXTS, tokenizer, tmp_path)[:2] == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capsys.readouterr().out.count("token ids are not kept: File too large\n") == 1
    assert len(list(tmp_path.glob("*/*"))) == 1


def test_tokenizers_that_differ_share_nothing(load: Callable[[str], Any], tmp_path: Path) -> None:
    def folders(tokenizer: Any) -> int:
        asked(["a text"], tokenizer, tmp_path)
        return len(list(tmp_path.iterdir()))

    assert [folders(load("bert")), folders(load("bert")), folders(load("llama"))] == [1, 1, 2]
    cutting = load("bert")
    cutting("a text", truncation=True, max_length=3, padding="max_length")  # both stay set
    assert folders(cutting) == 2
    more, special = load("bert"), load("bert")
    more.add_tokens(["text"])
    assert folders(more) == 3
    special.add_special_tokens({"unk_token": "[MASK]"})
    assert folders(special) == 4

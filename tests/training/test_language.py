from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from networks import pretrain_settings
from support import preference_rows, write_artifacts
from transformers import AutoModelForCausalLM

from pipeline.artifacts import HOLDOUT
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.training import pretrain as training
from pipeline.training.objectives.language import CausalModel, Language, MaskedModel
from pipeline.training.pretrain import SHORTEST, PretrainStart, text_sequences


@pytest.fixture
def rows() -> pl.DataFrame:
    return preference_rows(40)


def bert(backbones: Path) -> Path:
    return backbones / "backbones" / "bert"


def llama(backbones: Path) -> Path:
    return backbones / "backbones" / "llama"


def sequences(rows: pl.DataFrame, folder: Path, competition: Competition, **changed: Any) -> list[np.ndarray]:
    family = read_json(folder / "backbone.json")["family"]
    return text_sequences(rows, competition, load_tokenizer(folder), family, pretrain_settings(**changed))


def masked(rows: pl.DataFrame, folder: Path, competition: Competition, share: float = 0.15, seed: int = 0) -> Language:
    each = sequences(rows, folder, competition)
    return Language(each, load_tokenizer(folder), share, 16, 2000, seed, "cpu")


def causal(rows: pl.DataFrame, folder: Path, competition: Competition) -> Language:
    each = sequences(rows, folder, competition)
    return Language(each, load_tokenizer(folder), None, 16, 2000, 0, "cpu")


def test_a_masked_model_is_asked_for_15_percent_and_never_for_special_tokens(
    backbones: Path, lmsys: Competition
) -> None:
    learned = masked(preference_rows(400), bert(backbones), lmsys)
    special = learned.tokenizer.all_special_ids
    asked = guessable = hidden = kept = 0
    for number, sequence in enumerate(learned.sequences):
        (ids, mask, place), targets, units, *_ = learned.batch(np.array([number]), 5)
        places = place.numpy()  # of a batch of one, so of its sequence
        assert units == len(targets) == len(places)
        assert not np.isin(sequence[places], special).any()
        assert targets.tolist() == sequence[places].tolist()
        # Elsewhere the sequence is as it was.
        rest = np.setdiff1d(np.arange(len(sequence)), places)
        assert (ids[0].numpy()[rest] == sequence[rest]).all() and int(mask.sum()) == len(sequence)
        asked, guessable = asked + units, guessable + int((~np.isin(sequence, special)).sum())
        hidden += int((ids[0].numpy()[places] == learned.tokenizer.mask_token_id).sum())
        kept += int((ids[0].numpy()[places] == sequence[places]).sum())
    assert abs(asked / guessable - 0.15) < 0.005
    assert hidden / asked == pytest.approx(0.8, abs=0.02)
    assert kept / asked == pytest.approx(0.1, abs=0.02)


def test_masks_differ_by_step_and_are_the_same_again(backbones: Path, lmsys: Competition, rows: pl.DataFrame) -> None:
    learned = masked(rows, bert(backbones), lmsys)
    batch = np.arange(6)
    first, again, later = (learned.batch(batch, step).inputs for step in (3, 3, 4))
    assert all(torch.equal(one, same) for one, same in zip(first, again, strict=True))
    assert not torch.equal(first[2], later[2])
    # A sequence's mask does not depend on which others stand beside it, so that the budget changes nothing.
    alone = learned.batch(batch[2:3], 3).inputs
    width, whole = alone[0].shape[1], first[0].shape[1]
    assert torch.equal(first[2][first[2] // whole == 2] - 2 * whole, alone[2])
    assert torch.equal(first[0][2, :width], alone[0][0])


def test_a_fresh_masked_model_knows_nothing(backbones: Path, lmsys: Competition, rows: pl.DataFrame) -> None:
    torch.manual_seed(0)
    network = MaskedModel(load_backbone(bert(backbones), "fp32", "cpu")).eval()
    learned = masked(rows, bert(backbones), lmsys)
    batch = learned.batch(np.arange(40), 0)
    with torch.no_grad():
        loss = float(learned.loss(network, batch).plain) / batch.units
    assert loss == pytest.approx(math.log(network.bias.numel()), rel=0.05)
    assert math.log(learned.perplexity(network)) == pytest.approx(math.log(network.bias.numel()), rel=0.05)


def test_a_causal_model_is_asked_for_the_next_token(backbones: Path, lmsys: Competition, rows: pl.DataFrame) -> None:
    learned = causal(rows, llama(backbones), lmsys)
    ids, mask, places = (each.numpy() for each in learned.batch(np.array([0, 7]), 0).inputs)
    asked = np.isin(np.arange(ids.size), places).reshape(ids.shape)
    targets = learned.batch(np.array([0, 7]), 0).targets.tolist()
    wanted = [*learned.sequences[0][1:].tolist(), *learned.sequences[7][1:].tolist()]
    assert targets == wanted
    for place, row in enumerate((0, 7)):
        length = len(learned.sequences[row])
        assert asked[place].sum() == length - 1 and asked[place, : length - 1].all()
        assert mask[place].sum() == length and ids[place, :length].tolist() == learned.sequences[row].tolist()


def test_the_causal_loss_is_that_of_transformers(backbones: Path, lmsys: Competition, rows: pl.DataFrame) -> None:
    own = AutoModelForCausalLM.from_pretrained(llama(backbones), dtype=torch.float32).eval()
    learned = causal(rows, llama(backbones), lmsys)
    batch = learned.batch(np.array([3]), 0)
    ids = batch.inputs[0][:, : len(learned.sequences[3])]
    with torch.no_grad():
        found = learned.loss(CausalModel(own), batch).minimised / batch.units
        assert float(found) == pytest.approx(float(own(input_ids=ids, labels=ids).loss), abs=1e-5)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_perplexity_is_the_same_twice_and_for_any_budget(
    family: str, backbones: Path, lmsys: Competition, rows: pl.DataFrame
) -> None:
    folder = backbones / "backbones" / family
    each = sequences(rows, folder, lmsys)
    share = 0.15 if family == "bert" else None
    one, other = (Language(each, load_tokenizer(folder), share, 16, budget, 0, "cpu") for budget in (300, 9000))
    if family == "bert":
        torch.manual_seed(0)
        network: Any = MaskedModel(load_backbone(folder, "fp32", "cpu"))
    else:
        network = CausalModel(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    network.eval()
    assert one.perplexity(network) == one.perplexity(network)
    assert one.perplexity(network) == pytest.approx(other.perplexity(network), rel=1e-5)


def test_long_texts_become_windows_and_no_text_is_learned_twice(backbones: Path, lmsys: Competition) -> None:
    long = " ".join(f"number{i}" for i in range(120))
    rows = preference_rows(4).with_columns(
        a=pl.Series([[long]] * 4), b=pl.Series([[long]] * 4), prompt=pl.Series([["x"]] * 4)
    )
    folder = llama(backbones)
    found = sequences(rows, folder, lmsys, max_tokens=64)
    assert all(2 <= len(each) <= 64 for each in found)
    assert len({each.tobytes() for each in found}) == len(found)
    first = load_tokenizer(folder).bos_token_id
    assert all(each[0] == first and first not in each[1:] for each in found)
    whole = sequences(rows[:1], folder, lmsys, max_tokens=10**6)[0]
    pieces = sequences(rows[:1], folder, lmsys, max_tokens=64)
    glued = [token for each in pieces for token in each[1:].tolist()]
    assert glued == whole[1 : 1 + len(glued)].tolist()
    assert len(whole) - 1 - len(glued) < SHORTEST  # a shorter rest is left out
    doubled = pl.concat([rows, rows])
    assert len(sequences(doubled, folder, lmsys)) == len(sequences(rows, folder, lmsys))


def test_encoders_see_the_prompt_with_each_side(backbones: Path, lmsys: Competition, rows: pl.DataFrame) -> None:
    tokenizer = load_tokenizer(bert(backbones))
    found = sequences(rows[:1], bert(backbones), lmsys)
    assert len(found) == 2
    prompt = tokenizer.decode(found[0]).split("[SEP]")[0]
    assert tokenizer.decode(found[1]).startswith(prompt)


def test_more_text_comes_from_files(
    backbones: Path, lmsys: Competition, rows: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("external").mkdir()
    Path("external/more.txt").write_text("one more text\n\n   \nand another\n")
    pl.DataFrame({"text": ["a third one", None]}).write_parquet("external/more.parquet")
    pl.DataFrame({"body": ["x"]}).write_parquet("external/other.parquet")
    for folder in (bert(backbones), llama(backbones)):
        plain = sequences(rows, folder, lmsys)
        files = ("external/more.txt", "external/more.parquet")
        added = sequences(rows, folder, lmsys, files=files)[len(plain) :]
        said = [load_tokenizer(folder).decode(each, skip_special_tokens=True).strip() for each in added]
        assert said == ["one more text", "and another", "a third one"]
    with pytest.raises(PodiumError, match=r"external/none\.txt: no such file"):
        sequences(rows, bert(backbones), lmsys, files=("external/none.txt",))
    Path("external/latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(PodiumError, match=r"external/latin\.txt: expected UTF-8 text"):
        sequences(rows, bert(backbones), lmsys, files=("external/latin.txt",))
    with pytest.raises(PodiumError, match=r'external/other\.parquet: expected a column "text"'):
        sequences(rows, bert(backbones), lmsys, files=("external/other.parquet",))


def test_text_of_the_holdout_is_never_used(
    backbones: Path, lmsys: Competition, rows: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages import pretrain as stage

    monkeypatch.chdir(tmp_path)
    folds = np.where(np.arange(40) < 8, HOLDOUT, 0)
    artifacts = write_artifacts(tmp_path, rows, lmsys, folds)
    (artifacts / "backbones").symlink_to(backbones / "backbones")
    write_json(artifacts / "start_pretrain" / "bert.json", asdict(PretrainStart("x", pretrain_settings(epochs=1))))
    seen: list[pl.DataFrame] = []

    def spy(given: pl.DataFrame, *others: Any) -> list[np.ndarray]:
        seen.append(given)
        return text_sequences(given, *others)

    monkeypatch.setattr(training, "text_sequences", spy)
    stage.main("bert")
    assert seen[0]["id"].to_list() == rows["id"][8:].to_list()
    told = read_json(Path("metrics/pretrain/bert.json"))
    assert told["epochs"] == 1 and told["perplexity_after"] < told["perplexity_before"]
    assert read_json(artifacts / "pretrained/bert/backbone.json")["sha256"]


def test_without_any_text_it_is_one_line(backbones: Path, lmsys: Competition, rows: pl.DataFrame) -> None:
    with pytest.raises(PodiumError, match="hold no text to train on"):
        sequences(rows.head(0), bert(backbones), lmsys)

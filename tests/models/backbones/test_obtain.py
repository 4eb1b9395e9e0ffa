from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from networks import HARD, obtained, published_deberta, scratch
from safetensors.torch import load_file
from support import ROOT, error_line, preference_rows, run_module, write_artifacts
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
)

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.corpus import training_texts
from pipeline.data.text import MARKERS
from pipeline.errors import PodiumError
from pipeline.models.backbones.obtain import family, obtain
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.settings.backbones import Folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A user's folder with a finished Llama."""
    obtained(scratch("llama"), tmp_path / "source")
    return tmp_path / "source"


def path(folder: Path) -> Folder:
    return Folder(source="path", path=str(folder))


def test_no_network_is_one_small_file_without_the_libraries(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from pipeline.models.backbones.obtain import obtain; import stages.backbone; "
        "from pipeline.settings.backbones import NoBackbone; "
        f"obtain('none', NoBackbone(source='none'), list, pathlib.Path({str(tmp_path)!r})); "
        "print(*{'torch', 'transformers', 'huggingface_hub', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert [file.name for file in tmp_path.iterdir()] == ["backbone.json"]
    assert json.loads((tmp_path / "backbone.json").read_text()) == {"family": "none", "sha256": ""}


def test_a_scratch_encoder_is_described_and_loads(tmp_path: Path) -> None:
    made = obtained(scratch("deberta-v3"), tmp_path / "made")
    network, report = AutoModel.from_pretrained(tmp_path / "made", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert made.pop("sha256")
    assert made == {
        "family": "encoder",
        "source": "scratch",
        "repository": None,
        "revision": None,
        "architecture": "deberta-v2",
        "hidden": 32,
        "layers": 1,
        "positions": None,
        "parameters": network.num_parameters(),
    }


def test_a_decoder_is_described_and_keeps_its_files(source: Path, tmp_path: Path) -> None:
    made = obtained(path(source), tmp_path / "made")
    assert (made["family"], made["positions"], made["hidden"]) == ("decoder", 64, 32)
    network, report = AutoModelForCausalLM.from_pretrained(tmp_path / "made", output_loading_info=True)
    assert not report["missing_keys"]
    assert made["parameters"] == network.num_parameters()
    for file in source.glob("*.safetensors"):
        assert (tmp_path / "made" / file.name).read_bytes() == file.read_bytes()
        # A copy: the user may write into his own file later.
        assert file.stat().st_nlink == 1


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    one = obtained(scratch("llama"), tmp_path / "one")
    two = obtained(scratch("llama"), tmp_path / "two")
    other = obtained(scratch("llama", seed=4), tmp_path / "other")
    assert one["sha256"] == two["sha256"] != other["sha256"]


def test_a_bin_checkpoint_becomes_fp32_safetensors(tmp_path: Path) -> None:
    published_deberta(tmp_path / "published")
    made = obtained(path(tmp_path / "published"), tmp_path / "made")
    halves = torch.load(tmp_path / "published" / "pytorch_model.bin", weights_only=True)
    tensors = load_file(tmp_path / "made" / "model.safetensors")
    assert made["family"] == "encoder"
    assert not list((tmp_path / "made").glob("*.bin"))
    for key, tensor in tensors.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, halves[f"deberta.{key}"].float())
    _, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "made", output_loading_info=True)
    assert all(key.startswith("cls.predictions.") for key in report["missing_keys"])


def test_a_sentencepiece_vocabulary_keeps_its_own_normalisation(tmp_path: Path) -> None:
    library = published_deberta(tmp_path / "published")
    obtained(path(tmp_path / "published"), tmp_path / "made")
    tokenizer = load_tokenizer(tmp_path / "made")
    unknown = tokenizer.unk_token_id
    for text in HARD:
        if "[" not in text:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert [i for i in ids if i != unknown] == [i for i in library.encode(text) if i != unknown], text
    plain = AutoTokenizer.from_pretrained(tmp_path / "published")
    # The class itself forgets it: should this fail one day, save_encoder_tokenizer may become shorter.
    assert plain("x²")["input_ids"] != tokenizer("x²")["input_ids"]


@pytest.mark.parametrize("published", [False, True])
def test_markers_are_tokens_of_their_own_and_ids_survive(published: bool, tmp_path: Path) -> None:
    settings = scratch("deberta-v3")
    if published:
        published_deberta(tmp_path / "published")
        settings = path(tmp_path / "published")
    obtained(settings, tmp_path / "made")
    tokenizer = load_tokenizer(tmp_path / "made")
    for marker in MARKERS:
        middle = tokenizer.convert_ids_to_tokens(tokenizer(f"an answer{marker}for example")["input_ids"])
        assert middle.count(marker) == 1
        assert marker not in tokenizer.all_special_tokens
    tokenizer.save_pretrained(tmp_path / "again")
    (tmp_path / "again" / "config.json").write_bytes((tmp_path / "made" / "config.json").read_bytes())
    assert load_tokenizer(tmp_path / "again")(HARD)["input_ids"] == tokenizer(HARD)["input_ids"]
    ids = tokenizer("an answer", "for example")["input_ids"]
    assert ids[0] == tokenizer.cls_token_id and ids.count(tokenizer.sep_token_id) == 2


def test_another_encoder_keeps_its_own_tokenisation(tmp_path: Path) -> None:
    bert = tmp_path / "bert"
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s"]
    BertForMaskedLM(BertConfig(vocab_size=len(words), **shape)).save_pretrained(bert)
    (bert / "vocab.txt").write_text("\n".join(words))
    (bert / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 500}')
    made = obtained(path(bert), tmp_path / "made")
    assert (made["family"], made["positions"]) == ("encoder", 500)
    tokenizer = load_tokenizer(tmp_path / "made")
    pair = tokenizer("Hello[NL]worlds", "hello")
    assert tokenizer.decode(pair["input_ids"]) == "[CLS] hello [NL] worlds [SEP] hello [SEP]"
    assert pair["token_type_ids"] == [0, 0, 0, 0, 0, 0, 1, 1]
    assert len(AutoModel.from_pretrained(tmp_path / "made").get_input_embeddings().weight) == len(words) + len(MARKERS)


def test_an_encoder_goes_through_twice_unchanged(tmp_path: Path) -> None:
    first = obtained(scratch("deberta-v3"), tmp_path / "first")
    second = obtained(path(tmp_path / "first"), tmp_path / "second")
    assert first["sha256"] == second["sha256"]


def test_rows_are_added_only_where_the_table_is_too_short(tmp_path: Path) -> None:
    obtained(scratch("deberta-v3"), tmp_path / "spare")
    rows = AutoModel.from_pretrained(tmp_path / "spare").get_input_embeddings().weight
    assert len(rows) > len(load_tokenizer(tmp_path / "spare"))
    network = AutoModel.from_pretrained(tmp_path / "spare")
    network.resize_token_embeddings(len(load_tokenizer(tmp_path / "spare")) - len(MARKERS))
    network.save_pretrained(tmp_path / "spare")
    one = obtained(path(tmp_path / "spare"), tmp_path / "one")
    two = obtained(path(tmp_path / "spare"), tmp_path / "two")
    assert one["sha256"] == two["sha256"]
    grown = AutoModel.from_pretrained(tmp_path / "one").get_input_embeddings().weight
    assert len(grown) == len(load_tokenizer(tmp_path / "one"))
    assert torch.equal(grown[: -len(MARKERS)], rows[: len(grown) - len(MARKERS)])


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        *((name, "encoder") for name in ("deberta-v2", "bert", "xlm-roberta", "modernbert")),
        *((name, "decoder") for name in ("llama", "gemma2", "qwen2", "mistral")),
    ],
)
def test_the_family_follows_from_the_config(architecture: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": architecture}))
    assert family(tmp_path) == expected


def removed(pattern: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for file in folder.glob(pattern):
            file.unlink()

    return remove


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def one_layer_more(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))


SHARDS = '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
FAULTS = [
    ("llama", removed("config.json"), "no config.json"),
    ("llama", removed("*.safetensors"), "no weights: expected one of model.safetensors, "),
    ("llama", removed("tokenizer*"), "no tokenizer: expected one of tokenizer.json, "),
    ("llama", written("tokenizer.json", "{}"), "its tokenizer does not load: "),
    ("llama", written("config.json", '{"model_type": "vit"}'), "config.json: model_type: expected a masked or causal"),
    (
        "llama",
        written("model.safetensors.index.json", SHARDS),
        "no weights: model.safetensors.index.json names model-00001-of-00002.safetensors, which is not there",
    ),
    ("llama", written("model.safetensors", "version https://git-lfs"), "its weights do not load: model.safetensors: "),
    ("deberta-v3", written("model.safetensors", "version https://git-lfs"), "its weights do not load: "),
    ("deberta-v3", one_layer_more, "its weights lack 16 tensors of the network, first encoder.layer.1."),
]


@pytest.mark.parametrize(("architecture", "damage", "expected"), FAULTS)
def test_a_faulty_folder_is_one_line(
    architecture: str, damage: Callable[[Path], object], expected: str, tmp_path: Path
) -> None:
    obtained(scratch(architecture), tmp_path / "mine")
    damage(tmp_path / "mine")
    with pytest.raises(PodiumError) as error:
        obtained(path(tmp_path / "mine"), tmp_path / "made")
    assert str(error.value).startswith(f"backbones.small: {tmp_path}/mine: {expected}")
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match=r"backbones\.small\.path: nowhere: no such folder"):
        obtained(path(Path("nowhere")), tmp_path / "made")


def test_a_tokenizer_without_any_end_cannot_pad(source: Path, tmp_path: Path) -> None:
    config = json.loads((source / "tokenizer_config.json").read_text())
    for key in ("pad_token", "eos_token"):
        config.pop(key)
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(PodiumError, match=r"backbones\.small: .*/source: its tokenizer has neither pad_token nor"):
        obtained(path(source), tmp_path / "made")


def test_a_tokenizer_of_another_decoder_is_one_line(source: Path, tmp_path: Path) -> None:
    obtained(scratch("llama", vocabulary=900), tmp_path / "larger")
    (source / "tokenizer.json").write_bytes((tmp_path / "larger" / "tokenizer.json").read_bytes())
    with pytest.raises(PodiumError, match=r"its tokenizer has \d+ tokens, its network knows 448 only"):
        obtained(path(source), tmp_path / "made")


def test_empty_text_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match="no text outside the holdout"):
        obtain("small", scratch("llama"), lambda: [""], tmp_path)


def test_the_texts_are_those_outside_the_holdout(lmsys: Competition, tmp_path: Path) -> None:
    rows, folds = preference_rows(40), np.arange(40) % 4 - 1
    artifacts = Artifacts(write_artifacts(tmp_path, rows, lmsys, folds))
    texts = training_texts(artifacts.seen_rows(), lmsys.kind)
    assert len(texts) == len(set(texts)) and "" not in texts
    kept = rows.filter(folds != HOLDOUT)
    assert set(texts) == {turn[0] for field in lmsys.kind.fields for turn in kept[field]} - {""}
    pl.read_parquet(artifacts.folds_file).reverse().write_parquet(artifacts.folds_file)
    with pytest.raises(PodiumError, match=r"folds\.parquet: its ids are not those of .*train\.parquet"):
        artifacts.seen_rows()


@pytest.mark.slow
def test_the_stage_builds_from_the_training_rows_and_names_an_unknown_backbone(
    lmsys: Competition, tmp_path: Path
) -> None:
    rows = preference_rows(60)
    write_artifacts(tmp_path, rows, lmsys, np.arange(60) % 4 - 1)
    small = json.dumps(asdict(scratch("deberta-v3")))
    text = (ROOT / "params.yaml").read_text().replace("backbones:\n", f"backbones:\n  small: {small}\n")
    (tmp_path / "params.yaml").write_text(text)
    finished = run_module("stages.backbone", "--backbone", "small", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("small: encoder deberta-v2, 1 layers of 32, 0.0 million parameters, any length")
    assert json.loads((tmp_path / "artifacts/backbones/small/backbone.json").read_text())["family"] == "encoder"
    unknown = run_module("stages.backbone", "--backbone", "smal", cwd=tmp_path)
    assert error_line(unknown) == 'error: params.yaml: backbones: no backbone "smal" (did you mean "small"?)'

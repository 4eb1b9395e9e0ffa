"""Our attention of deberta-v3-large beside those of disentangled-flash and flashdeberta, where these are installed.

python -m benchmarks.gpu --parts rivals        # pip install disentangled-flash==1.1.1 flashdeberta==0.0.8

Both are Triton kernels for compute capability 8.0 and newer; their first call of each shape, which compiles, is not
counted. disentangled-flash keeps the keys and queries of all distances from one call to the next where it only
answers; ours computes them in every call. flashdeberta drops no attention probabilities, so its backward does less.
"""

from __future__ import annotations

import copy
from functools import partial
from importlib import import_module
from typing import Any

import torch
from transformers import DebertaV2Config, DebertaV2Model

from benchmarks.gpu.attention import compared
from benchmarks.gpu.bench import Bench, Row, rounded, tried
from benchmarks.gpu.parts import missing
from benchmarks.speed.attention import DROPOUT, attention_call, embedded
from benchmarks.speed.networks import deberta
from pipeline.models.backbones.loading import DTYPES
from pipeline.models.deberta.disentangled import use_fast_attention

HEAD = 64
"""Width of a head of DeBERTa; disentangled-flash takes 32, 64 and 128."""
PRECISION = "bf16"
"""Each kernel is compiled for each precision and length, which takes most of the time."""


def rivals(bench: Bench) -> None:
    """A row for each rival, length and way: milliseconds of both, and how far its answer lies from transformers'."""
    shape = bench.config("deberta-v3-large")
    torch.manual_seed(0)
    config = DebertaV2Config(**deberta(shape["hidden_size"], shape["hidden_size"] // HEAD, 1, DROPOUT))
    network = DebertaV2Model(config).to(bench.device, DTYPES[PRECISION])
    for name, way_of in (("disentangled_flash", disentangled_flash), ("flashdeberta", flashdeberta)):
        for length in bench.by_worth:
            for way in ("both", "forward"):
                facts = {"rival": name.replace("_", "-"), "precision": PRECISION, "tokens": length, "way": way}
                tried(bench, facts, partial(_compared, bench, network, name, way_of, length, way))


def _compared(bench: Bench, network: Any, name: str, way_of: Any, length: int, way: str) -> Row:
    if missing((name,)):
        return {"failed": "not measured: not installed"}
    rival = way_of(copy.deepcopy(network), bench, way)
    pair = {"ours": use_fast_attention(copy.deepcopy(network)), "theirs": rival}
    apart = {who: _apart(bench, network, each, length, way) for who, each in pair.items()}
    count, found = compared(bench, pair, length, way)
    ours, theirs = found["ours"], found["theirs"]
    row: Row = {"rows": count, "rival ms": theirs["ms"], "ours ms": ours["ms"]}
    row["times faster"] = rounded(theirs["ms"] / ours["ms"])
    if bench.on_gpu:
        row |= {"rival GB": theirs["gb"], "ours GB": ours["gb"]}
    return row | {"rival apart": rounded(apart["theirs"]), "ours apart": rounded(apart["ours"])}


def disentangled_flash(network: Any, bench: Bench, way: str) -> Any:
    """Gives a DebertaV2Model its attention, of inference or of training; on a CPU the library's plain one.

    Raises: RuntimeError where the library leaves transformers' attention in place.
    """
    library = import_module("disentangled_flash")
    backend = "triton" if bench.on_gpu else "torch"
    if way == "both":
        network = library.optimize_deberta_training(network.train(), backend=backend)
    else:
        network = library.optimize_deberta(network.eval(), backend=backend)
    if getattr(network.encoder, "backend", None) != backend:
        raise RuntimeError("disentangled-flash leaves transformers' attention in place here")
    return network


def flashdeberta(network: Any, bench: Bench, way: str) -> Any:
    """Gives a DebertaV2Model its attention, which has the same weights under another forward pass."""
    library = import_module("flashdeberta")
    for layer in network.encoder.layer:
        layer.attention.self.__class__ = library.FlashDisentangledSelfAttention
    return network


def _apart(bench: Bench, network: Any, other: Any, length: int, way: str) -> float:
    """How far its answers lie from those of transformers in fp32, relatively, without dropout."""
    ids = torch.randint(4, 1000, (2, length), device=bench.device)
    mask = torch.ones_like(ids)
    mask[-1, -length // 16 :] = 0
    exact = copy.deepcopy(network).float().eval()
    with torch.no_grad():
        answers = []
        for each in (exact, other.eval()):
            states = embedded(exact, ids, mask).to(next(each.parameters()).dtype)
            answers.append(attention_call(each, states, mask)().float() * mask[..., None])
    return float((answers[1] - answers[0]).norm() / answers[0].norm())

"""What a GPU would do, on a machine without one: its decisions, its dtypes, what stays in memory, what the host asks.

Nothing here is a GPU. What lies on `cuda:0` lies on the CPU; autocast and bitsandbytes are those of a CPU, told to go
the ways that they go on a GPU; the meta device has shapes and dtypes, and no values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import bitsandbytes
import pytest
import torch
from bitsandbytes.autograd._functions import MatMul8bitLt
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.models.backbones import loading
from pipeline.models.backbones.deberta_v3 import DEBERTA_V3
from pipeline.models.deberta import disentangled

GPU = "cuda:0"

TINY = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = TINY | {"num_key_value_heads": 2, "max_position_embeddings": 256, "attention_dropout": 0.0}
CONFIGS: dict[str, dict[str, Any]] = {
    "deberta-v3": DEBERTA_V3 | TINY,
    "llama-3": GROUPED
    | {
        "model_type": "llama",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        "attention_bias": False,
        "tie_word_embeddings": False,
    },
    "gemma-2": GROUPED
    | {
        "model_type": "gemma2",
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 16,
        "sliding_window": 16,
    },
    "qwen-2.5": GROUPED
    | {
        "model_type": "qwen2",
        "hidden_act": "silu",
        "rope_theta": 1e6,
        "use_sliding_window": False,
        "sliding_window": 64,
    },
    "qwen-3": GROUPED
    | {"model_type": "qwen3", "hidden_act": "silu", "head_dim": 16, "rope_theta": 1e6, "attention_bias": False},
    "modernbert": TINY
    | {
        "model_type": "modernbert",
        "global_attn_every_n_layers": 2,
        "local_attention": 16,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "hidden_activation": "gelu",
        "norm_eps": 1e-5,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
}
"""Small networks with the keys of the published ones' config.json."""


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets code ask for GPU as a device: what it puts there stays where it is."""
    load, move = loading.AutoModel.from_pretrained, nn.Module.to

    def loaded(*given: Any, device_map: dict[str, str] | None = None, **options: Any) -> Any:
        return load(*given, **options | ({"device_map": {"": "cpu"}} if device_map else {}))

    def moved(network: nn.Module, *given: Any, **options: Any) -> nn.Module:
        return network if given == (GPU,) else move(network, *given, **options)

    monkeypatch.setattr(loading.AutoModel, "from_pretrained", loaded)
    monkeypatch.setattr(nn.Module, "to", moved)


def lead_to_gpu_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets peft see a CPU's autocast as it sees a GPU's, and bitsandbytes multiply 8 bits as it does on a GPU."""
    enabled = torch.is_autocast_enabled

    def product(
        left: Tensor, right: Tensor, out: Any = None, state: Any = None, threshold: float = 0.0, bias: Any = None
    ) -> Tensor:
        answer: Tensor = MatMul8bitLt.apply(left, right, out, bias, state)
        return answer

    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device="cpu": enabled(device))
    monkeypatch.setattr(bitsandbytes, "matmul", product)


@contextmanager
def one_device_each(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets every operation fail whose tensors lie on several devices, as a GPU would; `meta` stands for that.

    PyTorch's fake tensors look after it: its meta device alone takes products with what lies on the CPU. Fake ones on
    `cuda` can be neither indexed nor copied where PyTorch has been built for CPUs.
    """
    asked = disentangled.slots_of.__wrapped__

    def slots_of(*given: Any) -> Any:
        with unset_fake_temporarily():  # it asks numbers of its own, on the host
            return asked(*given)

    monkeypatch.setattr(disentangled, "slots_of", slots_of)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


UNORDERED = re.compile(
    r"(put_?|histc|median|nanmedian|kthvalue|_embedding_bag.*|nll_loss2d.*|_ctc_loss.*|max_unpool.*|grid_sampler.*)$"
    r"|(avg_pool3d|_?adaptive_.*|fractional_.*|upsample_.*|reflection_pad.*)_backward$"
)
"""Operations that have no deterministic form on a GPU, as `torch.use_deterministic_algorithms` lists them; and `cumsum`
of what is no integer, `bincount` with weights. A run that asks for equal bits would end at one."""


class Watch(TorchDispatchMode):
    """Sees every operation: in which dtypes products are taken, which results are still in memory, and which operations
    a GPU does in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[tuple[torch.dtype, ...]] = Counter()
        """Dtypes of both factors -> products."""
        self.unordered: set[str] = set()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        found = func(*args, **(kwargs or {}))
        factors = [each for each in tree_leaves(args) if isinstance(each, Tensor) and each.is_floating_point()]
        name = func.overloadpacket.__name__
        summed = name == "cumsum" and (args[0].is_floating_point() or (kwargs or {}).get("dtype") is not None)
        if UNORDERED.match(name) or summed or (name == "bincount" and len(args) > 1):
            self.unordered.add(name)
        # A factor of one row or column is no matrix product: rotary embeddings take one in fp32, on purpose.
        if name in ("mm", "bmm", "addmm", "baddbmm") and min(factors[-1].shape[-2:]) > 1 and factors[-2].shape[-1] > 1:
            self.products[factors[-2].dtype, factors[-1].dtype] += 1
        for each in tree_leaves(found):
            if isinstance(each, Tensor) and id(each) not in given:
                storage = each.untyped_storage()
                self._made.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        return found

    def alive(self) -> int:
        """Bytes of all results that somebody still holds."""
        return sum(size for reference, size in self._made.values() if not reference.expired())


QUESTIONS = ("item", "tolist", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__")
"""Methods of a tensor for which the host waits until a GPU has computed it; `numpy` needs `cpu` there."""
SIZES = ("nonzero", "masked_select", "unique_consecutive", "_unique2", "unique_dim", "bincount", "repeat_interleave")
"""Operations whose answer's size depends on values, which the host has to wait for."""


class Sizes(TorchDispatchMode):
    """Counts those operations, wherever they are called, and what is indexed by a mask, which is one of them."""

    def __init__(self, asked: Counter[str]) -> None:
        super().__init__()
        self.asked, self.inside = asked, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = isinstance(args[1], list | tuple) if name in ("index", "index_put", "index_put_") else False
        masked = masks and any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])
        sized = name in SIZES and (name != "repeat_interleave" or not (kwargs or {}).get("output_size"))
        if (masked or sized) and not self.inside and not any(map(torch.is_inference, tree_leaves(args[0]))):
            self.asked["a mask as index" if masked else name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def questions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts what the host asks of tensors: where they lay on a GPU, it would wait for each."""
    asked: Counter[str] = Counter()
    sizes = Sizes(asked)

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensor: Tensor, *given: Any, **options: Any) -> Any:
            if sizes.inside or torch.is_inference(tensor):
                return method(tensor, *given, **options)
            asked[name] += 1
            sizes.inside = True  # `tolist` may call `item`: it is one question
            try:
                return method(tensor, *given, **options)
            finally:
                sizes.inside = False

        return call

    with monkeypatch.context() as patched, sizes:
        for name in QUESTIONS:
            patched.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
        yield asked

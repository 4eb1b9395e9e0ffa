"""A local decoder that writes: transformers' generate in batches, the same bits for the same seed on a CPU.

It needs the network's language head, so a folder in Hugging Face layout, or a backbone of params.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from pipeline.data.prompt import answer_tokens, frame
from pipeline.data.tokenise import plain
from pipeline.errors import PodiumError
from pipeline.generation.replies import first_object
from pipeline.inference.network_member import available_devices
from pipeline.models.backbones.language_head import language_head
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.backbones.obtain import DECODER, complete, family, positions
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.training.devices.device import resolve_precision

JUDGED_TOKENS = 4096
"""Tokens of a batch that is judged, padding included."""


@dataclass(frozen=True)
class Generator:
    """A network with its language head."""

    name: str
    network: Any
    tokenizer: Any
    device: str

    @property
    def limit(self) -> int | None:
        """The longest sequence that it reads; None where there is no limit."""
        return positions(self.network.config, self.tokenizer)

    def write(
        self, asked: list[tuple[str, str]], seed: int, *, temperature: float, top_p: float, tokens: int
    ) -> list[str | None]:
        """Returns the reply to each (prompt, how the reply begins), its beginning included, in one batch.

        A reply of at most `tokens` new tokens ends with its first whole JSON object. temperature 0 takes the likeliest
        token. None where a prompt and its reply are longer than the network reads.
        """
        prompts = self._prompts(asked)
        fits = [self.limit is None or len(ids) + tokens <= self.limit for ids in prompts]
        chosen = [place for place, each in enumerate(fits) if each]
        replies: list[str | None] = [None] * len(asked)
        if not chosen:
            return replies
        ids, mask = self._padded([prompts[place] for place in chosen])
        ends = self.network.generation_config.eos_token_id
        how = GenerationConfig(
            do_sample=temperature > 0,
            **({"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}),
            max_new_tokens=tokens,
            use_cache=True,
            pad_token_id=self._padding,
            eos_token_id=self.tokenizer.eos_token_id if ends is None else ends,
        )
        stop = _Whole([asked[place][1] for place in chosen], ids.shape[1], self.tokenizer)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            found = self.network.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=how,
                stopping_criteria=StoppingCriteriaList([stop]),
            )
        for place, row in zip(chosen, found[:, ids.shape[1] :], strict=True):
            replies[place] = asked[place][1] + _text(self.tokenizer, row)
        return replies

    def yes(self, texts: list[str]) -> np.ndarray:
        """Returns (texts,) how likely it answers each prompt with Yes and not with No, NaN where one is too long.

        Raises: PodiumError where its tokenizer has no token for them.
        """
        answers = answer_tokens(self.tokenizer, ["Yes", "No"], bool(frame(self.tokenizer)[1]))
        if None in answers:
            raise PodiumError(f"{self.name}: its tokenizer has no token of its own for Yes or No: take another judge")
        prompts = self._prompts([(text, "") for text in texts])
        found = np.full(len(texts), np.nan)
        fits = [n for n, each in enumerate(prompts) if self.limit is None or len(each) <= self.limit]
        order = sorted(fits, key=lambda n: len(prompts[n]))
        while order:
            batch = order[-max(1, JUDGED_TOKENS // len(prompts[order[-1]])) :]
            del order[-len(batch) :]
            ids, mask = self._padded([prompts[n] for n in batch])
            with torch.inference_mode():
                logits = self.network(
                    input_ids=ids, attention_mask=mask, position_ids=_positions(mask), logits_to_keep=1
                ).logits[:, -1, answers]
            found[batch] = logits.float().softmax(dim=1)[:, 0].cpu().numpy()
        return found

    @property
    def _padding(self) -> int:
        own = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if own is None else own)

    def _prompts(self, asked: list[tuple[str, str]]) -> list[list[int]]:
        """Returns the ids of each prompt under the chat template, and of how its reply begins; special tokens' names in
        them are text."""
        before, after = frame(self.tokenizer)
        start = self.tokenizer.encode(before, add_special_tokens=False)
        if not after and self.tokenizer.bos_token_id is not None:
            start = [self.tokenizer.bos_token_id, *start]
        end = self.tokenizer.encode(after or "\n\n", add_special_tokens=False)
        with plain(self.tokenizer) as backend:
            texts, begins = ([*backend.ids(pl.Series(each, dtype=pl.String))] for each in zip(*asked, strict=True))
        return [[*start, *text.tolist(), *end, *begin.tolist()] for text, begin in zip(texts, begins, strict=True)]

    def _padded(self, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Returns (prompts, longest) ids, padded on the left, and their mask."""
        width = max(map(len, prompts))
        ids = [[self._padding] * (width - len(each)) + each for each in prompts]
        mask = [[0] * (width - len(each)) + [1] * len(each) for each in prompts]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)


def open_decoder(name: str, folder: Path, precision: str, threads: int) -> Generator:
    """Returns the decoder in `folder`, in `precision`; `auto` is fp32 on a CPU, and on a GPU what it computes with.

    Raises: PodiumError where there is none.
    """
    complete(folder)
    if family(folder) != DECODER:
        raise PodiumError(f"{folder}: expected a decoder, which writes, found an encoder")
    language_head(folder, np.zeros(1, dtype=np.int64))  # else transformers would draw one at random
    torch.set_num_threads(threads)
    device = available_devices()[0]
    if precision == "auto":
        precision = "fp32" if device == "cpu" else resolve_precision("auto")[0]
    # Masks for right padding and our dropout are for members; prompts here are padded on the left.
    network = load_backbone(folder, precision, device, attention="huggingface", head=True)
    return Generator(name, network, load_tokenizer(folder), device)


class _Whole(StoppingCriteria):
    """Ends a reply with its first whole JSON object."""

    def __init__(self, begins: list[str], width: int, tokenizer: Any) -> None:
        self.begins, self.width, self.tokenizer = begins, width, tokenizer
        self.done = [False] * len(begins)

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        for row, last in enumerate(input_ids[:, -1].tolist()):
            if not self.done[row] and "}" in self.tokenizer.decode([last]):
                text = self.begins[row] + _text(self.tokenizer, input_ids[row, self.width :])
                self.done[row] = first_object(text) is not None
        return torch.tensor(self.done, device=input_ids.device)


def _text(tokenizer: Any, ids: Tensor) -> str:
    text: str = tokenizer.decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _positions(mask: Tensor) -> Tensor:
    """Returns the place of each token in its text, whatever padding stands before it."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)

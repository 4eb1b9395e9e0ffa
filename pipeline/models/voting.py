"""One network with several sets of weights that vote: the mean of their answers (DENI's last children)."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import logsigmoid

from pipeline.competitions.family import Categorical, Family, Gaussian
from pipeline.errors import PodiumError

VOTERS = "voters.safetensors"


class Committee(nn.Module):
    """Answers with the logits of the mean answer of `network` and of the same with each of `voters`' weights."""

    def __init__(self, network: nn.Module, voters: list[dict[str, Tensor]], family: Family) -> None:
        super().__init__()
        self.network, self.names, self.family = network, [list(each) for each in voters], family
        for number, voter in enumerate(voters):
            for place, weight in enumerate(voter.values()):
                self.register_buffer(_buffer(number, place), weight, persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns (sequences, length) ids and mask -> (rows, outputs) float32 logits."""
        answers = [self.network(input_ids, attention_mask)]
        for number, names in enumerate(self.names):
            weights = {name: self.get_buffer(_buffer(number, place)) for place, name in enumerate(names)}
            answers.append(functional_call(self.network, weights, (input_ids, attention_mask)))
        every = torch.stack(answers).float()
        if isinstance(self.family, Gaussian):
            return every.mean(dim=0)
        if isinstance(self.family, Categorical):
            return torch.logsumexp(every.log_softmax(dim=2), dim=0) - math.log(len(answers))
        return torch.logsumexp(logsigmoid(every), dim=0) - torch.logsumexp(logsigmoid(-every), dim=0)


def save_voters(voters: list[dict[str, Tensor]], dtype: torch.dtype | None, folder: Path) -> None:
    """Writes the weights into `folder`, in `dtype` or as they are; nothing where there are none."""
    tensors = {
        f"{number} {name}": (each.to(dtype) if dtype else each).detach().cpu().contiguous()
        for number, voter in enumerate(voters)
        for name, each in voter.items()
    }
    if tensors:
        save_file(tensors, folder / VOTERS)


def with_voters(network: nn.Module, folder: Path, count: int, family: Family) -> nn.Module:
    """Returns `network`, or the committee of it and the `count` voters in `folder`, which compute in its dtypes.

    Raises: PodiumError where the file does not fit.
    """
    if not count:
        return network
    file = folder / VOTERS
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise PodiumError(f"{file}: not readable: {' '.join(str(error).split())[:200]}") from error
    voters: list[dict[str, Tensor]] = [{} for _ in range(count)]
    own = dict(network.named_parameters())
    for key, each in tensors.items():
        number, name = key.split(" ", 1)
        if name not in own or own[name].shape != each.shape or int(number) >= count:
            raise PodiumError(f"{file}: does not fit its network: {key}")
        voters[int(number)][name] = each.to(own[name].dtype)
    if not all(voters):
        raise PodiumError(f"{file}: expected {count} voters, found {sum(map(bool, voters))}")
    return Committee(network, voters, family)


def _buffer(number: int, place: int) -> str:
    return f"voter{number}_{place}"

"""The prompt of a decoder that answers in tokens: the chat template, the question, and the few tokens that answer it.

A row is asked one question, or one per label; of options each is asked about on its own, so that their order means
nothing. The member reads the probabilities of the answer tokens where the network would begin its reply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BEGINNING = "Read this, then answer the question at the end."
"""Stands first where the competition has no `prompt` of its own."""
PLACE = "\N{WHITE SQUARE}\N{WHITE SQUARE}"
"""Stands for the user's message while the chat template is taken apart."""


@dataclass(frozen=True)
class Question:
    """What is asked at the end of a prompt."""

    text: str
    answers: list[int]
    """The token of each class or score, in their order; else of yes and of no."""


@dataclass(frozen=True)
class Prompt:
    """What stands around a row's texts, as token ids (int32), and the tokens that answer."""

    start: np.ndarray
    ends: tuple[np.ndarray, ...]
    """One per question."""
    answers: np.ndarray
    """(questions, answers) int64: the same answers to every question."""


def question_count(competition: Competition) -> int:
    """Returns how many questions a row's texts are asked."""
    return len(competition.outputs) if competition.outcome == "labels" else 1


def prompt_of(tokenizer: Any, competition: Competition) -> Prompt:
    """Returns the prompt that a competition's rows stand in, under the tokenizer's chat template where it has one.

    Raises: PodiumError where the outcome has no answers that are one token each.
    """
    before, after = frame(tokenizer)
    asked = _questions(competition, tokenizer, bool(after))

    def ids(text: str) -> np.ndarray:
        return np.array(tokenizer.encode(text, add_special_tokens=False), dtype=np.int32)

    start = ids(before + (competition.prompt or BEGINNING))
    if not after and tokenizer.bos_token_id is not None:
        start = np.concatenate([np.array([tokenizer.bos_token_id], dtype=np.int32), start])
    ends = tuple(ids(f"\n\n{question.text}{after or chr(10) * 2 + 'Answer:'}") for question in asked)
    return Prompt(start, ends, np.array([question.answers for question in asked], dtype=np.int64))


def frame(tokenizer: Any) -> tuple[str, str]:
    """Returns what the chat template puts before and after a user's message; nothing where there is no template."""
    if not getattr(tokenizer, "chat_template", None):
        return "", ""
    message = [{"role": "user", "content": PLACE}]
    try:
        # Qwen3's template leaves the thinking out where it is told so; others take no notice.
        whole = tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    except Exception as error:  # whatever somebody's template raises
        raise PodiumError(f"the tokenizer's chat template fails: {' '.join(str(error).split())[:200]}") from None
    before, found, after = whole.partition(PLACE)
    if not found or not after:
        raise PodiumError("the tokenizer's chat template leaves the user's message, or the place to answer, out")
    return before, after


def _questions(competition: Competition, tokenizer: Any, chat: bool) -> list[Question]:
    """Returns what a row's texts are asked, in the order of the labels where there are several."""
    outcome, names = competition.outcome, competition.outputs
    if outcome == "numbers":
        raise PodiumError("head tokens: numbers have no tokens to answer with; use another head")
    if outcome == "choice":
        return [_named("Is this option the right one?", ["Yes", "No"], tokenizer, chat)]
    if outcome == "labels":
        asked = (f'Is "{name.replace("_", " ")}" true of it?' for name in names)
        return [_named(text, ["Yes", "No"], tokenizer, chat) for text in asked]
    if outcome == "ordered":
        scores = [*map(str, competition.scores)]
        return [_named(f"Which score does it get, from {scores[0]} to {scores[-1]}?", scores, tokenizer, chat)]
    if competition.task == "preference":
        tie = " Or are they equally good (C)?" if len(names) == 3 else ""
        text = f"Which answer is better, A or B?{tie} Answer with the letter."
        return [_answered(text, LETTERS[: len(names)], tokenizer, chat)]
    return [_named("Which class is it?", list(competition.label_values), tokenizer, chat)]


def _named(text: str, names: list[str], tokenizer: Any, chat: bool) -> Question:
    """Returns a question that is answered with one of `names`, or with a letter where these are not one token each."""
    if None not in (tokens := answer_tokens(tokenizer, names, chat)):
        return Question(
            f"{text} Answer with {', '.join(names[:-1])} or {names[-1]}.",
            [token for token in tokens if token is not None],
        )
    if len(names) > len(LETTERS):
        raise PodiumError(f"head tokens: at most {len(LETTERS)} classes have a letter each, found {len(names)}")
    legend = "\n".join(f"{letter}: {name}" for letter, name in zip(LETTERS, names, strict=False))
    return _answered(f"{text} Answer with its letter.\n{legend}", LETTERS[: len(names)], tokenizer, chat)


def _answered(text: str, letters: str, tokenizer: Any, chat: bool) -> Question:
    """Returns a question that letters answer. Raises: PodiumError where one has no token of its own."""
    found: list[int] = []
    for letter, token in zip(letters, answer_tokens(tokenizer, [*letters], chat), strict=True):
        if token is None:
            raise PodiumError(f'head tokens: the tokenizer has no token of its own for "{letter}"; use another head')
        found.append(token)
    return Question(text, found)


def answer_tokens(tokenizer: Any, answers: list[str], chat: bool) -> list[int | None]:
    """Returns the token that each answer is, None where it is more than one or another's; without a template a blank
    goes before it."""
    found: list[int | None] = []
    for answer in answers:
        asked = [answer] if chat else [f" {answer}", answer]
        each = (tokenizer.encode(text, add_special_tokens=False) for text in asked)
        single = (ids[0] for ids in each if len(ids) == 1 and ids[0] not in (tokenizer.unk_token_id, *found))
        found.append(next(single, None))
    return found

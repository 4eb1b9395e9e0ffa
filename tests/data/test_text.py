from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.data.rows import swapped
from pipeline.data.text import (
    CUT,
    LEAST,
    NEWLINE,
    NO_ANSWER,
    STEPS,
    Encoded,
    Layout,
    _quotas,
    _sequence,
    encode,
    layouts,
    views_of,
)
from pipeline.models.backbones.tokenizer import load_tokenizer

LMSYS, SPOOKY = load_competition("lmsys"), load_competition("spooky")
PREFERENCE = LMSYS.kind
SHARES = {"prompt": 1, "a": 2, "b": 2}
FAMILIES = {"encoder": "bert", "decoder": "llama"}
turn = st.none() | st.text("ab \n[SEP]é", max_size=60) | st.just("word " * 40)
field = st.lists(turn, max_size=4)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session")
def tokenizers(backbones: Path) -> dict[str, Any]:
    return {family: load_tokenizer(backbones / "backbones" / name) for family, name in FAMILIES.items()}


def preference(*rows: tuple[Any, Any, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=dict.fromkeys(PREFERENCE.fields, pl.List(pl.String)), orient="row")


def single(*turns: str) -> pl.DataFrame:
    return pl.DataFrame({"text": [[each] for each in turns]}, schema={"text": pl.List(pl.String)})


def encoded(rows: pl.DataFrame, tokenizer: Any, family: str, width: int, siamese: bool = False) -> Encoded:
    return encode(rows, tokenizer, family, LMSYS if "a" in rows.columns else SPOOKY, siamese, width)


def plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def holds(ids: np.ndarray, piece: list[int]) -> bool:
    return f" {' '.join(map(str, piece))} " in f" {' '.join(map(str, ids))} "


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("siamese", [False, True])
@given(prompt=field, a=field, b=field, width=st.integers(16, 200))
@quick
def test_no_sequence_is_too_long_and_one_that_fits_is_untouched(
    family: str, siamese: bool, prompt: Any, a: Any, b: Any, width: int, tokenizers: dict[str, Any]
) -> None:
    rows = preference((prompt, a, b))
    whole = encoded(rows, tokenizers[family], family, 10**9, siamese)
    assert all(share == {"rows": 0, "tokens": 0} for share in whole.truncation.values())
    cut = encoded(rows, tokenizers[family], family, width, siamese)
    for wanted, found in zip(whole.ids, cut.ids, strict=True):
        assert len(found) <= width
        if len(wanted) <= width:
            assert np.array_equal(wanted, found)
        else:
            assert len(found) < len(wanted)
    fits = all(len(wanted) <= width for wanted in whole.ids)
    turns = [each for side in (prompt, a, b) for each in side]
    if fits or "" not in turns:  # an empty turn that is left out loses no token
        assert fits == all(share == {"rows": 0, "tokens": 0} for share in cut.truncation.values())
        assert list(cut.cut) == [not fits]
    assert list(whole.cut) == [False]


@given(prompt=field, a=field, b=field, width=st.integers(16, 100))
@quick
def test_swapped_sides_swap_the_two_sequences(
    prompt: Any, a: Any, b: Any, width: int, tokenizers: dict[str, Any]
) -> None:
    rows = preference((prompt, a, b))
    straight = encoded(rows, tokenizers["encoder"], "encoder", width, siamese=True)
    mirrored = encoded(swapped(rows, PREFERENCE), tokenizers["encoder"], "encoder", width, siamese=True)
    assert straight.views == 2 and len(straight) == 1
    assert np.array_equal(straight.ids[0], mirrored.ids[1])
    assert np.array_equal(straight.ids[1], mirrored.ids[0])
    assert list(straight.lengths()) == [max(map(len, straight.ids))]


@given(st.fixed_dictionaries({name: st.integers(0, 500) for name in ("prompt", "a", "b")}), st.integers(-5, 900))
@quick
def test_quotas_share_the_budget_and_no_more(whole: dict[str, int], budget: int) -> None:
    quotas = _quotas(whole, budget, SHARES)
    assert sum(quotas.values()) <= max(budget, 0)
    assert all(0 <= quotas[name] <= need for name, need in whole.items())
    if sum(whole.values()) <= budget:
        assert quotas == whole
    else:
        # All of it, but for what whole numbers leave over.
        assert sum(quotas.values()) >= max(budget, 0) - 3
    if whole["a"] == whole["b"]:
        assert quotas["a"] == quotas["b"]


def shown(turns: list[list[int]], quota: int, around: int, marks: list[np.ndarray]) -> list[list[int] | None]:
    """A field's turns as its quota allows them, said turn by turn: whole, cut, or None."""
    said: list[list[int] | None] = []
    for number, turn in enumerate(turns):
        left = quota - sum(len(later) + around for later in turns[number + 1 :])
        room = left - around - max(map(len, marks))
        if left < 0:  # a later one is cut
            said.append(None)
        elif len(turn) + around <= left:
            said.append(turn)
        elif room >= (1 if number == len(turns) - 1 else LEAST):
            tail = room // 2
            mark = marks[max([0, *(i for i, step in enumerate(STEPS) if step <= len(turn) - room)])]
            said.append([*turn[: room - tail], *mark.tolist(), *turn[len(turn) - tail :]])
        else:
            said.append(None)
    return said


@given(
    lengths=st.fixed_dictionaries({name: st.lists(st.integers(0, 40), max_size=3) for name in PREFERENCE.fields}),
    sizes=st.tuples(*[st.integers(0, 4)] * 4),
    mark=st.integers(1, 7),
    width=st.integers(0, 200),
)
@settings(quick, max_examples=500)
def test_a_sequence_is_what_the_rules_say_token_by_token(
    lengths: dict[str, list[int]], sizes: tuple[int, ...], mark: int, width: int
) -> None:
    def numbers(kind: int, count: int) -> np.ndarray:
        return np.arange(count, dtype=np.int32) + 1000 * kind

    start, opening, closing, end = sizes
    openings = {name: numbers(number + 2, opening) for number, name in enumerate(lengths)}
    marks = [numbers(number + 10, 1 + number % mark) for number in range(len(STEPS))]
    form = Layout(numbers(1, start), openings, numbers(5, 1 + closing), numbers(6, end), marks, SHARES)
    turns = {
        name: [numbers(100 + 10 * place + turn, length) for turn, length in enumerate(each)]
        for place, (name, each) in enumerate(lengths.items())
    }
    around = opening + 1 + closing
    whole = {name: sum(each) + around * len(each) for name, each in lengths.items()}
    quotas = _quotas(whole, width - start - end, SHARES)
    said = {name: shown([t.tolist() for t in each], quotas[name], around, marks) for name, each in turns.items()}
    expected = form.start.tolist()
    for number in range(3):
        for name in turns:
            if said[name][number:] and (turn := said[name][number]) is not None:
                expected += [*openings[name].tolist(), *turn, *form.closing.tolist()]
    counts = {name: np.zeros(4, dtype=np.int64) for name in turns}
    ids, lost = _sequence(turns, form, width, counts)
    assert ids.dtype == np.int32 and ids.tolist() == expected + form.end.tolist()
    kept = {name: sum(each >= 100_000 for turn in said[name] for each in turn or []) for name in turns}
    missing = {name: sum(each) - kept[name] for name, each in lengths.items()}
    assert lost == sum(missing.values())
    for name, count in counts.items():
        assert count.tolist() == [1, missing[name] > 0, sum(lengths[name]), missing[name]]


@pytest.mark.parametrize("family", FAMILIES)
@given(words=st.integers(1, 700), width=st.integers(48, 120))
@quick
def test_a_cut_turn_keeps_head_and_tail_around_a_mark_that_never_exaggerates(
    family: str, words: int, width: int, tokenizers: dict[str, Any]
) -> None:
    tokenizer = tokenizers[family]
    text = " ".join(f"w{number}" for number in range(words))
    ids, form = plain(tokenizer, text), layouts(tokenizer, family, SPOOKY, ("text",))[0]
    (found,) = encoded(single(text), tokenizer, family, width).ids
    opening, closing = form.opening["text"], form.closing
    body = list(found[len(form.start) + len(opening) : len(found) - len(closing) - len(form.end)])
    if len(ids) + len(opening) + len(closing) + len(form.start) + len(form.end) <= width:
        assert body == ids
        return
    shown = [
        (step, begin)
        for step, mark in zip(STEPS, form.marks, strict=True)
        for begin in range(len(body))
        if body[begin : begin + len(mark)] == list(mark)
    ]
    assert len(shown) == 1
    step, begin = shown[0]
    length = len(form.marks[STEPS.index(step)])
    head, tail = body[:begin], body[begin + length :]
    assert head == ids[: len(head)] and tail == ids[len(ids) - len(tail) :]
    assert 0 <= len(head) - len(tail) <= 1
    missing = len(ids) - len(head) - len(tail)
    assert step <= missing < 10 * step
    assert tokenizer.decode(form.marks[0]).count("1") == 1


@pytest.mark.parametrize("family", FAMILIES)
@given(lengths=st.lists(st.integers(1, 80), min_size=2, max_size=5), width=st.integers(40, 200))
@quick
def test_the_last_turns_are_kept_first(family: str, lengths: list[int], width: int, tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers[family]
    turns = [" ".join([f"turn{number}"] + ["word"] * length) for number, length in enumerate(lengths)]
    rows = pl.DataFrame({"text": [turns]})
    (found,) = encoded(rows, tokenizer, family, width).ids
    whole = [holds(found, plain(tokenizer, text)) for text in turns]
    assert whole == sorted(whole)  # once a turn stands whole, all later ones do


def test_a_null_turn_says_so_and_an_empty_one_stays_empty(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["encoder"]
    null, empty = encoded(preference((["x"], [None], [""])), tokenizer, "encoder", 64, siamese=True).ids
    assert holds(null, plain(tokenizer, NO_ANSWER))
    sep = tokenizer.sep_token_id
    assert list(empty) == [tokenizer.cls_token_id, *plain(tokenizer, "x"), sep, sep]
    assert list(encoded(preference((None, None, None)), tokenizer, "encoder", 64).ids[0]) == [tokenizer.cls_token_id]


@given(lines=st.lists(st.text("ab", max_size=3), min_size=1, max_size=8), ending=st.sampled_from(["\n", "\r\n"]))
@quick
def test_line_breaks_survive(lines: list[str], ending: str, tokenizers: dict[str, Any]) -> None:
    for family, sign in (("encoder", NEWLINE), ("decoder", "\n")):
        tokenizer = tokenizers[family]
        form = layouts(tokenizer, family, SPOOKY, ("text",))[0]
        (ids,) = encoded(single(ending.join(lines)), tokenizer, family, 400).ids
        body = ids[len(form.start) + len(form.opening["text"]) : len(ids) - len(form.closing) - len(form.end)]
        assert tokenizer.decode(body).count(sign) == len(lines) - 1


@pytest.mark.parametrize(
    ("family", "typed"), [("encoder", "[SEP] [CLS][MASK] [PAD]［SEP］"), ("decoder", "<s> </s><s>")]
)
def test_a_special_tokens_name_in_a_text_is_text(family: str, typed: str, tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers[family]
    (quiet,) = encoded(single("hello"), tokenizer, family, 200).ids
    (ids,) = encoded(single(f"hello {typed}"), tokenizer, family, 200).ids
    special = [each for each in tokenizer.all_special_ids if each != tokenizer.unk_token_id]
    assert np.isin(ids, special).sum() == np.isin(quiet, special).sum()
    assert len(ids) > len(quiet) + 5


def test_turns_stand_in_the_conversations_order(tokenizers: dict[str, Any]) -> None:
    rows = preference((["one", "two"], ["alpha", "beta"], ["gamma", "delta"]))
    said = tokenizers["decoder"].decode(encoded(rows, tokenizers["decoder"], "decoder", 400).ids[0])
    places = [said.index(word) for word in ("one", "alpha", "gamma", "two", "beta", "delta", "Better answer:")]
    assert places == sorted(places)
    sides = encoded(rows, tokenizers["encoder"], "encoder", 400, siamese=True).ids
    assert "gamma" not in tokenizers["encoder"].decode(sides[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_report_tells_which_share_was_cut(family: str, tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers[family]
    texts = ["short", "word " * 100, "word " * 300, "short too"]
    width = 64
    found = encoded(single(*texts), tokenizer, family, width)
    form = layouts(tokenizer, family, SPOOKY, ("text",))[0]
    around = len(form.start) + len(form.opening["text"]) + len(form.closing) + len(form.end)
    total = [len(plain(tokenizer, text)) for text in texts]
    mark = max(map(len, form.marks))
    missing = sum(length - (width - around - mark) for length in total[1:3])
    assert found.truncation == {"text": {"rows": 0.5, "tokens": round(missing / sum(total), 4)}}


def test_the_report_counts_each_field_of_each_view(tokenizers: dict[str, Any]) -> None:
    rows = preference((["x"], ["word " * 200], ["y"]), (["x"], ["y"], ["y"]))
    found = encoded(rows, tokenizers["encoder"], "encoder", 64, siamese=True).truncation
    assert found["prompt"] == {"rows": 0, "tokens": 0} == found["b"]
    assert found["a"]["rows"] == 0.5 and 0.5 < found["a"]["tokens"] < 1


@pytest.mark.parametrize("siamese", [False, True])
def test_the_rows_that_are_cut_are_known(siamese: bool, tokenizers: dict[str, Any]) -> None:
    long = ["word " * 200]
    rows = preference((["x"], ["y"], ["y"]), (["x"], long, ["y"]), (["x"], ["y"], long), (long, ["y"], ["y"]))
    for asked in (rows, swapped(rows, PREFERENCE)):
        assert list(encoded(asked, tokenizers["encoder"], "encoder", 64, siamese).cut) == [False, True, True, True]
    assert encoded(rows.head(0), tokenizers["encoder"], "encoder", 64, siamese).cut.shape == (0,)


def test_the_marks_are_visible_tokens_of_their_own(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["encoder"]
    (ids,) = encoded(single("word " * 300), tokenizer, "encoder", 64).ids
    assert tokenizer.convert_ids_to_tokens(ids.tolist()).count(CUT) == 2


def competition(task: str, *fields: str, **more: Any) -> Competition:
    return replace(LMSYS, task=task, texts={name: name for name in fields}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "siamese", "views"),
    [
        (competition("text", "title", "full_body", outcome="numbers"), True, ["Title|Full body|Value:"]),
        (competition("pair", "a", "b", "topic", outcome="labels"), False, ["Text A|Text B|Topic|Labels:"]),
        (competition("pair", "topic", "a", "b", outcome="ordered"), True, ["Topic|Text|Score:"] * 2),
        (LMSYS, False, ["Prompt|Answer A|Answer B|Better answer:"]),
        (LMSYS, True, ["Prompt|Answer|Quality:"] * 2),
        (SPOOKY, False, ["Text|Class:"]),
        (
            competition("choices", "story", "one", "two", outcome="choice", options=("one", "two")),
            False,
            ["Story|Option|Correct:"] * 2,
        ),
    ],
    ids=lambda each: each.task if isinstance(each, Competition) else None,
)
def test_a_decoder_reads_what_each_field_is_and_what_is_asked(
    asked: Competition, siamese: bool, views: list[str], tokenizers: dict[str, Any]
) -> None:
    rows = pl.DataFrame({name: [[f"word{number}"]] for number, name in enumerate(asked.texts)})
    found = encode(rows, tokenizers["decoder"], "decoder", asked, siamese, 200)
    assert found.views == len(views) == len(views_of(asked.kind, siamese))
    fields = list(asked.texts)
    for ids, view, names in zip(found.ids, views, views_of(asked.kind, siamese), strict=True):
        *titles, question = view.split("|")
        body = [f"\n\n{title}:\nword{fields.index(name)}" for title, name in zip(titles, names, strict=True)]
        said = tokenizers["decoder"].decode(ids).removeprefix("<s>").strip()
        assert said == f"{''.join(body)}\n\n{question}".strip()


def test_sides_and_options_have_twice_the_share_of_other_fields(tokenizers: dict[str, Any]) -> None:
    asked = competition("choices", "story", "one", "two", outcome="choice", options=("one", "two"))
    assert layouts(tokenizers["encoder"], "encoder", asked, ("story", "two"))[0].shares == {"story": 1, "two": 2}
    assert layouts(tokenizers["encoder"], "encoder", LMSYS, ("prompt", "a", "b"))[0].shares == SHARES
    assert layouts(tokenizers["decoder"], "decoder", SPOOKY, ("text",))[0].shares == {"text": 1}

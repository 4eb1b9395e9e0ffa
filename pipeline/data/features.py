"""Text features: counts, shares and overlaps. Nothing is fitted, so that training and kernel compute the same numbers.

A row of two sides gets, for every measure of an answer, `a_*` and `b_*`, their difference `diff_*` and their log ratio
`ratio_*`, beside columns about the prompt and about the pair. When the sides change places, `a_*` and `b_*` change
places, `diff_*` and `ratio_*` change sign, and nothing else changes: to the last bit.
"""

from __future__ import annotations

import polars as pl

from pipeline.competitions.task import Task
from pipeline.data.rows import joined

# Counted in the text as it stands (Rust regular expressions; `(?m)` makes ^ and $ match at line ends).
MARKS = {
    "list_items": r"(?m)^[ \t]*[-*•+][ \t]",
    "numbered_items": r"(?m)^[ \t]*\d{1,3}[.)][ \t]",
    "table_rows": r"(?m)^[ \t]*\|",
    "headings": r"(?m)^#{1,6}[ \t]",
    "paragraph_breaks": r"\n[ \t]*\n",
    "code_blocks": r"```",
    "code_spans": r"`",
    "bold": r"\*\*",
    "quotes": r"[\"“”«»„]",
    "question_marks": r"[?？؟]",
    "exclamation_marks": r"[!！]",
    "commas": r"[,，、]",
    "colons": r"[:：]",
    "brackets": r"[(\[{（]",
    "sentence_ends": r"[.!?](?:\s|$)|[。！？]",
    "digits": r"\d",
    "capitals": r"\p{Lu}",
    "emoji": r"[\x{2600}-\x{27BF}\x{1F300}-\x{1FAFF}]",
}
# Counted in the text in lower case.
PHRASES = {
    "refusals": r"\b(?:i'm sorry|i am sorry|i cannot|i can't|i can not|unable to|not able to|as an ai|language model"
    r"|i do not have|i don't have|not appropriate|i'm just an)\b",
    "apologies": r"\b(?:sorry|apologi[sz]e|apologies|unfortunately|mistake|confusion)\b",
    "hedges": r"\b(?:may|might|perhaps|possibly|could|seems?|likely|generally|typically|usually|often|depends?"
    r"|however)\b",
    "connectives": r"\b(?:therefore|because|additionally|furthermore|moreover|overall|finally|first|second|example"
    r"|instance|conclusion|summary|also|while)\b",
    "first_person": r"\b(?:i|my|me|i'm|i've|i'll)\b",
    "second_person": r"\b(?:you|your|yours|you're)\b",
    "offers": r"\b(?:let me know|feel free|hope this helps|happy to help|i help you|assist you|would you like)\b",
}
# Shares of the characters of a text.
SCRIPTS = {
    "latin": r"\p{Latin}",
    "cyrillic": r"\p{Cyrillic}",
    "cjk": r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]",
    "other_script": r"[\p{Arabic}\p{Hebrew}\p{Devanagari}\p{Bengali}\p{Tamil}\p{Thai}\p{Greek}\p{Georgian}]",
}
ENGLISH = r"\b(?:the|of|and|to|in|is|that|for|it|with|as|on|are|this|be|by|an|or)\b"
EAGER = r"^\s*(?:sure|certainly|of course|absolutely|great|yes|hello|hi\b|thank)"
FINISHED = r"[.!?。！？:;)\]}\"'`”’|*>]\s*$"
BUDGETS = (256, 1024)
"""Words that the prompt and one answer may have together before a network with such an input would cut them."""
BATCH = 2048
"""Rows computed together: what is made on the way to them takes several times the memory of the texts."""
NOT_OF_PROMPTS = ("refusals", "apologies", "offers", "headings", "table_rows", "finished", "eager")


def mirrored_features(features: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Returns `text_features(swapped(rows))`, from `text_features(rows)` and without reading the texts again."""
    first, second = (f"{side}_" for side in task.sides or ())
    exchanged = {name: second + name.removeprefix(first) for name in features.columns if name.startswith(first)}
    exchanged |= {other: name for name, other in exchanged.items()}
    return features.select(
        -pl.col(name) if name.startswith(("diff_", "ratio_")) else pl.col(exchanged.get(name, name)).alias(name)
        for name in features.columns
    )


def text_features(rows: pl.DataFrame | pl.LazyFrame, task: Task) -> pl.DataFrame:
    """Returns Float32 features of each of `rows`, which have a List(String) column for each of `task.fields`.

    No value is null, NaN or infinite: a null turn counts as an empty text. A single text gets its own measures only.
    Works in batches, so that memory beside `rows` is that of the result. A LazyFrame (`pl.scan_parquet`) is read in
    batches too: its texts are never in memory all at once.
    """
    texts = rows.select(task.fields)
    if isinstance(texts, pl.DataFrame):
        batches = texts.iter_slices(BATCH)
    else:
        batches = texts.collect_batches(chunk_size=BATCH, maintain_order=True)
    parts = [_batch_features(batch, task) for batch in batches]
    return pl.concat(parts) if parts else _batch_features(texts.head(0).lazy().collect(), task)


def _batch_features(rows: pl.DataFrame, task: Task) -> pl.DataFrame:
    texts = _texts(rows, task.fields)
    sides = task.sides or ()
    measures = {field: _measures(field) for field in task.fields}
    alone = [
        value.cast(pl.Float64).alias(f"{field}_{name}")
        for field in task.fields
        for name, value in measures[field].items()
        if not sides or field in sides or name not in NOT_OF_PROMPTS
    ]
    if not sides:
        return texts.select(alone).cast(pl.Float32)
    about_pair = [value.cast(pl.Float64).alias(name) for name, value in _pair(*sides, task.group).items()]
    features = texts.select(*alone, *about_pair)
    first, second = (f"{side}_" for side in sides)
    names = [name.removeprefix(first) for name in features.columns if name.startswith(first)]
    logarithms = {side: {name: pl.col(side + name).log1p() for name in names} for side in (first, second)}
    return features.with_columns(
        *[(pl.col(first + name) - pl.col(second + name)).alias(f"diff_{name}") for name in names],
        *[(logarithms[first][name] - logarithms[second][name]).alias(f"ratio_{name}") for name in names],
        **_closeness(*sides),
    ).cast(pl.Float32)


def _texts(rows: pl.DataFrame, fields: tuple[str, ...]) -> pl.DataFrame:
    """Returns per field its text `f` (turns joined by an empty line), in lower case, words, and facts about turns."""
    columns: list[pl.Expr] = []
    for field in fields:
        turns = pl.col(field).fill_null([])
        columns += [
            joined(field).alias(field),
            turns.list.len().alias(f"{field} turns"),
            turns.list.eval(pl.element().is_null()).list.sum().alias(f"{field} nulls"),
            turns.list.eval(pl.element().str.strip_chars() == "").list.sum().alias(f"{field} empties"),
            turns.list.last().fill_null("").str.len_chars().alias(f"{field} last"),
        ]
    texts = rows.select(columns)
    texts = texts.with_columns(pl.col(field).str.to_lowercase().alias(f"{field} lower") for field in fields)
    texts = texts.with_columns(
        pl.col(f"{field} lower").str.extract_all(r"[\w']+").alias(f"{field} words") for field in fields
    )
    return texts.with_columns(pl.col(f"{field} words").list.unique().alias(f"{field} set") for field in fields)


def _measures(field: str) -> dict[str, pl.Expr]:
    """Returns every measure of one text, as expressions over the columns of `_texts`."""
    text, lower = pl.col(field), pl.col(f"{field} lower")
    characters = text.str.len_chars().cast(pl.Float64)
    words = pl.col(f"{field} words").list.len().cast(pl.Float64)
    distinct = pl.col(f"{field} set").list.len()
    lengths = text.str.split("\n").list.eval(pl.element().str.len_chars())
    counts = {name: text.str.count_matches(pattern) for name, pattern in MARKS.items()}
    phrases = {name: lower.str.count_matches(pattern) for name, pattern in PHRASES.items()}
    scripts = {name: text.str.count_matches(pattern) / characters.clip(1) for name, pattern in SCRIPTS.items()}
    return {
        "characters": characters,
        "words": words,
        "lines": text.str.count_matches("\n") + 1,
        "longest_line": lengths.list.max().fill_null(0),
        "last_turn_characters": pl.col(f"{field} last"),
        "null_turns": pl.col(f"{field} nulls"),
        "empty_turns": pl.col(f"{field} empties"),
        "distinct_words": distinct,
        "distinct_share": distinct / words.clip(1),
        "characters_per_word": characters / words.clip(1),
        "english_share": lower.str.count_matches(ENGLISH) / words.clip(1),
        "eager": lower.str.contains(EAGER),
        "finished": text.str.contains(FINISHED),
        **counts,
        **phrases,
        **scripts,
    }


def _pair(first: str, second: str, prompt: str) -> dict[str, pl.Expr]:
    """Returns what the sides' words have in common, with each other and with the prompt; what share is too much."""

    def size(field: str) -> pl.Expr:
        return pl.col(f"{field} set").list.len().cast(pl.Float64)

    def shared(one: str, other: str) -> pl.Expr:
        return pl.col(f"{one} set").list.set_intersection(pl.col(f"{other} set")).list.len().cast(pl.Float64)

    both = shared(first, second)
    values = {
        "turns": pl.col(f"{prompt} turns"),
        "equal_texts": pl.col(first) == pl.col(second),
        "equal_starts": pl.col(first).str.head(20) == pl.col(second).str.head(20),
        "word_overlap": both / (size(first) + size(second) - both).clip(1),
    }
    for side in (first, second):
        values[f"{side}_prompt_words_used"] = shared(prompt, side) / size(prompt).clip(1)
        values[f"{side}_words_shared"] = both / size(side).clip(1)
        together = (pl.col(f"{prompt} words").list.len() + pl.col(f"{side} words").list.len()).cast(pl.Float64)
        for budget in BUDGETS:
            values[f"{side}_beyond_{budget}"] = (1 - budget / together.clip(1)).clip(0)
    return values


def _closeness(first: str, second: str) -> dict[str, pl.Expr]:
    """Returns 1 where the lengths are equal, about 0 where they differ by twice the scale: ties for linear models."""
    gap = (pl.col(f"{first}_characters") - pl.col(f"{second}_characters")).abs()
    return {f"closeness_{scale}": (-(gap / scale).pow(2)).exp() for scale in (10, 30, 100)}

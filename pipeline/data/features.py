"""Text features: counts, shares and overlaps. Nothing is fitted, so that training and kernel compute the same numbers.

A row of two sides gets, for every measure of a side, `a_*` and `b_*`, their difference `diff_*` and their log ratio
`ratio_*`, beside columns about the other fields and about the pair. When the sides change places, `a_*` and `b_*`
change places, `diff_*` and `ratio_*` change sign, and nothing else changes: to the last bit. Likewise the options of a
row have the same measures each, and when they change places, so do these.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

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
NEGATIONS = r"\b(?:no|not|never|none|nothing|nobody|neither|nor|without|cannot)\b|n['’]t\b"
NUMBERS = r"\d+(?:[.,]\d+)*"
MOST_FIELDS = 3
"""A row of more texts than that gets no likenesses: there are too many pairs of fields."""
NEAR_CHARACTERS = 1000
"""Likeness of signs is that of the first so many characters, because its time grows with their square."""
NOT_OF_PROMPTS = ("refusals", "apologies", "offers", "headings", "table_rows", "finished", "eager")


def competing(task: Task) -> bool:
    """Returns whether one of two sides wins, so that a swapped row has the swapped answer."""
    return task.mirror is not None and task.mirror[0] != 0


def measures_of(part: str, features: pl.DataFrame, task: Task) -> list[str]:
    """Returns the names of a side's or an option's measures, without its own name before them."""
    longer = tuple(f"{field}_" for field in task.fields if field.startswith(f"{part}_"))
    own = [name for name in features.columns if name.startswith(f"{part}_") and not name.startswith(longer)]
    return [name.removeprefix(f"{part}_") for name in own]


def mirrored_features(features: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Returns `text_features(swapped(rows))`, from `text_features(rows)` and without reading the texts again."""
    first, second = task.sides or ("", "")
    exchanged = {f"{first}_{name}": f"{second}_{name}" for name in measures_of(first, features, task)}
    exchanged |= {other: name for name, other in exchanged.items()}
    return features.select(
        -pl.col(name) if name.startswith(("diff_", "ratio_")) else pl.col(exchanged.get(name, name)).alias(name)
        for name in features.columns
    )


def text_features(rows: pl.DataFrame | pl.LazyFrame, task: Task) -> pl.DataFrame:
    """Returns Float32 features of each of `rows`, which have a List(String) column for each of `task.fields`.

    No value is null, NaN or infinite: a null turn counts as an empty text. A single text gets its own measures only;
    two or three texts also get what they have in common. Works in batches, so that memory beside `rows` is that of the
    result. A LazyFrame (`pl.scan_parquet`) is read in batches too: its texts are never in memory all at once.
    """
    texts = rows.select(task.fields)
    if isinstance(texts, pl.DataFrame):
        batches = texts.iter_slices(BATCH)
    else:
        batches = texts.collect_batches(chunk_size=BATCH, maintain_order=True)
    parts = [_batch_features(batch, task) for batch in batches]
    return pl.concat(parts) if parts else _batch_features(texts.head(0).lazy().collect(), task)


def _batch_features(rows: pl.DataFrame, task: Task) -> pl.DataFrame:
    likenesses = compared(task)
    texts = _with_near_signs(_texts(rows, task.fields), likenesses)
    beside = task.sides or task.options
    alone = [
        value.alias(f"{field}_{name}")
        for field in task.fields
        for name, value in _measures(field).items()
        if not beside or field in beside or name not in NOT_OF_PROMPTS
    ]
    about = _pair(task) if task.sides else _options(task)
    for first, second in likenesses:
        # The sides of a pair are what the row is about; other likenesses need a name.
        prefix = "" if (first, second) == task.sides else f"{first}_{second}_"
        about |= {prefix + name: value for name, value in _likeness(first, second).items()}
    columns = [*alone, *(value.alias(name) for name, value in about.items())]
    features = texts.select(column.cast(pl.Float64) for column in columns)
    if not task.sides:
        return features.cast(pl.Float32)
    first, second = (f"{side}_" for side in task.sides)
    names = measures_of(task.sides[0], features, task)
    logarithms = {side: {name: pl.col(side + name).log1p() for name in names} for side in (first, second)}
    return features.with_columns(
        *[(pl.col(first + name) - pl.col(second + name)).alias(f"diff_{name}") for name in names],
        *[(logarithms[first][name] - logarithms[second][name]).alias(f"ratio_{name}") for name in names],
        **_closeness(*task.sides),
    ).cast(pl.Float32)


def compared(task: Task) -> list[tuple[str, str]]:
    """Returns the fields of which the likeness tells something; of competing sides `_pair` tells enough."""
    if task.sides:
        return [] if competing(task) else [task.sides]
    if task.options:
        return [(option, field) for option in task.options for field in task.common]
    return list(combinations(task.fields, 2)) if len(task.fields) <= MOST_FIELDS else []


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


def _size(field: str) -> pl.Expr:
    return pl.col(f"{field} set").list.len().cast(pl.Float64)


def _shared(one: str, other: str) -> pl.Expr:
    return pl.col(f"{one} set").list.set_intersection(pl.col(f"{other} set")).list.len().cast(pl.Float64)


def _word_overlap(first: str, second: str) -> pl.Expr:
    both = _shared(first, second)
    return both / (_size(first) + _size(second) - both).clip(1)


def _pair(task: Task) -> dict[str, pl.Expr]:
    """Returns what the sides' words share with each other and with the other fields; what share is too much."""
    first, second = sides = task.sides or ("", "")
    values = {"turns": pl.max_horizontal(f"{field} turns" for field in task.common)} if task.common else {}
    values |= {
        "equal_texts": pl.col(first) == pl.col(second),
        "equal_starts": pl.col(first).str.head(20) == pl.col(second).str.head(20),
        "word_overlap": _word_overlap(first, second),
    }
    for side in sides:
        values |= {f"{side}_{field}_words_used": _shared(field, side) / _size(field).clip(1) for field in task.common}
        values[f"{side}_words_shared"] = _shared(first, second) / _size(side).clip(1)
        words = [pl.col(f"{field} words").list.len() for field in (*task.common, side)]
        together = pl.sum_horizontal(words).cast(pl.Float64)
        for budget in BUDGETS:
            values[f"{side}_beyond_{budget}"] = (1 - budget / together.clip(1)).clip(0)
    return values


def _options(task: Task) -> dict[str, pl.Expr]:
    """Returns per option what share of its words other options and the other fields have, and of these it."""
    values = {}
    for option in task.options:
        others = pl.sum_horizontal(_shared(option, other) for other in task.options if other != option)
        values[f"{option}_words_of_others"] = others / (_size(option).clip(1) * (len(task.options) - 1))
        for field in task.common:
            values[f"{option}_{field}_words_used"] = _shared(field, option) / _size(field).clip(1)
            values[f"{option}_{field}_words_shared"] = _shared(field, option) / _size(option).clip(1)
    return values


def _likeness(first: str, second: str) -> dict[str, pl.Expr]:
    """Returns how alike two texts are, the same in both orders."""
    lower, words = ([pl.col(f"{field} {form}") for field in (first, second)] for form in ("lower", "words"))
    values = {
        "word_overlap": _word_overlap(first, second),
        "near_signs": pl.col(f"{first} {second} near"),
        "trigram_overlap": pl.col(f"{first} {second} trigrams"),
        "negation_differs": lower[0].str.contains(NEGATIONS) != lower[1].str.contains(NEGATIONS),
        "same_first_word": words[0].list.first().eq_missing(words[1].list.first()),
        "same_last_word": words[0].list.last().eq_missing(words[1].list.last()),
    }
    for name, pattern in {"number": NUMBERS, "long_word": r"[\w']{4,}"}.items():
        one, other = (text.str.extract_all(pattern).list.unique() for text in lower)
        both = one.list.set_intersection(other).list.len().cast(pl.Float64)
        apart = one.list.set_symmetric_difference(other).list.len().cast(pl.Float64)
        values |= {f"{name}_overlap": both / (both + apart).clip(1), f"{name}s_apart": apart}
    return values


def _with_near_signs(texts: pl.DataFrame, likenesses: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """Returns `texts` with how much of two texts' signs are the same, in order (0 to 1), and as sets of trigrams."""
    columns = []
    for first, second in likenesses:
        starts = (texts[f"{field} lower"].str.head(NEAR_CHARACTERS).to_list() for field in (first, second))
        near = [(_near(one, other), _trigram_overlap(one, other)) for one, other in zip(*starts, strict=True)]
        columns += [
            pl.Series(f"{first} {second} {name}", [each[place] for each in near], dtype=pl.Float64)
            for place, name in enumerate(("near", "trigrams"))
        ]
    return texts.with_columns(columns)


def _near(first: str, second: str) -> float:
    """Returns 2 L / (m + n) of two texts of m and n signs, whose longest common subsequence has L; 1 if both are empty.

    A column of the table of subsequences is the bits of one number (Crochemore et al. 2001, "A fast and practical
    bit-vector algorithm for the longest common subsequence problem").
    """
    places: dict[str, int] = {}
    for place, sign in enumerate(first):
        places[sign] = places.get(sign, 0) | 1 << place
    whole = free = (1 << len(first)) - 1
    for sign in second:
        matched = free & places.get(sign, 0)
        free = ((free + matched) | (free - matched)) & whole
    return 2 * (len(first) - free.bit_count()) / (len(first) + len(second)) if first or second else 1.0


def _trigram_overlap(first: str, second: str) -> float:
    one, other = ({text[place : place + 3] for place in range(len(text) - 2)} for text in (first, second))
    return len(one & other) / max(len(one | other), 1)


def _closeness(first: str, second: str) -> dict[str, pl.Expr]:
    """Returns 1 where the lengths are equal, about 0 where they differ by twice the scale: ties for linear models."""
    gap = (pl.col(f"{first}_characters") - pl.col(f"{second}_characters")).abs()
    return {f"closeness_{scale}": (-(gap / scale).pow(2)).exp() for scale in (10, 30, 100)}

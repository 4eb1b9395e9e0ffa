"""Text features: counts, shares and overlaps that need no training and are the same in training and in the kernel.

Preference rows get, for each measure of an answer, `a_*` and `b_*` (the two sides) and `diff_*` (a minus b), beside
columns about the prompt and about the pair. Where the two sides change places, `a_*` and `b_*` change places, `diff_*`
changes sign, and nothing else changes: test_features.py holds this to the last bit.
"""

from __future__ import annotations

import polars as pl

from pipeline.competitions.task import Task

# Regular expressions counted in each text; those of the second group see the text in lower case.
COUNTS = {
    "list_items": r"(?m)^[ \t]*[-*•][ \t]",
    "numbered_items": r"(?m)^[ \t]*\d{1,3}[.)][ \t]",
    "code_fences": r"```",
    "code_spans": r"`",
    "table_rows": r"(?m)^[ \t]*\|",
    "headings": r"(?m)^#{1,6}[ \t]",
    "bold": r"\*\*",
    "quotes": r"[\"“”«»]",
    "question_marks": r"[?？]",
    "exclamation_marks": r"[!！]",
    "commas": r"[,，、]",
    "colons": r"[:：]",
    "brackets": r"[(（\[{]",
    "full_stops": r"[.。](\s|$)",
    "paragraphs": r"\n[ \t]*\n",
    "digits": r"\d",
    "capitals": r"[A-Z]",
    "emoji": r"[\x{2600}-\x{27BF}\x{1F300}-\x{1FAFF}]|\?\?",
}
PHRASES = {
    "refusals": r"\b(i'm sorry|i am sorry|i cannot|i can't|i can not|i'm unable|i am unable|not able to|i am not able"
    r"|as an ai|as a language model|language model|i don't have|i do not have|not appropriate|against my)\b",
    "apologies": r"\b(sorry|apologi[sz]e|apologies|unfortunately|mistake|confusion)\b",
    "hedges": r"\b(may|might|perhaps|possibly|could|seems?|likely|generally|typically|usually|often|depends?|however)\b",
    "connectives": r"\b(therefore|because|additionally|furthermore|moreover|overall|finally|first|second|example|for instance"
    r"|in conclusion|in summary|also|while)\b",
    "first_person": r"\b(i|my|me|i'm|i've|i'll)\b",
    "second_person": r"\b(you|your|you're|yours)\b",
    "offers": r"\b(let me know|feel free|hope this helps|happy to help|can i help|assist you|would you like)\b",
    "english": r"\b(the|of|and|to|in|is|that|for|it|with|as|on|are|this|be|by|an|or)\b",
}
SCRIPTS = {
    "latin": r"\p{Latin}",
    "cyrillic": r"\p{Cyrillic}",
    "cjk": r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]",
    "other_script": r"[\p{Arabic}\p{Hebrew}\p{Devanagari}\p{Thai}\p{Greek}\p{Bengali}\p{Tamil}\p{Georgian}\p{Armenian}]",
}


def _texts(rows: pl.DataFrame, fields):
    frame = rows.select(
        *[pl.col(f).list.drop_nulls().list.join("\n\n").fill_null("").alias(f) for f in fields],
        *[pl.col(f).list.len().fill_null(0).alias(f + " turns") for f in fields],
        *[
            (pl.col(f).list.len() - pl.col(f).list.drop_nulls().list.len()).fill_null(0).alias(f + " nulls")
            for f in fields
        ],
        *[pl.col(f).list.last().fill_null("").alias(f + " last") for f in fields],
        *[
            pl.col(f)
            .list.eval(pl.element().fill_null("").str.strip_chars() == "")
            .list.sum()
            .fill_null(0)
            .alias(f + " empty")
            for f in fields
        ],
    )
    frame = frame.with_columns(pl.col(f).str.to_lowercase().alias(f + " low") for f in fields)
    frame = frame.with_columns(pl.col(f + " low").str.extract_all(r"[\w']+").alias(f + " words") for f in fields)
    return frame.with_columns(pl.col(f + " words").list.unique().alias(f + " set") for f in fields)


def _measures(field: str):
    text, low, words = pl.col(field), pl.col(field + " low"), pl.col(field + " words")
    chars = text.str.len_chars()
    n = words.list.len()
    some = chars.clip(1).cast(pl.Float64)
    somew = n.clip(1).cast(pl.Float64)
    out = {
        "characters": chars,
        "words": n,
        "lines": text.str.count_matches("\n") + 1,
        "turns_empty": pl.col(field + " empty"),
        "last_characters": pl.col(field + " last").str.len_chars(),
        "distinct_words": pl.col(field + " set").list.len(),
        "distinct_share": pl.col(field + " set").list.len() / somew,
        "word_length": chars / somew,
        "ends_whole": text.str.contains(r"[.!?。！？:)\"'`”|*][\s]*$"),
        "starts_capital": text.str.contains(r"^\s*[A-Z]"),
        "opens_eagerly": low.str.contains(r"^\s*(sure|certainly|of course|great|absolutely|yes|hello|hi\b|thank)"),
        "longest_line": text.str.split("\n").list.eval(pl.element().str.len_chars()).list.max().fill_null(0),
    }
    for k, p in COUNTS.items():
        out[k] = text.str.count_matches(p)
    for k, p in PHRASES.items():
        out[k] = low.str.count_matches(p)
    letters = {k: text.str.count_matches(p) for k, p in SCRIPTS.items()}
    for k, e in letters.items():
        out[k] = e / some
    return out


def text_features(rows: pl.DataFrame, task: Task) -> pl.DataFrame:
    fields = list(task.fields)
    frame = _texts(rows, fields)
    parts = frame.select(*[e.cast(pl.Float64).alias(f"{f}_{k}") for f in fields for k, e in _measures(f).items()])
    if task.sides is None:
        return parts.cast(pl.Float32)
    inter = lambda x, y: pl.col(x + " set").list.set_intersection(y + " set").list.len()
    ln = lambda x: pl.col(x + " set").list.len()
    pair = frame.select(
        turns=pl.col("prompt turns"),
        jaccard=inter("a", "b") / (ln("a") + ln("b") - inter("a", "b")).clip(1),
        a_prompt_overlap=inter("prompt", "a") / ln("prompt").clip(1),
        b_prompt_overlap=inter("prompt", "b") / ln("prompt").clip(1),
        a_new=inter("a", "b") / ln("a").clip(1),
        b_new=inter("b", "a") / ln("b").clip(1),
        same_start=(pl.col("a").str.head(20) == pl.col("b").str.head(20)),
    ).cast(pl.Float64)
    both = pl.concat([parts, pair], how="horizontal")
    names = [c[2:] for c in both.columns if c.startswith("a_")]
    both = both.with_columns(
        *[(pl.col("a_" + k) - pl.col("b_" + k)).alias("diff_" + k) for k in names],
        *[
            ((pl.col("a_" + k)).log1p() - (pl.col("b_" + k)).log1p()).alias("logratio_" + k)
            for k in ("characters", "words", "lines", "last_characters")
        ],
        gap_characters=(pl.col("a_characters") - pl.col("b_characters")).abs(),
        gap_words=(pl.col("a_words") - pl.col("b_words")).abs(),
    )
    return both.cast(pl.Float32)

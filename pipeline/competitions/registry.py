"""Finds a competition's YAML file by name (`lmsys`) or by path (`my/competition.yaml`) and checks it.

docs/competition.md documents every key.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.competitions.metrics import Metric, metric_named
from pipeline.competitions.submission import check_answers
from pipeline.competitions.task import AUTO, NUMBERED, OURS, SIDES, TAKEN, Competition
from pipeline.errors import PodiumError, nearest
from pipeline.validation import read_yaml, validated

FOLDER = Path(__file__).parent
WRITTEN = {
    "classes": ("column", "one_hot", "joined"),
    "labels": ("columns", "listed"),
    "choice": ("column",),
    "ordered": ("column",),
}
"""Outcome -> the keys of `label` of which it needs one; numbers need `columns`."""
MOST_SCORES = 1000
"""Of an ordered outcome: each is an output of every model."""
FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def load_competition(name: str, key: str = "data.competition") -> Competition:
    """Returns the competition that `key` in params.yaml names.

    Raises: PodiumError for an unknown name or an inconsistent file.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    if path.parent == FOLDER and path.stem not in known:
        raise PodiumError(
            f'params.yaml: {key}: no competition "{name}"{nearest(name, known)}, '
            f"known are {', '.join(known)}, or a path to a YAML file"
        )
    competition = validated(Competition, _as_texts(read_yaml(path)), str(path))
    try:
        _check(competition)
    except PodiumError as error:
        raise PodiumError(f"{path}: {error}") from None
    return competition


def _as_texts(given: Any) -> Any:
    """Returns the YAML with the names of classes, values and answers as texts: `classes: [0, 1]` means "0" and "1"."""
    if not isinstance(given, dict):
        return given
    found = dict(given)
    if found.get("classes") == "auto":
        found["classes"] = list(AUTO)
    elif isinstance(found.get("classes"), list):
        found["classes"] = [_text(each) for each in found["classes"]]
    if isinstance(found.get("label"), dict):
        label = found["label"] = dict(found["label"])
        if isinstance(label.get("values"), list):
            label["values"] = [_text(each) for each in label["values"]]
        if isinstance(label.get("also"), dict):
            label["also"] = {_text(written): _text(value) for written, value in label["also"].items()}
        if "listed" in label:
            label.setdefault("join", " ")
        if isinstance(label.get("columns"), str):  # one column may stand without brackets
            label["columns"] = [label["columns"]]
    if isinstance(found.get("answers"), dict):
        found["answers"] = {column: _text(what) for column, what in found["answers"].items()}
    for key in ("group", "ignored"):
        if isinstance(found.get(key), str):
            found[key] = [found[key]]
    for key in ("parts", "left_out"):
        if isinstance(found.get(key), dict):
            each = {name: what if isinstance(what, list) else [what] for name, what in found[key].items()}
            found[key] = {name: ["" if one is None else _text(one) for one in what] for name, what in each.items()}
    if found.get("task") == "choices":
        found.setdefault("outcome", "choice")
    return found


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value  # True and False are written as Python writes them


def _check(competition: Competition) -> None:
    _check_inputs(competition)
    _check_lookups(competition)
    _check_outcome(competition)
    _check_columns(competition)
    metric = metric_named(competition.metric)
    if competition.outcome not in metric.outcomes:
        raise PodiumError(
            f"metric: {competition.metric} is for the outcomes {', '.join(metric.outcomes)}, "
            f"found outcome {competition.outcome}"
        )
    if metric.grouped and not competition.group:
        raise PodiumError(f"group: metric {competition.metric} needs the columns that make a group, found none")
    known = competition
    if competition.classes == AUTO:  # no class can be named; any number of them may be asked for
        known = replace(competition, classes=tuple(f"class_{place}" for place in range(1000)))
    check_answers(known, metric)
    _ask(metric, known)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", competition.name):
        raise PodiumError(f'name: expected Kaggle\'s slug (letters, digits, hyphens), found "{competition.name}"')
    for key in ("train", "test", "sample_submission"):
        file = Path(getattr(competition, key))
        if not file.name or file.is_absolute() or ".." in file.parts:
            raise PodiumError(f'{key}: expected a file of the data folder, found "{file}"')
    if competition.hidden_rows is not None and competition.hidden_rows < 1:
        raise PodiumError(f"hidden_rows: expected a positive number, found {competition.hidden_rows}")
    for medal in competition.medals:
        if medal not in ("gold", "silver", "bronze"):
            raise PodiumError(f'medals: expected gold, silver, bronze, found "{medal}"')
    if competition.centre or competition.spread or competition.grouped:
        raise PodiumError("centre, spread, grouped: prepare fills them in; leave them out")


def _ask(metric: Metric, competition: Competition) -> None:
    """Asks the metric about four rows: one that is for another number of classes or columns says so here, and not after
    the members have trained."""
    outputs = len(competition.outputs)
    columns = 1 if competition.outcome == "ordered" else outputs
    classes = competition.outcome in ("classes", "choice")
    labels = np.arange(4) % outputs if classes else np.zeros((4, columns))
    means = np.full((4, columns), 1 / columns)
    answers = labels if metric.wants == "decided" else means
    with np.errstate(all="ignore"):
        metric.score(labels, answers, np.arange(4))


def _check_inputs(competition: Competition) -> None:
    """Which fields a row has, and which of them are sides or options."""
    task, fields = competition.task, list(competition.texts)
    if not fields:
        raise PodiumError("texts: expected at least one field, found none")
    for name in fields:
        if not FIELD.fullmatch(name) or name in OURS:
            raise PodiumError(
                f'texts: a field is named by letters, digits and _, and not {", ".join(OURS)}; found "{name}"'
            )
    if task in ("pair", "preference"):
        needed = [*(("prompt",) if task == "preference" else ()), *SIDES]
        if not set(needed) <= set(fields):
            raise PodiumError(f"texts: a {task} needs the fields {', '.join(needed)}, found {', '.join(fields)}")
    if task == "choices":
        if len(competition.options) < 2:
            raise PodiumError(f"options: choices need at least two fields of texts, found {list(competition.options)}")
        for name in competition.options:
            if name not in fields:
                raise PodiumError(f'options: no field "{name}" in texts{nearest(name, fields)}')
        if len(competition.options) == len(fields):
            raise PodiumError("texts: choices need a field beside the options: what is asked")
    elif competition.options:
        raise PodiumError(f"options: only choices have options, found task {task}")
    if competition.symmetric and task != "pair":
        raise PodiumError(f"symmetric: only a pair may be, found task {task}")


def _check_lookups(competition: Competition) -> None:
    """Which files hold a part of the rows."""
    for place, lookup in enumerate(competition.lookup):
        key = f"lookup.{place}"
        for name in (lookup.train, lookup.test or lookup.train):
            folder, braces, _ = name.partition("{}")
            if not name or Path(name).is_absolute() or ".." in Path(name).parts:
                raise PodiumError(f'{key}: expected a file of the data folder, found "{name}"')
            if braces and (not folder.rpartition("/")[0] or "{}" not in Path(name).name):
                words = "expected text files in a folder of their own, such as train/{}.txt"
                raise PodiumError(f'{key}: {words}, found "{name}"')
            if bool(braces) != bool(lookup.column):
                words = "text files ({} in their name) need `column`" if braces else "a table names its columns itself"
                raise PodiumError(f'{key}.column: {words}, found "{lookup.column}"')
        if lookup.only and lookup.test:
            raise PodiumError(f"{key}: only {lookup.only} rows are looked up, but test names {lookup.test}")
    named = [name for names in competition.parts.values() for name in names]
    for way, names in competition.parts.items():
        if not names or "" in (way, *names) or len(set(named)) < len(named):
            raise PodiumError(f"parts.{way}: expected new names, each once, found {', '.join(named)}")


def _check_outcome(competition: Competition) -> None:
    """Which answers there are, and where train.csv has them."""
    outcome, label, task = competition.outcome, competition.label, competition.task
    if (outcome == "choice") != (task == "choices"):
        raise PodiumError(f"outcome: choice goes with task choices, found {outcome} with task {task}")
    if task == "preference" and outcome != "classes":
        raise PodiumError(f"outcome: a preference has classes (first side, second side, tie), found {outcome}")
    wanted = (*WRITTEN.get(outcome, ("columns",)), *(("winner",) if task == "preference" else ()))
    forms = ("column", "one_hot", "columns", "listed", "joined", "winner")
    given = [key for key in forms if getattr(label, key) is not None]
    if len(given) != 1 or given[0] not in wanted:
        found = f", found {' and '.join(given)}" if given else ""
        raise PodiumError(f"label: outcome {outcome}: give {' or '.join(wanted)}{found}")
    if not getattr(label, given[0]):
        raise PodiumError(f"label.{given[0]}: expected a column of train.csv, found none")
    if outcome != "classes" and label.listed is None and competition.classes:
        raise PodiumError(f"classes: only outcome classes and label.listed have them, found outcome {outcome}")
    if outcome == "classes" or label.listed is not None:
        _check_classes(competition)
    if competition.candidates:
        _check_candidates(competition)
    if (outcome == "ordered") != (label.low is not None or label.high is not None):
        raise PodiumError("label: low and high belong to outcome ordered, and it needs both")
    if outcome == "ordered" and (label.low is None or label.high is None or label.low >= label.high):
        raise PodiumError(f"label: expected low below high, found {label.low} and {label.high}")
    if outcome == "ordered" and (count := len(competition.scores)) > MOST_SCORES:
        raise PodiumError(
            f"label: expected at most {MOST_SCORES} scores, found {count}; for more there is outcome numbers"
        )
    if label.log and outcome != "numbers":
        raise PodiumError(f"label.log: only numbers have it, found outcome {outcome}")
    for name in competition.outputs:
        if name in (*TAKEN, competition.id) or not name.strip():
            raise PodiumError(
                f'{"classes" if competition.classes else "label"}: no answer can be named "{name}": expected a name '
                f"that is neither empty, nor the id column's ({competition.id}), nor one of Podium's own columns "
                f"({', '.join(TAKEN)})"
            )
    if competition.classes == AUTO and (label.one_hot or label.values or label.winner):
        raise PodiumError("classes: auto reads the values of one column, or of `joined` ones; name the classes")
    if outcome in ("classes", "choice") and competition.classes != AUTO:
        values = label.one_hot or competition.label_values
        if len(values) != len(competition.outputs):
            words = "classes" if outcome == "classes" else "options"
            raise PodiumError(f"label: {len(values)} entries for {len(competition.outputs)} {words}")
        if len(set(values)) < len(values):
            raise PodiumError(f"label: expected different entries, found {list(values)}")
    elif label.values is not None:
        raise PodiumError(f"label.values: only classes and choice have them, found outcome {outcome}")
    _check_also(competition)


def _check_also(competition: Competition) -> None:
    label = competition.label
    if label.also and (competition.outcome not in ("classes", "choice") or label.one_hot):
        raise PodiumError(f"label.also: classes and choice have it, not one_hot; found outcome {competition.outcome}")
    known = [] if competition.classes == AUTO else list(competition.label_values)
    for written, value in label.also.items():
        if value in label.also or (known and (value not in known or written in known)):
            words = "expected a value of the label that another one means"
            raise PodiumError(f'label.also.{written}: {words}, found "{value}"{nearest(value, known)}')


def _check_candidates(competition: Competition) -> None:
    field, fields = competition.candidates, list(competition.texts)
    if competition.outcome != "classes" or competition.kind.mirror:
        raise PodiumError(
            "candidates: only outcome classes has them, and no pair that may be swapped; "
            f"found outcome {competition.outcome} with task {competition.task}"
        )
    if field not in fields:
        raise PodiumError(f'candidates: no field "{field}" in texts{nearest(field, fields)}')


def _check_classes(competition: Competition) -> None:
    names = competition.classes
    if names != AUTO and (len(names) < 2 or len(set(names)) < len(names)):
        raise PodiumError(f"classes: expected at least two different names, found {list(names)}")
    if competition.task == "preference" and len(names) not in (2, 3):
        raise PodiumError(f"classes: a preference task has 2 or 3 (first side, second side, tie), found {len(names)}")


def _check_columns(competition: Competition) -> None:
    """No column may be read as two things; but a group may be any of them."""
    label = competition.label
    columns = {"id": competition.id}
    for key in ("train_id", "submission_id"):
        if getattr(competition, key) == "":
            raise PodiumError(f"{key}: expected the name of a column, found none")
    if competition.train_id not in (None, competition.id, NUMBERED):
        columns["train_id"] = competition.train_id
    columns |= {f"texts.{field}": column for field, column in competition.texts.items()}
    for key in ("column", "listed"):
        columns |= {f"label.{key}": name} if (name := getattr(label, key)) is not None else {}
    for key in ("one_hot", "columns", "joined"):
        columns |= {f"label.{key}.{place}": column for place, column in enumerate(getattr(label, key) or ())}
    for key, column in columns.items():
        first = next(other for other in columns if columns[other] == column)
        if first != key:
            raise PodiumError(f'{key}: expected a column of its own, found "{column}", which is {first} too')

"""A first YAML file for a competition, guessed from the headers and first rows of its files.

python -m stages.new_competition path/to/competition

What is guessed stands in the file with the reason in a comment; docs/competition.md describes every key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import NUMBERED, OURS, Lookup
from pipeline.errors import PodiumError
from pipeline.files import write_text
from pipeline.ingest.diagnose import turns_of
from pipeline.ingest.folder import SEPARATORS, DataFolder, Sheet, are_places, read_folder
from pipeline.ingest.labels import TRUTHS, moment
from pipeline.ingest.tables import OTHERS, quoted

FILE = "competition.yaml"
SEVERAL = 0.2
"""Share of the rows with several labels from which a column lists them."""
UNEVEN = 5.0
"""So many times the median is the largest of numbers whose ratio may matter."""
FEW_CLASSES = 30
"""Classes that are written out by name."""
FEWEST_GROUPS = 4
"""As three folds and a holdout need."""
FEW_ROWS = 100
"""A test file with fewer rows stands for a hidden one: a code competition."""
SCORES = ("score", "grade", "mark", "rating", "relevance", "quality", "stars", "level", "points")
NAMES = ("label", "target", "class", "category", "sentiment", "emotion", "topic", "type", "author")
"""Words in the name of a column of whole numbers: they are scores in order, or names of classes."""
LABEL_NAMES = (*SCORES, *NAMES, "answer", "winner", "generated")
SPREADS = ("variance", "std", "error", "confidence", "votes")
"""Words in the name of a column that says how sure the answer is."""
SENTENCE = 20
"""Characters of an answer, in the mean, from which different ones are texts and no names."""
PROMPTS = ("prompt", "question", "instruction", "query", "context")
WRITTEN_TIME = re.compile(r"[0-9./-]+ [0-9:.]+")
"""A date and a time, as ISO has them and otherwise."""
TASKS = ("text", "pair", "preference", "choices")
PARTNERS = {"a": "b", "A": "B", "1": "2", "left": "right", "first": "second"}


@dataclass(frozen=True)
class Asked:
    """What is to be said of a row: the YAML's lines for it, and the columns of train.csv that they name."""

    outcome: str
    metric: str
    lines: tuple[str, ...]
    columns: tuple[str, ...]
    why: str


def write_draft(folder: Path) -> Path:
    """Writes a YAML file into the folder with a competition's files, and returns its path.

    Raises: PodiumError where a file is missing or cannot be read, where a draft is there already, and where the guess
    is no competition; then the file stays, to be mended by hand.
    """
    target = folder / FILE
    if target.exists():
        raise PodiumError(f"{target}: is there already; edit it, or remove it for a new draft")
    if not folder.is_dir():
        raise PodiumError(f"DATA: {folder}: no such folder")
    write_text(target, Draft(read_folder(folder)).text)
    try:
        load_competition(str(target))
    except PodiumError as error:
        raise PodiumError(f"{error}; the draft needs your hand, docs/competition.md describes every key") from None
    return target


@dataclass(frozen=True)
class Draft:
    """The guess: each property is one of the YAML's questions."""

    folder: DataFolder

    @property
    def train(self) -> Sheet:
        """The rows with an answer."""
        return self.folder.train

    @property
    def test(self) -> Sheet:
        """The rows without."""
        return self.folder.test

    @property
    def sample(self) -> Sheet:
        """What is to be submitted."""
        return self.folder.sample

    @cached_property
    def id(self) -> str:
        """The sample's first column that both files have, or else test.csv alone.

        Raises: PodiumError where no column tells the rows of test.csv apart, or the sample asks about other things.
        """
        named = [name for name in self.sample.columns if name in self.test.columns]
        named = [name for name in named if name in self.train.columns] or named
        answered = [name for name, cells in self.test.columns.items() if self._answered(cells)]
        named = named or sorted(answered, key=lambda name: not name)  # a column without a name is an id, too
        if not named:
            name, ids = next(iter(self.sample.columns.items()), ("", []))
            raise PodiumError(
                f"{self.test.path}: expected a column with the ids of {self.sample.path.name}, column {quoted(name)} "
                f"({', '.join(ids[:3])}, ...), found none: number rows without an id first; several answers to one "
                "row cannot be said"
            )
        ids, asked = self.test.columns[named[0]], self.sample.columns.get(named[0], [])
        repeated = next((each for place, each in enumerate(asked[:FEW_ROWS]) if each in asked[:place]), None)
        if repeated is not None or (asked and set(ids).isdisjoint(asked)):
            found = f'"{repeated}" in several' if repeated is not None else f'"{asked[0]}", which is none'
            raise PodiumError(
                f"{self.sample.path}: column {named[0]}: expected one row for each row of {self.test.path.name}, found "
                f"{found}: several answers per row, such as spans or tokens, cannot be said"
            )
        return named[0]

    def _answered(self, ids: list[str]) -> str | None:
        """Returns the column of the sample that has just these cells."""
        return next((name for name, cells in self.sample.columns.items() if cells and set(cells) == set(ids)), None)

    @cached_property
    def submission_id(self) -> str | None:
        """The sample's id column, where it has another name than in test.csv."""
        return None if self.id in self.sample.columns else self._answered(self.test.columns[self.id])

    @cached_property
    def train_id(self) -> str | None:
        """What tells the rows of train.csv apart, where that is another column than in test.csv; NUMBERED for none."""
        if self.id in self.train.columns:
            return None
        alone = [name for name in self.train.columns if name not in (*self.test.columns, *self.asked)]
        named = [name for name in alone if name.lower().endswith("id")]
        unique = [name for name in named if len(set(cells := self.train.columns[name])) == len(cells)]
        return unique[0] if unique else NUMBERED

    @cached_property
    def asked(self) -> list[str]:
        """The sample's other columns."""
        found = [name for name in self.sample.columns if name not in (self.id, self.submission_id)]
        if not found:
            raise PodiumError(f"{self.sample.path}: expected a column beside the id, found {self.id} alone")
        return found

    @cached_property
    def unseen(self) -> list[str]:
        """The columns that only train.csv has, and the sample's: the answer is among them."""
        known = [name for name in (*self.test.columns, self.train_id) if name not in self.asked]
        return [name for name in self.train.columns if name and name not in known]

    @cached_property
    def common(self) -> list[str]:
        """The columns that both files have, but for the id and the answer, which some test files have, too."""
        no_text = ("", self.id, *self.asked)
        return [name for name in self.train.columns if name in self.test.columns and name not in no_text]

    @cached_property
    def options(self) -> list[str]:
        """Columns named A, B, C, ... or option_1, choice_2, ...: one of them is the answer."""
        letters = [
            name for place, name in enumerate(n for n in self.common if len(n) == 1) if name == "ABCDEFGHIJ"[place]
        ]
        numbered = [name for name in self.common if re.fullmatch(r"(?i)(option|choice|ending|answer)_?[a-j0-9]", name)]
        found = letters if len(letters) > 1 else numbered or self._row_of_names
        answers = {
            cell
            for name in self.unseen
            for cell in set(self.train.filled(name))
            if len(set(self.train.filled(name))) <= len(found)
        }
        return found if len(found) > 1 and (found == letters or answers) else []

    @cached_property
    def _row_of_names(self) -> list[str]:
        """Three columns and more, such as opa, opb, opc, if an answer has as many different values."""
        for first in [name for name in self.common if name and name[-1] in "aA01"]:
            found = [first]
            while (following := found[-1][:-1] + chr(ord(found[-1][-1]) + 1)) in self.common:
                found.append(following)
            labels = [set(self.train.filled(name)) for name in self.unseen if len(found) > 2]
            if any(len(each) == len(found) and are_places(each, len(found)) for each in labels):
                return found
        return []

    @cached_property
    def texts(self) -> list[str]:
        """The columns of texts: several words, and not the same few again and again."""
        new = [name for name in self.test.columns if name not in (*self.train.columns, self.id)]
        new = [name for name in new if _is_text(self.test.columns[name])]
        if new or not self.common:
            names = [", ".join(map(quoted, table.columns)) for table in (self.train, self.test)]
            if {"chosen", "rejected"} <= self.train.columns.keys():
                raise PodiumError(
                    f"{self.train.path}: the better side stands in one column, and {self.test.path.name} has "
                    f"{names[1][:150]}: write task: preference with texts {{a: chosen, b: rejected}}, label: "
                    "{winner: a} and `renamed`"
                )
            raise PodiumError(
                f"{self.train.path}: expected the texts of {self.test.path.name}, found {names[0][:150]}, and there "
                f"{names[1][:150]}: write `renamed` where a text has another name there, or the line of column names "
                "where a file has none; training rows of another kind cannot be said"
            )
        texts = [name for name in self.common if name in self.options or _is_text(self.train.columns[name])]
        if not texts:
            texts = [max(self.common, key=lambda name: len("".join(self.train.columns[name])))]
        return texts

    @cached_property
    def sides(self) -> tuple[str, str] | None:
        """Two columns whose names differ in a side (text_a and text_b), or the only two, of much the same length."""
        pairs = [
            (first, second)
            for first in self.texts
            for second in self.texts
            if any(first.endswith(a) and second == first.removesuffix(a) + b for a, b in PARTNERS.items())
            or (first, second) == ("premise", "hypothesis")
        ]
        # The essays 1 to 4 are no pair.
        pairs = [pair for pair in pairs if pair[1][:-1] + chr(ord(pair[1][-1]) + 1) not in self.texts]
        if not self.options and len(pairs) == 1:
            return pairs[0]
        lengths = [len("".join(self.train.columns[name])) + 1 for name in self.texts]
        alike = len(lengths) == 2 and 0.5 < lengths[0] / lengths[1] < 2 and not pairs and not self.folder.form.lookup
        return (self.texts[0], self.texts[1]) if alike and not self.options else None

    @cached_property
    def task(self) -> str:
        """One of the four kinds of rows."""
        if self.options:
            return "choices"
        if self.sides is None:
            return "text"
        prompted = any(name.lower() in PROMPTS for name in self.texts if name not in self.sides)
        return "preference" if prompted and self.answers.outcome == "classes" else "pair"

    @cached_property
    def fields(self) -> dict[str, str]:
        """Our field -> column."""
        sides = dict(zip(self.sides or (), "ab", strict=False))
        found: dict[str, str] = {}
        for name in self.texts:
            field = sides.get(name) or re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")
            if name not in sides and self.task == "preference" and "prompt" not in found and name.lower() in PROMPTS:
                field = "prompt"
            field = field if re.match("[A-Za-z]", field) else f"text_{field}".strip("_")
            while field in (*OURS, *found) or (field in "ab" and name not in sides):
                field = f"{field}_text"
            found[field] = name
        if self.task == "preference":  # the prompt is read first
            found = {field: found[field] for field in sorted(found, key=lambda field: field != "prompt")}
        return found

    @cached_property
    def answers(self) -> Asked:
        """The outcome, and where it stands."""
        columns = [name for name in self.asked if name in self.unseen]
        if columns == self.asked and len(columns) > 1:
            return self._several(columns)
        if len(self.asked) == 1 and (parts := re.split(r"[:|,]", self.asked[0]))[1:] and set(parts) <= set(self.unseen):
            join = self.asked[0][len(parts[0])]
            label = f"label: {{joined: {_flow(parts)}, join: {json.dumps(join)}}}"
            return self._ranked(
                ("classes: auto", label), parts, f"{' and '.join(parts)} make the answer together", True
            )
        column = columns[0] if columns else self._label_column()
        if len(self.asked) > 1:
            return self._probabilities(column)
        return self._one(column)

    def _label_column(self) -> str:
        if not self.unseen:
            raise PodiumError(f"{self.train.path}: expected a column that {self.test.path.name} lacks: the answer")
        telling = [name for name in self.unseen if len(set(self.train.filled(name))) > 1] or self.unseen
        unseen = [name for name in telling if not _has_word(name, SPREADS)] or telling
        named = [name for name in unseen if _has_word(name, LABEL_NAMES)]
        values = [name for name in unseen if set(self.asked) <= set(self.train.filled(name))]
        return (values or named or sorted(unseen, key=lambda name: len(set(self.train.columns[name]))))[0]

    def _several(self, columns: list[str]) -> Asked:
        cells = [[TRUTHS.get(cell, cell) for cell in self.train.columns[name]] for name in columns]
        numbers = [cell for column in cells for cell in column if cell]
        label = f"label: {{columns: {_flow(columns)}}}"
        if set(numbers) <= {"0", "1", "0.0", "1.0"}:
            if all(sum(float(cell or 0) for cell in row) == 1 for row in zip(*cells, strict=True)):
                lines = (f"classes: {_flow(columns)}", f"label: {{one_hot: {_flow(columns)}}}")
                return Asked("classes", "log_loss", lines, tuple(columns), "exactly one of these columns is 1")
            why = "columns of 0 and 1, several may be 1"
            if all(cell.isdecimal() for name in columns for cell in self.sample.filled(name)):
                why += "; CHECK: the sample has whole numbers, so the metric may score labels, as micro_f1 does"
            return Asked("labels", "mean_auc", (label,), tuple(columns), why)
        if all(_number(cell) is not None and 0 <= float(cell) <= 1 for cell in numbers):
            return Asked("labels", "log_loss", (label,), tuple(columns), "columns of shares from 0 to 1")
        return Asked("numbers", "mcrmse", (label,), tuple(columns), "columns of numbers")

    def _probabilities(self, column: str) -> Asked:
        """One column per class is asked for, and one column holds the class."""
        values = sorted(set(self.train.filled(column)))
        label = f"label: {{column: {_word(column)}}}"
        why = f"the values of {column} are the sample's columns"
        if set(values) <= set(self.asked):
            return Asked("classes", "log_loss", (f"classes: {_flow(self.asked)}", label), (column,), why)
        named = [[value for value in values if _ends_with(asked, value)] for asked in self.asked]
        why = f"CHECK that the values of {column} are in the order of the classes"
        also = ""
        if all(len(each) == 1 for each in named):
            found, why = [each[0] for each in named], f"the sample's columns are named like the values of {column}"
            more = {value: max(filter(value.startswith, found), default="", key=len) for value in values}
            more = {value: like for value, like in more.items() if value not in found and like}  # tie (both bad)
            also = ", also: {" + ", ".join(f"{_word(value)}: {_word(like)}" for value, like in more.items()) + "}"
            also, values = also if more else "", found
        label = f"label: {{column: {_word(column)}, values: {_flow(values)}{also}}}"
        return Asked("classes", "log_loss", (f"classes: {_flow(self.asked)}", label), (column,), why)

    def _one(self, column: str) -> Asked:
        asked, cells = self.asked[0], self.train.filled(column)
        numbers = [_number(TRUTHS.get(cell, cell)) for cell in cells]
        if self.options:
            label = f"label: {{column: {_word(column)}}}"
            values = sorted(set(cells))
            if not set(values) <= set(self.options):
                label = f"label: {{column: {_word(column)}, values: {_flow(values)}}}"
            return self._ranked((f"options: {_flow(self.options)}", label), [column], "one of the options is right")
        given = [number for number in numbers if number is not None]
        lines: tuple[str, ...]
        if len(given) < len(numbers) or not given:
            if join := self._parts(column):
                label = f"label: {{listed: {_word(column)}, join: {json.dumps(join)}}}"
                lines = ("classes: auto", label, f"answers: {{{_word(asked)}: labels}}")
                lines += (f"join: {json.dumps(join)}",) if join != " " else ()
                return Asked("labels", "samples_f1", lines, (column,), f"{column} lists the labels of a row")
            self._refuse_texts(column)
            values = sorted({cell for cell in cells if any(map(str.isalnum, cell))})
            values = values if len(values) > 1 else sorted(set(cells))
            classes = _flow(values) if len(values) <= FEW_CLASSES else "auto"
            lines = (f"classes: {classes}", f"label: {{column: {_word(column)}}}")
            if none := sorted(set(cells).difference(values)):
                lines += (f"left_out: {{{_word(column)}: {_flow(none)}}}   # rows without a label, it seems",)
            return self._ranked(lines, [column], f"the values of {column}")
        whole = all(number.is_integer() for number in given)
        low, high, different = int(min(given)), int(max(given)), len(set(given))
        if whole and {low, high} == {0, 1}:
            return self._yes_or_no(column, asked)
        named = _has_word(column, NAMES) and not _has_word(column + asked, SCORES)
        if whole and different <= 20 and named:
            every = range(low, high + 1) if high - low < 20 else sorted({int(number) for number in given})
            classes = ", ".join(map(str, every))
            lines = (f"classes: [{classes}]", f"label: {{column: {_word(column)}}}")
            why = f"whole numbers from {low} to {high}, taken for names; were they scores, write outcome: ordered"
            return self._ranked(lines, [column], why)
        if whole and different <= 20 and high - low < 20:
            label = f"label: {{column: {_word(column)}, low: {low}, high: {high}}}"
            lines = (label,) if asked == column else (label, f"answers: {{{_word(asked)}: label}}")
            why = f"whole numbers from {low} to {high}, taken for scores; were they names, write classes: [...]"
            return Asked("ordered", "qwk", lines, (column,), why)
        lines = (f"label: {{columns: {_flow([column])}}}",)
        if asked != column:
            lines += (f"answers: {{{_word(asked)}: mean}}",)
        if min(given) >= 0 and max(given) <= 1:
            return Asked("labels", "rmse", lines, (column,), "shares from 0 to 1; for any numbers write numbers")
        uneven = min(given) >= 0 and max(given) > UNEVEN * sorted(given)[len(given) // 2]
        hint = f"; for rmsle write label: {{columns: {_flow([column])}, log: true}}" if uneven else ""
        return Asked("numbers", "rmse", lines, (column,), f"a column of numbers{hint}")

    def _parts(self, column: str) -> str | None:
        """Returns what parts the labels in the cells of a column and of the sample; None where each has one."""
        cells, sample = self.train.filled(column), self.sample.filled(self.asked[0])
        for join in SEPARATORS + " ":
            lists = [cell.split(join) for cell in cells]
            known = {label for each in lists for label in each}
            several = sum(len(each) > 1 for each in lists) > SEVERAL * len(lists)
            if several and 2 * len(known) < len(set(cells)) and sample and known.issuperset(sample[0].split(join)):
                return join
        return None

    def _refuse_texts(self, column: str) -> None:
        """Raises PodiumError where the answers are texts of their own, or several labels in one cell."""
        cells = self.train.filled(column)
        different = set(cells)
        place = f"{self.train.path}: column {column}"
        if 2 * len(different) > len(cells) and sum(map(len, cells)) >= SENTENCE * len(cells) > 0:
            raise PodiumError(
                f"{place}: expected classes, scores or numbers, found {len(different)} different texts in "
                f"{len(cells)} rows: answers that are texts or spans cannot be said"
            )

    def _yes_or_no(self, column: str, asked: str) -> Asked:
        if word := next((cell for cell in self.sample.filled(asked) if cell in TRUTHS), ""):
            spelled = str.lower if word.islower() else str.upper if word.isupper() else str.title
            words = json.dumps([spelled("false"), spelled("true")])
            classes = (f"classes: {words}", f"label: {{column: {_word(column)}}}")
            return self._ranked(classes, [column], "true or false, spelled as the sample has it")
        numbers = {_number(cell) for cell in self.sample.filled(asked)}
        decided = all(number is not None and number.is_integer() for number in numbers)
        word = "label" if decided else "mean"
        why = f"0 or 1; the sample has {'whole numbers' if decided else 'means'}, so a {word} is asked for"
        if decided and len(numbers) == 1:
            why = "0 or 1; CHECK: the sample has one value alone, so a probability may be asked for"
        answers = f"answers: {{{_word(asked)}: label}}"
        if decided:
            answers += f"   # for roc_auc or log_loss {{{_word(asked)}: mean}}"
        lines: tuple[str, ...] = (f"label: {{columns: {_flow([column])}}}",)
        if decided or asked != column:
            lines += (answers if decided else f"answers: {{{_word(asked)}: mean}}",)
        return Asked("labels", "f1" if decided else "roc_auc", lines, (column,), why)

    def _ranked(self, lines: Sequence[str], columns: Sequence[str], why: str, joined: bool = False) -> Asked:
        """One column is asked for: a label, or several with the best first."""
        cells = self.sample.filled(self.asked[0])
        values = set() if joined else set(self.options) | set(self.train.filled(columns[0]))
        most = 1
        if cells and not set(cells) <= values:
            most = max(len(cell.split(" ")) for cell in cells)
        what, metric = (f"top {most}", f"map@{most}") if most > 1 else ("label", "accuracy")
        outcome = "choice" if self.options else "classes"
        return Asked(outcome, metric, (*lines, f"answers: {{{_word(self.asked[0])}: {what}}}"), tuple(columns), why)

    @cached_property
    def text(self) -> str:
        """The YAML file."""
        answers = self.answers
        form = self.folder.form
        used = {self.id, self.train_id, *self.texts, *answers.columns, *self.groups}
        used |= {lookup.key for lookup in form.lookup}
        every = list(dict.fromkeys([*self.train.columns, *self.test.columns]))
        used -= set(answers.columns) & self.test.columns.keys()  # the labels of test rows are not read
        ignored = [name for name in every if name and name not in used]
        known = [name for name, metric in METRICS.items() if answers.outcome in metric.outcomes]
        others = [name for name in known if name != answers.metric]
        lines = [
            "# A draft, guessed from the files: read every line, docs/competition.md describes the keys.",
            f"name: {_word(_slug(self.folder.path))}   # Kaggle's slug of the competition",
            f"task: {self.task}   # or {', '.join(task for task in TASKS if task != self.task)}",
            f"metric: {answers.metric}   # as the competition's page says; for this outcome also {', '.join(others)}",
            f"id: {_word(self.id)}",
            *([f"submission_id: {_word(self.submission_id)}"] if self.submission_id else []),
            *([f"train_id: {_word(self.train_id)}   # what train.csv has in its place"] if self.train_id else []),
            "texts:   # our name: the column, in reading order",
            *(f"  {field}: {_word(column)}" for field, column in self.fields.items()),
        ]
        if self.task == "pair":
            symmetric = answers.outcome in ("numbers", "labels", "ordered")
            lines.append(f"symmetric: {str(symmetric).lower()}   # true where the order of the two means nothing")
        if len(self.texts) > 1 and all(_is_turns(self.train.columns[name]) for name in self.texts):
            lines.append("turns: json   # the cells are lists of turns")
        if self.task == "preference":
            lines.append(
                "# the classes in this order: the first side is better, the second is, and neither, if there is a third"
            )
        if form.parts:
            lines.append("parts:   # columns that are made of lists")
            lines += [f"  {_word(name)}: {_flow(names)}" for name, names in form.parts.items()]
        if answers.outcome != "choice":
            lines.append(f"outcome: {answers.outcome}   # {answers.why}")
        lines += answers.lines
        if self.groups:
            lines.append(f"group: {self.groups[0]}   # must not be parted: no value of the test rows is in train")
        lines += self._comments(ignored)
        if ignored:
            lines.append(f"ignored: {_flow(ignored)}   # not read; `*` stands for every column that is not named")
        hidden = self.test.rows < FEW_ROWS
        why = "few test rows: the hidden ones are read by a kernel" if hidden else "a submission.csv is uploaded"
        lines.append(f"submission: {'code' if hidden else 'file'}   # {why}; else {'file' if hidden else 'code'}")
        if form.separator != "," and self.train.path.suffix not in OTHERS:
            lines.append(f"separator: {json.dumps(form.separator)}")
        if form.quotes != "doubled":
            lines.append(f"quotes: {form.quotes}")
        if form.encoding != "utf-8":
            lines.append(f"encoding: {form.encoding}   # train or test are not in UTF-8; perhaps cp1252")
        for key in ("train", "test", "sample_submission"):
            if (name := getattr(form, key)) != f"{key}.csv":
                lines.append(f"{key}: {_word(name)}")
        if form.lookup:
            lines += ["lookup:   # other files with a part of each row", *map(_lookup, form.lookup)]
        return "\n".join(lines) + "\n"

    @cached_property
    def groups(self) -> list[str]:
        """A column of which each value has several rows, and the test rows have others: rows of one author or page."""
        # By default rows with the same first text are together, and of pairs all that share one.
        for name in [name for name in self.common if name not in self.texts and self.task != "pair"]:
            cells, other = self.train.filled(name), set(self.test.filled(name))
            told = name.lower().endswith("id") or self.test.rows >= FEW_ROWS
            apart = len(other) > 1 and other.isdisjoint(cells) and not self._is_time(name)
            if told and apart and FEWEST_GROUPS <= len(set(cells)) <= 0.5 * len(cells):
                return [name]
        return []

    def _comments(self, ignored: list[str]) -> list[str]:
        """Returns comments on the columns that might be read, or by which folds might be parted, or cut."""
        both = [name for name in ignored if name in self.train.columns and name in self.test.columns]
        words = [name for name in both if self._repeats(name) and _is_word(self.train.columns[name])]
        keys = [lookup.key for lookup in self.folder.form.lookup]
        several = [
            name for name in [*ignored, *keys, *self.texts] if name in self.train.columns and self._repeats(name)
        ]
        times = [name for name in ignored if name in self.train.columns and self._is_time(name)]
        lines = []
        if words:
            lines.append(f"# texts may have these, too: {', '.join(words)}   # short words that repeat")
        if several and not self.groups:
            found = ", ".join(f"{name} ({len(set(self.train.filled(name)))} values)" for name in several[:6])
            rows = f"{self.train.rows} rows"
            lines.append(f"# group: [...]   # rows that must not be parted; values repeat in {found} of {rows}")
        if times:
            lines.append(f"# time: {_word(times[0])}   # would cut the folds by time, if the test rows are later ones")
        return lines

    def _repeats(self, column: str) -> bool:
        cells = self.train.filled(column)
        return 2 <= len(set(cells)) <= 0.95 * len(cells)

    def _is_time(self, column: str) -> bool:
        cells = self.train.filled(column)
        return bool(cells) and all((found := moment(cell)) and found[0] == "date" for cell in cells[:100])


def _is_text(cells: list[str]) -> bool:
    filled = [cell for cell in cells if cell]
    if not filled or sum(" " in cell.strip() and not WRITTEN_TIME.match(cell) for cell in filled) < 0.3 * len(filled):
        return False
    long = sum(map(len, filled)) / len(filled) >= 40
    return long or len(set(filled)) >= min(20, 0.3 * len(filled))


def _is_word(cells: list[str]) -> bool:
    return 2 * sum(moment(cell) is not None for cell in cells if cell) < len(cells) > sum(map(len, cells)) / 40


def _has_word(name: str, words: Sequence[str]) -> bool:
    return any(word in name.lower() for word in words)


def _ends_with(column: str, value: str) -> bool:
    """Whether a column is named like a value, in any case, perhaps behind something: target_0."""
    name, end = (re.sub(r"\W+", "_", text).lower() for text in (column, value))
    return name == end or name.endswith(f"_{end}")


def _is_turns(cells: list[str]) -> bool:
    try:
        return bool(cells) and all(turns_of(cell) is not None for cell in cells[:200])
    except ValueError:
        return False


def _number(cell: str) -> float | None:
    found = moment(cell)
    return found[1] if found and found[0] == "number" else None


def _lookup(lookup: Lookup) -> str:
    """Returns a lookup as an item of the YAML file."""
    given = {key: value for key, value in vars(lookup).items() if value or key == "key"}
    return f"  - {{{', '.join(f'{key}: {_word(value)}' for key, value in given.items())}}}"


def _slug(folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-_") or "competition"


def _word(text: str) -> str:
    """Returns a text as YAML: bare where that is plain to see, else in quotes."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", text) and text.lower() not in ("true", "false", "null")
    return text if plain else json.dumps(text, ensure_ascii=False)


def _flow(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(_word, texts))}]"

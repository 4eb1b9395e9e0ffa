"""Who may learn from whom: said when params.yaml is read, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from support import ROOT

from pipeline.artifacts import Artifacts
from pipeline.config import Params
from pipeline.errors import PodiumError
from pipeline.validation import validated

SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text())
NETWORK: dict[str, Any] = {"max_tokens": 64, "training": {"schedule": {"rate": 1e-4}}}
ENCODER = NETWORK | {"kind": "encoder", "backbone": "bert"}
MATE = {"kind": "external", "backbone": "none", "file": "external/mate.csv"}


def params(students: dict[str, Any], **members: Any) -> Params:
    return validated(Params, SHIPPED | {"members": SHIPPED["members"] | members, "students": students}, "params.yaml")


def small(*teachers: str, **changed: Any) -> dict[str, Any]:
    return ENCODER | {"teachers": {"members": list(teachers) or ["words"]}} | changed


def test_students_are_members_after_the_others_and_change_none_of_them() -> None:
    given = params({"small": small("siamese", "judge", "words")})
    assert list(given.members) == [*SHIPPED["members"], "small"] and list(given.students) == ["small"]
    alone = params({})
    assert {name: given.members[name] for name in alone.members} == alone.members
    assert validated(Params, SHIPPED, "params.yaml") == alone


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (lambda: params({}, mine=small()), "members.mine.teachers: who learns from others is an entry of students"),
        (lambda: params({"small": ENCODER}), "students.small: expected an encoder or decoder with teachers, found en"),
        (lambda: params({"small": SHIPPED["members"]["words"]}), "students.small: expected an encoder or decoder"),
        (lambda: params({"words": small()}), "students.words: there is a member of that name"),
        (lambda: params({"small": small("word")}), 'members: word is no member (did you mean "words"?)'),
        (lambda: params({"small": small(), "tiny": small("small")}), "students.tiny.teachers.members: small is a stu"),
        (lambda: params({"small": small("small")}), "students.small.teachers.members: small is a student"),
        (
            lambda: params({"small": small("half")}, half=ENCODER | {"folds": [0]}),
            "students.small.teachers.members: half does not train the folds [1, 2] of small",
        ),
        (lambda: params({"small": small("mate")}, mate=MATE), "mate is external: expected members.mate.fold_files"),
        (
            lambda: params({"small": small("mate")}, mate=MATE | {"fold_files": ["external/0.csv"]}),
            "one for each of folds.ids, found 1",
        ),
        (lambda: params({"small": small("words", "words")}), "teachers.members: expected different names"),
        (
            lambda: params({"small": ENCODER | {"teachers": {"members": ["words"], "weight": 0.0}}}),
            "teachers: weight and cosine are both 0",
        ),
        (
            lambda: params({"small": ENCODER | {"teachers": {"members": ["words"], "cosine": 1.0}}}),
            "students.small.teachers.cosine: needs pooled states of the same sequences",
        ),
        (
            lambda: params({"small": ENCODER | {"input": "joint", "teachers": {"members": ["siamese"], "cosine": 1}}}),
            "from a network of ours with the same input and kind of head, found siamese",
        ),
        (lambda: params({"small": small(temperature=2.0)}), 'unknown key "students.small.temperature"'),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_one_line(given: Any, expected: str) -> None:
    with pytest.raises(PodiumError) as caught:
        given()
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_student_may_train_the_folds_of_its_teachers_alone() -> None:
    given = params({"small": small("half", folds=[0])}, half=ENCODER | {"folds": [0]})
    assert [given.members["small"].trains(fold) for fold in (0, 1)] == [True, False]
    mate = MATE | {"fold_files": [f"external/{fold}.csv" for fold in range(3)]}
    assert params({"small": small("mate")}, mate=mate).students["small"]


def test_prune_takes_the_lessons_of_former_students(tmp_path: Any) -> None:
    artifacts = Artifacts(tmp_path)
    for student, fold, teacher in (
        ("small", 0, "words"),
        ("small", 0, "gone"),
        ("small", 4, "words"),
        ("old", 0, "words"),
    ):
        (artifacts.lessons(student, fold) / teacher).mkdir(parents=True)
    found = artifacts.strays({"words", "small"}, {"small"}, {0, 1}, set())
    assert sorted(str(each.relative_to(tmp_path / "lessons")) for each in found) == [
        "old/fold0/words", "small/fold0/gone", "small/fold4/words",
    ]  # fmt: skip


SOURCE = {"path": "external/more", "competition": "lmsys"}


def with_extra(source: dict[str, Any], students: dict[str, Any], **members: Any) -> Params:
    given = SHIPPED | {
        "members": SHIPPED["members"] | members,
        "students": students,
        "extra": {"more": SOURCE | source},
    }
    return validated(Params, given, "params.yaml")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            lambda: with_extra({}, {}, mine=ENCODER | {"extra": ["moer"]}),
            'members.mine.extra: no source "moer" under extra (did you mean "more"?)',
        ),
        (
            lambda: with_extra({"labels": "none"}, {}, mine=ENCODER | {"extra": ["more"]}),
            "members.mine.extra: more has no labels: only a student learns it, from its teachers' answers",
        ),
        (
            lambda: with_extra({"labels": "soft"}, {}, mine=SHIPPED["members"]["words"] | {"extra": ["more"]}),
            "members.mine.extra: more has labels: soft; a tabular member learns given ones alone",
        ),
        (
            lambda: with_extra({}, {}, mine=MATE | {"extra": ["more"]}),
            "extra: a file of predictions learns nothing: leave it out",
        ),
        (
            lambda: with_extra(
                {},
                {"small": small("mate", extra=["more"])},
                mate=MATE | {"fold_files": [f"external/{fold}.csv" for fold in range(3)]},
            ),
            "students.small.extra: its teacher mate is a file, which knows no row of more",
        ),
        (lambda: with_extra({"confidence": 0.1}, {}), "confidence is of what teachers say: leave it out unless labels"),
        (lambda: with_extra({"weight": 0.0}, {}), "extra.more.weight: input should be greater than 0"),
        (lambda: with_extra({"path": "data/more"}, {}), "extra.more.path: expected a file under external/"),
    ],
)
def test_rows_that_cannot_be_learned_are_one_line(given: Any, expected: str) -> None:
    with pytest.raises(PodiumError) as caught:
        given()
    assert expected in str(caught.value) and "\n" not in str(caught.value)

"""Asks one member's fold model about the rows that it learned from, where a student is to learn its answers.

python -u -m stages.teach --student small --teacher large --fold 0
"""

from pipeline.artifacts import Artifacts
from pipeline.data.split import split_rows
from pipeline.members.beside.teach import teach
from pipeline.members.context import read_start
from pipeline.stage import options, stage


def main(student: str, teacher: str, fold: int) -> None:
    artifacts = Artifacts()
    start = read_start(artifacts.start(student))
    rows = split_rows(artifacts.train().collect(), artifacts.folds(), fold).train
    teaches = teach(start, read_start(artifacts.start(teacher)), fold, rows, artifacts)
    told = f"has told {student} of {len(rows)} rows" if teaches else f"teaches {student} nothing"
    print(f"{teacher} fold {fold}: {told}")


if __name__ == "__main__":
    given = options(
        __doc__,
        student={"required": True, "help": "a key of `students` in params.yaml"},
        teacher={"required": True, "help": "a key of `members` in params.yaml"},
        fold={"required": True, "type": int, "help": "the fold that neither has learned"},
    )
    with stage(f"teach@{given.student}-{given.teacher}-{given.fold}"):
        main(given.student, given.teacher, given.fold)

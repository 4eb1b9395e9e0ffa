"""Renders reports/index.html from what the other stages measured.

python -m stages.report
"""

from pathlib import Path

from pipeline.files import write_text
from pipeline.report.evidence import load_evidence
from pipeline.report.page import PAGE, headline, render
from pipeline.stage import stage


def main() -> None:
    with stage("report"):
        evidence = load_evidence(Path())
        write_text(PAGE, render(evidence))
        print(f"{PAGE}: {headline(evidence)}")


if __name__ == "__main__":
    main()

"""Renders reports/index.html from what the other stages measured.

python -m stages.report
"""

from __future__ import annotations

from pathlib import Path

from pipeline.files import write_text
from pipeline.report.evidence import load_evidence
from pipeline.report.page import headline, render
from pipeline.stage import stage

PAGE = Path("reports/index.html")


def main() -> None:
    """Reads metrics/, artifacts/ and work/seconds/, writes the page, prints where it is and the headline."""
    with stage("report"):
        evidence = load_evidence(Path())
        write_text(PAGE, render(evidence))
        print(f"{PAGE}: {headline(evidence)}")


if __name__ == "__main__":
    main()

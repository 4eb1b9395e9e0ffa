"""Runs the kaggle command as it is, with two additions: a log of the answers' HTTP status, and `look owner/dataset`.

The CLI prints the server's message without its status, so nobody could tell "wait a little" from "never". Its HTTP
library logs each answer; here this goes to the file that PODIUM_ANSWERS names, as lines of `429 POST /api/v1/...`.
`look` prints a dataset's state with the notes of its versions as JSON; no command of the CLI shows the notes.

Run as a file, not as a module, and with `python -P`: a folder of ours has a file kaggle.py in it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys

ANSWER = re.compile(r'"(\w+) ([^ "?]*)[^"]*" (\d{3})')
"""One request in the log; the query of an address is left out, because signed addresses carry a secret there."""


class StatusLog(logging.FileHandler):
    """Writes one line per HTTP answer."""

    def emit(self, record: logging.LogRecord) -> None:
        if found := ANSWER.search(record.getMessage()):
            super().emit(logging.makeLogRecord({"msg": f"{found[3]} {found[1]} {found[2]}"}))


def log_answers() -> None:
    """Makes urllib3, which the CLI talks through, log what was answered."""
    logger = logging.getLogger("urllib3.connectionpool")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(StatusLog(os.environ["PODIUM_ANSWERS"], encoding="utf-8"))


def look(dataset: str) -> None:
    """Prints a dataset's state, current version and all versions' notes, through the library that the CLI uses."""
    from kaggle import api
    from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

    if not api._authenticated:
        api.authenticate()
    request = ApiGetDatasetRequest()
    request.owner_slug, request.dataset_slug = dataset.split("/")
    with api.build_kaggle_client() as client:
        found = client.datasets.dataset_api_client.get_dataset(request)
    try:
        state = api.dataset_status(dataset)
    except KeyError as unknown:  # a state that is newer than this library
        state = unknown.args[0].lower()
    notes = {each.version_number: each.version_notes for each in found.versions or ()}
    print(json.dumps({"state": state, "current": found.current_version_number, "notes": notes}))


def main() -> None:
    log_answers()
    sys.argv[0] = "kaggle"
    if sys.argv[1] == "look":
        try:
            look(sys.argv[2])
        except OSError as error:  # what the CLI does with its own commands
            sys.exit(str(error))
    else:
        from kaggle.cli import main as kaggle

        kaggle()


if __name__ == "__main__":
    main()

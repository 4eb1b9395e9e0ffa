"""Runs stages again and again, and kills them at random moments with SIGKILL.

python tests/helpers/killed.py FOLDER SEED KILLS JOB ...      # JOB: pretrain:NAME or finetune:MEMBER

A process of its own: everything slow is imported once, and each run is a fork that nothing has computed in before. It
prints as JSON, for each job, how often it was killed, how often it went on from a checkpoint, how often it came to its
end, and the outputs that then differed from those of a run that was left alone.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from pipeline.files import sha256_file
from pipeline.members import decoder, encoder  # noqa: F401
from pipeline.training import pretrain  # noqa: F401
from pipeline.training.checkpoint import ROOT
from stages import finetune
from stages import pretrain as pretrain_stage

LOG = Path("log.txt")


def start(job: str) -> int:
    """The process id of a fork that runs the stage, leader of its own group."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    stage, name = job.split(":")
    try:
        if stage == "pretrain":
            pretrain_stage.main(name)
        else:
            finetune.main(name, 0, None)
    except BaseException as error:
        print(f"failed: {error!r}", flush=True)
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def folders(job: str) -> list[Path]:
    stage, name = job.split(":")
    parts = ("members", "oof", "receipts") if stage == "finetune" else ("pretrained",)
    named = [Path("artifacts") / part for part in parts]
    return [each if each.name == "receipts" else each / name for each in named]


def outputs(job: str) -> dict[str, str]:
    """Every file that the job has written, and what a killed run has left beside them, with its hash."""
    found = [file for folder in folders(job) for file in folder.rglob("*") if file.is_file()]
    partial = [file for folder in folders(job) for file in folder.parent.glob(".*.partial")]
    return {str(file): sha256_file(file) for file in found} | {str(file): "left behind" for file in partial}


def clean(job: str) -> None:
    for folder in folders(job):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(ROOT, ignore_errors=True)


def finished(child: int, seconds: float) -> bool:
    """Waits that long for a run, then kills its group; whether it came to its end by itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, LOG.read_text()[-3000:]
            return True
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return not os.WIFSIGNALED(status)


def play(job: str, kills: int, draw: random.Random) -> dict:
    """Kills the job until it has been killed often enough; each run that comes to its end is compared."""
    began = time.monotonic()
    assert finished(start(job), 300)
    alone, wanted = time.monotonic() - began, outputs(job)
    clean(job)
    told = {"killed": 0, "ended": 0, "differing": [], "files": len(wanted)}
    LOG.unlink()
    while told["killed"] < kills or not told["ended"]:
        patient = told["killed"] >= kills
        # Early and late: from within the first imports of data to the writing of the last file.
        if finished(start(job), 300 if patient else draw.uniform(0.05, 0.8) * alone):
            told["ended"] += 1
            found = outputs(job)
            told["differing"] += [name for name in wanted | found if wanted.get(name) != found.get(name)]
            clean(job)
        else:
            told["killed"] += 1
    told["resumed"] = LOG.read_text().count("goes on after step")
    return told


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    chance = random.Random(int(sys.argv[2]))
    print(json.dumps({job: play(job, int(sys.argv[3]), chance) for job in sys.argv[4:]}))

"""The few things that are asked of git: is the tree clean, which commit is submitted, and a commit of single files.

Such a commit is made from objects, without the index: what a user has staged or edited meanwhile stays as it is.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from pipeline.errors import PodiumError

TRIAL = "podium-trial"


def git(*arguments: str, stdin: str | None = None, **environment: str) -> str:
    """Runs `git ARGUMENTS` and returns what it prints, without the final newline.

    Raises: PodiumError with git's own words.
    """
    done = subprocess.run(
        ["git", *arguments], input=stdin, env=os.environ | environment, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise PodiumError(f"git {arguments[0]}: {said}")
    return done.stdout.rstrip("\n")


def commit_of(name: str) -> str:
    """Returns the full hash of the commit that a branch, a tag or HEAD names."""
    return git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")


def changed_files() -> list[str]:
    """Returns the files that differ from HEAD, new ones that git does not ignore among them."""
    listed = git("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames").split("\0")
    return [entry[3:] for entry in listed if entry]


def refuse_dirty(allow: bool) -> None:
    """Prints a warning where the tree differs from its commit.

    Raises: PodiumError with the commands to type, where that is not allowed.
    """
    if not (changed := changed_files()):
        return
    some = ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")
    if not allow:
        raise PodiumError(
            f"a submission is a commit, but {some} changed since the last one: "
            "`git add -A && git commit -m 'what is new'` (or ARGS=--allow-dirty)"
        )
    print(f"warning: not in the commit: {some}", flush=True)


def check_can_tag() -> None:
    """Makes a tag and removes it again, so that no submission is spent or scored that could not be marked.

    Raises: PodiumError with git's own words and what may help.
    """
    try:
        git("tag", "-f", "-a", TRIAL, "-m", "a trial", "HEAD")
        git("tag", "-d", TRIAL)
    except PodiumError as error:
        raise PodiumError(
            f"no tag can be made here, and each submission gets one: {str(error)[:300]} "
            "(user.name and user.email must be set; with tag.gpgSign there must be a key)"
        ) from None


def numbered_tags(prefix: str) -> dict[int, str]:
    """Returns {number: full commit hash} of the tags `prefix`-1, `prefix`-2 and so on, in rising order."""
    listed = git("for-each-ref", "--format=%(refname:short) %(objectname) %(*objectname)", f"refs/tags/{prefix}-*")
    found = {}
    for line in listed.splitlines():
        name, made, target = line.split(" ")
        if number := re.fullmatch(rf"{re.escape(prefix)}-(\d+)", name):
            found[int(number[1])] = target or made  # an annotated tag is an object that names its commit
    return dict(sorted(found.items()))


def tag_message(name: str) -> str:
    """Returns the message of an annotated tag."""
    return git("for-each-ref", "--format=%(contents)", f"refs/tags/{name}")


def file_at(revision: str, path: str) -> str | None:
    """Returns a file's text in a commit; None where the commit has no such file."""
    try:
        return git("show", f"{revision}:./{path}") + "\n"
    except PodiumError:
        return None


def fetch_contents(revisions: list[str]) -> None:
    """Has git fetch what this clone lacks of these commits' files: one made with --filter=blob:none lacks most.

    Raises: PodiumError where it cannot.
    """
    if not revisions:
        return
    listed = git("rev-list", "--objects", "--no-walk", "--missing=print", *revisions).splitlines()
    missing = [line[1:] for line in listed if line.startswith("?")]
    if not missing:
        return
    try:
        promised = git("config", "--get-regexp", r"^remote\..*\.promisor$").splitlines()[0]
        remote = promised.removeprefix("remote.").partition(".promisor")[0]
        # In one request; git itself would fetch each file when it is looked at.
        git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--stdin", remote, stdin="\n".join(missing))
    except PodiumError as error:
        raise PodiumError(
            f"this clone lacks {len(missing)} files of earlier commits, and git cannot fetch them: "
            f"{str(error)[:200]}; try again where the remote can be reached, or clone without --filter"
        ) from None


def commit_on(base: str, files: dict[str, str], message: str) -> str:
    """Makes a commit on top of `base` in which `files` (path -> text) are as given; returns its hash.

    No branch moves. Paths are relative to the working directory.
    """
    prefix = git("rev-parse", "--show-prefix")
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git("read-tree", base, **index)
        for path, text in files.items():
            blob = git("hash-object", "-w", "--stdin", stdin=text)
            git("update-index", "--add", "--cacheinfo", f"100644,{blob},{prefix}{path}", **index)
        tree = git("write-tree", **index)
    return git("commit-tree", tree, "-p", base, "-m", message)


def commit_here(files: dict[str, str], message: str) -> str:
    """Makes such a commit on top of HEAD, moves HEAD to it, writes the files to the working tree; returns its hash.

    Raises: PodiumError where one of the files has edits that are not committed; they would be lost.
    """
    edited = sorted(set(changed_files()) & {git("rev-parse", "--show-prefix") + path for path in files})
    if edited:
        raise PodiumError(f"{edited[0]}: has edits that are not committed; `git checkout {edited[0]}` first")
    head = commit_of("HEAD")
    made = commit_on(head, files, message)
    git("update-ref", "-m", message, "HEAD", made, head)
    git("checkout", made, "--", *files)
    return made

"""Which files of ours a module really needs, and one hash of what their code does.

A comment or a docstring changes no hash, so it retrains nothing; the same walk decides what the kernel's package ships.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("pipeline", "stages")


def closure(*modules: str, root: Path = ROOT) -> list[Path]:
    """Returns the files (relative to `root`, sorted) of ours that importing `modules` loads, themselves included."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        file = _file(waiting.pop(), root)
        if file is None or file in found:
            continue
        found.add(file)
        waiting += [name for name in _imported(file, root) if name.split(".")[0] in OURS]
    # Importing a module runs the __init__ of every package above it.
    packages = {parent / "__init__.py" for file in found for parent in file.parents if parent != Path(".")}
    return sorted(found | {package for package in packages if (root / package).exists()})


def libraries(module: str, root: Path = ROOT) -> list[str]:
    """Returns the top-level names of the installed libraries that the closure of `module` imports, sorted."""
    names = {name.split(".")[0] for file in closure(module, root=root) for name in _imported(file, root)}
    return sorted(names - set(OURS) - set(sys.stdlib_module_names))


def fingerprint(module: str, alone: tuple[str, ...] = (), without: tuple[str, ...] = (), root: Path = ROOT) -> str:
    """Returns the hex SHA-256 over the syntax trees of the closure of `module`, without comments and docstrings.

    Files named in `alone` count too, but not what they import: they call one of several kinds, and a change to
    another kind is no change to this one. Files in `without` do not count.
    """
    digest = hashlib.sha256()
    for file in sorted({*closure(module, root=root), *map(Path, alone)} - set(map(Path, without))):
        tree = _without_docstrings(ast.parse((root / file).read_text(encoding="utf-8")))
        digest.update(f"{file.as_posix()}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()


def _file(module: str, root: Path) -> Path | None:
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (root / candidate).exists():
            return candidate
    return None


def _imported(file: Path, root: Path) -> tuple[str, ...]:
    """Returns every module name that `file` imports anywhere in its text; a `from` import may name a submodule."""
    return _imports((root / file).read_text(encoding="utf-8"))


@cache
def _imports(text: str) -> tuple[str, ...]:
    """Returns the module names that a file's text imports; it is parsed once, however many modules import it."""
    names: list[str] = []
    waiting: list[ast.AST] = [ast.parse(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse  # what the other branch imports is for type checkers, and never loaded
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _without_docstrings(tree: ast.AST) -> ast.AST:
    """Drops every bare string expression: docstrings of modules, classes and functions, and those of fields."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [line for line in body if not (isinstance(line, ast.Expr) and _is_text(line.value))]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)

"""Builds the Kaggle dataset in artifacts/package/.

python -m stages.package
"""

from pathlib import Path

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.package.build import build_package
from pipeline.package.wheels import find_wheels
from pipeline.stage import stage

if __name__ == "__main__":
    with stage("package"):
        params = load_params()
        kinds = {member.kind for member in params.members.values()}
        wheels = find_wheels(Path(".venv/wheels"), Path("requirements.lock"), kinds)
        build_package(Artifacts(), params.package, wheels)

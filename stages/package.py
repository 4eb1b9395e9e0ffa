"""Build the Kaggle dataset in artifacts/package/.

python -m stages.package
"""

from pathlib import Path

from pipeline.config import load_params
from pipeline.delivery.package import build_package
from pipeline.delivery.wheels import find_wheels
from pipeline.stage import stage

if __name__ == "__main__":
    with stage("package"):
        wheels = find_wheels(Path(".venv/wheels"), Path("requirements.lock"))
        build_package(Path("artifacts"), load_params().package, wheels)

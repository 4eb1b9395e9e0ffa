"""Brings one backbone here: from the hub, from a folder, or built from the training rows' text.

python -u -m stages.backbone --backbone small
"""

from pipeline.artifacts import FACTS, Artifacts
from pipeline.config import load_params
from pipeline.errors import PodiumError, nearest
from pipeline.files import atomic_folder, read_json
from pipeline.models.backbones.obtain import obtain
from pipeline.stage import options, stage


def main(name: str) -> None:
    backbones = load_params().backbones
    if name not in backbones:
        raise PodiumError(f'params.yaml: backbones: no backbone "{name}"{nearest(name, backbones)}')
    with atomic_folder(Artifacts().backbone(name)) as folder:
        obtain(name, backbones[name], training_rows_texts, folder)
        made = read_json(folder / FACTS)
    if made["family"] == "none":
        print(f"{name}: no network")
        return
    limit = f"at most {made['positions']} tokens" if made["positions"] else "any length"
    print(
        f"{name}: {made['family']} {made['architecture']}, {made['layers']} layers of {made['hidden']}, "
        f"{made['parameters'] / 1e6:.1f} million parameters, {limit}"
    )


def training_rows_texts() -> list[str]:
    """Returns the text that a scratch backbone may see. Imported here, since most backbones need none of it."""
    from pipeline.data.corpus import training_texts

    artifacts = Artifacts()
    return training_texts(artifacts.seen_rows(), artifacts.competition().kind)


if __name__ == "__main__":
    name = options(__doc__, backbone={"required": True, "help": "a key of `backbones` in params.yaml"}).backbone
    with stage(f"backbone@{name}"):
        main(name)

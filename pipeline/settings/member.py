"""What the settings of every member kind have in common."""

from __future__ import annotations

from pipeline.section import section


@section
class MemberSettings:
    """One entry of `members` in params.yaml. Each kind adds its own keys; see pipeline/kinds.py."""

    kind: str
    """A key of pipeline.kinds.KINDS."""
    backbone: str
    """A key of `backbones`. Members without a network say `none`, because dvc.yaml looks up the same key in all."""
    folds: tuple[int, ...] | None = None
    """Train these folds only; the others write empty parts. All where it is left out."""

    extra: tuple[str, ...] = ()
    """Names under `extra`: sources whose rows its fold models learn, too."""

    @property
    def devices(self) -> int:
        """Returns on how many devices a fold model is trained."""
        return 1

    def trains(self, fold: int) -> bool:
        """Returns whether there is a model of this fold."""
        return self.folds is None or fold in self.folds

    def files(self) -> dict[str, str]:
        """Returns key -> path of the user's files whose contents decide the training."""
        return {}

"""How scenes are divided into train, val and test, where neither they nor their areas say so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from geocrodino.settings.section import Section

SceneSplit = Literal["train", "val", "test", "unlabelled"]
"""The split of a whole scene."""

SPLIT_SYNONYMS: dict[str, SceneSplit] = {
    "training": "train", "trn": "train", "validation": "val", "validate": "val", "valid": "val", "dev": "val",
    "testing": "test", "tst": "test", "unlabeled": "unlabelled",
}  # fmt: skip
"""Other words for splits, in small letters."""

_Share = Annotated[float, Field(ge=0)]


class SplitSettings(Section):
    """How scenes are divided into splits."""

    by: Literal["blocks", "scenes"] | None = Field(
        None,
        description="blocks: each scene is cut into blocks; scenes: whole scenes are drawn; by default blocks for one "
        "scene, scenes for six or more",
    )
    block_m: float | None = Field(None, gt=0, description="side of a block, m; by default a sixth of the scene")
    buffer_m: float | None = Field(
        None,
        ge=0,
        description="width of the strip that is left out between splits of a scene, m; by default that of a patch",
    )
    shares: (
        tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None
    ) = Field(None, description="shares of train, val and test; by default 0.6, 0.2, 0.2")
    lists: dict[SceneSplit, Path] = Field(
        {}, description="file with the names of the scenes of a split, or of their files, one a line; or a CSV"
    )
    column: str | None = Field(None, description="column of the names, where the lists are CSV files")
    folds: int | None = Field(None, ge=2, description="number of folds of a cross-validation over scenes or blocks")
    fold: int | None = Field(None, ge=0, description="the fold that is held out, counted from 0")

    @model_validator(mode="after")
    def _fit_together(self) -> SplitSettings:
        if (self.block_m is not None or self.buffer_m is not None) and self.by != "blocks":
            raise ValueError(f"block_m and buffer_m apply to by: blocks, found by: {self.by or 'nothing'}")
        if self.shares is not None and not math.isclose(sum(self.shares), 1, abs_tol=1e-6):
            raise ValueError(f"shares: expected three numbers that sum to 1, found a sum of {sum(self.shares):g}")
        if self.column is not None and not self.lists:
            raise ValueError("column names a column of the files under lists, found no lists")
        if self.folds is not None and self.lists:
            raise ValueError("expected folds or lists, found both. Give only one of them")
        if self.folds is not None and self.shares is not None:
            raise ValueError("expected folds or shares, found both. Give only one of them")
        if self.fold is not None and (self.folds is None or self.fold >= self.folds):
            raise ValueError(f"fold: expected a number below folds ({self.folds or 'not given'}), found {self.fold}")
        return self

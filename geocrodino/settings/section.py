"""What all sections of the configuration share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Keys and values that are checked when they are read and do not change afterwards. An unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

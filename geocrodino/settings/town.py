"""Settings of the generated scene, and its classes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from geocrodino.settings.classes import ClassScheme, LandClass

GROUND, ROAD, BUILDING, TREE, WATER = range(5)

CLASSES = ClassScheme(
    classes=(
        LandClass(value=GROUND, name="ground", colour="#cdbf8c"),
        LandClass(value=ROAD, name="road", colour="#6b6f75"),
        LandClass(value=BUILDING, name="building", colour="#d1493f"),
        LandClass(value=TREE, name="tree", colour="#2e8b3d"),
        LandClass(value=WATER, name="water", colour="#2f6fb7"),
    )
)
"""Classes of the generated scene, in index order. Their values in files equal the indices."""

ELEVATION_NODATA = -9999.0
"""Value of missing heights in the surface model, m."""


class SceneSettings(BaseModel):
    """Settings of a generated scene. The same settings give the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_m: Annotated[float, Field(ge=96, le=4096, description="side of the optical image, metres")] = 512.0
    resolution_m: Annotated[float, Field(ge=0.25, le=2.0, description="pixel of image and labels, metres")] = 0.5
    elevation_resolution_m: Annotated[float, Field(ge=0.25, le=4.0, description="pixel of the heights, metres")] = 1.0
    seed: Annotated[int, Field(ge=0, description="the same seed gives the same scene")] = 0
    sun_azimuth_deg: Annotated[float, Field(ge=0, lt=360, description="direction of the sun, clockwise, north 0")] = (
        152.0
    )
    sun_elevation_deg: Annotated[float, Field(ge=15, le=85, description="sun above the horizon, degrees")] = 42.0
    relief_m: Annotated[float, Field(ge=0, le=200, description="height of the hills above the river, metres")] = 26.0
    image_noise: Annotated[float, Field(ge=0, le=50, description="sensor noise, grey values")] = 3.5
    elevation_noise_m: Annotated[float, Field(ge=0, le=2, description="noise of heights on land, metres")] = 0.12
    hole_share: Annotated[float, Field(ge=0, le=0.2, description="share of land without a height")] = 0.004
    ignore_edges: Annotated[bool, Field(description="leave the pixels along object edges unlabelled")] = True

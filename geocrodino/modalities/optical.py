"""The modality ``optical``: any bands of an image."""

from __future__ import annotations

from geocrodino.modalities.image import ImageModality
from geocrodino.modalities.registry import register

OPTICAL = register(ImageModality("optical", code=1, colour="#4c9ed9", raster="an image"))

"""Class maps as files: writing, polygons, STAC items, previews."""

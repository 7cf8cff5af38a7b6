"""Land-cover maps from optical or elevation rasters: train on both, predict from whichever is there.

The public names are listed in ``__init__.pyi``. Each is imported when it is first used, so importing the package is
fast.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

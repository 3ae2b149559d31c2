"""Sphinx's configuration. Build with: sphinx-build -W -b html docs docs/_build/html."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from vramplan import __version__

project = "vramplan"
author = "the vramplan contributors"
project_copyright = "the vramplan contributors, Apache License 2.0"
version = release = __version__

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3  # so that one page can point at a heading of another

exclude_patterns = ["_build", "_extra"]
#: what is put beside the pages as it is: python -m tools.static_page --out docs/_extra/try
html_extra_path = ["_extra"] if (Path(__file__).parent / "_extra").is_dir() else []
nitpicky = True  # a reference that leads nowhere is an error under -W

html_theme = "furo"
html_title = f"vramplan {version}"
html_copy_source = False
html_show_sphinx = False

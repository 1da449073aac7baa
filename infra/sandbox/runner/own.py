"""The project that a flow folder is itself."""

import os

DESCRIPTIONS = ("pyproject.toml", "setup.cfg", "setup.py")


def own_source(folder):
    """Returns the folders of the flow's own packages beside the flow folder: in `src`, if it is a
    project with that layout. Nothing is built."""
    source = os.path.join(folder, "src")
    is_project = any(os.path.isfile(os.path.join(folder, name)) for name in DESCRIPTIONS)
    return [source] if is_project and os.path.isdir(source) else []

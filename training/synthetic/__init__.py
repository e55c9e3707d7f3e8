"""Synthetic panoramas with exact depth: procedural indoor and outdoor scenes, and a ray caster that draws them.

`render_batch(seeds, height, width)` in `render.py` is the way in; `dap render` writes samples to look at.
"""

RENDERER_VERSION = 3
"""Counts up when the same seed gives another picture or another depth: rendered scenes that are kept on disk are named by it."""

"""Perspective views: a zip of pictures that any program opens, or NumPy arrays in one file.

The zip holds, for each view, `NAME.depth.png` (16-bit grey, as `png16` has it), `NAME.jpg` (its colours) and, for all
of them, `cameras.json`.
"""

import json
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

from dap import sphere
from dap.depth import STEPS_PER_METRE, DepthMap
from dap.formats import png16
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format, registry
from dap.formats.bundle import Part, zip_of
from dap.views import Views

QUALITY = 92


def encode_zip(views: Views, options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The views as a zip of PNG, JPEG and JSON."""
    cameras = json.dumps(describe(views), indent=1).encode()
    return zip_of([Part("cameras.json", "application/json", cameras), *_pictures(views, options)])


def encode_npz(views: Views, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The views as .npz: depth (NaN where not valid), valid, colors, K, poses, names, measure, frame, range, model."""
    stream = BytesIO()
    np.savez(
        stream,
        allow_pickle=False,
        depth=np.where(views.valid, views.depth, np.float32(np.nan)),
        valid=views.valid,
        colors=views.colors,
        K=views.intrinsics,
        poses=views.poses,
        names=np.array(views.names),
        measure=np.array(views.measure),
        frame=np.array(views.frame),
        range=np.array(np.nan if views.range is None else views.range),
        model=np.array(views.model),
    )
    return stream.getvalue()


def describe(views: Views) -> dict[str, object]:
    """The cameras, and how to read the pictures, as JSON takes them."""
    height, width = views.size
    return {
        "layout": views.layout,
        "width": width,
        "height": height,
        "fov_deg": views.fov_deg,
        "K": views.intrinsics.tolist(),
        "pixel_centers": "the centre of the first pixel is (0, 0)",
        "camera_axes": sphere.AXES["opencv"],
        "pose": "camera to world, 4x4, metres",
        "frame": views.frame,
        "world_axes": sphere.AXES[views.frame],
        "depth": {
            "measure": views.measure,
            "unit": "metre",
            "scale": STEPS_PER_METRE,
            "invalid": png16.INVALID,
            "sampling": "nearest",
        },
        "range": views.range,
        "range_mask": views.range_mask,
        "model": views.model,
        "views": [
            {"name": name, "depth": f"{name}.depth.png", "colors": f"{name}.jpg", "pose": pose.tolist()}
            for name, pose in zip(views.names, views.poses, strict=True)
        ],
    }


def _pictures(views: Views, options: EncodeOptions) -> Iterator[Part]:
    for name, depth, valid, colors in zip(views.names, views.depth, views.valid, views.colors, strict=True):
        view = DepthMap(depth, valid, views.range, views.range_mask, views.model)
        yield Part(f"{name}.depth.png", "image/png", png16.encode(view, options))
        stream = BytesIO()
        Image.fromarray(colors).save(stream, "JPEG", quality=QUALITY)
        yield Part(f"{name}.jpg", "image/jpeg", stream.getvalue())


VIEW_FORMATS: dict[str, Format[Views]] = registry(
    Format(
        name="zip",
        media_type="application/zip",
        extension=".zip",
        description="zip: 16-bit PNG of depth and JPEG of colours for each view, cameras.json",
        write=encode_zip,
    ),
    Format(
        name="npz",
        media_type="application/x-npz",
        extension=".npz",
        description="NumPy arrays: depth, valid, colours, K, poses",
        write=encode_npz,
    ),
)

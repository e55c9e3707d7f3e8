"""Command-line options that several sub-commands share."""

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from dap.depth import RANGES, SEAMS, UPSAMPLES
from dap.engines import ENGINES, PRECISIONS, PROVIDERS
from dap.models import DEFAULT_MODEL
from dap.postprocess import MAX_CAMERA_HEIGHT_M

Command = TypeVar("Command", bound=Callable[..., Any])

option = functools.partial(click.option, show_envvar=True)
"""`click.option` whose help names the environment twin."""


class PixelSize(click.ParamType[tuple[int, int] | str]):
    """WxH in pixels with W = 2 H, converted to (h, w); or one of some words."""

    name = "size"

    def __init__(self, *words: str) -> None:
        self._words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click passes them
        return "|".join((*self._words, "WxH"))

    def convert(
        self, value: tuple[int, int] | str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int] | str:
        if isinstance(value, tuple) or value in self._words:
            return value
        match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", value)
        if match is None or int(match[1]) != 2 * int(match[2]):
            expected = ", ".join((*self._words, "WxH in pixels with W = 2 H"))
            self.fail(f"{value!r} is not one of: {expected}", param, ctx)
        return int(match[2]), int(match[1])


threads_option = option(
    "--threads",
    type=click.IntRange(min=1),
    envvar="DAP_THREADS",
    help="Cores to work with on the CPU; by default all that this process may use.",
)
engine_option = option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    envvar="DAP_ENGINE",
    help="What runs the model; auto: what its file is for.",
)
device_option = option(
    "--device",
    default="auto",
    envvar="DAP_DEVICE",
    help="Where the engine runs: cpu, cuda or cuda:N; auto: a GPU where the engine's library is built for one; "
    "cuda,cpu: the CPU where the GPU does not start.",
)
provider_option = option(
    "--provider",
    type=click.Choice(PROVIDERS),
    default="auto",
    envvar="DAP_PROVIDER",
    help="How the onnx engine runs on a GPU: by CUDA (auto), or by TensorRT, and by CUDA what TensorRT does not take; "
    "tensorrt then takes minutes for each size, to build plans.",
)
precision_option = option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    envvar="DAP_PRECISION",
    help="Numbers that the torch engine computes with, but for what needs fp32; exported files bring their own.",
)
max_batch_size_option = option(
    "--max-batch-size",
    type=click.IntRange(min=1, max=256),
    default=4,
    envvar="DAP_MAX_BATCH_SIZE",
    help="Panoramas that run together at most, as `dap serve` is told; plans of TensorRT are built for it.",
)
range_option = option(
    "--range",
    type=click.Choice([*(f"{threshold:g}" for threshold in RANGES), "none"]),
    default="100",
    callback=lambda _ctx, _param, value: None if value == "none" else float(value),
    help="Metres within which depth is valid; none: no range mask.",
)
resolution_option = option(
    "--resolution",
    type=PixelSize(),
    help="WxH at which the model sees panoramas; by default its own. More sees finer things and takes longer, if it "
    "was trained for that. A checkpoint takes any multiples of 16, an exported model those it has files for "
    "(`dap export --size`).",
)
json_option = option("--json", "as_json", is_flag=True, envvar="DAP_JSON", help="Print one JSON document, for scripts.")


def depth_options(command: Command) -> Command:
    """`--range`, `--seam`, `--upsample`, `--nadir-mask`, `--camera-height`, as `dap.predictor.Predictor` takes them."""
    options = (
        range_option,
        option(
            "--seam",
            type=click.Choice(SEAMS),
            default="none",
            help="blend: predict twice, half a turn apart, for no seam at the left and right border; takes twice as "
            "long. Models that go round the circle, such as dap-s, have none and predict once.",
        ),
        option(
            "--upsample",
            type=click.Choice(UPSAMPLES),
            default="bilinear",
            help="How the network's depth becomes larger; guided: with the edges of the panorama's colours.",
        ),
        option(
            "--nadir-mask",
            type=click.FloatRange(0, 90),
            default=0.0,
            help="Degrees around straight down that are not valid: the tripod. Too few keep some of it, too many "
            "lose floor.",
        ),
        option(
            "--camera-height",
            type=click.FloatRange(0, MAX_CAMERA_HEIGHT_M, min_open=True),
            help="Metres of the camera above the floor: the floor then fixes the scale. By default the model does.",
        ),
    )
    for decorate in reversed(options):
        command = decorate(command)
    return command


def engine_options(command: Command) -> Command:
    """`--model` and the `runtime_options`, as `dap.predictor.Predictor` takes them."""
    model = option(
        "--model",
        default=DEFAULT_MODEL,
        envvar="DAP_MODEL",
        help="A name that `dap models` lists, or a model's file.",
    )
    return model(runtime_options(command))


def runtime_options(command: Command) -> Command:
    """`--engine`, `--device`, `--threads` and `--precision`, as `dap.predictor.Predictor` takes them."""
    options = (
        engine_option,
        device_option,
        threads_option,
        precision_option,
    )
    for decorate in reversed(options):
        command = decorate(command)
    return command

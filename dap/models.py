"""The registry of models: the bundled one, the official release, and any file.

A model is a name with weights, a licence, input sizes and range thresholds. `find_model` takes a name or a path;
`model_file` gives its file, or an error that says which file to put where; `pull` fetches it.

An exported file is for one input size. Those of the same weights for other sizes lie beside it: `dap-s@1024x512.onnx`
beside `dap-s.onnx`. A checkpoint runs at any.
"""

import glob
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dap.depth import RANGES
from dap.errors import DownloadFailed, InvalidParameter, ModelFileInvalid, ModelFileMissing, UnknownModel
from dap.graph import GraphMetadata, read_graph_metadata, size_from_json
from dap.hub import HubFile, Progress, fetch
from dap.model.config import CONFIG_KEY, NetworkConfig
from dap.resolutions import Size, check_resolution, choose_resolution, parse_resolution, resolution_text

DEFAULT_MODEL = "dap-s"
SUFFIXES = (".onnx", ".pth", ".safetensors")

_OFFICIAL_SIZE = (512, 1024)
_OFFICIAL_THRESHOLDS = (100.0,)
_OFFICIAL_LICENCE = (
    "see the model card: sources differ (MIT beside the code, apache-2.0 proposed, CC BY-NC 4.0 recorded by an "
    "integrator); the encoder is under Meta's DINOv3 licence"
)
_NOT_STATED = "not stated in the file"

State = Literal["bundled", "downloaded", "not downloaded", "local file", "missing"]


@dataclass(frozen=True)
class Model:
    """A model of the registry, or a file described like one.

    Attributes:
        name: `dap-s`; of a file, the name inside it or that of the file.
        description: one line for people.
        licence: of the weights, as a person reads it.
        source: where the weights come from.
        input_size: (H, W) pixels that the network sees unless asked otherwise; multiples of 16.
        thresholds: metres, ascending: the channels of its range mask head.
        path: where the file is, or will be once it is downloaded.
        hub: the file on a hub, where it has one.
        bundled: part of this package.
        spherical: longitude is a circle to its network, so it has no seam to blend.
        siblings: the same weights at other input sizes, each without siblings of its own.
    """

    name: str
    description: str
    licence: str
    source: str
    input_size: tuple[int, int]
    thresholds: tuple[float, ...]
    path: Path
    hub: HubFile | None = None
    bundled: bool = False
    spherical: bool = False
    siblings: tuple["Model", ...] = ()

    @property
    def sizes(self) -> tuple[Size, ...]:
        """(H, W) of all that it is offered at, `input_size` first."""
        return (self.input_size, *(sibling.input_size for sibling in self.siblings))

    @property
    def is_exported(self) -> bool:
        """Whether its file is a graph of one input size, not a checkpoint."""
        return self.path.suffix == ".onnx"

    def at(self, size: Size) -> "Model":
        """The same at one input size alone.

        Raises:
            ResolutionNotOffered: it is exported, and not for this size.
            InvalidParameter: it is a checkpoint, and no network runs at this size.
        """
        if not self.is_exported:
            return replace(self, input_size=check_resolution(size), siblings=())
        wanted = choose_resolution(size, self.sizes, self.name)
        return next(replace(one, siblings=()) for one in (self, *self.siblings) if one.input_size == wanted)

    def offering(self, sizes: Sequence[Size]) -> "Model":
        """The same at these input sizes, the first of which is for who does not ask for one.

        Raises:
            ResolutionNotOffered, InvalidParameter: as `at` says.
        """
        first, *others = [self.at(size) for size in dict.fromkeys(sizes)]
        return replace(first, siblings=tuple(others))

    @property
    def state(self) -> State:
        """Whether its file is on this machine, and why it would be."""
        if not self.path.is_file():
            return "not downloaded" if self.hub else "missing"
        if self.bundled:
            return "bundled"
        return "downloaded" if self.hub else "local file"


def known_models() -> tuple[Model, ...]:
    """Every model with a name, the default first."""
    official = HubFile("Insta360-Research/DAP-weights", "model.pth", 1_460_746_347)
    return (
        Model(
            name="dap-s",
            description="small, trained on rendered scenes from ImageNet weights; for the CPU",
            licence="Apache-2.0",
            source="this package",
            input_size=(256, 512),
            thresholds=RANGES,
            path=Path(__file__).parent / "weights" / "dap-s.onnx",
            bundled=True,
            spherical=True,
        ),
        Model(
            name="dap-official-l",
            description="the official release of DAP, ViT-L; for a GPU",
            licence=_OFFICIAL_LICENCE,
            source=official.repository,
            input_size=_OFFICIAL_SIZE,
            thresholds=_OFFICIAL_THRESHOLDS,
            path=cache_folder() / "models" / "dap-official-l" / official.name,
            hub=official,
        ),
    )


def cache_folder() -> Path:
    """Where downloads are kept: DAP_HOME, or `dap` in the user's cache folder (XDG Base Directory Specification).

    A user without a home (a container's bare number) has none until DAP_HOME is set; nothing is found there, which is
    no reason not to serve the bundled model.
    """
    home = os.environ.get("DAP_HOME")
    if home:
        return Path(home)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - Path.home() raises
    return Path(cache) / "dap"


def find_model(name_or_path: str | Path, size: Size | None = None) -> Model:
    """The model of that name, or the one in that file.

    Args:
        name_or_path: a name of the registry; or a file: `.onnx` as `dap export` writes it, with those beside it for
            other input sizes; `.pth` in the official layout, or `.safetensors` in either layout.
        size: (H, W), the model at this input size alone; None at all that it is offered at.

    Raises:
        UnknownModel: neither a name of the registry nor a file of such a kind.
        ModelFileInvalid: the file does not say what a model must say of itself.
        ResolutionNotOffered, InvalidParameter: it does not come at this size, as `Model.at` says.
    """
    model = _find(name_or_path)
    return model if size is None else model.at(size)


def _find(name_or_path: str | Path) -> Model:
    known = {model.name: model for model in known_models()}
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    path = Path(name_or_path)
    if not path.is_file():
        raise UnknownModel(
            f"No model is named {str(name_or_path)!r}, and there is no such file: expected {', '.join(known)} "
            f"or the path of a file that ends in {', '.join(SUFFIXES)}."
        )
    if path.suffix == ".onnx":
        return _exported(path)
    if path.suffix == ".safetensors":
        return _checkpoint(path)
    if path.suffix == ".pth":
        return _official_layout(path)
    raise UnknownModel(f"{path.name} is no model file: expected one that ends in {', '.join(SUFFIXES)}.")


def model_file(model: Model) -> Path:
    """The file with the model's weights.

    Raises:
        ModelFileMissing: it is not on this machine; the message says what to put where.
        ModelFileInvalid: it has not the size it should have.
    """
    if not model.path.is_file():
        if model.hub is None:
            raise ModelFileMissing(f"The file of {model.name} is missing: expected {model.path}.")
        raise ModelFileMissing(
            f"{model.name} is not on this machine. Run `dap models pull {model.name}`; or, without a network here, "
            f"{_by_hand(model.hub, model.path)}."
        )
    size = model.path.stat().st_size
    if model.hub and size != model.hub.size:
        raise ModelFileInvalid(
            f"{model.path} should have {model.hub.size} bytes and has {size}: remove it and run "
            f"`dap models pull {model.name}`."
        )
    return model.path


def sibling_path(path: Path, size: Size) -> Path:
    """Where the file of the same weights for another input size lies: `dap-s@1024x512.onnx` beside `dap-s.onnx`."""
    return path.with_name(f"{path.stem}@{resolution_text(size)}{path.suffix}")


def first_path(path: Path) -> Path:
    """Where the file lies beside which the one at `path` is for another input size; `path` where it is beside none."""
    first = path.with_name(f"{path.stem.rpartition('@')[0]}{path.suffix}")
    return first if _size_in_name(path) and first.is_file() else path


def pull(model: Model, *, hub: str | None = None, progress: Progress | None = None) -> Path:
    """Fetch the model's file unless it is here, and return where it is. See `dap.hub.fetch` for what is checked.

    Raises:
        InvalidParameter: the model is on no hub.
        DownloadFailed: it could not be fetched; the message says what to put where instead.
        ModelFileInvalid: what came is not the file.
    """
    if model.hub is None:
        raise InvalidParameter(f"{model.name} is on no hub: its file is {model.path}.")
    if not model.path.is_file():
        try:
            fetch(model.hub, model.path, hub=hub, progress=progress)
        except DownloadFailed as error:
            raise DownloadFailed(f"{error} Try again, or {_by_hand(model.hub, model.path)}.") from error
    return model_file(model)


def _by_hand(file: HubFile, path: Path) -> str:
    return f"fetch {file.url()} ({file.size} bytes) elsewhere and put it at {path}"


def _exported(path: Path) -> Model:
    metadata = read_graph_metadata(path)
    return replace(_exported_alone(path, metadata), siblings=tuple(_siblings(path, metadata)))


def _exported_alone(path: Path, metadata: GraphMetadata) -> Model:
    return Model(
        name=metadata.name,
        description="exported graph",
        licence=metadata.licence,
        source=path.name,
        input_size=metadata.input_size,
        thresholds=metadata.thresholds,
        path=path,
        spherical=metadata.spherical,
    )


def _siblings(path: Path, metadata: GraphMetadata) -> Iterator[Model]:
    """The smallest first. One that is left from an older export must not answer beside the newer one unseen."""
    sizes = (_size_in_name(file) for file in path.parent.glob(f"{glob.escape(path.stem)}@*{path.suffix}"))
    for size in sorted(size for size in sizes if size is not None):
        file = sibling_path(path, size)
        found = read_graph_metadata(file)
        if found != replace(metadata, input_size=size):
            raise ModelFileInvalid(
                f"{file.name} is not {path.name} at the size in its name: expected the same name, weights, thresholds, "
                "licence and precision. Export them together (`dap export --size WxH --size WxH`), or remove one."
            )
        if size != metadata.input_size:
            yield _exported_alone(file, found)


def _size_in_name(path: Path) -> Size | None:
    """None where what is behind the @ is none that `sibling_path` writes."""
    try:
        return parse_resolution(path.stem.rpartition("@")[2])
    except InvalidParameter:
        return None


def _official_layout(path: Path) -> Model:
    return Model(
        name=path.stem,
        description="checkpoint in the official layout",
        licence=_NOT_STATED,
        source=path.name,
        input_size=_OFFICIAL_SIZE,
        thresholds=_OFFICIAL_THRESHOLDS,
        path=path,
    )


def _checkpoint(path: Path) -> Model:
    metadata = _safetensors_metadata(path)
    if CONFIG_KEY not in metadata:
        return _official_layout(path)
    size = metadata.get("dap.input_size")
    config = NetworkConfig.from_json(metadata[CONFIG_KEY])
    return Model(
        name=metadata.get("dap.name", path.stem),
        description="checkpoint of this project",
        licence=metadata.get("dap.licence", _NOT_STATED),
        source=path.name,
        input_size=size_from_json(size) if size else (256, 512),
        thresholds=config.thresholds,
        path=path,
        spherical=config.spherical,
    )


def _safetensors_metadata(path: Path) -> dict[str, str]:
    """The header of a safetensors file: its length in 8 bytes, little-endian, then JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if 0 < length < path.stat().st_size else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise ModelFileInvalid(f"{path.name} is not a safetensors file.")
    metadata = header.get("__metadata__", {})
    return metadata if isinstance(metadata, dict) else {}

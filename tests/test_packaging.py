"""What `pip install .` puts on a machine: built here as pip builds it, opened, and used."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    return Path(built)


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize(
    "path",
    [
        *("dap/weights/dap-s.onnx", "dap/weights/dap-s.md", "dap/py.typed", "service/py.typed", "service/app.py"),
        *("model_export/scenes/README.md", "model_export/scenes/check/standard-indoor-980003.jpg"),
    ],
)
def test_the_wheel_holds_the_bundled_model_its_card_and_the_types(names: set[str], path: str) -> None:
    assert path in names


def test_the_wheel_holds_the_packages_and_the_licence_and_nothing_else(names: set[str]) -> None:
    info = f"depth_any_panorama-{PROJECT['version']}.dist-info"
    assert f"{info}/licenses/LICENSE" in names
    packages = {"dap", "service", "training", "model_export", "benchmarks", "demo"}  # `dap bench` uses both
    assert {name.split("/")[0] for name in names} == packages | {info}
    assert [name for name in names if name.endswith((".pyc", ".pt", ".npz"))] == []


def test_the_bundled_model_is_at_most_40_mb(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.getinfo("dap/weights/dap-s.onnx").file_size <= 40_000_000


def test_the_wheel_alone_predicts_a_depth_map_and_leaves_nothing_behind(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere and ahead of the checkout on the path, so that nothing but the wheel's own files is found.

    What ONNX Runtime would leave in the home folder is the device identifier of its telemetry.
    """
    home = tmp_path / "home"
    home.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import json, sys, numpy, dap; from dap.predictor import Predictor;"
        "depth_map = Predictor('dap-s').predict(numpy.full((64, 128, 3), 127, numpy.uint8));"
        "print(json.dumps([dap.__file__, depth_map.depth.shape, 'torch' in sys.modules]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == [str(tmp_path / "dap" / "__init__.py"), [64, 128], False]
    assert list(home.iterdir()) == []


def test_a_plain_install_needs_no_torch_and_no_gpu() -> None:
    names = {re.split(r"[<>=~! \[]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert names & {"torch", "tensorrt", "onnxruntime-gpu", "opencv-python"} == set()


def test_no_extra_brings_the_files_of_onnxruntime_again() -> None:
    """onnxruntime-gpu beside onnxruntime: whichever pip installs last overwrites the other."""
    extras = [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
    assert [one for one in extras if one.startswith("onnxruntime")] == []


def test_the_tensorrt_of_the_extra_is_one_that_onnx_runtime_loads() -> None:
    """Its provider is linked with libnvinfer.so.10; the engine `tensorrt` takes 10 as well as 11."""
    (bounds,) = (one for one in PROJECT["optional-dependencies"]["gpu"] if one.startswith("tensorrt"))
    allowed = SpecifierSet(bounds.removeprefix("tensorrt"))
    assert list(allowed.filter(["8.6.1", "10.0.1", "10.16.1.11", "11.0.0.114", "12.0"])) == ["10.0.1", "10.16.1.11"]


def test_every_dependency_has_a_lower_bound_and_a_tested_version() -> None:
    pins = re.findall(r"^(\S+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    extras = PROJECT["optional-dependencies"]
    extra = [requirement for name in ("train", "video", "label", "export", "dev") for requirement in extras[name]]
    required = [*PROJECT["dependencies"], *(one for one in extra if not one.startswith(PROJECT["name"]))]
    bounds = dict(re.fullmatch(r"([\w-]+)(?:\[\w+\])?(.*)", requirement).groups() for requirement in required)
    assert {
        name for name, bound in bounds.items() if not bound.startswith(">=") and not name.startswith("types-")
    } == set()
    assert {name.lower() for name in bounds} - {pin.lower().replace("_", "-") for pin in pins} == set()


@pytest.mark.parametrize(("name", "target"), PROJECT["entry-points"]["dap.commands"].items())
def test_each_wing_brings_commands_that_exist(name: str, target: str) -> None:
    command = EntryPoint(name, target, "dap.commands").load()
    assert isinstance(command, click.Command)
    assert command.name == name


def options_of(command: click.Command, path: str) -> Iterator[tuple[str, click.Option]]:
    for name, one in getattr(command, "commands", {}).items():
        yield from options_of(one, f"{path} {name}")
    yield from ((path, one) for one in command.params if isinstance(one, click.Option))


def test_every_flag_has_a_help_and_an_environment_twin_of_its_name() -> None:
    """`--max-edge` of `dap predict` is DAP_PREDICT_MAX_EDGE; what many commands take, as `--model`, is DAP_MODEL."""
    places = PROJECT["entry-points"]["dap.commands"] | {name: f"dap.commands:{name}" for name in ("models", "predict")}
    commands = {name: EntryPoint(name, place, "dap.commands").load() for name, place in places.items()}
    found = [each for name, command in commands.items() for each in options_of(command, name)]
    assert len(found) > 200
    for path, option in found:
        flag = next(one for one in option.opts if one.startswith("--"))
        name = flag.removeprefix("--").replace("-", "_")
        assert option.help, f"dap {path} {flag} has no help"
        assert option.show_envvar, f"the help of dap {path} {flag} names no environment twin"
        twin = option.envvar or option.name
        assert twin.lower().removeprefix("dap_").endswith(name), f"dap {path} {flag} has the twin {twin}"

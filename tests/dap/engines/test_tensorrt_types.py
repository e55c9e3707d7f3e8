"""Every call of TensorRT against the signatures of its published bindings, of 10 and of 11: no GPU is needed for that.

`make tensorrt-types` (part of `make test`) fetches the bindings and asks them (tests/dap/engines/tensorrt_stubs.py).
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.dap.engines.tensorrt_stubs import environment

ROOT = Path(__file__).parent.parent.parent.parent
BINDINGS = Path(sys.prefix) / "tensorrt"
VERSIONS = ("10.0.1", "10.16.1.11", "11.4.0.106")  # the oldest and newest of 10, and the newest of 11
USERS = [ROOT / "dap" / "engines" / name for name in ("tensorrt.py", "tensorrt_builder.py", "tensorrt_library.py")]
# Only these files are looked at, and of what they import only TensorRT: the rest is looked at by `make check`.
CONFIGURATION = """
[mypy]
strict = True
follow_imports = skip
ignore_missing_imports = True
allow_subclassing_any = True
allow_untyped_calls = True
warn_unused_ignores = False
[mypy-tensorrt_bindings.*]
ignore_errors = True
"""


def bindings(version: str) -> Path:
    folder = BINDINGS / version
    if not (folder / "tensorrt").is_dir():
        pytest.skip(f"the bindings of TensorRT {version} are not here: make tensorrt-types")
    return folder


def types_of(sources: list[Path], folder: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    configuration = tmp_path / "mypy.ini"
    configuration.write_text(CONFIGURATION)
    stubs = [folder / "tensorrt" / "__init__.pyi", folder / "tensorrt_bindings" / "tensorrt.pyi"]
    command = [sys.executable, "-m", "mypy", "--config-file", configuration, "--cache-dir", BINDINGS / "cache"]
    return subprocess.run(
        [*command, *sources, *stubs],
        cwd=ROOT,
        env=environment(folder) | {"MYPYPATH": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_all_that_is_asked_of_tensorrt_is_there_and_takes_what_it_is_given(version: str, tmp_path: Path) -> None:
    checked = types_of(USERS, bindings(version), tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_is_not_there_or_takes_something_else_is_seen(tmp_path: Path) -> None:
    mistakes = {
        "trt.BuilderFlag.FP16": '"type[BuilderFlag]" has no attribute "FP16"',
        "context.execute_async_v2([1], 2)": '"IExecutionContext" has no attribute "execute_async_v2"',
        "context.execute_async_v3('7')": 'incompatible type "str"; expected "SupportsInt"',
        "context.set_input_shape('panorama', 1)": 'No overload variant of "set_input_shape"',
    }
    source = tmp_path / "user.py"
    lines = [
        "import tensorrt as trt",
        "def use(context: trt.IExecutionContext) -> None:",
        *(f"  {line}" for line in mistakes),
    ]
    source.write_text("\n".join(lines))
    found = types_of([source], bindings(VERSIONS[-1]), tmp_path).stdout
    assert [error for error in mistakes.values() if error not in found] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_bindings_themselves_take_our_logger_flags_and_shapes(version: str) -> None:
    """Run, not only read: what of the bindings needs no library behind them."""
    program = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import tensorrt as trt
from dap.engines.tensorrt_library import take_complaints, tensorrt_logger, tensorrt_version
logger = tensorrt_logger()
logger.log(trt.ILogger.Severity.ERROR, "a"); logger.log(trt.ILogger.INTERNAL_ERROR, "b")
logger.log(trt.ILogger.Severity.WARNING, "c"); logger.log(trt.ILogger.Severity.VERBOSE, "d")
print(tensorrt_version(), take_complaints(), 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) > 0)
print(trt.Dims([2, 16, 32, 3])[1:], trt.DataType.UINT8 == trt.DataType.UINT8, trt.BuilderFlag.TF32.name)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment(bindings(version)), capture_output=True, text=True
    )
    assert run.stdout.splitlines() == [f"{version} a; b True", "(16, 32, 3) True TF32"], run.stderr

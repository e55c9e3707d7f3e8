"""Makes type stubs of TensorRT from its Python bindings: `python -m tests.dap.engines.tensorrt_stubs FOLDER`.

NVIDIA publishes the bindings (the package `tensorrt-cu12-bindings`, 1 MB) without stubs, and the libraries that they
call (some gigabytes) apart. The bindings know their own signatures, so they are imported here over libraries that have
the right names and can do nothing, and mypy's stubgen asks them.

FOLDER holds a folder for each version, with `tensorrt_bindings` in it, and gets a `tensorrt` beside that.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
# What stubgen writes down wrongly or cannot see.
CORRECTIONS = {
    r"^bool: DataType\n": "",  # would hide the built-in type from every signature
    r"^ +def add_scale_nd\(.*\n": "",  # not Python: a default before a parameter without one
    r"^class IHostMemory:\n": "class IHostMemory:\n    def __buffer__(self, flags: int, /) -> memoryview: ...\n",
}


def environment(folder: Path) -> dict[str, str]:
    """That of a process in which `import tensorrt` finds the bindings of `folder`."""
    return {**os.environ, "PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder / "hollow")}


def make_stubs(folder: Path) -> None:
    """Of the bindings in `folder`."""
    hollow = folder / "hollow"
    hollow.mkdir(exist_ok=True)
    major = folder.name.partition(".")[0]
    source = "".join(f"void *{function}(void) {{ return 0; }}\n" for function in FUNCTIONS)
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(hollow / name), "-x", "c", "-"]
        subprocess.run(command, input=source, text=True, check=True)
    stubgen = "from mypy.stubgen import main; main()"
    command = [sys.executable, "-c", stubgen, "--quiet", "--inspect-mode", "--output", str(folder)]
    subprocess.run([*command, "-m", "tensorrt_bindings.tensorrt"], env=environment(folder), check=True)
    stub = folder / "tensorrt_bindings" / "tensorrt.pyi"
    text = stub.read_text()
    for wrong, right in CORRECTIONS.items():
        text = re.sub(wrong, right, text, flags=re.MULTILINE)
    stub.write_text(text)
    package = folder / "tensorrt"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir()
    (package / "__init__.pyi").write_text("from tensorrt_bindings.tensorrt import *\n__version__: str\n")
    (package / "__init__.py").write_text("from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n")


if __name__ == "__main__":
    for version in sorted(Path(sys.argv[1]).iterdir()):
        if (version / "tensorrt_bindings").is_dir():
            make_stubs(version)

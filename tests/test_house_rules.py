"""The rules that keep the house as it was drawn: who may import whom, and what is never written.

docs/architecture.md says why.
"""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WINGS = ("service", "training", "model_export")
PACKAGES = ("dap", *WINGS)
TORCH_LIVES_IN = re.compile(r"dap\.model(\.|$)|dap\.engines\.torch")


@functools.cache
def modules(package: str) -> dict[str, ast.Module]:
    """Syntax trees by dotted name."""
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths, f"{package}/ holds no module: a rule would hold of nothing"
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return {name: ast.parse(path.read_text()) for name, path in zip(names, paths, strict=True)}


ALL_MODULES = [(package, name) for package in PACKAGES for name in modules(package)]


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that is imported, at the top or inside a function; a relative import stays in its package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_a_wing_that_is_not_itself(package: str) -> None:
    foreign = {wing for wing in WINGS if wing != package}
    trespasses = [
        f"{name} imports {other}"
        for name, tree in modules(package).items()
        for other in imported(tree)
        if other.split(".")[0] in foreign
    ]
    assert trespasses == []


def test_importing_the_core_and_the_service_loads_no_torch() -> None:
    """Each module of both but those where torch lives, in a fresh interpreter: all that the bundled model may load."""
    names = [*modules("dap"), *modules("service")]
    torchless = [name for name in names if not TORCH_LIVES_IN.match(name) and not name.endswith("__main__")]
    program = "import importlib, sys; [*map(importlib.import_module, sys.argv[1:])]; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program, *torchless], cwd=ROOT, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("False\n", "")


def test_onnx_runtime_is_loaded_after_its_telemetry_is_off() -> None:
    """By the package that turns its telemetry off before, and by one that imports that package first."""
    users = [
        name
        for package, name in ALL_MODULES
        if any(other.split(".")[0] == "onnxruntime" for other in imported(modules(package)[name]))
    ]
    assert {name.rpartition(".")[0] for name in users} == {"dap.engines", "model_export"}


def called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def passes(node: ast.AST, argument: str) -> bool:
    return isinstance(node, ast.Call) and argument in map(ast.unparse, node.keywords)


def is_base_http_middleware(node: ast.AST) -> bool:
    """Under one, `request.is_disconnected()` never fires: a client that left would still be served."""
    if called(node).endswith(".middleware"):
        return "'http'" in ast.unparse(node)
    return isinstance(node, ast.Name | ast.Attribute | ast.alias) and "BaseHTTPMiddleware" in ast.unparse(node)


def is_unsafe_load(node: ast.AST) -> bool:
    """A pickle runs the code of whoever wrote it."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        harmless = {"pickle.UnpicklingError"}
        unpicklers = {"pickle", "dill", "cloudpickle", "joblib"}
        return any(name.split(".")[0] in unpicklers for name in set(imported(node)) - harmless)
    return passes(node, "allow_pickle=True") or (called(node) == "torch.load" and not passes(node, "weights_only=True"))


def is_lenient_load(node: ast.AST) -> bool:
    """A state dict loaded with `strict=False` may leave random weights that answer as if all were well."""
    return passes(node, "strict=False") and called(node) != "zip"


def is_bare_except(node: ast.AST) -> bool:
    return isinstance(node, ast.ExceptHandler) and node.type is None


FORBIDDEN: dict[Callable[[ast.AST], bool], list[str]] = {
    is_base_http_middleware: [
        "from starlette.middleware.base import BaseHTTPMiddleware",
        "class Timing(base.BaseHTTPMiddleware): ...",
        "@app.middleware('http')\nasync def timing(request, call_next): ...",
    ],
    is_unsafe_load: [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
    ],
    is_lenient_load: ["network.load_state_dict(tensors, strict=False)"],
    is_bare_except: ["try: ...\nexcept: ..."],
}
INNOCENT = [
    "torch.load(path, weights_only=True)",
    "from pickle import UnpicklingError",
    "zip(a, b, strict=False)",
    "try: ...\nexcept OSError: ...",
]


@pytest.mark.parametrize("forbidden", FORBIDDEN, ids=lambda rule: rule.__name__)
def test_what_is_never_written_is_written_nowhere(forbidden: Callable[[ast.AST], bool]) -> None:
    found = [
        f"{name}: {ast.unparse(node)}"
        for package, name in ALL_MODULES
        for node in ast.walk(modules(package)[name])
        if forbidden(node)
    ]
    assert found == []


@pytest.mark.parametrize(("forbidden", "source"), [(rule, line) for rule, lines in FORBIDDEN.items() for line in lines])
def test_a_forbidden_line_is_seen(forbidden: Callable[[ast.AST], bool], source: str) -> None:
    assert any(forbidden(node) for node in ast.walk(ast.parse(source)))


@pytest.mark.parametrize("source", INNOCENT)
def test_an_innocent_line_is_not(source: str) -> None:
    assert not any(forbidden(node) for forbidden in FORBIDDEN for node in ast.walk(ast.parse(source)))


def test_modules_are_named_for_what_they_hold() -> None:
    vague = {"utils", "helpers", "common", "misc", "manager"}
    assert [name for _, name in ALL_MODULES if vague & set(name.split("."))] == []

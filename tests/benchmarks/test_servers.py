"""What our server is told of the engine that it is measured beside."""

from pathlib import Path

import pytest

from benchmarks.servers import DEFAULTS, Runtime
from service.commands import serve
from tests.dap.graphs import SIZE, red_graph, save


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(save(red_graph(), tmp_path / "red.onnx"))


def test_the_defaults_are_those_of_the_service() -> None:
    assert DEFAULTS.options == ()
    served = serve.make_context("serve", []).params
    assert {name: served[name] for name in vars(DEFAULTS)} == vars(DEFAULTS)


def test_the_service_runs_the_same_and_what_else_users_would_have() -> None:
    runtime = Runtime("onnx", "cuda:1", "fp32", max_batch_size=20)
    assert serve.make_context("serve", list(runtime.options)).params == (
        serve.make_context("serve", []).params | vars(runtime)
    )


def test_the_engine_alone_is_the_one_that_is_served(model: str) -> None:
    engine = Runtime("onnx", "cpu").create(model)
    assert (engine.name, engine.device, engine.input_size) == ("onnx", "cpu", SIZE)
    engine.close()

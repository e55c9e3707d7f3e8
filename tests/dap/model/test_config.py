"""What a network says of itself is read strictly."""

import json
from dataclasses import replace

import pytest

from dap.errors import ModelFileInvalid
from dap.model.config import NetworkConfig

PLAIN = NetworkConfig(encoder="hybrid-xs")


@pytest.mark.parametrize("config", [PLAIN, replace(PLAIN, added_thresholds=((10.0, 50.0), (20.0,)))])
def test_a_configuration_comes_back_as_it_was_written(config: NetworkConfig) -> None:
    assert NetworkConfig.from_json(config.to_json()) == config


def test_one_from_before_mask_heads_could_be_added_has_none_added() -> None:
    values = json.loads(PLAIN.to_json())
    del values["added_thresholds"]
    assert NetworkConfig.from_json(json.dumps(values)) == PLAIN


@pytest.mark.parametrize("added", [[[30]], [[10, 20, 50, 100]], [[10], [10]], [[20, 10], []]])
def test_mask_heads_that_are_not_those_of_the_thresholds_are_refused(added: list[list[float]]) -> None:
    values = json.loads(PLAIN.to_json()) | {"added_thresholds": added}
    with pytest.raises(ModelFileInvalid, match="mask heads"):
        NetworkConfig.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"encoder": "hybrid-xs"}', "null"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ModelFileInvalid):
        NetworkConfig.from_json(text)

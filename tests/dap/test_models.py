"""The registry: names, files, what is missing and where it belongs."""

import dataclasses
import json
from pathlib import Path

import pytest

from dap.errors import (
    DownloadFailed,
    InvalidParameter,
    ModelFileInvalid,
    ModelFileMissing,
    ResolutionNotOffered,
    UnknownModel,
)
from dap.graph import read_graph_metadata
from dap.hub import HubFile
from dap.models import (
    DEFAULT_MODEL,
    Model,
    cache_folder,
    find_model,
    first_path,
    known_models,
    model_file,
    pull,
    sibling_path,
)
from tests.dap.graphs import METADATA, red_graph, save


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_bundled_model_is_the_default_and_comes_first() -> None:
    assert known_models()[0].name == DEFAULT_MODEL == "dap-s"
    assert known_models()[0].bundled


def test_the_bundled_file_is_what_the_registry_says() -> None:
    bundled = find_model("dap-s")
    metadata = read_graph_metadata(model_file(bundled))
    assert (metadata.name, metadata.licence) == (bundled.name, bundled.licence)
    assert (metadata.input_size, metadata.thresholds) == (bundled.input_size, bundled.thresholds)
    assert bundled.path.stat().st_size <= 40e6


def test_the_release_is_known_as_its_authors_published_it() -> None:
    official = find_model("dap-official-l")
    assert official.hub == HubFile("Insta360-Research/DAP-weights", "model.pth", 1_460_746_347)
    assert (official.input_size, official.thresholds) == ((512, 1024), (100.0,))


def test_only_the_bundled_model_goes_round_the_circle() -> None:
    assert [model.name for model in known_models() if model.spherical] == ["dap-s"]


def test_no_licence_is_claimed_for_the_release() -> None:
    licence = find_model("dap-official-l").licence
    assert licence.startswith("see the model card")
    assert "DINOv3" in licence


def test_a_model_that_is_not_here_says_what_to_put_where(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAP_HUB", "https://hub.example")
    official = find_model("dap-official-l")
    assert official.state == "not downloaded"
    with pytest.raises(ModelFileMissing) as caught:
        model_file(official)
    message = str(caught.value)
    assert "dap models pull dap-official-l" in message
    assert "https://hub.example/Insta360-Research/DAP-weights/resolve/main/model.pth" in message
    assert "1460746347 bytes" in message
    assert str(home / "models" / "dap-official-l" / "model.pth") in message


def small(home: Path, size: int) -> Model:
    """A model on a hub, with a file small enough for a test."""
    return dataclasses.replace(
        find_model("dap-official-l"), path=home / "model.pth", hub=HubFile("owner/name", "model.pth", size)
    )


def test_a_file_put_there_by_hand_is_taken(home: Path) -> None:
    home.mkdir()
    model = small(home, 4)
    model.path.write_bytes(b"good")
    assert model_file(model) == pull(model) == home / "model.pth"
    assert model.state == "downloaded"


def test_a_file_of_the_wrong_size_is_refused(home: Path) -> None:
    home.mkdir()
    model = small(home, 5)
    model.path.write_bytes(b"good")
    with pytest.raises(ModelFileInvalid, match="should have 5 bytes and has 4"):
        model_file(model)


def test_a_hub_out_of_reach_leaves_word_of_which_file_to_put_where(home: Path) -> None:
    model = small(home, 4)
    with pytest.raises(DownloadFailed) as error:
        pull(model, hub="http://127.0.0.1:9")  # the discard port: nobody listens
    assert f"(4 bytes) elsewhere and put it at {model.path}" in str(error.value)
    assert "owner/name" in str(error.value)


def test_pulling_a_model_that_is_on_no_hub_is_an_error() -> None:
    with pytest.raises(InvalidParameter, match="dap-s is on no hub"):
        pull(find_model("dap-s"))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownModel, match=r"'dap-xl', .* expected dap-s, dap-official-l or the path"):
        find_model("dap-xl")


def test_a_file_of_another_kind_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("weights")
    with pytest.raises(UnknownModel, match=r"model.txt is no model file: .*\.onnx, \.pth, \.safetensors"):
        find_model(tmp_path / "model.txt")


def test_an_exported_file_says_itself_what_it_is(tmp_path: Path) -> None:
    model = find_model(save(red_graph(), tmp_path / "any.onnx"))
    assert (model.name, model.licence) == ("red", "CC0-1.0")
    assert (model.input_size, model.thresholds) == (METADATA.input_size, METADATA.thresholds)
    assert model.state == "local file"
    assert model_file(model) == tmp_path / "any.onnx"


class TestSizes:
    """The same weights at other input sizes: files beside the first for exported models, any size for checkpoints."""

    LARGER, SMALLER = (32, 64), (16, 32)

    def saved(self, path: Path, **changes: object) -> Path:
        return save(red_graph(dataclasses.replace(METADATA, **changes)), path)

    def test_files_beside_it_are_the_same_model_at_other_sizes(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path / "red.onnx", input_size=(64, 128))
        for size in (self.LARGER, self.SMALLER):
            self.saved(sibling_path(path, size), input_size=size)
        self.saved(tmp_path / "red2@64x32.onnx", input_size=self.LARGER, name="another")
        model = find_model(path)
        assert model.sizes == ((64, 128), self.SMALLER, self.LARGER)
        larger = model.at(self.LARGER)
        assert (larger.path.name, larger.sizes, larger.name) == ("red@64x32.onnx", (self.LARGER,), "red")

    def test_one_of_them_is_also_a_model_alone(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path / "red.onnx")
        assert find_model(self.saved(sibling_path(path, self.LARGER), input_size=self.LARGER)).sizes == (self.LARGER,)

    def test_of_a_file_for_another_size_the_first_is_found(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path / "red.onnx")
        for name in ("red@64x32.onnx", "red@new.onnx", "blue@64x32.onnx"):
            self.saved(tmp_path / name)
        found = {file.name: first_path(file).name for file in tmp_path.iterdir()}
        assert found.pop("red@64x32.onnx") == path.name
        assert [*found] == [*found.values()], "the others lie beside none, or are for no size"

    @pytest.mark.parametrize(
        "difference", [{"weights_sha256": "1" * 64}, {"name": "blue"}, {"thresholds": (100.0,)}, {"precision": "int8"}]
    )
    def test_a_file_of_other_weights_beside_it_is_refused(self, tmp_path: Path, difference: dict[str, object]) -> None:
        path = self.saved(tmp_path / "red.onnx")
        self.saved(sibling_path(path, self.LARGER), input_size=self.LARGER, **difference)
        with pytest.raises(ModelFileInvalid, match=r"red@64x32\.onnx is not red\.onnx at the size in its name"):
            find_model(path)

    def test_a_file_that_is_not_for_the_size_in_its_name_is_refused(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path / "red.onnx")
        self.saved(sibling_path(path, (64, 128)), input_size=self.LARGER)
        with pytest.raises(ModelFileInvalid, match="at the size in its name"):
            find_model(path)

    def test_the_same_size_twice_counts_once_and_other_names_not_at_all(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path / "red.onnx")
        self.saved(sibling_path(path, METADATA.input_size))
        (tmp_path / "red@old.onnx").write_bytes(b"")
        assert find_model(path).sizes == (METADATA.input_size,)

    def test_what_is_offered_can_be_chosen_the_first_for_who_does_not_ask(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path / "red.onnx")
        self.saved(sibling_path(path, self.LARGER), input_size=self.LARGER)
        model = find_model(path).offering([self.LARGER, METADATA.input_size, self.LARGER])
        assert (model.sizes, model.path.name) == ((self.LARGER, METADATA.input_size), "red@64x32.onnx")

    def test_an_exported_model_is_offered_at_no_size_that_it_has_no_file_for(self) -> None:
        with pytest.raises(ResolutionNotOffered, match=r"dap-s is offered at 512x256; .* is 1024x512"):
            find_model("dap-s").offering([(512, 1024)])

    def test_a_checkpoint_is_offered_at_any_size_that_a_network_can_see(self, tmp_path: Path) -> None:
        (tmp_path / "mine.pth").write_bytes(b"")
        model = find_model(tmp_path / "mine.pth")
        assert model.sizes == ((512, 1024),)
        assert model.offering([(256, 512), (1024, 2048)]).sizes == ((256, 512), (1024, 2048))
        with pytest.raises(InvalidParameter, match="multiples of 16; got 1000x500"):
            model.at((500, 1000))


def test_a_pth_file_is_taken_for_the_official_layout_of_unknown_licence(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"")
    model = find_model(str(tmp_path / "mine.pth"))
    assert (model.name, model.input_size, model.thresholds) == ("mine", (512, 1024), (100.0,))
    assert "not stated" in model.licence


def safetensors(path: Path, header: object) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


def test_a_safetensors_file_without_our_configuration_is_the_official_layout(tmp_path: Path) -> None:
    model = find_model(safetensors(tmp_path / "mine.safetensors", {"__metadata__": {"format": "pt"}}))
    assert model.thresholds == (100.0,)


def test_a_checkpoint_of_ours_says_what_it_is(tmp_path: Path) -> None:
    import torch

    from dap.model.checkpoints import save_network
    from dap.model.config import NetworkConfig
    from dap.model.dap import DapNetwork

    with torch.device("cpu"):
        network = DapNetwork(NetworkConfig(encoder="hybrid-xs", thresholds=(5.0, 25.0)))
    path = tmp_path / "step-1000.safetensors"
    save_network(network, path, {"dap.name": "mine", "dap.licence": "MIT", "dap.input_size": "[128, 256]"})
    model = find_model(path)
    assert (model.name, model.licence, model.input_size) == ("mine", "MIT", (128, 256))
    assert model.thresholds == (5.0, 25.0)
    assert model.spherical


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 7, (1 << 40).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"]
)
def test_a_broken_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.safetensors").write_bytes(content)
    with pytest.raises(ModelFileInvalid, match="not a safetensors file"):
        find_model(tmp_path / "broken.safetensors")


def test_downloads_are_kept_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert cache_folder() == home
    monkeypatch.delenv("DAP_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/dap")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somebody")
    assert cache_folder() == Path("/somebody/.cache/dap")


def test_a_user_without_a_home_still_has_the_bundled_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "DAP_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", str)  # what it does for a user whom the system does not know
    bundled, official = known_models()
    assert bundled.path.name == "dap-s.onnx"
    assert official.state == "not downloaded"

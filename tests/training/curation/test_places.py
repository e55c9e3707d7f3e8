import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from dap.errors import ModelFileInvalid, ModelFileMissing, TrainingError
from training.curation import places
from training.curation.places import QUESTION, PlaceClassifier, PlaceOptions

ROWS = 56
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# As the published weights have it, for messages of pictures and text.
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, and Qwen2-VL's own special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )
    made.chat_template = TEMPLATE
    return made


def network(tokens: PreTrainedTokenizerFast) -> Qwen2VLForConditionalGeneration:
    """Qwen2-VL with random weights of a few thousand parameters."""
    special = dict(zip(SPECIAL, tokens.convert_tokens_to_ids(list(SPECIAL)), strict=True))
    text = {
        "vocab_size": len(tokens),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "bos_token_id": None,
        "eos_token_id": special["<|im_end|>"],
    }
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2},
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
    )
    torch.manual_seed(0)
    return Qwen2VLForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen2-vl")
    tokens = tokenizer()
    network(tokens).save_pretrained(folder)
    tokens.save_pretrained(folder)
    Qwen2VLImageProcessorPil().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, ROWS, 2 * ROWS, 3), dtype=np.uint8)


def test_the_answer_is_the_softmax_of_the_two_words_at_the_place_of_the_next_token(
    weights: Path, pictures: npt.NDArray[np.uint8]
) -> None:
    """The same worked out by hand: the chat as text, 2 x 4 places for 28 x 28 pixels each, all logits of the model."""
    tokens = tokenizer()
    pads = "<|image_pad|>" * 8
    chat = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = torch.tensor([tokens.encode(chat)])
    seen = Qwen2VLImageProcessorPil()([pictures[0]], return_tensors="pt")
    with torch.no_grad():
        logits = network(tokens)(
            input_ids=ids, mm_token_type_ids=(ids == tokens.convert_tokens_to_ids("<|image_pad|>")).int(), **seen
        ).logits[0, -1]
    indoor, outdoor = (logits[tokens.encode(letter)[0]].double() for letter in "io")
    expected = float(1 / (1 + (indoor - outdoor).exp()))
    found = PlaceClassifier(PlaceOptions(str(weights), ROWS)).outdoor(pictures[:1])
    assert found[0] == pytest.approx(expected, abs=1e-6)


def test_a_picture_gets_its_own_answer_however_many_are_shown_at_a_time(
    weights: Path, pictures: npt.NDArray[np.uint8]
) -> None:
    together = PlaceClassifier(PlaceOptions(str(weights), ROWS, batch=2)).outdoor(pictures)
    alone = PlaceClassifier(PlaceOptions(str(weights), ROWS, batch=1)).outdoor(pictures)
    assert together.shape == (3,)
    assert len(set(alone.tolist())) == 3
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_no_picture_has_no_answer(weights: Path) -> None:
    assert PlaceClassifier(PlaceOptions(str(weights), ROWS)).outdoor(np.empty((0, ROWS, 2 * ROWS, 3), "u1")).size == 0


def test_weights_that_are_not_here_are_not_fetched_and_it_is_said_how_to_get_them() -> None:
    with pytest.raises(ModelFileMissing, match=r"nobody/nothing are not on this machine.*hf download nobody/nothing"):
        PlaceClassifier(PlaceOptions("nobody/nothing"))


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelFileInvalid, match="kind bert: expected qwen2_vl"):
        PlaceClassifier(PlaceOptions(str(tmp_path)))


def test_answers_that_begin_alike_are_refused(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "ANSWERS", ("outside", "outdoor"))
    with pytest.raises(ModelFileInvalid, match="begin with one token"):
        PlaceClassifier(PlaceOptions(str(weights), ROWS))


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TrainingError, match=r"depth-any-panorama\[label\]"):
        PlaceClassifier(PlaceOptions())


def test_rows_are_whole_patches() -> None:
    with pytest.raises(TrainingError, match="multiples of 28"):
        PlaceOptions(rows=450)

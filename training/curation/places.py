"""Indoor or outdoor, as a vision language model sees it: Qwen2-VL, which DAP (arXiv 2512.16913) used.

Nothing is generated. The model is asked a question with two answers and read once: of the word it would say next, how
much more probable is the beginning of the one than of the other? That is as fast as reading can be, always gives an
answer, and one that can be weighed.

Choices, which the paper does not tell: the size of the model, the question, and the size at which the panorama is
shown. Needs transformers, which the extra `label` brings. The weights (Apache-2.0 for 2B and 7B) are not part of it.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dap.errors import ModelFileInvalid, ModelFileMissing, TrainingError

if TYPE_CHECKING:
    import torch

DEFAULT_WEIGHTS = "Qwen/Qwen2-VL-2B-Instruct"
DEFAULT_ROWS = 448
QUESTION = (
    "This is a 360 degree panorama in equirectangular projection. Was it taken indoors or outdoors? "
    "Answer with one word, indoor or outdoor."
)
ANSWERS = ("indoor", "outdoor")

# Sides of pictures that the image processor leaves as they are: patches of 14 pixels, merged two by two.
_MULTIPLE = 28


@dataclass(frozen=True)
class PlaceOptions:
    """How places are told.

    Attributes:
        weights: a folder, or the name of weights that the Hugging Face cache of this machine holds.
        rows: of the panorama that is shown, a multiple of 28. A token for each 28 x 28 pixels: more of them cost time,
            fewer show less.
        batch: panoramas at a time.
    """

    weights: str = DEFAULT_WEIGHTS
    rows: int = DEFAULT_ROWS
    batch: int = 8

    def __post_init__(self) -> None:
        if self.rows < _MULTIPLE or self.rows % _MULTIPLE or self.batch < 1:
            raise TrainingError(f"expected rows in multiples of {_MULTIPLE} and a batch from 1 on; got {self}")


class PlaceClassifier:
    """The model, loaded."""

    def __init__(self, options: PlaceOptions, device: str = "cpu", threads: int = 1) -> None:
        """Load weights, tokenizer, image processor and chat template; nothing is fetched.

        Args:
            options: see there.
            device: `cpu`, or `cuda`, where it runs in bfloat16.
            threads: on the CPU.

        Raises:
            TrainingError: transformers is not installed.
            ModelFileMissing: the weights are not on this machine; the message says how to get them.
            ModelFileInvalid: they are of another model, or both answers begin alike in its vocabulary.
        """
        import torch

        torch.set_num_threads(threads)
        self._options = options
        self._device = torch.device(device)
        dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        self._tokenizer, self._images, self._model, template = _load(options.weights, dtype)
        self._model.to(self._device).eval()
        self._prompt: str = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
        )
        self._picture = self._model.config.image_token_id
        self._answers = [self._tokenizer.encode(word, add_special_tokens=False)[0] for word in ANSWERS]
        if len(set(self._answers)) < len(ANSWERS):
            raise ModelFileInvalid(f"{options.weights}: {' and '.join(ANSWERS)} begin with one token")

    def outdoor(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The probability (N,) that each panorama was taken outdoors, if it was either.

        Args:
            pictures: uint8 (N, rows, 2 rows, 3).
        """
        batch = self._options.batch
        answers = [self._batch(pictures[first : first + batch]) for first in range(0, len(pictures), batch)]
        return np.concatenate([np.empty(0, np.float32), *answers])

    def _batch(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        import torch

        seen = self._images([*pictures], return_tensors="pt")
        # The processor of transformers needs torchvision, for videos only; of what it does, this is left: a place in
        # the text for each patch of the picture. All pictures have one size, so all texts have one length.
        patches = int(seen["image_grid_thw"][0].prod()) // self._images.merge_size**2
        shown = self._tokenizer.decode([self._picture])
        text = self._prompt.replace(shown, shown * patches)
        ids = torch.tensor([self._tokenizer.encode(text, add_special_tokens=False)] * len(pictures))
        inputs = {"input_ids": ids, "mm_token_type_ids": (ids == self._picture).int(), **seen}
        with torch.inference_mode():
            on_device = {name: tensor.to(self._device) for name, tensor in inputs.items()}
            logits: torch.Tensor = self._model(**on_device, logits_to_keep=1).logits[:, -1, self._answers]
        probability: npt.NDArray[np.float32] = logits.float().softmax(-1)[:, ANSWERS.index("outdoor")].cpu().numpy()
        return probability


def _load(weights: str, dtype: "torch.dtype") -> tuple[Any, Any, Any, str]:
    """Tokenizer, image processor, model and chat template, from this machine alone."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from transformers import AutoConfig, AutoTokenizer, Qwen2VLForConditionalGeneration, Qwen2VLProcessor
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    except ImportError as error:
        raise TrainingError(
            f"telling indoor from outdoor needs transformers: pip install 'depth-any-panorama[label]' ({error})"
        ) from None
    local = {"local_files_only": True}
    try:
        kind = AutoConfig.from_pretrained(weights, **local).model_type
        if kind != "qwen2_vl":
            raise ModelFileInvalid(f"{weights} is a model of the kind {kind}: expected qwen2_vl")
        tokenizer = AutoTokenizer.from_pretrained(weights, **local)
        images = Qwen2VLImageProcessorPil.from_pretrained(weights, **local)
        template = Qwen2VLProcessor.get_processor_dict(weights, **local)[0].get("chat_template")
        model = Qwen2VLForConditionalGeneration.from_pretrained(weights, dtype=dtype, **local)
        return tokenizer, images, model, template or tokenizer.chat_template
    except (OSError, ValueError) as error:
        raise ModelFileMissing(
            f"The weights {weights} are not on this machine ({type(error).__name__}). Where there is a network, "
            f"`hf download {weights}` puts them into the cache; elsewhere copy that folder here and give its path."
        ) from error

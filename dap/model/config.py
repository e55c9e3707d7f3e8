"""What a network is, as one frozen value that travels with its weights."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Literal, Self

from dap.errors import ModelFileInvalid

EncoderName = Literal["vit-s", "vit-b", "vit-l", "hybrid-s", "hybrid-xs", "efficientnet-lite0"]
DepthActivation = Literal["linear", "log"]

CONFIG_KEY = "dap.network"
"""Where our checkpoints keep the configuration, as JSON, in the metadata of safetensors."""

PATCH = 16
"""Height and width of every input are multiples of this many pixels, for every encoder."""


@dataclass(frozen=True)
class NetworkConfig:
    """Configuration of a `DapNetwork`.

    Attributes:
        encoder: one of the encoders.
        thresholds: metres, ascending; the range mask has a channel for each.
        spherical: longitude is a circle in every convolution, resize and rotary embedding. On for our own models, off
            for the official weights.
        token_stretch: the official adapter drops the first patch token and stretches the rest; its weights were
            trained so. Never on for our models.
        depth_activation: `linear`: depth = far x sigmoid(x), as released; `log`: the logarithm of depth runs evenly
            from near to far as sigmoid(x) goes from 0 to 1.
        near_m: nearest depth of the `log` activation, metres.
        far_m: farthest depth of both activations, metres.
        added_thresholds: those of `thresholds` that a range mask head of their own has, one tuple for each head that
            was added to the trained network (`dap train mask-head`); the others share the network's first head.
    """

    encoder: EncoderName = "hybrid-s"
    thresholds: tuple[float, ...] = (10.0, 20.0, 50.0, 100.0)
    spherical: bool = True
    token_stretch: bool = False
    depth_activation: DepthActivation = "log"
    near_m: float = 0.1
    far_m: float = 100.0
    added_thresholds: tuple[tuple[float, ...], ...] = ()

    @property
    def mask_heads(self) -> tuple[tuple[float, ...], ...]:
        """Thresholds of each range mask head, the first head first."""
        added = {threshold for head in self.added_thresholds for threshold in head}
        return (tuple(threshold for threshold in self.thresholds if threshold not in added), *self.added_thresholds)

    @classmethod
    def official(cls, encoder: EncoderName) -> Self:
        """The release's configuration: one threshold, linear depth, and the habits its weights were trained with."""
        return cls(encoder=encoder, thresholds=(100.0,), spherical=False, token_stretch=True, depth_activation="linear")

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ModelFileInvalid: not the fields of this class.
        """
        try:
            # Written before there were added heads, a configuration does not say that it has none.
            values = {"added_thresholds": ()} | json.loads(text)
            known = {field.name for field in fields(cls)}
            if set(values) != known:
                raise ModelFileInvalid(
                    f"The network configuration should have the fields {sorted(known)}; it has {sorted(values)}."
                )
            values["thresholds"] = tuple(float(t) for t in values["thresholds"])
            values["added_thresholds"] = tuple(tuple(float(t) for t in head) for head in values["added_thresholds"])
            config = cls(**values)
            heads = config.mask_heads
            if not all(heads) or sorted(t for head in heads for t in head) != list(config.thresholds):
                raise ValueError(f"the mask heads have {heads}, the network has {config.thresholds}")
            return config
        except (ValueError, TypeError) as error:
            raise ModelFileInvalid(f"The network configuration cannot be read: {error}") from error

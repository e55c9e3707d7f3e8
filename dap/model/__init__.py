"""The network in torch: encoders, DPT heads, range mask, checkpoints.

`vit` (DINOv3) and `hybrid` (convolutional stem with attention) are encoders that give four taps; `dpt` turns taps
into maps; `dap` puts an encoder and two heads together and speaks metres; `checkpoints` reads the official layout and
ours. Modules import only downward: dap -> vit, hybrid, dpt -> layers.
"""

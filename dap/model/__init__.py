"""The network in torch: encoders, DPT heads, range mask, checkpoints.

`vit` (DINOv3), `hybrid` (convolutional stem with attention) and `efficientnet` (the same on ImageNet weights) are
encoders that give four taps; `dpt` turns taps into maps; `dap` puts an encoder and two heads together and speaks
metres; `checkpoints` reads the official layout and ours. Modules import only downward: dap -> vit, efficientnet ->
hybrid, dpt -> layers.
"""

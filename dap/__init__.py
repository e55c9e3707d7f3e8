"""Depth Any Panoramas: metric depth from 360° panoramas.

The core that the service, the training and the exports share. Importing it costs numpy alone; torch is loaded only by
`dap.model` and by the torch engine.

    >>> from dap.predictor import Predictor
    >>> depth_map = Predictor("dap-s").predict("pano.jpg", range=100)
    >>> depth_map.depth[depth_map.valid].max()  # metres along the ray
"""

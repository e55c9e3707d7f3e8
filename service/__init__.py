"""The wing that users call: a panorama comes in over HTTP, metric depth or a point cloud goes out.

`service.app.create_app(settings)` makes the application; `dap serve` runs it. One request goes one way:

    routes/ (parse) -> pipeline.py: decode pool -> batcher.py -> engine -> encode pool -> bytes -> routes/ (answer)
"""

"""Property tests take the same examples every time, and as long as a busy machine needs."""

import hypothesis

hypothesis.settings.register_profile("dap", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("dap")

"""`python -m dap` is the command `dap`."""

from dap.command import main

main(prog_name="dap")

"""Training: data, losses and the trainer that make the models which `dap` runs."""

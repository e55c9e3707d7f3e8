"""What depth maps and point clouds are written as: one registry for each, one small file for a format family."""

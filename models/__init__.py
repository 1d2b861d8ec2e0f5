"""Detection and segmentation networks: building blocks, heads, the YAML files that describe them, and their loaders."""

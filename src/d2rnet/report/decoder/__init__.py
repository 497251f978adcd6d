"""The memory-driven Transformer and how reports are written with it."""

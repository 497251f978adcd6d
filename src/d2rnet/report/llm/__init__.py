"""A large language model with LoRA as report decoder, in place of the memory-driven Transformer."""

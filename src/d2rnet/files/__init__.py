"""Files: atomic writes, documents, hashes, parsing, names, limits."""

"""Stage 1 of the CT method: queries that learn to observe structures, by contrast with what reports say of them."""

"""Parts of training that both trainers share."""

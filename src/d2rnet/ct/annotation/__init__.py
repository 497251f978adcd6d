"""ct_annotation.json: converted volumes with their reports, cut into structures, and labels."""

"""Report text of chest CT, cut into sentences and dealt out to structures."""

"""Gallery: one static page of radiographs, boxes and reports, to be looked at by people."""

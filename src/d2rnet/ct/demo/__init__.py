"""A seeded synthetic cohort of chest CTs with reports, in CT-RATE's layout: it shows that the machinery works."""

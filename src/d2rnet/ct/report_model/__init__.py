"""Stage 2 of chest CT: reports from the patches that the structures of stage 1 look at."""

"""Results and models on their way out: written as other tools take them, one tool a module."""

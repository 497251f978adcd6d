"""Tables, figures and cards of a finished run."""

"""Sources of chest CT volumes with reports: each is a module of this folder, read into the tables of ``tables``."""

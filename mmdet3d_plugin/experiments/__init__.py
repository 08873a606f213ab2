"""Trainings that belong together: run, resumed, compared, and reported."""

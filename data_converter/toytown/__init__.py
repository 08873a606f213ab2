"""Toytown: a synthetic city, ray-cast and written in the original formats of real data sets."""

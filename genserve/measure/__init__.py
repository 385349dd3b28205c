"""Measure generated images: distances, their feature spaces, sources of images, records.

Nothing that is served imports it, and no archive carries it.
"""

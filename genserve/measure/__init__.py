"""How good generated images are: distances, their feature spaces, where images come from, what is kept.

Nothing that is served imports it, and no archive carries it.
"""

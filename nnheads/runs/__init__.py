"""A results folder: written whole or not at all, with what repeats it, finished batch by batch,
found again.
"""

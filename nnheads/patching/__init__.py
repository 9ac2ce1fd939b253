"""Mechanism 2: what happens if this part's output is swapped?"""

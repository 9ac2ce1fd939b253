"""Spans as data: which keys a query should attend to, read from files, laid out, measured and
labelled.
"""

"""Where a session runs: here, as a rehearsal, or on a server; its jobs, and what a server says of
itself.
"""

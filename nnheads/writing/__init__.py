"""What heads write: logit attribution, copying, succession, suppression, composition, and the logit
lens.
"""

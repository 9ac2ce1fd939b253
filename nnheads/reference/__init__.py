"""The small trained model that ships with the package: how it was trained, and what it must be able
to do.

Its attention heads have known places because they were planted during training, so a detector's
precision and recall can be measured on it without a network. `models.shipped.FOLDER` is the model
itself.
"""

"""A web service over the runs in a folder: it translates requests to the calls that the command line uses.

Needs the extra ``service``. Never loads TensorFlow.
"""

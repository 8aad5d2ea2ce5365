"""From a model's name to a folder of weights on this machine, and what can be told of it without loading it."""

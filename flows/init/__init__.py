"""`ladm init`: a look at somebody's data, and the configuration that follows from it."""

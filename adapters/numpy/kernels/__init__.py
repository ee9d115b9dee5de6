"""Fast kernels, one file per operator family. `adapters.numpy.registry` finds them."""

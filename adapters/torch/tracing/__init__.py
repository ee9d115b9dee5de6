"""From a module to a neutral graph: arguments, traces at several sizes, and the walk over what was traced."""

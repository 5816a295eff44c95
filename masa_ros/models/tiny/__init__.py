"""The small network that ships with the package: proposals, masks and embeddings on a CPU."""

"""Learning instance embeddings from unlabelled images."""

"""Result files: written as a recording is tracked, frame by frame."""
